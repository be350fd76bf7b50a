"""One program, loaded: its arena, its weights, its inputs."""

from __future__ import annotations

import mmap
import os

from device_profiles.errors import ExecutionError, FormatError, OutOfMemoryError, PromiseError
from edge_runtime.device.worker.text import MEGABYTE, megabytes_up, one_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from edge_runtime.device.worker.job import Job, JobInput, ProgramJob, Source

_FORMATS: dict[str, tuple[Any, int]] = {"float32": ("f", 4), "int64": ("q", 8), "bfloat16": ("H", 2)}
_SIGN = 1 << 63
_ALIGNMENT_BYTES = 64
_OUT_OF_MEMORY = ("no memory", "allocate memory", "out of memory", "memoryallocationfailed")


class LoadedProgram:
    """A program of a bundle. Call `promise`, then `load_tensors`, before the first `execute`.

    Attributes:
        data: the examples of one execution, float32 or int64 in the arena; fill it before every `execute`, which may
            overwrite it.
        labels: one int64, or a row of float32 targets, for each of these examples; None where the program takes none.
        executions: how many make up one step.
        base_bytes: resident memory when everything is ready and nothing of the arena, the weights, the tile buffers
            and the batch was touched; from `promise`.
        predicted_bytes: `base_bytes` and all of those, or the peak so far where that is more.

    `job` says threads and limit. Raises PromiseError when the limit is below the prediction, before anything is
    allocated.
    """

    def __init__(self, native: Any, program: ProgramJob, job: Job) -> None:
        self.program = program
        self._module = native
        self._limit_bytes, self._limit_name = job["limit_bytes"], job["limit_name"]
        native.release_unused_pages()
        # Refused in `promise` alone, which knows all of the base: a limit set to what is printed must be enough.
        self.base_bytes = self.predicted_bytes = 0
        self.data: memoryview[Any] | None = None
        self.labels: memoryview[Any] | None = None
        self.executions = program["batch"] // program["micro_batch"]
        self._hyperparameters: memoryview[Any] | None = None
        self._random: memoryview[Any] | None = None
        self._files: dict[str, int] = {}
        self._resident: list[tuple[Source, memoryview[Any], str]] = []
        try:
            self._native = native.Program(program["path"], job["threads"], program["prefix_instructions"])
            self._check_sizes()
            self._check_buffers()
            self._check_inputs()
            self._set_inputs()
        except (MemoryError, RuntimeError, ValueError) as error:
            raise self._translated(error) from None
        self.arena_bytes = int(self._native.arena_bytes)
        self.instruction_set = str(native.instruction_set())

    def promise(self, rehearse: Callable[[], object]) -> None:
        """Measure the base. `rehearse` does what the training does between two executions, and touches no batch.

        Pages of code that only start-up needed are given back first; the rehearsal gets those back that stay in use.
        Raises PromiseError.
        """
        self._module.release_unused_pages()
        self._module.load_kernels()
        self.set_hyperparameters([0.0])
        rehearse()
        self.output()
        self.base_bytes = int(self._module.resident_bytes()) + self.program["memory"]["variation"]
        self._promise()

    def _promise(self) -> None:
        # What start-up itself needed at its peak is more than a very small program ever will.
        start = int(self._module.peak_resident_bytes()) + self.program["memory"]["variation"]
        files = self.program["memory"]["files"]
        self.predicted_bytes = max(start, self.base_bytes + self.program["memory"]["total"]) + files
        # A limit that another start was promised to keep is kept by this one.
        if (
            self._limit_bytes is not None
            and self.predicted_bytes - self.program["memory"]["variation"] > self._limit_bytes
        ):
            raise PromiseError(
                f"{self._limit_name} {self._limit_bytes / MEGABYTE:.1f}MB is below the "
                f"{megabytes_up(self.predicted_bytes)} that {self.program['name']} needs; "
                "raise the limit, or export a smaller batch or block"
                + (f"; {files / MEGABYTE:.1f} MB of it are files in memory: keep them on a disk" if files else "")
            )

    def load_tensors(self) -> None:
        """Read parameters and running statistics into the arena, and frozen weights that stay into their memory; what
        has no source keeps its zeros."""
        for weight, place, what in self._resident:
            self._read_into(weight, place, what)
        for name, _, _, shape, source in self.program["tensors"]:
            if source is not None:
                self._read_into(source, self._native.buffer_view(name), f"tensor '{name}' {list(shape)}")
        self._module.release_unused_pages()

    def set_hyperparameters(self, values: list[float]) -> None:
        """Hyperparameters of the following execution."""
        if self._hyperparameters is not None:
            for position, value in enumerate(values):
                self._hyperparameters[position] = value

    def set_random(self, seed: int, execution: int) -> None:
        """What dropout drops in the following execution follows from these two."""
        if self._random is not None:
            self._random[0] = (seed + _SIGN) % (2 * _SIGN) - _SIGN
            self._random[1] = execution

    def execute(self) -> tuple[float, float]:
        """Run the program once; returns seconds of all of it and of the frozen prefix. Raises ExecutionError."""
        try:
            total, prefix = self._native.execute()
        except (MemoryError, RuntimeError) as error:
            raise self._translated(error) from None
        return total, prefix

    def output(self) -> memoryview[Any]:
        """The first output, valid until the next `execute`: the loss, the logits, or the features."""
        view: memoryview[Any] = self._native.output_view(0)
        return view

    def trained_tensors(self) -> list[tuple[str, str, memoryview[Any]]]:
        """Name, type and view of parameters and running statistics: what an update carries."""
        return [
            (name, dtype, self._native.buffer_view(name))
            for name, role, dtype, _, _ in self.program["tensors"]
            if role in ("parameter", "running_statistic")
        ]

    def state_tensors(self) -> list[tuple[str, str, memoryview[Any]]]:
        """Name, type and view of every mutable buffer that a step finds again: what a checkpoint carries."""
        return [
            (name, dtype, self._native.buffer_view(name))
            for name, role, dtype, _, _ in self.program["tensors"]
            if role != "gradient_sum"
        ]

    def read_state(self, sources: dict[str, Source]) -> None:
        """Read mutable buffers from a checkpoint."""
        for name, source in sources.items():
            self._read_into(source, self._native.buffer_view(name), f"tensor '{name}'")

    def _check_sizes(self) -> None:
        path, stated = self.program["path"], self.program["memory"]["arena"]
        if self._native.arena_bytes != stated:
            raise FormatError(f"{path}: its arena has {self._native.arena_bytes} bytes, the manifest states {stated}")
        count, listed = self._native.instruction_count, self.program["instructions"]
        if count != listed:
            raise FormatError(f"{path}: has {count} instructions, the manifest states {listed}")

    def _check_inputs(self) -> None:
        """Hold what the manifest says of each input against the program, before anything is allocated for it."""
        inputs, path = self.program["inputs"], self.program["path"]
        if self._native.input_count != len(inputs):
            raise FormatError(f"{path}: takes {self._native.input_count} inputs, the manifest lists {len(inputs)}")
        for index, (name, role, dtype, shape, _, read_before, _) in enumerate(inputs):
            if self._native.input_type(index) != dtype or tuple(self._native.input_shape(index)) != shape:
                raise FormatError(f"{path}: input '{name}' is not what the manifest lists")
            if role == "frozen" and read_before and self._native.input_uses(index) != read_before:
                raise FormatError(f"{path}: input '{name}' is read before other instructions than those that take it")

    def _set_inputs(self) -> None:
        inputs = self.program["inputs"]
        path = self.program["path"]
        weights = self._frozen_memory(inputs)
        for index, (name, role, dtype, shape, source, read_before, arena_offset) in enumerate(inputs):
            if source is not None and read_before:
                self._native.place_input(index, arena_offset)
                self._native.read_before(index, read_before, self._open(source[0]), source[1])
                continue
            if source is not None:
                place = weights[index]
                self._native.set_input(index, place.cast(_FORMATS[dtype][0], shape))
                self._resident.append((source, place, f"tensor '{name}' {list(shape)}"))
                continue
            view = _zeros(dtype, shape)
            if role == "label":
                self.labels = view
            elif role == "hyperparameter":
                self._hyperparameters = view
            elif role == "random":
                self._random = view
            else:
                raise FormatError(f"{path}: input '{name}' is not known to this release")
            self._native.set_input(index, view)

    def _check_buffers(self) -> None:
        path = self.program["path"]
        data = self.program["data"]
        buffers = [*self.program["tensors"], *([data] if data is not None else [])]
        listed = {name for name, *_ in buffers}
        held = set(self._native.buffer_names())
        if listed != held:
            names = ", ".join(sorted(listed ^ held)[:3])
            raise FormatError(f"{path}: its buffers and the manifest's tensors differ: {names}")
        for name, _, dtype, shape, _ in buffers:
            view = self._native.buffer_view(name)
            if view.itemsize != _FORMATS[dtype][1] or view.shape != shape:
                raise FormatError(f"{path}: buffer '{name}' is not what the manifest lists")
        if data is not None:
            self.data = self._native.buffer_view(data[0])

    def _frozen_memory(self, inputs: list[JobInput]) -> dict[int, memoryview[Any]]:
        """Where each frozen input that stays lies, untouched.

        Pages of a mapped file would count as the process's as well, and the kernel maps neighbours by rules of its own.
        """
        places: dict[int, tuple[int, int]] = {}
        end = 0
        for index, (_, _, _, _, source, read_before, _) in enumerate(inputs):
            if source is not None and not read_before:
                places[index] = end, source[2]
                end += _aligned(source[2])
        if not places:
            return {}
        memory = memoryview(mmap.mmap(-1, max(end, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        return {index: memory[offset : offset + size] for index, (offset, size) in places.items()}

    def _read_into(self, source: Source, view: memoryview[Any], what: str) -> None:
        path, offset, size = source
        if size == 0:
            return
        file = self._open(path)
        flat = view.cast("B")
        done = 0
        while done < size:
            count = os.preadv(file, [flat[done:]], offset + done)
            if count == 0:
                raise FormatError(f"{path}: {what} ends early")
            done += count

    def _open(self, path: str) -> int:
        if path not in self._files:
            try:
                self._files[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise FormatError(f"{path}: {error.strerror or error}") from None
        return self._files[path]

    def _translated(self, error: Exception) -> Exception:
        """What the native module raised as an error of one line."""
        name = self.program["name"]
        if isinstance(error, MemoryError):
            return OutOfMemoryError(f"{name}: no memory left; give it more, or export a smaller batch")
        text = one_line(str(error))
        if "worker thread" in text:
            text += "; give fewer --threads, or allow more processes (ulimit -u, pids.max)"
        if isinstance(error, ValueError):
            return FormatError(f"{name}: {text}")
        if any(words in text.lower() for words in _OUT_OF_MEMORY):
            return OutOfMemoryError(f"{name}: {text}")
        return ExecutionError(f"{name}: {text}")


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES


def _zeros(dtype: str, shape: tuple[int, ...]) -> memoryview[Any]:
    code, item_bytes = _FORMATS[dtype]
    count = 1
    for extent in shape:
        count *= extent
    view: memoryview[Any] = memoryview(bytearray(count * item_bytes))
    return view.cast(code, shape)
