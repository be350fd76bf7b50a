"""A small fleet by hand for `profl-server merge` and `finish`: a bundle, the parts of two clients, their updates."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner

from device_profiles.errors import ProflError
from edge_runtime.device.prepare.bundle import open_bundle
from server.cli import cli
from server.finished.weight_layers import lay_weights
from tests.support.bundles import copied, exported
from tests.support.device_commands import profl_edge

SHAPE = (3, 8, 8)
Train = Callable[..., Path]


def prepared(folder: Path) -> Path:
    """`folder`, with a bundle of the model `cnn` and the parts of two clients of different size in it."""
    copied(exported("cnn", width=4, batch=4, input_shape=SHAPE, joint=True), folder / "bundle")
    generator = np.random.default_rng(0)
    for client, count in (("a", 8), ("b", 24)):
        images = generator.integers(0, 256, (count, *SHAPE), dtype=np.uint8)
        labels = np.arange(count, dtype=np.int64) % 10
        arrays = {"images": images, "labels": labels, "test_images": images[:8], "test_labels": labels[:8]}
        np.savez(folder / f"{client}.npz", **arrays)
    return folder


def trainer(folder: Path) -> Train:
    """What trains for a client and returns its update; trained once for the same arguments."""

    def go(client: str, block: int, *options: str, weights: tuple[Path, ...] = ()) -> Path:
        version = lay_weights(open_bundle(folder / "bundle"), weights).version
        made = "-".join([client, str(block), *options, version]).replace("/", "_")
        output = folder / f"{made}.safetensors"
        if not output.exists():
            command = ["train", str(folder / "bundle"), "--block", str(block), "--data", f"npz:{folder / client}.npz"]
            command += ["--steps", "2", "--lr", "0.01", "-o", str(output), *options]
            for path in weights:
                command += ["--weights", str(path)]
            assert profl_edge(*command).status == 0
        return output

    return go


def server(*arguments: object) -> Any:
    """`profl-server` with these arguments, in this process; raises its error."""
    done = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    if isinstance(done.exception, ProflError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done


def merge(folder: Path, *arguments: object) -> dict[str, Any]:
    """The report of a merge into the bundle of `folder`."""
    read: dict[str, Any] = json.loads(server("merge", folder / "bundle", *arguments, "--json").stdout)
    return read
