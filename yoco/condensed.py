"""`CondensedSet`: the value that condensation makes and everything after passes on, its file, and the ways from and to others'."""

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from yoco import checks, files, formation, published
from yoco.ranked import RankedSet

KIND = "condensed"


@dataclass(frozen=True, eq=False)
class CondensedSet:
    """Condensed images of one dataset, class after class.

    images: float [N, C, S, S] in 0..1, N = classes × IPC, held as float32 on the CPU, apart from any graph; labels: int64
    [N]; factor: cells along a side; classes: at least two names, all different; mean, std: per channel in 0..1 (std above
    0), those of the real training images; method: what made it (a name in `condense.METHODS`, or "real" for packed real
    images); info: settings, seed, precision, dataset, loss history and time.
    Raises ValueError or TypeError where these do not fit each other.
    """

    images: Tensor
    labels: Tensor
    factor: int
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    method: str
    info: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        checks.images("images", checks.float_images("images", self.images))
        classes = checks.class_names("classes", self.classes)
        checks.labels("labels", self.labels, len(self.images), len(classes))
        formation.cell_size(self.size, self.factor)
        counts = torch.bincount(self.labels, minlength=len(self.classes))
        if (counts != counts[0]).any() or (self.labels.diff() < 0).any():
            raise ValueError(f"labels must be sorted, with as many images in each class; counts are {counts.tolist()}")
        held = {"images": self.images.detach().to("cpu", torch.float32), "labels": self.labels.cpu(), "factor": int(self.factor), "classes": classes}
        for name, value in {**held, **checks.statistics(self.mean, self.std, self.channels)}.items():
            object.__setattr__(self, name, value)  # frozen from here on

    @property
    def ipc(self) -> int:
        """Condensed images per class."""
        return len(self.labels) // len(self.classes)

    @property
    def channels(self) -> int:
        return self.images.shape[1]

    @property
    def size(self) -> int:
        """Side of an image in pixels."""
        return self.images.shape[2]

    def form(self) -> tuple[Tensor, Tensor]:
        """The formed images, float [N*factor², C, S, S] in 0..1, and their labels, int64 [N*factor²]."""
        return formation.form(self.images, self.factor), self.formed_labels

    @property
    def formed_labels(self) -> Tensor:
        """Labels of the formed images, int64 [N*factor²]."""
        return self.labels.repeat_interleave(self.factor**2)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that change with the images and the factor; dynamics name their set by it."""
        pixels = self.images.float().contiguous().numpy().tobytes()
        factor = self.factor.to_bytes(max(1, (self.factor.bit_length() + 7) // 8))  # one byte up to 255
        return hashlib.sha256(pixels + factor).hexdigest()[:12]

    def normalise(self, images: Tensor) -> Tensor:
        """Images in 0..1 -> (images - mean) / std, which networks train on."""
        return normalise(images, self.mean, self.std)

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file, whole or not at all; images stay float32. Returns the path."""
        values = {name: getattr(self, name) for name in ("factor", "classes", "mean", "std", "method")}
        tensors = {"images": self.images.float(), "labels": self.labels}
        return files.save_tensors(path, KIND, tensors, {**values, "info": dict(self.info)})

    @classmethod
    def load(cls, path: str | Path) -> "CondensedSet":
        """Read a file of `save`. Raises FileNotFoundError, or ValueError where the file is damaged or does not fit."""
        tensors, values = files.load_tensors(path, KIND)
        try:
            sequences = {name: tuple(values[name]) for name in ("classes", "mean", "std")}
            return cls(tensors["images"], tensors["labels"], values["factor"], method=values["method"], info=values["info"], **sequences)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is no valid condensed set: {error}") from error

    @classmethod
    def from_published(
        cls,
        path: str | Path,
        method: str,
        *,
        factor: int = 1,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        classes: Sequence[str] | None = None,
        dataset: str | None = None,
        experiment: int = 0,
        whitened: bool | None = None,
        zca: str | Path | tuple[Tensor, Tensor] | None = None,
    ) -> "CondensedSet":
        """Read a set as its authors publish it. Nothing is unpickled but tensors, numbers and text.

        method: "idc", "dream": data.pt, a pair of images [N, C, S, S] in 0..1 and labels [N]. "dsa": a dict whose "data"
        lists such pairs, normalised, one an `experiment`. "mtt": images_best.pt with labels_best.pt beside it, normalised or
        ZCA-whitened. "kip": .npz or .pt of images and labels (or x and y), or a pair in .pt; images [N, H, W, C] in 0..1,
        standardised or ZCA-whitened, labels [N] or float [N, K], of which the class is the argmax.
        mean, std: per channel in 0..1, of the real images. Not given, they are CIFAR's for 3 channels, 10 or 100 classes and
        less than 64 pixels, ImageNet's from 64 pixels on (unless `dataset` names another), except for standardised KIP
        images, which need them. classes: names ("0", "1", …). dataset: noted in info, where CCS looks for its cutoff.
        whitened, zca: of MTT and KIP. Whether a set is whitened is not in the file. None refuses what looks so: "zca" in the
        file's name, a std below 0.7, neighbouring pixels that correlate below 0.7, or more than a quarter of the values
        outside 0..1 once un-normalised; False takes the set for normalised all the same. zca: the inverse, a matrix [D, D]
        and a mean [D] with flattened image = flattened held image @ matrix + mean in the file's order of dimensions, or a
        safetensors file of "matrix" and "mean". It gives MTT images in 0..1 (its authors whiten those) and KIP standardised.
        Values that overshoot 0..1 are clamped, and counted in info ("clamped" of "values"); beside it, info says the file's
        name, what it was un-normalised by, and how well KIP's float labels agree with their class (1: one-hot).
        Raises FileNotFoundError, TypeError or ValueError at bad arguments; ValueError that names the file where it is
        damaged, holds more than tensors, or its images, labels or classes do not fit (as many images of each class).
        """
        given = {"mean": mean, "std": std, "classes": classes, "dataset": dataset}
        return cls(factor=factor, **published.read(path, method, **given, experiment=experiment, whitened=whitened, zca=zca))

    def rank(self, dynamics: Any = None, method: str = "yoco", **options: Any) -> RankedSet:
        """Order the formed images so that the first k of every class are the method's balanced choice, for every k at once.

        dynamics: `Dynamics` of this set, or None for a nested set (`condense(nested=...)`), which is ranked as it is; method:
        a name in `prune.METHODS` that goes by a score; options: of `prune.prune`, but balanced. Raises as `prune.prune`, and
        ValueError at "ssp" and "ccs", which choose anew for every budget, and if dynamics are missing for any other set.
        """
        order, how = self._nested_order() if dynamics is None else self._order_by(dynamics, method, options)
        cells = formation.cells(self.images.float(), self.factor)[order].transpose(0, 1).contiguous()
        made = {name: self.info.get(name) for name in ("dataset", "preset", "steps", "seed", "precision")}
        info = {**how, "set": self.fingerprint, **made}
        return RankedSet(cells, self.factor, self.size, self.classes, self.mean, self.std, self.method, info)

    def _order_by(self, dynamics: Any, method: str, options: Mapping[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        """The formed images of each class, best first, int64 [classes, n], and what info says of it."""
        from yoco import prune  # the one call down the list of files: what ranks is made of values that it makes

        order = prune.ranking(self, dynamics, method, **options)
        keep = options.get("keep") or prune.METHODS[method].keep
        return order, {"ranked_by": method, "keep": keep, "options": dict(options), "dynamics": dict(dynamics.info)}

    def _nested_order(self) -> tuple[Tensor, dict[str, Any]]:
        """The same of a nested set: the order that the formed images are in."""
        if not self.info.get("nested"):
            raise ValueError("dynamics of this set are needed, got None: only a set condensed with nested= is ranked without them")
        order = torch.arange(len(self.formed_labels)).view(len(self.classes), -1)
        return order, {"ranked_by": "nested", "budgets": self.info["nested"]}


def normalise(images: Tensor, mean: Sequence[float] | Tensor, std: Sequence[float] | Tensor) -> Tensor:
    """Float images [N, C, H, W] in 0..1 -> (images - mean) / std, per channel. On a GPU, tensors that are there spare a copy."""
    mean, std = (torch.as_tensor(values, dtype=images.dtype, device=images.device).view(1, -1, 1, 1) for values in (mean, std))
    return (images - mean) / std
