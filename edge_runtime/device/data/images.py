"""`images:DIR`: one folder per class, in alphabetical order; decoded once when training starts.

Class folders hold the images, or one folder per client with the client's images of that class. `DIR/train` and
`DIR/test` (or `val`, `valid`, `validation`) are the splits where both exist; otherwise every fifth image is held out.
"""

from __future__ import annotations

import math
from array import array
from pathlib import Path
from typing import IO, TYPE_CHECKING

from device_profiles.errors import DataError
from edge_runtime.device.data.image_files import ENDINGS, decode, is_no_data
from edge_runtime.device.data.source import Clients, Part, Shape, Split, held_out, unpacked

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_TRAIN = ("train", "training")
_TEST = ("test", "testing", "val", "valid", "validation")
"""Names of a split's folder, in any case. Of several test parts the one named first here is taken."""


class ImageFolder:
    """Image files of one size. All must have the shape of the first."""

    def __init__(
        self, files: list[Path], labels: list[int], classes: int, folder: Path, clients: Clients | None
    ) -> None:
        self._files = files
        self.clients = clients
        self.labels = array("q", labels)
        self.labels_origin = self.origin = str(folder)
        self._decoded: IO[bytes] | None = None
        self.classes = classes
        self.shape: Shape = decode(files[0])[0]

    def parts(self) -> list[Part]:
        """Decode every image into an unnamed temporary file, once: training reads each of them in every epoch."""
        self._decoded = unpacked(self._pixels(index) for index in range(len(self._files)))
        return [(self._decoded.fileno(), 0, math.prod(self.shape), len(self._files))]

    def _pixels(self, index: int) -> bytes:
        shape, pixels = decode(self._files[index], expected=(self.shape, self._files[0]))
        if shape != self.shape:
            raise DataError(f"{self._files[index]}: {list(shape)}, but {self._files[0].name} is {list(self.shape)}")
        return pixels

    def read(self, index: int, out: NDArray[np.uint8]) -> None:
        """Decode image `index` into `out`; raises DataError where it is not one or has another size."""
        out.reshape(-1).data[:] = memoryview(self._pixels(index))


def open_images(folder: Path, split: Split) -> ImageFolder:
    """Open a folder of class folders; the class is the position of its folder's name among those of the train split."""
    splits = _splits(folder)
    root = splits.get(split, folder)
    classes = _classes(splits.get("train", folder))
    if splits:
        _check_same_classes(classes, splits)
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = _images_of(root / name) if (root / name).is_dir() else []
        if not found and (split == "train" or not splits):
            raise DataError(
                f"{root / name}: contains no image; remove the folder, or put the images of this class there"
            )
        files += found
        labels += [label] * len(found)
    if not files:
        raise DataError(f"{root}: no image; images:DIR needs one folder per class with .png, .jpg, .ppm or .pgm files")
    clients = _clients(files, root, list(splits.values()) or [folder])
    if not splits:
        chosen = held_out(len(files), split)
        files, labels = [files[i] for i in chosen], [labels[i] for i in chosen]
        clients = clients and clients._replace(ids=array("q", [clients.ids[i] for i in chosen]))
        if not files:
            raise DataError(f"{folder}: too few images to hold every fifth out; add DIR/train and DIR/test, or images")
    return ImageFolder(files, labels, len(classes), root, clients)


def _folders(folder: Path) -> dict[str, Path]:
    """Folders in `folder` by their names; raises DataError for a file beside them that may be data."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    found = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    for path in found:
        if not path.is_dir() and not is_no_data(path):
            raise DataError(f"{path}: is outside the class folders; move it into the folder of its class")
    return {path.name: path for path in found if path.is_dir()}


def _splits(folder: Path) -> dict[Split, Path]:
    """The folders of both splits, or nothing where the folder holds classes; raises DataError for a mixture."""
    names = _folders(folder)
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


def _classes(folder: Path) -> list[str]:
    return sorted(_folders(folder))


def _check_same_classes(classes: list[str], splits: dict[Split, Path]) -> None:
    unknown = [name for name in _classes(splits["test"]) if name not in classes]
    if unknown:
        raise DataError(
            f"{splits['test'] / unknown[0]}: is not a class of {splits['train']}; classes must have the same names"
            " in both"
        )


def _images_of(folder: Path) -> list[Path]:
    """Images in the class folder itself, then those of each client's folder in it, in alphabetical order.

    Raises DataError, with its name, for what is neither an image nor known not to be data.
    """
    entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    found = []
    for place in [folder, *(path for path in entries if path.is_dir())]:
        for path in sorted(place.iterdir()):
            if path.suffix.lower() in ENDINGS and path.is_file():
                found.append(path)
            elif path.is_symlink() and not path.exists():
                raise DataError(f"{path}: points to a file that is missing; remove the link, or restore the file")
            elif path.is_dir() and place != folder:
                raise DataError(
                    f"{path}: is a folder inside a client's folder; images must be in DIR/class or DIR/class/client"
                )
            elif not path.is_dir() and not is_no_data(path):
                raise DataError(
                    f"{path}: not a supported image ({', '.join(sorted(ENDINGS))}); convert it, or remove it"
                )
    return found


def _clients(files: list[Path], root: Path, parts: list[Path]) -> Clients | None:
    """By the folders that images lie in below their class's; `parts` are the folders of all splits."""
    depths = {len(path.relative_to(root).parts) for path in files}
    if depths == {2}:
        return None
    if depths != {3}:
        lone = next(path for path in files if len(path.relative_to(root).parts) == 2)
        raise DataError(
            f"{lone}: is outside the client folders; put either every image into a client's folder, or none"
        )
    below = (path for part in parts for path in part.glob("*/*") if path.is_dir() and not path.name.startswith("."))
    names = tuple(sorted({path.name for path in below}))
    position = {name: index for index, name in enumerate(names)}
    return Clients(array("q", [position[path.parent.name] for path in files]), names)
