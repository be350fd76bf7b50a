"""One program, loaded: its arena, its weights, its inputs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_profiles.bundle import Program, ProgramInput, ProgramTensor
from device_profiles.contract import HYPERPARAMETERS_INPUT, LABELS_INPUT, DType
from device_profiles.errors import ExecutionError, FormatError, OutOfMemoryError, PromiseError
from edge_runtime.device.bundle import Bundle
from edge_runtime.device.optimizer import hyperparameters
from edge_runtime.device.process import resident_bytes
from edge_runtime.device.tensors import TensorFile

MEGABYTE = 1 << 20
_NUMPY_NAMES: dict[DType, str] = {"float32": "float32", "int64": "int64", "bfloat16": "uint16"}
"""A bfloat16 is carried as its 16 bits: numpy has no such type."""
Array = NDArray[Any]


class Engine:
    """A program of a bundle, ready to execute.

    Attributes:
        images: the data input in the arena, float32 [micro-batch, ...]: fill it before every `execute`, which may
            overwrite it.
        labels: int64 [micro-batch]; `None` where the program takes no labels.
        base_bytes: resident memory right before the arena was made.
        predicted_peak_bytes: `base_bytes` + arena + frozen weights + workspace + staging.

    Raises PromiseError when `limit_bytes` is below the prediction, before anything is allocated.
    """

    def __init__(
        self,
        bundle: Bundle,
        program: Program,
        *,
        threads: int,
        weights: Path | None = None,
        limit_bytes: int | None = None,
    ) -> None:
        self.program = program
        self.threads = threads
        self._sources = _open_sources(bundle, weights)
        native = _native_module()
        path = bundle.program_path(program)
        self.base_bytes = resident_bytes()
        self.predicted_peak_bytes = self.base_bytes + program.memory.total_bytes(threads)
        check_promise(program, self.predicted_peak_bytes, limit_bytes)
        with native_errors(program):
            self._native = native.Program(str(path), threads, program.prefix_instructions)
        self.arena_bytes = int(self._native.arena_bytes)
        self.instruction_set = str(native.instruction_set())
        self._check_buffers(path)
        self._hyperparameters = np.zeros(0, np.float32)
        self.images = np.zeros(0, np.float32)
        self.labels: NDArray[np.int64] | None = None
        self._set_inputs(path)

    def load_weights(self) -> None:
        """Read parameters and running statistics into the arena; optimizer state keeps its zeros."""
        for tensor in self.program.tensors:
            if tensor.role != "optimizer_state":
                source = self._source(tensor.name)
                source.check(tensor.name, tensor.dtype, tensor.shape)
                source.read_into(tensor.name, self.tensor(tensor.name))

    @property
    def micro_batches(self) -> int:
        """Executions that make up one step."""
        return self.program.batch // self.program.micro_batch

    def set_hyperparameters(self, learning_rate: float, position: int) -> None:
        """Prepare execution `position` (0-based) of the `micro_batches` of a step."""
        assert self.program.optimizer is not None
        values = hyperparameters(self.program.optimizer, learning_rate, position, self.micro_batches)
        self._hyperparameters[...] = values

    def execute(self) -> tuple[float, float]:
        """Run the program once; returns seconds of all of it and of the frozen prefix. Raises ExecutionError."""
        with native_errors(self.program):
            total, prefix = self._native.execute()
        return float(total), float(prefix)

    def output(self) -> Array:
        """The first output, valid until the next `execute`: the loss, or the logits of an eval program."""
        array: Array = self._native.output(0)
        return array

    def tensor(self, name: str) -> Array:
        """Writable view of a mutable buffer in the arena."""
        array: Array = self._native.buffer(name)
        return array

    def trained_tensors(self) -> dict[str, Array]:
        """Views of parameters and running statistics: what an update carries."""
        return {t.name: self.tensor(t.name) for t in self.program.tensors if t.role != "optimizer_state"}

    def state_tensors(self) -> dict[str, Array]:
        """Views of every mutable buffer: what a checkpoint carries."""
        return {t.name: self.tensor(t.name) for t in self.program.tensors}

    def _set_inputs(self, path: Path) -> None:
        inputs = [value for value in self.program.inputs if value.role != "data"]
        data = [value for value in self.program.inputs if value.role == "data"]
        if data:
            self.images = self.tensor(data[0].name)
        if int(self._native.input_count) != len(inputs):
            raise FormatError(f"{path}: takes {self._native.input_count} inputs, the manifest lists {len(inputs)}")
        array: Array
        for index, value in enumerate(inputs):
            source = None
            if value.name == LABELS_INPUT:
                array = self.labels = np.zeros(value.shape, np.int64)
            elif value.name == HYPERPARAMETERS_INPUT:
                array = self._hyperparameters = np.zeros(value.shape, np.float32)
            elif value.role == "frozen":
                source = self._source(value.name)
                source.check(value.name, value.dtype, value.shape)
                array = source.map(value.name)
            else:
                raise FormatError(f"{path}: input '{value.name}' is not known to this release")
            with native_errors(self.program):
                self._native.set_input(index, array)
                if source is not None and value.released_after:
                    self._native.release_after(index, list(value.released_after), source.mapping())

    def _check_buffers(self, path: Path) -> None:
        data = [value for value in self.program.inputs if value.role == "data"]
        buffers: list[ProgramTensor | ProgramInput] = [*self.program.tensors, *data]
        listed = {buffer.name for buffer in buffers}
        held = set(self._native.buffer_names())
        if listed != held:
            names = ", ".join(sorted(listed ^ held)[:3])
            raise FormatError(f"{path}: its buffers and the manifest's tensors differ: {names}")
        for buffer in buffers:
            array = self.tensor(buffer.name)
            if array.dtype.name != _NUMPY_NAMES[buffer.dtype] or array.shape != buffer.shape:
                raise FormatError(f"{path}: buffer '{buffer.name}' is not what the manifest lists")

    def _source(self, name: str) -> TensorFile:
        for source in self._sources:
            if name in source:
                return source
        raise FormatError(f"{self._sources[-1].path}: tensor '{name}' is missing")


def check_promise(program: Program, predicted_bytes: int, limit_bytes: int | None) -> None:
    """Raise PromiseError, with both numbers, where the limit is below the predicted peak."""
    if limit_bytes is not None and predicted_bytes > limit_bytes:
        raise PromiseError(
            f"--memory-limit {limit_bytes / MEGABYTE:.1f}MB is below the {predicted_bytes / MEGABYTE:.1f} MB that "
            f"{program.name} needs; raise the limit, or export a smaller batch or block"
        )


@contextmanager
def native_errors(program: Program) -> Iterator[None]:
    """Turn what the native module raises into errors of one line."""
    try:
        yield
    except MemoryError:
        raise OutOfMemoryError(f"{program.name}: no memory left; give it more, or export a smaller batch") from None
    except RuntimeError as error:
        text = " ".join(str(error).split())
        if any(words in text.lower() for words in ("no memory", "allocate memory", "out of memory")):
            raise OutOfMemoryError(f"{program.name}: {text}") from None
        raise ExecutionError(f"{program.name}: {text}") from None
    except ValueError as error:
        raise FormatError(f"{program.name}: {' '.join(str(error).split())}") from None


def _open_sources(bundle: Bundle, weights: Path | None) -> list[TensorFile]:
    """Where tensors are looked up, in order: the user's weights override the bundle's."""
    sources = [TensorFile(weights)] if weights is not None else []
    return [*sources, TensorFile(bundle.weights_path())]


def _native_module() -> Any:
    try:
        from edge_runtime.device import _native
    except ImportError as error:
        raise ExecutionError(f"the native module cannot be loaded ({error}); install profl-edge again") from None
    return _native
