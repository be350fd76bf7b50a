"""How far what is trained has moved, round by round: kept on disk, so that a resumed run freezes as it would have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from device_profiles.errors import FormatError
from server.averaging.tensor_files import save_tensors
from server.fleet.fleet import FreezingSettings
from server.fleet.structure import Structure
from server.methods.method import Stage
from server.rounds.freezing import Scalars, sample_scalars
from server.rounds.run_state import RunState, Weights, read_tensors


class MovementHistory:
    """Sampled scalars of every stage, `movement/stage<n>.safetensors` below the run's folder."""

    def __init__(self, folder: Path, structure: Structure, settings: FreezingSettings) -> None:
        self._folder = folder
        self._structure = structure
        self._settings = settings

    def scalars(self, stage: Stage, weights: Weights) -> Scalars:
        """Sampled parameters of what is trained itself, without the output module behind it.

        Of every choice of the stage that somebody of the fleet could do, whoever is there in a round: the sample stays
        the same while a stage lasts.
        """
        works = [work for work in stage.choices if work in self._structure.trained]
        names = {name for work in works for name in self._structure.moving(work)}
        # Where nobody holds more than the output module, its parameters are all that can move.
        names = names or set(self._structure.parameters(works))
        settings = self._settings
        return sample_scalars({name: weights[name] for name in sorted(names)}, settings.scalars, settings.seed)

    def read(self, stage: Stage, state: RunState, weights: Weights) -> list[Scalars]:
        """Scalars before the stage and after each of its rounds so far; starts the file at the first of them."""
        path = self._path(state)
        if state.round_of_stage == 0:
            scalars = self.scalars(stage, weights)
            save_tensors(path, {"000000": scalars})
            return [scalars]
        saved: dict[str, Any] = read_tensors(path)
        names = [f"{k:06d}" for k in range(state.round_of_stage + 1)]
        missing = [name for name in names if name not in saved]
        if missing:
            raise FormatError(f"{path}: round {missing[0]} is missing; restore it from a copy, or start a new run")
        return [saved[name] for name in names]

    def append(self, state: RunState, scalars: Scalars) -> None:
        """Add those after the round that follows `state`."""
        path = self._path(state)
        saved = read_tensors(path)
        # A line that a killed run wrote ahead of its state is written over here.
        saved[f"{state.round_of_stage + 1:06d}"] = scalars
        save_tensors(path, saved)

    def _path(self, state: RunState) -> Path:
        return self._folder / "movement" / f"stage{state.stage}.safetensors"
