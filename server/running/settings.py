"""What a run follows from, and its digest: by it a run is continued, and the results of a study are found again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

from server.fleet.fleet import Fleet

NEWER_SETTINGS: Mapping[str, Mapping[str, object]] = {
    "model": {
        **{"initial_weights": None, "mean": (), "std": (), "train_units": None},
        **{"lora": 0, "lora_alpha": None, "lora_targets": (), "loss": "cross-entropy", "label_smoothing": 0.0},
    },
    "training": {
        **{"deadline_seconds": None, "join_seconds": 10.0, "absent_seconds": 600.0, "spare": 0, "trim": 0.1},
        **{"download_mbit": 20.0, "upload_mbit": 5.0},
        **{"optimizer": "sgd", "nesterov": False, "momentum_dtype": "float32"},
        **{"beta1": 0.9, "beta2": 0.999, "eps": 1e-8},
        **{"server_optimizer": "fedavg", "server_learning_rate": None},
        **{"server_beta1": 0.9, "server_beta2": 0.99, "server_tau": 0.001},
    },
    "method": {"coverage": None, "counts_frozen": None, "variants": "exact"},
    "freezing": {"fall": None, "level": None},
    "promises": {"recompute": False},
}
"""Options that earlier releases did not have, by section, with the value at which they are no part of the digest.

It is the default that an option came with, and stays so when the default changes: or a run that was begun with the old
one would go on with the new one.
"""


def settings_sha256(fleet: Fleet, engine: str) -> str:
    """A digest of all that must stay the same when a run is resumed.

    How many clients must deliver may change: a run that stopped because too few did goes on with fewer.
    """
    values = settings_of(fleet)
    values["training"]["min_clients"] = 1
    if not fleet.training.max_seconds:
        del values["training"]["max_seconds"]
    return hashlib.sha256(msgspec.json.encode([values, engine])).hexdigest()


def settings_of(fleet: Fleet) -> dict[str, Any]:
    """Everything that a run follows from. What earlier releases did not have is left out where it changes nothing, so
    that their runs are resumed, and their results found again."""
    values: dict[str, Any] = msgspec.to_builtins(fleet)
    values["clients"] = msgspec.to_builtins(fleet.clients)
    for section, settings in NEWER_SETTINGS.items():
        for key, value in settings.items():
            if values[section][key] == value:
                del values[section][key]
    if not fleet.classes:
        del values["classes"]
    if fleet.privacy is None:
        del values["privacy"]
    for key in ("input_dtype", "head"):
        if values["model"][key] is None:
            del values["model"][key]
    if fleet.training.aggregation == "robust":
        del values["training"]["aggregation"]
    return values
