"""`CondensedSet`: the value that condensation makes and later steps pass on; its file formats."""

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import Dataset

from yoco import formation
from yoco.data import spaces
from yoco.data.image_data import ImageData
from yoco.data.normalise import normalise, unnormalise
from yoco.sets import exported, published, ranked_set
from yoco.sets.ranked_set import RankedSet
from yoco.utils import above, checks, digests, tensor_files

KIND = "condensed"
Targets = Int[Tensor, "images"] | Float[Tensor, "images classes"]  # labels, or soft targets


@dataclass(frozen=True, eq=False)
class CondensedSet:
    """Condensed images of one dataset, ordered by class.

    Args:
        images: n = classes × IPC, held as float32 on the CPU without gradients; in 0..1 if
            `bounded`, else any finite values in the space that networks train on.
        labels: the same number of each class; or soft targets, each row non-negative with sum 1. An
            image then belongs to the class of its largest target, and classes may differ in size.
            Ascending by class.
        factor: cells along a side.
        classes: at least two names, all different.
        mean, std: per channel in 0..1 (std above 0), of the real training images.
        method: what made it: a name in `condense.METHODS`, "real" for packed real images, or the
            authors' method.
        info: settings, seed, precision, dataset, loss history and time.
        bounded: False if the images are in the space that networks train on: they are not
            normalised again and never clipped.
        whitening: for an unbounded set of ZCA-whitened images, a name in `spaces.RECIPES`. Real
            images are then whitened by the training images of the data that the set is used with.

    Raises:
        TypeError, ValueError: if these do not fit each other.
    """

    images: Float[Tensor, "images channels size size"]
    labels: Targets
    factor: int
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    method: str
    info: Mapping[str, Any] = field(default_factory=dict)
    bounded: bool = True
    whitening: str | None = None

    def __post_init__(self) -> None:
        checks.float_images("images", self.images)
        (checks.images if checks.flag("bounded", self.bounded) else checks.finite)(
            "images", self.images
        )
        if self.whitening is not None:
            checks.one_of("whitening", self.whitening, spaces.RECIPES)
            if self.bounded:
                raise ValueError(f"whitening={self.whitening!r} requires bounded=False")
        classes = checks.class_names("classes", self.classes)
        checks.targets("labels", self.labels, len(self.images), len(classes))
        formation.cell_size(self.size, self.factor)
        self._check_order(len(classes))
        checks.instance("method", self.method, str)
        checks.instance("info", self.info, Mapping)  # type: ignore[type-abstract]
        held = {
            "images": self.images.detach().to("cpu", torch.float32),
            "labels": self.labels.detach().cpu(),
            "factor": int(self.factor),
            "classes": classes,
            **checks.statistics(self.mean, self.std, self.channels),
        }
        for name, value in held.items():
            object.__setattr__(self, name, value)  # frozen from here on

    def __repr__(self) -> str:
        return ranked_set.described(self, self.channels, f"IPC {self.ipc}")

    def _check_order(self, classes: int) -> None:
        """Raise ValueError unless images are sorted by class, equally many of each.

        With soft labels, only the average has to be whole.
        """
        labels = hard(self.labels)
        counts = torch.bincount(labels, minlength=classes)
        uneven = len(labels) % classes if self.soft else (counts != counts[0]).any()
        if uneven or (labels.diff() < 0).any():
            raise ValueError(
                "labels must be sorted, with equally many images in each class; got counts "
                f"{counts.tolist()}"
            )

    @property
    def soft(self) -> bool:
        """Whether labels are soft targets."""
        return self.labels.ndim == 2

    @property
    def ipc(self) -> int:
        """Condensed images per class; the average if labels are soft."""
        return len(self.labels) // len(self.classes)

    @property
    def channels(self) -> int:
        return self.images.shape[1]

    @property
    def size(self) -> int:
        """Side of an image in pixels."""
        return self.images.shape[2]

    def form(self) -> tuple[Float[Tensor, "images channels size size"], Targets]:
        """Return the formed images, factor² of each condensed one, and their labels.

        Images are in 0..1 if bounded; at factor 1 they are the set's own. Raises ValueError if
        cells are so tiny that enlarging them takes far more memory than the set does.
        """
        return formation.form(self.images, self.factor), self.formed_targets

    @property
    def formed_labels(self) -> Int[Tensor, "images"]:
        """Classes of the formed images; for soft labels, the largest target."""
        return hard(self.labels).repeat_interleave(self.factor**2)

    @property
    def formed_targets(self) -> Targets:
        """Labels of the formed images, soft if the set's are."""
        return self.labels.repeat_interleave(self.factor**2, dim=0)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits by which dynamics identify their set.

        They depend on the images, the factor, soft labels, and the space of unbounded images.
        """
        digest = hashlib.sha256(self.images.float().contiguous().numpy().tobytes())
        # one byte up to 255
        digest.update(self.factor.to_bytes(max(1, (self.factor.bit_length() + 7) // 8)))
        if self.soft:
            digest.update(self.labels.float().contiguous().numpy().tobytes())
        if not self.bounded:
            digest.update(repr((self.whitening, self.mean, self.std)).encode())
        return digest.hexdigest()[:12]

    @property
    def made_from(self) -> dict[str, str]:
        """Digests of what dynamics depend on, by part (see `digests.check`)."""
        return {
            "condensed images": self.fingerprint,
            "labels": digests.of_tensor(self.labels),
            "class names": digests.of_text(self.classes),
            "mean and std": digests.of_text((self.mean, self.std)),
        }

    @property
    def space(self) -> spaces.Space:
        """The space that networks train in, by the set's own mean and std: see `evaluate`."""
        return spaces.Space(self.mean, self.std, self.whitening, self.bounded)

    def members(self, label: int) -> Int[Tensor, "images"]:
        """Return the indices of the condensed images of a class, ascending."""
        return torch.nonzero(hard(self.labels) == label).flatten()

    def normalise(
        self, images: Float[Tensor, "images channels size size"]
    ) -> Float[Tensor, "images channels size size"]:
        """Turn images of this set into what networks train on: (images - mean) / std.

        Images of an unbounded set are returned unchanged.
        """
        return normalise(images, self.mean, self.std) if self.bounded else images

    def pictures(
        self, images: Float[Tensor, "images channels size size"]
    ) -> Float[Tensor, "images channels size size"]:
        """Turn images of this set into pictures in 0..1.

        Images of an unbounded set are un-normalised and clipped.
        """
        if self.bounded:
            return images
        return unnormalise(images, self.mean, self.std).clamp(0, 1)

    def save(self, path: str | Path, dtype: torch.dtype = torch.float32) -> Path:
        """Write one safetensors file, atomically. Returns the path.

        dtype: of the images in it, float32 or uint8 (a quarter as large; values move by at most
        1/510, so dynamics of this set are not those of the file's). Raises ValueError for others,
        and for uint8 if the set is unbounded.
        """
        values = {
            name: getattr(self, name) for name in ("factor", "classes", "mean", "std", "method")
        }
        if not self.bounded:
            values |= {"bounded": False, "whitening": self.whitening}
        images = ranked_set.stored(self.images, dtype, self.bounded)
        tensors = {"images": images, "labels": self.labels}
        return tensor_files.save_tensors(path, KIND, tensors, {**values, "info": dict(self.info)})

    @classmethod
    def load(cls, path: str | Path) -> "CondensedSet":
        """Read a file written by `save`.

        Raises FileNotFoundError, or ValueError if the file is corrupted or inconsistent.
        """
        tensors, values = tensor_files.load_tensors(path, KIND)
        try:
            sequences: dict[str, Any] = {
                name: tuple(values[name]) for name in ("classes", "mean", "std")
            }
            space = {name: values[name] for name in ("bounded", "whitening") if name in values}
            return cls(
                ranked_set.floats(tensors["images"]),
                tensors["labels"],
                values["factor"],
                method=values["method"],
                info=values["info"],
                **sequences,
                **space,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is not a valid condensed set: {error}") from error

    @classmethod
    def from_published(
        cls,
        path: str | Path,
        method: str = "auto",
        *,
        factor: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        classes: Sequence[str] | None = None,
        dataset: str | None = None,
        experiment: int = 0,
        whitened: bool | ImageData | None = None,
    ) -> "CondensedSet":
        """Read a set as its authors publish it, and print one line that says how it was read.

        Layouts: a pair of images and labels in .pt (IDC, DREAM); a dict whose "data" lists such
        pairs (DC, DSA, DM); images*.pt with labels*.pt beside it (MTT, DATM); .npz, or images.npy
        with labels.npy beside it (KIP, RFAD); a folder or file of `export`. Only tensors, numbers
        and text are unpickled.

        Args:
            path: the file, or a folder that holds one set.
            method: what made it, for instance "dsa"; "auto" reads it from the layout and the file's
                name.
            factor: cells along a side of its images; None: 1, or as exported. An export of yoco
                says everything else itself.
            mean, std: per channel in 0..1, the authors' normalisation. None: that of `dataset`,
                which DC's file names contain; else CIFAR's for colour images of 10 or 100 classes
                below 64 pixels, and ImageNet's from 64 pixels on.
            classes: names; None: "0", "1", …
            dataset: its name, for the statistics; also stored in info, where CCS looks for its
                cutoff.
            experiment: which pair of a dict, counted from 0.
            whitened: True if the set is ZCA-whitened, or its real data, whose classes, mean and std
                are then used; False if it is not; None: it is if the file's name says "zca" or
                neighbouring pixels do not correlate. The transform is computed from the training
                images of the data on which the set is tested.

        Returns:
            A set in 0..1 if all its values are, un-normalised if necessary; else with
                `bounded=False`, as the authors train on it.
            Float labels [N, K] become soft targets: unchanged if they are distributions, plus 1/K
                if they are centred, else their softmax.

        Raises:
            FileNotFoundError, TypeError, ValueError: if an argument is bad, the file is corrupted
                or holds more than tensors, its images are neither in 0..1 nor normalised, or
                images, labels and classes do not fit.
        """
        given = published.Given(method, mean, std, classes, dataset, experiment, whitened)
        path = checks.path("path", path)
        exact = path / exported.EXACT if path.is_dir() else path
        try:
            if exact.suffix == ".safetensors" and exact.is_file():
                given.check_unneeded()
                fields, says = dict(vars(cls.load(exact))), published.EXPORT
            else:
                fields, says = published.read(path, given)
            fields["factor"] = (fields["factor"] or 1) if factor is None else factor
            made = cls(**fields)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path} holds no readable set: {error}") from error
        print(f"{path.name}: {says}")
        return made

    def export(self, path: str | Path, format: str = "images") -> Path:
        """Write the set for other programs; `from_published` reads each format back without loss.

        Args:
            path: the folder ("images") or the file to write.
            format: "images": <class>/<n>.png with 8 bits per value, one picture per condensed
                image, and set.safetensors with the exact values; "pt": a dict of tensors and text
                for torch.load; "npz": the same arrays.

        Returns:
            The path.

        Raises:
            ValueError: if the format is unknown, or the folder is not empty.
            OSError: if it cannot be written.
        """
        return exported.write(self, path, format)

    def as_dataset(self) -> Dataset:
        """Return a torch `Dataset` of the formed images: (image float32 [C, S, S], label).

        It has `classes`, `mean` and `std`; images are as in `form`.
        """
        return exported.Formed(self)

    def rank(self, dynamics: Any = None, method: str | None = None, **options: Any) -> RankedSet:
        """Order the formed images so that every prefix is the method's balanced selection.

        Args:
            dynamics: `Dynamics` of this set; None for a method that needs none.
            method: a name in `prune.METHODS` whose selections are nested. None: "yoco"; without
                dynamics, a nested set's own order (`condense(nested=...)`).
            **options: options of `prune.prune`, except balanced.

        Raises:
            TypeError, ValueError: as `prune.prune`; also if the method's selections, or without
                dynamics and method the set, are not nested.
        """
        if dynamics is None and method is None and not options:
            return ranked_set.nested(self)
        return above.FUNCTIONS["rank"](self, dynamics, method or "yoco", **options)


def hard(labels: Targets) -> Int[Tensor, "images"]:
    """Return the classes of labels or of soft targets.

    A soft target's class is its largest entry; ties: the lower class.
    """
    return labels.argmax(1) if labels.ndim == 2 else labels
