"""The state of a run on disk: switched to the next round by one atomic rename, so that no round is lost or doubled.

RUN/state.json           what is finished, naming the weights it belongs to
RUN/weights/<n>.safetensors   weights after round n of the whole run; <n>-<p> where plan p goes on from there
RUN/server_optimizer/<n>.safetensors   what the server's optimizer keeps, where it keeps anything
RUN/rounds.jsonl         one object a round, and one with `failed` for a round that too few delivered in, which is no
                         round of the run; lines the state does not count are cut off at resume
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from device_profiles.contract import FORMAT_VERSION
from device_profiles.errors import DigestError, FormatError
from device_profiles.files import read_json, sha256_of, write_json
from device_profiles.seal import check_seal
from device_profiles.wrong_values import explained
from server.averaging.tensor_files import save_tensors
from server.rounds.records import RoundRecord, StepRecord

Weights = dict[str, NDArray[Any]]
FLEET_NAME = "fleet.json"
"""The settings of a run, as they were read."""
STATE_NAME = "state.json"
"""What is finished of a run."""
ROUNDS_NAME = "rounds.jsonl"


class RunState(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is finished: `round` rounds of the run, `round_of_stage` of stage number `stage` (from 0), which files call
    `round_of_step`, as those of earlier releases do.

    `weights_sha256` is the digest of `weights/<round>.safetensors`, `optimizer_sha256` that of the server optimizer's
    tensors, "" where it has none; `rounds_bytes` the length of rounds.jsonl. `plan`: how often steps were chosen
    again. `rate_halvings`: how often the learning rate of the stage has been halved, because its clients diverged.
    `state_sha256` is the digest of the state, as JSON with "" in this place, without a `plan` or `rate_halvings` of 0;
    earlier releases wrote none.
    """

    format_version: int = FORMAT_VERSION
    settings_sha256: str
    round: int
    stage: int
    round_of_stage: int = msgspec.field(name="round_of_step")
    steps: tuple[StepRecord, ...]
    finished: bool
    weights_sha256: str
    rounds_bytes: int
    optimizer_sha256: str = ""
    state_sha256: str = ""
    plan: int = 0
    rate_halvings: int = 0

    def sealed(self) -> RunState:
        """The same with its own digest."""
        unsealed = msgspec.to_builtins(msgspec.structs.replace(self, state_sha256=""))
        # What earlier releases did not write is left out at its default, so that their states are still good.
        unsealed = {key: value for key, value in unsealed.items() if key not in ("plan", "rate_halvings") or value}
        unsealed["steps"] = [{k: v for k, v in step.items() if k != "test_loss" or v} for step in unsealed["steps"]]
        return msgspec.structs.replace(self, state_sha256=sha256(msgspec.json.encode(unsealed)).hexdigest())

    def check(self, source: str) -> None:
        """Raise FormatError where a number is below zero, DigestError where the state is not the one that was saved."""
        if self.state_sha256 and self.state_sha256 != self.sealed().state_sha256:
            raise DigestError(
                "is damaged or was edited: its SHA-256 is not the one it was written with",
                place=source,
                remedy="restore it from a copy, or start a new run",
            )
        for field in msgspec.structs.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int) and value < 0:
                raise FormatError(f"{source}: {field.encode_name} is {value}; restore the file, or start a new run")


class RunFolder:
    """Reads and writes a run's state."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def exists(self) -> bool:
        """Whether a state was ever saved here."""
        return (self.folder / STATE_NAME).is_file()

    def load_or_start(self, settings_sha256: str, initial: Callable[[], Weights]) -> tuple[RunState, Weights]:
        """The last saved state and its weights; where nothing was saved, round 0 with the `initial` weights."""
        if self.exists:
            return self.load()
        start = {"round": 0, "stage": 0, "round_of_step": 0, "steps": (), "finished": False, "rounds_bytes": 0}
        state = msgspec.convert({"settings_sha256": settings_sha256, "weights_sha256": "", **start}, RunState)
        weights = initial()
        return self.save(state, weights, None), weights

    @property
    def plan(self) -> int:
        """Of the last saved state, 0 before there is one."""
        return read_json(self.folder / STATE_NAME, RunState).plan if self.exists else 0

    def weights_path(self, state: RunState) -> Path:
        """Weights that the run goes on from."""
        plan = f"-{state.plan}" if state.plan else ""
        return self.folder / "weights" / f"{state.round:06d}{plan}.safetensors"

    def optimizer_path(self, round_number: int) -> Path:
        """What the server's optimizer keeps after `round_number` rounds of the run."""
        return self.folder / "server_optimizer" / f"{round_number:06d}.safetensors"

    def optimizer_state(self, state: RunState) -> Weights:
        """What the server's optimizer kept; raises FormatError naming the file."""
        if not state.optimizer_sha256:
            return {}
        path = self.optimizer_path(state.round)
        if not path.is_file() or sha256_of(path) != state.optimizer_sha256:
            raise FormatError(f"{path}: missing or not the file that {STATE_NAME} names")
        return read_tensors(path)

    def load(self) -> tuple[RunState, Weights]:
        """The last saved state and its weights; cuts rounds.jsonl back to it. Raises FormatError naming the file."""
        state = read_json(self.folder / STATE_NAME, RunState)
        path = self.weights_path(state)
        if not path.is_file() or sha256_of(path) != state.weights_sha256:
            raise FormatError(f"{path}: missing or not the file that {STATE_NAME} names")
        rounds = self.folder / ROUNDS_NAME
        if state.rounds_bytes and (not rounds.is_file() or rounds.stat().st_size < state.rounds_bytes):
            raise FormatError(f"{rounds}: shorter than {STATE_NAME} says")
        if rounds.is_file():
            with rounds.open("r+b") as lines:
                lines.truncate(state.rounds_bytes)
        self._remove_all_but(path)
        self._remove_all_but(self.optimizer_path(state.round))
        return state, read_tensors(path)

    def save(
        self,
        state: RunState,
        weights: Mapping[str, NDArray[Any]],
        record: RoundRecord | None,
        optimizer: Mapping[str, NDArray[Any]] | None = None,
    ) -> RunState:
        """Save the state after a round: tensors, then the round's line, then the state that names all of them."""
        path, kept = self.weights_path(state), self.optimizer_path(state.round)
        save_tensors(path, weights)
        if optimizer:
            save_tensors(kept, optimizer)
        length = self._append(record)
        saved = msgspec.structs.replace(
            state,
            weights_sha256=sha256_of(path),
            rounds_bytes=length,
            optimizer_sha256=sha256_of(kept) if optimizer else "",
        ).sealed()
        write_json(self.folder / STATE_NAME, saved)
        self._remove_all_but(path)
        self._remove_all_but(kept)
        return saved

    def save_failure(self, state: RunState, record: RoundRecord) -> None:
        """Keep the line of a round that failed; everything else stays as it was after the round before."""
        failed = msgspec.structs.replace(state, rounds_bytes=self._append(record))
        write_json(self.folder / STATE_NAME, failed.sealed())

    def _append(self, record: RoundRecord | None) -> int:
        """Write a line; the length of the file with it."""
        rounds = self.folder / ROUNDS_NAME
        with rounds.open("ab") as lines:
            if record is not None:
                lines.write(msgspec.json.encode(record) + b"\n")
            lines.flush()
            os.fsync(lines.fileno())
        return rounds.stat().st_size

    def _remove_all_but(self, newest: Path) -> None:
        """Remove earlier tensors, and what a killed run had not finished writing."""
        for old in newest.parent.iterdir() if newest.parent.is_dir() else ():
            if old != newest:
                old.unlink()

    def records(self) -> list[RoundRecord]:
        """Every saved round."""
        return [record for record in self._lines() if not record.failed]

    def failures(self) -> list[RoundRecord]:
        """The rounds that too few delivered in, each as often as the run stopped at it."""
        return [record for record in self._lines() if record.failed]

    def _lines(self) -> list[RoundRecord]:
        """Every line that the state counts: what stands behind them is being written, or was when a run was killed.

        Raises FormatError naming the file and the line.
        """
        path = self.folder / ROUNDS_NAME
        counted = read_json(self.folder / STATE_NAME, RunState).rounds_bytes if self.exists else 0
        if not counted:
            return []
        with in_one_line(path), path.open("rb") as source:
            raw = source.read(counted)
        if len(raw) < counted:
            raise FormatError(f"{path}: shorter than {STATE_NAME} says; restore it from a copy, or start a new run")
        return [_record(line, f"{path}: line {number}") for number, line in enumerate(raw.splitlines(), 1)]


def _record(line: bytes, where: str) -> RoundRecord:
    try:
        return msgspec.json.decode(line, type=RoundRecord)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(
            f"{where}: {explained(error, RoundRecord)}; restore the file from a copy, or start a new run"
        ) from None


def read_tensors(path: Path) -> Weights:
    """Tensors of a file of the run; raises FormatError naming it."""
    with in_one_line(path):
        check_seal(str(path), remedy="restore it from a copy, or start a new run")
        return load_file(path)


@contextmanager
def in_one_line(path: Path) -> Iterator[None]:
    """Raise FormatError naming `path` where the body cannot read it."""
    try:
        yield
    except (OSError, SafetensorError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise FormatError(f"{path}: {reason}; restore it from a copy, or start a new run") from None
