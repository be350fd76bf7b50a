"""What a prefix cache in half or a quarter of the bytes does to accuracy: `python -m tools.bench.cache_accuracy`

For every seed a narrow ResNet18 is grown block by block up to the block that is studied. That block is then trained
from the same weights with its frozen prefix cached in float32, which is exact, in float16 and in int8, and evaluated on
the test split. All runs are `profl-edge train` and `eval`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean
from typing import Any

from safetensors.numpy import load_file, save_file

DTYPES = ("float32", "float16", "int8")


def _run(module: str, *arguments: object) -> dict[str, Any]:
    command = [sys.executable, "-m", module, *map(str, arguments), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(done.stderr.strip() or f"{module} {arguments[0]}: exit status {done.returncode}")
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def _trained(bundle: Path, block: int, weights: Path, output: Path, options: list[object]) -> dict[str, Any]:
    """Train a block from `weights` and write all weights with the update in them."""
    update = output.with_suffix(".update")
    arguments = ["train", bundle, "--block", block, "--weights", weights, "-o", update, *options]
    report = _run("edge_runtime.device", *arguments)
    save_file({**load_file(weights), **load_file(update)}, output)
    return report


def study(folder: Path, seed: int, asked: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of one seed."""
    bundle = folder / "bundle"
    model = ["--model", "resnet18", "--width", asked.width, "--batch", asked.batch, "--seed", seed]
    _run("edge_runtime.device", "export", *model, "-o", bundle)
    common: list[object] = ["--data", asked.data, "--lr", asked.lr, "--seed", seed, "--threads", asked.threads]
    weights = bundle / "weights" / "initial.safetensors"
    for block in range(1, asked.block):
        grown = folder / f"block{block}.safetensors"
        _trained(bundle, block, weights, grown, [*common, "--epochs", asked.epochs])
        weights = grown
    rows = []
    for dtype in DTYPES:
        output = folder / f"{dtype}.safetensors"
        cached: list[object] = ["--epochs", asked.epochs, "--cache-prefix", "--cache-prefix-dtype", dtype]
        report = _trained(bundle, asked.block, weights, output, [*common, *cached, "--cache-dir", folder / "cache"])
        scored = _run(
            "edge_runtime.device", "eval", bundle, "--block", asked.block, "--data", asked.data, "--weights", output
        )
        rows.append(
            {
                "seed": seed,
                "dtype": dtype,
                "accuracy": scored["accuracy"],
                "loss": scored["loss"],
                "loss_last": report["loss_last"],
                "cache_bytes": report["cache_bytes"],
            }
        )
        print(f"seed {seed}, {dtype}: accuracy {scored['accuracy']:.4f}", file=sys.stderr)
    return rows


def table(rows: list[dict[str, Any]], seeds: int) -> str:
    """One line a type: its bytes, every seed's accuracy, their mean and the mean difference from float32."""
    lines = [f"{'cache':<9}{'MB':>7}" + "".join(f"{f'seed {seed}':>9}" for seed in range(seeds)) + "     mean  change"]
    exact = mean(row["accuracy"] for row in rows if row["dtype"] == "float32")
    for dtype in DTYPES:
        of_type = [row for row in rows if row["dtype"] == dtype]
        found = [row["accuracy"] for row in of_type]
        numbers = "".join(f"{100 * accuracy:>9.2f}" for accuracy in found)
        size = of_type[0]["cache_bytes"] / 2**20
        lines.append(f"{dtype:<9}{size:>7.1f}{numbers}{100 * mean(found):>9.2f}{100 * (mean(found) - exact):>+8.2f}")
    return "\n".join(lines)


def main() -> None:
    """Run the study and print its table and its rows as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", default="mnist-5k", help="Any data of `profl-edge train`.")
    parser.add_argument("--width", type=int, default=16, help="Channels of the first convolution.")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--block", type=int, default=3, help="Block to study.")
    parser.add_argument("--epochs", type=int, default=3, help="Of every block.")
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="Write the rows to this file.")
    asked = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for seed in range(asked.seeds):
        with tempfile.TemporaryDirectory() as folder:
            rows += study(Path(folder), seed, asked)
    print(table(rows, asked.seeds))
    if asked.json is not None:
        asked.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
