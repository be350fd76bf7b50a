"""What to install where an optional package is missing: no index has this release, so its extras are spelled out."""

from __future__ import annotations

import re

_RELEASE = "profl-edge"
_OWN = re.compile(rf"{_RELEASE}\[([\w,-]+)\]")
_OF_EXTRA = re.compile(r"(.+?) *; *extra *== *[\"']([\w-]+)[\"']")
_NAME = re.compile(r"[\w.-]+")


def extra_remedy(extra: str) -> str:
    """How to install the packages of `extra`, as an error says it: those of them that are missing, or else all."""
    import shlex  # here, as below: a training process does without these modules

    needed = _requirements(extra, _declared())
    if not needed:  # it runs from its sources
        return f"install the packages of profl-edge's extra '{extra}'"
    missing = [requirement for requirement in needed if not _is_installed(requirement)]
    packages = " ".join(shlex.quote(requirement) for requirement in missing or needed)
    return f"install profl-edge's extra '{extra}': pip install {packages}"


def _declared() -> list[tuple[str, str]]:
    """Each optional requirement of this release, and the extra that it belongs to."""
    from importlib import metadata

    try:
        lines = metadata.requires(_RELEASE) or []
    except metadata.PackageNotFoundError:
        return []
    return [(found[1], found[2]) for found in map(_OF_EXTRA.fullmatch, lines) if found]


def _requirements(extra: str, declared: list[tuple[str, str]]) -> list[str]:
    """The requirements of `extra`, with those of the extras that it includes in their places."""
    found = []
    for requirement, of in declared:
        if of != extra:
            continue
        own = _OWN.fullmatch(requirement)
        parts = own[1].split(",") if own else []
        found += [part for name in parts for part in _requirements(name, declared)] if own else [requirement]
    return list(dict.fromkeys(found))


def _is_installed(requirement: str) -> bool:
    from importlib import metadata

    name = _NAME.match(requirement)
    try:
        metadata.version(name[0] if name else requirement)
    except metadata.PackageNotFoundError:
        return False
    return True
