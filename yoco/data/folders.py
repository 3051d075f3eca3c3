"""Folders of images: which files are read, and their split and class.

Skipped files are counted and reported once.
"""

import os
import warnings
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from yoco.data.image_data import drawn_for_test, first
from yoco.utils import checks

ENDINGS = (
    ".jpg",
    ".jpeg",
    ".jfif",
    ".png",
    ".ppm",
    ".pgm",
    ".bmp",
    ".tif",
    ".tiff",
    ".webp",
    ".gif",
)
# folder names of the two splits in small letters; see `_split`
TRAIN, TEST = ("train", "training"), ("test", "testing", "val", "valid", "validation")
# files that systems leave, in lower case; names that begin with a dot are skipped as well
JUNK = ("__macosx", "thumbs.db", "desktop.ini")
ONE = {"files": "file", "entries": "entry", "links": "link", "classes": "class"}
WANTED = (
    "wanted: train/ and test/ (or val/, valid/) with one folder per class in each, or only one "
    "folder per class"
)


class Listed(NamedTuple):
    """Files of one split, ordered by class.

    Attributes:
        root: their folder.
        names: paths under `root`, as text (a million Paths would take a gigabyte).
        labels: their labels.
    """

    root: Path
    names: list[str]
    labels: list[int]


class Walk:
    """Lists the images under a folder, and counts by kind what it skips.

    Args:
        top: the folder that links may not leave.
        follow_links: whether they may after all.
    """

    def __init__(self, top: Path, follow_links: bool = False) -> None:
        self.top, self.follow_links = top.resolve(), follow_links
        self.skipped: Counter[str] = Counter()  # by kind, in the plural

    def classes(self, folder: Path) -> list[str]:
        """Return the names of the folders in `folder`, sorted."""
        found = self._entries(folder)
        self.skipped["files outside the classes' folders"] += sum(
            not entry.is_dir() for entry in found
        )
        return sorted(entry.name for entry in found if entry.is_dir())

    def images(self, root: Path, folder: str) -> list[str]:
        """Return all images under root/folder, at any depth, sorted, as paths from `root`."""
        found, todo, seen = [], [folder], set()
        while todo:
            inside = todo.pop()
            # a link to a folder that contains it
            if (real := os.path.realpath(root / inside)) in seen:
                continue
            seen.add(real)
            for entry in self._entries(root / inside):
                if entry.is_dir():
                    todo.append(os.path.join(inside, entry.name))
                elif not entry.is_file():
                    self.skipped["entries other than a file or folder"] += 1
                elif (ending := os.path.splitext(entry.name)[1].lower()) in ENDINGS:
                    found.append(os.path.join(inside, entry.name))
                else:
                    self.skipped[f"files ending in {ending or 'nothing'}"] += 1
        return sorted(found, key=lambda path: path.split(os.sep))

    def _entries(self, folder: Path) -> list[os.DirEntry]:
        with os.scandir(folder) as entries:
            plain = [
                entry
                for entry in entries
                if not entry.name.startswith(".") and entry.name.lower() not in JUNK
            ]
        inside = [
            entry
            for entry in plain
            if self.follow_links
            or not entry.is_symlink()
            or Path(entry.path).resolve().is_relative_to(self.top)
        ]
        out = "links out of the folder (read with follow_links=True)"
        self.skipped[out] += len(plain) - len(inside)
        return inside

    @property
    def told(self) -> str:
        """What was skipped, for example "skipped 1 file ending in .txt"; empty if nothing was."""
        counts = [
            f"{count} {ONE[what] if count == 1 else what} {rest}"
            for kind, count in sorted(self.skipped.items())
            if count
            for what, rest in [kind.split(" ", 1)]
        ]
        return f"skipped {'; '.join(counts)}" if counts else ""

    def say(self) -> None:
        """Warn once about everything that was skipped."""
        if self.told:
            warnings.warn(checks.printable(f"{self.top.name}: {self.told}"), stacklevel=4)


def listed(
    path: Path,
    classes: Sequence[str],
    limit: int | None,
    *,
    test_share: float | None = None,
    follow_links: bool = False,
) -> tuple[Listed, Listed, list[str]]:
    """List the images of a folder's two splits.

    Args:
        path: the folder that holds train/ and one of `TEST`; with `test_share`, train/ or the
            classes' folders suffice.
        classes: folders to take, in that order; empty: all of the training split, sorted.
        limit: maximum number of images per class, the first ones.
        test_share: share of each class that is drawn as test images, always the same ones, if the
            folder has no test split.
        follow_links: whether links may leave the folder.

    Returns:
        Training images, test images, and the classes' names.

    Raises:
        FileNotFoundError: if the folder, a split or a class is missing, or a class has no images.
        ValueError: if there are fewer than two classes, or a class is too small to be split.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"no folder at {path}")
    walk = Walk(path, follow_links)
    train, test = _split(path, TRAIN, walk), _split(path, TEST, walk)
    if train is None and test is None and test_share is not None:
        train = path
    if train is None:
        raise FileNotFoundError(f"{path} has no folder {' or '.join(TRAIN)}; {WANTED}")
    if test is None and test_share is None:
        raise FileNotFoundError(f"{path} has no folder {' or '.join(TEST)}; {WANTED}")
    names = _classes(walk, train, classes)
    whole = _of_classes(walk, train, names)
    if test is not None:
        only = set(walk.classes(test)) - set(names)
        walk.skipped["classes only in the test split"] += 0 if classes else len(only)
        train_part, test_part = whole, _of_classes(walk, test, names)
    elif test_share is not None:
        drawn = drawn_for_test(path.name, torch.tensor(whole.labels), test_share)
        train_part, test_part = (
            _chosen(whole, torch.nonzero(drawn == value).flatten().tolist())
            for value in (False, True)
        )
    walk.say()
    return _limited(train_part, limit), _limited(test_part, limit), names


def _split(path: Path, names: Collection[str], walk: Walk) -> Path | None:
    """Return the first of these folders, in any case, that has folders for classes.

    ImageNet has a test/ without classes beside val/. If none has any, the first that exists.
    """
    named = {found.name.lower(): Path(found) for found in _folders(path)}
    there = [named[name] for name in names if name in named]
    found = next(filter(_folders, there), there[0] if there else None)
    if found and not walk.follow_links and not found.resolve().is_relative_to(walk.top):
        raise FileNotFoundError(
            f"{found} is a link that leads out of the folder; pass follow_links=True to follow it"
        )
    return found


def _folders(path: Path) -> list[os.DirEntry]:
    with os.scandir(path) as entries:
        return [entry for entry in entries if entry.is_dir()]


def _classes(walk: Walk, folder: Path, wanted: Sequence[str]) -> list[str]:
    found = walk.classes(folder)
    if missing := sorted(set(wanted) - set(found)):
        raise FileNotFoundError(f"{folder} has no folder for class {', '.join(missing[:5])}")
    names = list(wanted or found)
    if len(names) < 2:
        raise ValueError(
            f"{folder}: at least 2 class folders are needed, got {len(names)}"
            + (walk.told and f"; {walk.told}")
        )
    return names


def _of_classes(walk: Walk, folder: Path, classes: Sequence[str]) -> Listed:
    names: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        if not (folder / name).is_dir():
            raise FileNotFoundError(f"{folder} has no folder for class {name}")
        images = walk.images(folder, name)
        if not images:
            raise FileNotFoundError(
                f"no images in {folder / name}; these are read: {' '.join(ENDINGS)}"
            )
        names += images
        labels += [label] * len(images)
    return Listed(folder, names, labels)


def _chosen(split: Listed, numbers: Sequence[int]) -> Listed:
    return Listed(split.root, [split.names[n] for n in numbers], [split.labels[n] for n in numbers])


def _limited(split: Listed, limit: int | None) -> Listed:
    if limit is None:
        return split
    return _chosen(split, first(torch.tensor(split.labels), limit).tolist())


def tiny_imagenet(root: Path) -> tuple[Listed, Listed, list[str]]:
    """Return the splits of Tiny-ImageNet in the layout of its authors' archive.

    There the classes of validation images are in a text file.

    Args:
        root: the folder tiny-imagenet-200, or the one that holds it.

    Raises:
        FileNotFoundError: if it or a file is missing; the message says where the archive is.
    """
    folder = next(
        (
            path
            for path in (root, root / "tiny-imagenet-200")
            if (path / "val" / "val_annotations.txt").is_file()
        ),
        None,
    )
    if folder is None:
        raise FileNotFoundError(
            f"no tiny-imagenet-200 in {root}: unpack "
            "http://cs231n.stanford.edu/tiny-imagenet-200.zip there"
        )
    walk = Walk(folder)
    names = _classes(walk, folder / "train", ())
    rows = [
        line.split("\t")[:2]
        for line in (folder / "val" / "val_annotations.txt").read_text().splitlines()
        if line.strip()
    ]
    number = {name: label for label, name in enumerate(names)}
    val = sorted(
        (number[name], os.path.join("images", file)) for file, name in rows if name in number
    )
    return (
        _of_classes(walk, folder / "train", names),
        Listed(folder / "val", [file for _, file in val], [label for label, _ in val]),
        names,
    )
