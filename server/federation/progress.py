"""How far a run is, from the files in its folder, while others write them."""

from __future__ import annotations

from pathlib import Path

import msgspec

from device_profiles.errors import ProflError
from device_profiles.files import read_json
from server.federation.activity import Activity, read_activity
from server.rounds.run_state import ROUNDS_NAME, STATE_NAME, RunState


class Point(msgspec.Struct, frozen=True):
    """What a line of `rounds.jsonl` says of accuracy; `failed` where too few delivered and the run stopped."""

    round: int
    stage: str
    block: int
    accuracy: float | None = None
    failed: bool = False
    test_loss: float | None = None


class RunProgress(msgspec.Struct, frozen=True, kw_only=True):
    """A run as its folder has it.

    `stage` and `block` are of the newest round, or of what the engine says is being trained; `accuracy` and `test_loss`
    are those of the newest round that was evaluated. `problem` is why a file could not be read, "" where all could.
    """

    folder: str
    stage: str = ""
    block: int = 0
    rounds: int = 0
    accuracy: float | None = None
    test_loss: float | None = None
    finished: bool = False
    failed_rounds: int = 0
    problem: str = ""


class RunFollower:
    """Reads a run's folder again and again, and of `rounds.jsonl` only what is new."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.points: list[Point] = []
        self._read = 0
        self._decoder = msgspec.json.Decoder(Point)

    def read(self) -> tuple[RunProgress, Activity | None]:
        """How far the run is, and what its devices do; None where the engine has not said it."""
        problem, finished, activity = "", False, None
        try:
            self._follow(self.folder / ROUNDS_NAME)
            if (self.folder / STATE_NAME).is_file():
                finished = read_json(self.folder / STATE_NAME, RunState).finished
            activity = read_activity(self.folder)
        except (ProflError, OSError, msgspec.DecodeError) as error:
            problem = " ".join(str(error).split())
        counted = [point for point in self.points if not point.failed]
        newest = counted[-1] if counted else Point(round=0, stage="", block=0)
        now = activity if activity is not None and activity.stage and not finished else newest
        return (
            RunProgress(
                folder=str(self.folder),
                stage=now.stage,
                block=now.block,
                rounds=newest.round,
                accuracy=next((p.accuracy for p in reversed(counted) if p.accuracy is not None), None),
                test_loss=next((p.test_loss for p in reversed(counted) if p.test_loss is not None), None),
                finished=finished,
                failed_rounds=len(self.points) - len(counted),
                problem=problem,
            ),
            activity,
        )

    def _follow(self, path: Path) -> None:
        if not path.is_file():
            return
        size = path.stat().st_size
        if size < self._read:  # a run that was resumed cut off what it did not count
            self.points, self._read = [], 0
        with path.open("rb") as file:
            file.seek(self._read)
            whole = file.read(size - self._read).rpartition(b"\n")
        self.points += [self._decoder.decode(line) for line in whole[0].splitlines() if line]
        self._read += len(whole[0]) + len(whole[1])
