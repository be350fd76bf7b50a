"""Types of options that the commands of every package share; host and device know nothing of each other here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from device_profiles.work import Growing

    _SizeType = click.ParamType[int]
    _WorkType = click.ParamType[Growing]
else:  # not every release of click can be asked for the type
    _SizeType = _WorkType = click.ParamType

_LARGEST = 3.4e38
"""Of float32, which is what programs compute in."""


class Finite(click.FloatRange):
    """A number within a range, which neither `nan` nor `inf` is: both pass click's own comparisons."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number; fails naming the option for what is none, or is out of range."""
        number = float(super().convert(value, param, ctx))
        if not abs(number) <= _LARGEST:
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


class Size(_SizeType):
    """A size with a unit, such as 128MB, as a number of bytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Bytes; fails, saying how to write it, for what is no size."""
        from device_profiles.sizes import parse_size

        if isinstance(value, int):
            return value
        try:
            return parse_size(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class TrainingWork(_WorkType):
    """What a client can train in the step of a block, by the name of its units."""

    name = "work"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Growing:
        """The work; fails, saying how to write it, for what is none."""
        from device_profiles.errors import FormatError
        from device_profiles.work import Grow, Head, Joint, parse_work

        if isinstance(value, (Grow, Joint, Head)):
            return value
        try:
            work = parse_work(value)
        except FormatError:
            work = None
        if not isinstance(work, (Grow, Joint, Head)):
            self.fail(
                f"'{value}' trains no run of units; write grow-units0-3, joint-units2-5 or head-units0-5.", param, ctx
            )
        return work


class OutputFile(click.Path):
    """A file that is written at the end of the work: a place that will not take it is refused before the work begins.

    An option that may also name a folder checks its place itself, with `device_profiles.files.check_place`.
    """

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path; raises UsageError naming the option."""
        from device_profiles.files import check_output_file

        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        check_output_file(path, option=param.opts[0] if param is not None else "-o")
        return path
