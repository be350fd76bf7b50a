"""tools/bench/step.py: every runtime computes the same, an interrupted run goes on, a missing peer is named."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch", reason="PyTorch is the peer")
pytest.importorskip("executorch", reason="the bundle is exported with it")

from click.testing import CliRunner

from tools.bench import runner
from tools.bench.results import Results, Settings
from tools.bench.runner import Bench, Plan
from tools.bench.step import step
from tools.bench.workload import BlockWork


def test_a_tiny_network_is_measured_and_both_runtimes_end_at_the_same_loss(tmp_path: Path) -> None:
    output, picture = tmp_path / "cnn.json", tmp_path / "cnn.svg"
    model = ["--model", "cnn", "--width", "4", "--batch", "4", "--block", "2"]
    counts = ["--threads", "1", "--pairs", "1", "--steps", "2", "--warmup", "1", "--peer", "pytorch"]
    done = CliRunner().invoke(step, [*model, *counts, "-o", str(output), "--picture", str(picture)])
    assert done.exit_code == 0, done.output
    measured = json.loads(output.read_text())
    ours, theirs = measured["runs"]
    assert (ours["runtime"], theirs["runtime"]) == ("ours", "pytorch")
    assert ours["loss_first"] == pytest.approx(theirs["loss_first"], rel=1e-4)
    assert ours["loss_last"] == pytest.approx(theirs["loss_last"], rel=1e-3)
    assert ours["measured_peak_bytes"] < theirs["measured_peak_bytes"]
    assert measured["train_peaks"][0]["block"] == 2 and measured["sgemm_gflops"]["1"] > 0
    assert picture.read_text().startswith("<svg") and "PyTorch ms" in done.stdout


class FakeProcesses:
    """Stands in for the measured processes, and remembers which ran."""

    def __init__(self, *, loss: float = 2.3) -> None:
        self.commands: list[str] = []
        self.loss = loss

    def output(self, command: list[str], threads: int | None = None) -> str:
        line = " ".join(command)
        if "sgemm" in line:
            return "100.0"
        if " train " in line or " bench " in line or "pytorch_step" in line:
            self.commands.append(next(word for word in ("pytorch_step", "train", "bench") if word in line))
        loss = self.loss if "pytorch_step" in line else 2.3
        return json.dumps(
            {"step_seconds_median": 0.5, "measured_peak_bytes": 1 << 20, "loss_first": loss, "loss_last": 2.0}
        )


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    settings = Settings(
        model="net", options="", batch=2, warmup=1, steps=1, train_options="", peers=("pytorch", "onnxruntime")
    )
    plan = Plan(
        settings=settings,
        blocks=(),
        threads=(1,),
        pairs=2,
        onnxruntime_python=Path("no/such/python"),
        output=tmp_path / "results.json",
    )
    work = BlockWork(index=1, units="0-0", folder=tmp_path, operations=10, prefix_operations=0)
    request = SimpleNamespace(input_shape=(3, 4, 4), batch=2, classes=2, export_options="")
    workload: Any = SimpleNamespace(
        block_count=1, bundle=tmp_path / "bundle", folder=tmp_path, request=request, block=lambda index: work
    )

    def run(processes: FakeProcesses) -> Results:
        monkeypatch.setattr(runner, "_output", processes.output)
        made = Bench(plan, workload)
        made.run()
        return made.results

    return run


def test_runtimes_take_turns_and_an_interrupted_run_goes_on_with_whole_pairs(bench: Any, tmp_path: Path) -> None:
    first = FakeProcesses()
    bench(first)
    assert first.commands == ["bench", "pytorch_step", "bench", "pytorch_step", "train"]
    path = tmp_path / "results.json"
    written = json.loads(path.read_text())
    del written["runs"][-1]  # as if it had been killed in the second pair
    path.write_text(json.dumps(written))
    second = FakeProcesses()
    results = bench(second)
    assert second.commands == ["bench", "pytorch_step"]
    assert results.whole_pairs(1, 1) == {1, 2}


def test_a_missing_peer_is_left_out_with_the_command_that_installs_it(bench: Any) -> None:
    results = bench(FakeProcesses())
    assert results.runtimes == ("ours", "pytorch")
    reason = results.left_out["onnxruntime"]
    assert "no/such/python" in reason and "pip install onnxruntime-training" in reason


def test_runtimes_that_compute_something_else_are_not_compared(bench: Any) -> None:
    with pytest.raises(runner.ExecutionError, match=r"pytorch starts at loss 2\.4, not 2\.3"):
        bench(FakeProcesses(loss=2.4))
