"""Run the few tests that have just failed once more, by themselves: `python -m tools.test_again --most 3`.

What then passes depends on something that it should not depend on. It is named, so that somebody mends it, but it does
not hold up a change. More failures than `--most` are not run again: they fail.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click

_LAST_FAILED = Path(".pytest_cache/v/cache/lastfailed")


@click.command(help=(__doc__ or "").splitlines()[0])
@click.option("--most", type=click.IntRange(1), default=3, show_default=True, help="Failed tests that are run again.")
def main(most: int) -> None:
    """The exit status is that of the second run, or 1 where there is none."""
    failed = sorted(json.loads(_LAST_FAILED.read_text())) if _LAST_FAILED.is_file() else []
    if not 0 < len(failed) <= most:
        click.echo(f"{len(failed)} failed tests; 1 to {most} would be run again", err=True)
        sys.exit(1)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *failed]
    status = subprocess.run(command, check=False).returncode
    for test in failed:
        click.echo(f"failed once, {'passed' if not status else 'run'} when run again: {test}")
    sys.exit(status)


if __name__ == "__main__":
    main()
