"""Examples that are files, one folder for each class, in alphabetical order.

Class folders hold the files, or one folder per client with the client's files of that class. `DIR/train` and `DIR/test`
(or `val`, `valid`, `validation`) are the splits where both exist; otherwise every fifth file is held out.
"""

from __future__ import annotations

from array import array
from pathlib import Path
from typing import NamedTuple

from device_profiles.errors import DataError
from edge_runtime.device.data.image_files import is_no_data
from edge_runtime.device.data.source import Clients, Split, held_out

_TRAIN = ("train", "training")
_TEST = ("test", "testing", "val", "valid", "validation")
"""Names of a split's folder, in any case. Of several test parts the one named first here is taken."""


class Kind(NamedTuple):
    """What the files are: endings, words for one and several, the form of the data set, and what is usual."""

    endings: frozenset[str]
    one: str
    several: str
    form: str
    usual: str


class Found(NamedTuple):
    """Files of a split with their classes, how many classes there are, the split's folder, and whose files they are."""

    files: list[Path]
    labels: list[int]
    classes: int
    root: Path
    clients: Clients | None


def files_of_classes(folder: Path, split: Split, kind: Kind) -> Found:
    """The files of a split; the class is the position of its folder's name among those of the train split.

    Raises DataError, naming what is in the way, for any other layout.
    """
    splits = _splits(folder, kind)
    root = splits.get(split, folder)
    classes = _classes(splits.get("train", folder), kind)
    if splits:
        _check_same_classes(classes, splits, kind)
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = _files_of(root / name, kind) if (root / name).is_dir() else []
        if not found and (split == "train" or not splits):
            raise DataError(
                f"{root / name}: contains no {kind.one}; remove the folder, or put the {kind.several} of this class "
                "there"
            )
        files += found
        labels += [label] * len(found)
    if not files:
        raise DataError(f"{root}: no {kind.one}; {kind.form} needs one folder per class with {kind.usual} files")
    clients = _clients(files, root, list(splits.values()) or [folder], kind)
    if not splits:
        chosen = held_out(len(files), split)
        files, labels = [files[i] for i in chosen], [labels[i] for i in chosen]
        clients = clients and clients._replace(ids=array("q", [clients.ids[i] for i in chosen]))
        if not files:
            raise DataError(
                f"{folder}: too few {kind.several} to hold every fifth out; add DIR/train and DIR/test, or more"
            )
    return Found(files, labels, len(classes), root, clients)


def _folders(folder: Path, kind: Kind) -> dict[str, Path]:
    """Folders in `folder` by their names; raises DataError for a file beside them that may be data."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    found = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    for path in found:
        if not path.is_dir() and not is_no_data(path):
            raise DataError(f"{path}: is outside the class folders; move it into the folder of its class")
    return {path.name: path for path in found if path.is_dir()}


def _splits(folder: Path, kind: Kind) -> dict[Split, Path]:
    """The folders of both splits, or nothing where the folder holds classes; raises DataError for a mixture."""
    names = _folders(folder, kind)
    train = [path for name, path in names.items() if name.lower() in _TRAIN]
    test = sorted((p for n, p in names.items() if n.lower() in _TEST), key=lambda path: _TEST.index(path.name.lower()))
    if not train and not test:
        return {}
    others = [name for name, path in names.items() if path not in train and path not in test]
    if others:
        split = (train + test)[0].name
        raise DataError(
            f"{folder}: '{split}' is the folder of a split, but '{others[0]}' is not; keep classes only in "
            f"DIR/train and DIR/test, or rename '{split}' if it is a class"
        )
    if len(train) > 1:
        raise DataError(f"{folder}: contains both {train[0].name} and {train[1].name}; keep one of them")
    if not train or not test:
        there, missing = (train or test)[0], "test" if train else "train"
        raise DataError(f"{folder}: contains {there.name} but not {missing}; add DIR/{missing}, or use {there} itself")
    return {"train": train[0], "test": test[0]}


def _classes(folder: Path, kind: Kind) -> list[str]:
    return sorted(_folders(folder, kind))


def _check_same_classes(classes: list[str], splits: dict[Split, Path], kind: Kind) -> None:
    unknown = [name for name in _classes(splits["test"], kind) if name not in classes]
    if unknown:
        raise DataError(
            f"{splits['test'] / unknown[0]}: is not a class of {splits['train']}; classes must have the same names"
            " in both"
        )


def _files_of(folder: Path, kind: Kind) -> list[Path]:
    """Examples in the class folder itself, then those of each client's folder in it, in alphabetical order.

    Raises DataError, with its name, for what is neither one nor known not to be data.
    """
    entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    found = []
    for place in [folder, *(path for path in entries if path.is_dir())]:
        for path in sorted(place.iterdir()):
            if path.suffix.lower() in kind.endings and path.is_file():
                found.append(path)
            elif path.is_symlink() and not path.exists():
                raise DataError(f"{path}: points to a file that is missing; remove the link, or restore the file")
            elif path.is_dir() and place != folder:
                raise DataError(
                    f"{path}: is a folder inside a client's folder; {kind.several} must be in DIR/class or "
                    "DIR/class/client"
                )
            elif not path.is_dir() and not is_no_data(path):
                raise DataError(
                    f"{path}: not a supported {kind.one} ({', '.join(sorted(kind.endings))}); convert it, or remove it"
                )
    return found


def _clients(files: list[Path], root: Path, parts: list[Path], kind: Kind) -> Clients | None:
    """By the folders that examples lie in below their class's; `parts` are the folders of all splits."""
    depths = {len(path.relative_to(root).parts) for path in files}
    if depths == {2}:
        return None
    if depths != {3}:
        lone = next(path for path in files if len(path.relative_to(root).parts) == 2)
        raise DataError(
            f"{lone}: is outside the client folders; put either every {kind.one} into a client's folder, or none"
        )
    below = (path for part in parts for path in part.glob("*/*") if path.is_dir() and not path.name.startswith("."))
    names = tuple(sorted({path.name for path in below}))
    position = {name: index for index, name in enumerate(names)}
    return Clients(array("q", [position[path.parent.name] for path in files]), names)
