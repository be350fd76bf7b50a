"""What `profl-edge models` shows of a model: its units, its head, and where it cannot be cut."""

from __future__ import annotations

from typing import Any

from edge_runtime.export.cut.units import UnitLayers
from edge_runtime.export.plan.block_model import BlockModel


def description(source: BlockModel) -> dict[str, Any]:
    """The model as plain values, for JSON; shapes are of one example."""
    model = source.model
    sizes = {spec.name: spec.bytes for spec in source.tensors}
    return {
        "name": source.name,
        "input_shape": source.input_shape,
        "classes": source.classes,
        "units": [
            {
                "name": unit.name,
                "input_shape": unit.input_shape,
                "output_shape": unit.output_shape,
                "parameter_bytes": unit.parameter_bytes,
            }
            for unit in model.units
        ],
        "head": {
            "modules": _modules(source.cut.head),
            "input_shape": source.cut.shapes[source.cut.head.input][1:],
            "parameter_bytes": sum(sizes[name] for name in source.cut.head.tensors),
        },
        "uncut": [
            {
                "unit": reason.unit,
                "first": reason.first,
                "last": reason.last,
                "layers": reason.layers,
                "alive": reason.alive,
            }
            for reason in source.cut.uncut
        ],
    }


def _modules(unit: UnitLayers) -> list[str]:
    """The modules of the layers with tensors, in order."""
    return list(dict.fromkeys(layer.module for layer in unit.layers if layer.tensors))


def lines(described: dict[str, Any]) -> list[str]:
    """The same for a reader."""
    shape = _shape(described["input_shape"])
    result = [f"{described['name']}: input {shape}, {described['classes']} classes, {len(described['units'])} units"]
    width = max(len(unit["name"]) for unit in described["units"]) + 2
    for number, unit in enumerate(described["units"]):
        shapes = f"{_shape(unit['input_shape'])} -> {_shape(unit['output_shape'])}"
        result.append(f"  {number:>3} {unit['name']:<{width}}{shapes:<28}{_kilobytes(unit['parameter_bytes']):>12}")
    head = described["head"]
    modules = ", ".join(head["modules"]) or "without tensors"
    result.append(f"  head: {modules} from {_shape(head['input_shape'])}, {_kilobytes(head['parameter_bytes'])}")
    if described["uncut"]:
        result.append("Not cut, because more than one tensor lives wherever their layers meet:")
    for reason in described["uncut"]:
        alive, span = " and ".join(reason["alive"]), f"{reason['first']} to {reason['last']}"
        result.append(f"  unit {reason['unit']}: {reason['layers']} layers, {span}; at best {alive}")
    return result


def _shape(extents: tuple[int, ...]) -> str:
    return "x".join(map(str, extents))


def _kilobytes(size: int) -> str:
    return f"{size / 1024:.1f} kB"
