"""The programs that one `train` command asks for."""

from __future__ import annotations

from device_profiles.errors import UsageError
from device_profiles.manifest import Program
from device_profiles.settings import Setting
from edge_runtime.device.prepare.bundle import Bundle
from edge_runtime.device.prepare.cached_prefix import cache_programs
from edge_runtime.device.prepare.request import TrainRequest


def chosen_programs(request: TrainRequest, bundle: Bundle) -> tuple[Program | None, Program]:
    """The program whose outputs are cached, None where nothing is, and the one that trains; raises UsageError."""
    if request.work is not None:
        _check_alone(request)
        return None, bundle.training_program(request.work, request.variant or "default")
    if request.variant is not None:
        raise UsageError((Setting("variant"), " requires ", Setting("work")), remedy="give both, or leave it out")
    if request.block is None:
        alone = _only_one(bundle)
        if alone is not None and request.first_block is None and request.purpose is None and not request.cache_prefix:
            return None, alone
        raise UsageError("nothing says what to train", remedy=("give ", Setting("block"), " or ", Setting("work")))
    purpose = "grow" if request.purpose is None else request.purpose
    if request.first_block is not None:
        _check_joint(request)
        return None, bundle.joint_program(request.first_block, request.block)
    if request.cache_prefix is None:
        return None, bundle.program_for(purpose, request.block)
    return cache_programs(bundle, request.block, purpose)


def _only_one(bundle: Bundle) -> Program | None:
    """The training program of a bundle that has no other, such as one of a fine-tuning."""
    training = [program for program in bundle.manifest.programs if program.work.trains]
    return training[0] if len(training) == 1 else None


def _check_alone(request: TrainRequest) -> None:
    """Raise UsageError for options that say what `work` says, or that it does not go with."""
    for given, key in (
        (request.block, "block"),
        (request.first_block, "first_block"),
        (request.purpose, "purpose"),
        (request.cache_prefix, "cache_prefix"),
    ):
        if given is not None:
            raise UsageError(
                (Setting("work"), " cannot be combined with ", Setting(key)), remedy="leave one of the two out"
            )


def _check_joint(request: TrainRequest) -> None:
    if request.purpose not in (None, "grow"):
        raise UsageError(
            (
                Setting("first_block"),
                " cannot be combined with ",
                Setting("purpose", request.purpose),
                ": one block alone is distilled",
            ),
            remedy="leave one of the two out",
        )
    if request.cache_prefix is not None:
        raise UsageError(
            (
                Setting("first_block"),
                " cannot be combined with ",
                Setting("cache_prefix"),
                ": several blocks have no cache",
            ),
            remedy="leave one of the two out",
        )
