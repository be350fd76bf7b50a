"""What a run of `step.py` holds, and its statistics."""

from __future__ import annotations

import math
import statistics
from typing import Literal

import msgspec

from device_profiles.profile import Device

RuntimeName = Literal["ours", "pytorch", "onnxruntime"]
TITLES: dict[RuntimeName, str] = {"ours": "profl-edge", "pytorch": "PyTorch", "onnxruntime": "ONNX Runtime"}
MEGABYTE = 1 << 20


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for; results of other settings are never joined with these."""

    model: str
    options: str
    batch: int
    warmup: int
    steps: int
    train_options: str
    peers: tuple[RuntimeName, ...]


class BlockFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One block: its units and the arithmetic of one step, and of the frozen prefix in it."""

    index: int
    units: str
    operations: int
    prefix_operations: int


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One process. `pair` counts the rounds in which every runtime had its turn."""

    runtime: RuntimeName
    block: int
    threads: int
    pair: int
    step_seconds_median: float
    measured_peak_bytes: int
    loss_first: float
    loss_last: float


class TrainPeak(msgspec.Struct, frozen=True, kw_only=True):
    """Peak of a whole `profl-edge train` process, which reads its data from a file."""

    block: int
    threads: int
    measured_peak_bytes: int


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """A runtime on a block: medians over the pairs, and the ratio of ours to it, median and range over the pairs."""

    step_seconds: float
    peak_bytes: int
    ours_to_this: float
    ours_to_this_least: float
    ours_to_this_most: float


class Results(msgspec.Struct, kw_only=True):
    """The document that `-o` writes; it grows by one run at a time."""

    settings: Settings
    device: Device
    software: dict[str, str] = {}
    runtimes: tuple[RuntimeName, ...] = ("ours",)
    left_out: dict[RuntimeName, str] = {}
    sgemm_gflops: dict[int, float] = {}
    blocks: list[BlockFacts] = []
    runs: list[Run] = []
    train_peaks: list[TrainPeak] = []

    def threads(self) -> list[int]:
        """Numbers of threads with runs."""
        return sorted({run.threads for run in self.runs})

    def of(self, runtime: RuntimeName, block: int, threads: int) -> list[Run]:
        """Runs of whole pairs, in their order."""
        pairs = self.whole_pairs(block, threads)
        chosen = [r for r in self.runs if (r.runtime, r.block, r.threads) == (runtime, block, threads)]
        return sorted((run for run in chosen if run.pair in pairs), key=lambda run: run.pair)

    def whole_pairs(self, block: int, threads: int) -> set[int]:
        """Pairs in which every runtime was measured."""
        seen: dict[int, set[RuntimeName]] = {}
        for run in self.runs:
            if (run.block, run.threads) == (block, threads):
                seen.setdefault(run.pair, set()).add(run.runtime)
        return {pair for pair, runtimes in seen.items() if runtimes == set(self.runtimes)}

    def cell(self, runtime: RuntimeName, block: int, threads: int) -> Cell | None:
        """Statistics of a runtime on a block; None where it was not measured."""
        runs, ours = self.of(runtime, block, threads), self.of("ours", block, threads)
        if not runs:
            return None
        ratios = [a.step_seconds_median / b.step_seconds_median for a, b in zip(ours, runs, strict=True)]
        peak = statistics.median_low(run.measured_peak_bytes for run in runs)
        trained = [p for p in self.train_peaks if (p.block, p.threads) == (block, threads)]
        return Cell(
            step_seconds=statistics.median(run.step_seconds_median for run in runs),
            peak_bytes=trained[0].measured_peak_bytes if runtime == "ours" and trained else peak,
            ours_to_this=statistics.median(ratios),
            ours_to_this_least=min(ratios),
            ours_to_this_most=max(ratios),
        )

    def geometric_mean(self, runtime: RuntimeName, threads: int) -> float | None:
        """Geometric mean over the blocks of the median ratio of ours to `runtime`."""
        cells = [self.cell(runtime, block.index, threads) for block in self.blocks]
        logarithms = [math.log(cell.ours_to_this) for cell in cells if cell is not None]
        return math.exp(statistics.fmean(logarithms)) if logarithms else None

    def floor_seconds(self, block: BlockFacts, threads: int) -> float:
        """Seconds of the block's arithmetic at the machine's own rate for large matrix products."""
        return block.operations / 1e9 / self.sgemm_gflops[threads]
