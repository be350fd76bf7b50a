"""Write the table of kernels in docs/operators.md from the table of operators: `python -m tools.generate_operators`."""

from __future__ import annotations

from pathlib import Path

from device_profiles.operators import Operator, Parameter, table

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "operators.md"
BEGIN, END = "<!-- kernels: made by tools/generate_operators.py -->\n", "<!-- end of kernels -->\n"


def kernels() -> str:
    """The rows of all operators as a table of Markdown."""
    rows = [f"| `{operator.name}` | {_stack(operator)} |" for operator in table().operators.values()]
    return "\n".join(["| kernel | stack |", "|---|---|", *rows]) + "\n"


def document() -> str:
    """docs/operators.md with its table as it should be."""
    text = DOCUMENT.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, behind = rest.partition(END)
    return before + BEGIN + kernels() + END + behind


def _stack(operator: Operator) -> str:
    given: list[str] = []
    made: list[str] = []
    groups: list[str] = []
    for parameter in operator.parameters:
        if parameter.group is None:
            (made if parameter.output else given).append(_place(parameter))
        elif parameter.group not in groups:
            groups.append(parameter.group)
            given.append(f"*{parameter.group.replace('_', ' ')}*")
    return f"{', '.join(given)} -> {', '.join(made)}"


def _place(parameter: Parameter) -> str:
    name = parameter.name.replace("_", " ")
    said = [" or ".join(parameter.dtypes)] if parameter.dtypes not in ((), ("float32",)) else []
    if parameter.presence == "nullable":
        said.append("none")
    if parameter.presence == "omittable":
        return f"*{name}*"
    if parameter.presence == "repeated":
        name += " ..."
    return name + (f" ({', '.join(said)})" if said else "")


def main() -> None:
    """Write it."""
    DOCUMENT.write_text(document(), encoding="utf-8")


if __name__ == "__main__":
    main()
