"""What the server knows of a model: which tensors a piece of work trains, by the names of the `state_dict`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from device_profiles.contract import CACHED_PREFIX_VARIANT, STAND_IN_PREFIX
from device_profiles.errors import UsageError
from device_profiles.manifest import Manifest
from device_profiles.model import Partition
from device_profiles.work import Distill, Grow, Growing, Head, Joint, Work, block_number, label, programs_of


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedTensor:
    """One tensor that comes back from a client."""

    shape: tuple[int, ...]
    role: Literal["parameter", "running_statistic"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Structure:
    """Tensors of a model.

    Attributes:
        model: names of its `state_dict`, in order.
        partition: how it is cut into blocks.
        blocks: names that belong to each block, the classifier head excepted.
        trained: what comes back from a client, by its work.
    """

    model: tuple[str, ...]
    partition: Partition
    blocks: tuple[frozenset[str], ...]
    trained: Mapping[Work, Mapping[str, TrainedTensor]]

    @classmethod
    def of(cls, manifest: Manifest) -> Structure:
        """The structure of a bundle's model, with all of its training programs."""
        units = manifest.model.units
        return cls(
            model=tuple(spec.name for spec in manifest.model.tensors),
            partition=manifest.partition,
            blocks=tuple(
                frozenset(name for unit in units[b.first_unit : b.last_unit + 1] for name in unit.tensors)
                for b in manifest.partition.blocks
            ),
            trained={
                program.work: {
                    t.name: TrainedTensor(
                        shape=t.shape, role="parameter" if t.role == "parameter" else "running_statistic"
                    )
                    for t in program.tensors
                    if t.role in ("parameter", "running_statistic")
                }
                for program in manifest.programs
                if isinstance(program.work, Growing | Distill) and program.variant != CACHED_PREFIX_VARIANT
            },
        )

    def tensors(self, work: Work) -> Mapping[str, TrainedTensor]:
        """What comes back from a client that did `work`; raises UsageError where the engine cannot do it."""
        if work not in self.trained:
            raise UsageError(
                f"--engine: this one has no '{self.label(work)}'; methods other than profl and elastic need simulation"
            )
        return self.trained[work]

    def parameters(self, works: Iterable[Work]) -> frozenset[str]:
        """Names of the parameters that some of `works` trains."""
        tensors = {name: tensor for work in works for name, tensor in self.tensors(work).items()}
        return frozenset(name for name, tensor in tensors.items() if tensor.role == "parameter")

    def moving(self, work: Work) -> list[str]:
        """Parameters whose movement says whether the work has converged: the block's own, or a stand-in's."""
        parameters = [name for name, tensor in self.tensors(work).items() if tensor.role == "parameter"]
        if isinstance(work, Distill):
            return [name for name in parameters if name.startswith(STAND_IN_PREFIX)]
        if isinstance(work, (Grow, Joint)):
            return [name for name in parameters if name in self.blocks[self.block(work) - 1]]
        if isinstance(work, Head):
            return []
        return parameters

    def label(self, work: Work) -> str:
        """What people read, and the name of the bundle's program, where it has one."""
        return label(work, self.partition)

    def programs(self, work: Work) -> frozenset[str]:
        """Names that an update of `work` may carry."""
        return programs_of(work, self.partition)

    def block(self, work: Work) -> int:
        """The block (1-based) that is asked for, 0 where it is the whole network."""
        return block_number(work, self.partition)
