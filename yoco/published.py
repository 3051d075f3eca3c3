"""Condensed sets as their authors publish them (IDC, DREAM, DSA, MTT, KIP): a file in, images in 0..1 class after class out."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor
from torch.serialization import safe_globals

from yoco import checks
from yoco.data import CIFAR_MEAN, CIFAR_STD, IMAGENET_MEAN, IMAGENET_STD

WHITENED = ("mtt", "kip")  # methods whose authors publish ZCA-whitened sets too
NAMES = {"images": ("images", "x"), "labels": ("labels", "y")}  # of KIP's arrays: the published name first
OUTSIDE = 0.25  # a larger share of values outside 0..1 than this is no overshoot
# Normalised CIFAR-10 has a std of 1.24 and neighbouring pixels that correlate at 0.94; ZCA-whitened with a regularisation
# of 0.1 down to 1e-6 it has a std of 0.27 up to 0.98 and a correlation of 0.68 down to 0.10
CONTRAST, CORRELATION = 0.7, 0.7
WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
ROUNDING = 1e-6  # how far a value may leave 0..1 in float32 and not count as clamped
_MORE = ("unsupported global", "unrecognized function", "allowlisted", "object arrays")  # what refusals of torch and numpy say


class _Number:
    """Stands in for a numpy number of a DSA file, an accuracy that nothing needs: numpy's own code can be crashed by a file."""

    def __init__(self, *_: object) -> None: ...
    def __setstate__(self, _: object) -> None: ...


_NUMBERS = [(_Number, name) for name in ("numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")]


def read(
    path: str | Path,
    method: str,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    classes: Sequence[str] | None = None,
    dataset: str | None = None,
    experiment: int = 0,
    whitened: bool | None = None,
    zca: str | Path | tuple[Tensor, Tensor] | None = None,
) -> dict[str, Any]:
    """Read a published file; see `CondensedSet.from_published` for the arguments, the rules and what is raised.

    Returns images float32 [N, C, S, S] in 0..1, labels int64 [N], both class after class, classes, mean, std, method, info.
    """
    path = Path(path)
    _check_arguments(method, mean, std, dataset, experiment, whitened, zca)
    if not path.is_file():
        raise FileNotFoundError(f"no file at {path}")
    inverse = None if zca is None else _inverse(zca)
    held_images, held_labels = _HELD[method](path, experiment)
    try:
        images = _floats(held_images)
        labels, names, agreement = _classes(held_labels, len(images), classes)
        if inverse is not None:
            images = _unwhiten(images, *inverse)
        images = images.permute(0, 3, 1, 2) if method == "kip" else images
        if images.shape[2] != images.shape[3]:
            raise ValueError(f"images must be square, got {images.shape[2]}×{images.shape[3]} pixels of {images.shape[1]} channels")
        mean, std, assumed = _statistics(mean, std, dataset, images, len(names))
        normalised = _is_normalised(method, images, inverse is not None, assumed)
        plain = images * images.new_tensor(std).view(1, -1, 1, 1) + images.new_tensor(mean).view(1, -1, 1, 1) if normalised else images
        if normalised and method in WHITENED and whitened is None and inverse is None:
            _refuse_whitened(path, images, plain)
        plain, clamped = _clamped(plain, limited=whitened is not False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} holds no {method} set that can be read: {error}") from error
    info = {
        "source": path.name, "published_by": method, "unnormalised": {"mean": list(mean), "std": list(std)} if normalised else None,
        "statistics": assumed or "given", "unwhitened": inverse is not None, "clamped": clamped, "values": plain.numel(),
        **({"experiment": experiment} if method == "dsa" else {}), **agreement, **({"dataset": dataset} if dataset else {}),
    }
    order = labels.argsort(stable=True)
    values = {"classes": names, "mean": mean, "std": std, "method": method, "info": info}
    return {"images": plain[order].contiguous(), "labels": labels[order], **values}


def _check_arguments(method: str, mean: object, std: object, dataset: object, experiment: object, whitened: object, zca: object) -> None:
    checks.one_of("method", method, _HELD)
    checks.whole("experiment", experiment, 0)
    if experiment and method != "dsa":
        raise ValueError(f"experiment={experiment} chooses among those of a dsa file; one of {method} holds a single set")
    if (mean is None) != (std is None):
        raise ValueError(f"mean and std go together, got mean={mean} and std={std}")
    if dataset is not None and not isinstance(dataset, str):
        raise TypeError(f"dataset must be a name, got {dataset!r}")
    if whitened not in (None, True, False):
        raise TypeError(f"whitened must be True, False or None (unknown), got {whitened!r}")
    if method not in WHITENED and (whitened or zca is not None):
        raise ValueError(f"whitened and zca are for {' and '.join(WHITENED)} files, got method={method!r}")
    if whitened and zca is None:
        raise ValueError("whitened=True needs zca: the transform's inverse, (matrix [D, D], mean [D]) or a safetensors file of the two")
    if whitened is False and zca is not None:
        raise ValueError("zca undoes a whitening, but whitened=False says that there was none")


def _tensors(path: Path) -> Any:
    """What a torch file holds, where that is tensors, numbers, text and containers of them."""
    try:
        with safe_globals(_NUMBERS):
            return torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # a damaged pickle raises nearly anything
        raise _refusal(path, error) from error


def _archive(path: Path) -> dict[str, Tensor]:
    """Images and labels of an .npz archive, by the names of `NAMES`."""
    try:
        with np.load(path) as archive:
            return {name: torch.from_numpy(archive[name]) for names in NAMES.values() for name in names if name in archive.files}
    except Exception as error:  # so does a damaged archive
        raise _refusal(path, error) from error


def _refusal(path: Path, error: Exception) -> ValueError:
    if any(word in str(error).lower() for word in _MORE):
        return ValueError(f"{path} holds more than tensors; what it holds is not run, and the file not read")
    return ValueError(f"{path} is damaged, cut short, or holds more than tensors; nothing in it was run ({type(error).__name__})")


def _pair(path: Path, held: object) -> tuple[object, object]:
    if not isinstance(held, (tuple, list)) or len(held) != 2:
        raise ValueError(f"{path} must hold a pair [images, labels], got {_describe(held)}")
    return held[0], held[1]


def _experiment(path: Path, held: object, number: int) -> tuple[object, object]:
    data = held.get("data") if isinstance(held, Mapping) else None
    if not isinstance(data, (tuple, list)):
        raise ValueError(f"{path} must hold a dict whose 'data' lists [images, labels] pairs, got {_describe(held)}")
    if number >= len(data):
        raise ValueError(f"{path} holds {len(data)} experiments, counted from 0; got experiment={number}")
    return _pair(path, data[number])


def _best(path: Path) -> tuple[object, object]:
    beside = path.with_name(path.name.replace("images", "labels"))
    if beside == path:
        raise ValueError(f"{path}: give the images' file (images_best.pt), beside which lies the labels' (labels_best.pt)")
    if not beside.is_file():
        raise FileNotFoundError(f"no file at {beside}, which holds the labels of {path.name}")
    return _tensors(path), _tensors(beside)


def _named(path: Path) -> tuple[object, object]:
    held = _archive(path) if path.suffix == ".npz" else _tensors(path)
    if not isinstance(held, Mapping):
        return _pair(path, held)
    found = [next((held[name] for name in names if name in held), None) for names in NAMES.values()]
    if any(part is None for part in found):
        raise ValueError(f"{path} must hold arrays named {' and '.join(map('/'.join, NAMES.values()))}, got {_describe(held)}")
    return found[0], found[1]


_HELD = {
    "idc": lambda path, _: _pair(path, _tensors(path)),
    "dream": lambda path, _: _pair(path, _tensors(path)),
    "dsa": lambda path, experiment: _experiment(path, _tensors(path), experiment),
    "mtt": lambda path, _: _best(path),
    "kip": lambda path, _: _named(path),
}


def _describe(held: object) -> str:
    of = sorted(map(str, held))[:8] if isinstance(held, Mapping) else len(held) if isinstance(held, (tuple, list)) else None
    return type(held).__name__ + (f" of {of}" if of is not None else "")


def _is_plain(held: object) -> bool:
    """Whether it is a tensor with its values in memory, which a sparse or a "meta" one has not."""
    return isinstance(held, Tensor) and held.layout is torch.strided and held.device.type == "cpu"


def _floats(held: object) -> Tensor:
    if not _is_plain(held) or not held.is_floating_point():
        raise TypeError(f"images must be a plain float tensor, got {getattr(held, 'dtype', type(held).__name__)}")
    if held.ndim != 4 or 0 in held.shape:
        raise ValueError(f"images must have four dimensions, none of them 0, got {list(held.shape)}")
    return checks.finite("images", held.detach().float())


def _classes(held: object, count: int, classes: Sequence[str] | None) -> tuple[Tensor, tuple[str, ...], dict[str, Any]]:
    """Labels int64 [N], the classes' names, and what is to be noted of float labels."""
    agreement = {}
    if _is_plain(held) and held.is_floating_point() and held.ndim == 2:
        known = held.shape[1]
        held, agreement = _from_float_labels(held.detach().float())
    elif _is_plain(held) and held.ndim == 1 and held.dtype in WHOLE:
        # more classes than images cannot each have one, so that an absurd label makes no absurd list of names
        held, known = held.long(), min(int(held.max()) + 1, count) if len(held) else 0
    else:
        got = f"{held.dtype} {list(held.shape)}" if isinstance(held, Tensor) else type(held).__name__
        raise TypeError(f"labels must be whole numbers [N] or float [N, K], got {got}")
    if isinstance(classes, str):
        raise TypeError(f"classes must be a sequence of names, got {classes!r}")
    names = tuple(map(str, range(known) if classes is None else classes))
    checks.labels("labels", held, count, len(names))
    counts = torch.bincount(held, minlength=len(names))
    if not len(names) or (counts != counts[0]).any():
        raise ValueError(f"every one of {len(names)} classes must have as many images; counts are {counts.tolist()[:100]}")
    return held, names, agreement


def _from_float_labels(values: Tensor) -> tuple[Tensor, dict[str, Any]]:
    """Argmax of float labels [N, K], and how well they agree with it: the cosine to the one-hot label, both less their mean
    (1: a plain or mean-centred one-hot label; lower: a learned one)."""
    checks.finite("labels", values)
    labels = values.argmax(1)
    own = values - values.mean(1, keepdim=True)
    if values.shape[1] < 2 or (own == 0).all(1).any():
        raise ValueError(f"labels [N, K] must single out one of K≥2 classes in every row, got {list(values.shape)} with rows that do not")
    hot = torch.nn.functional.one_hot(labels, values.shape[1]) - 1 / values.shape[1]
    cosine = torch.cosine_similarity(own, hot, dim=1)
    return labels, {"label_agreement": {"mean": round(cosine.mean().item(), 4), "min": round(cosine.min().item(), 4)}}


def _statistics(
    mean: Sequence[float] | None, std: Sequence[float] | None, dataset: str | None, images: Tensor, classes: int
) -> tuple[tuple[float, ...], tuple[float, ...], str | None]:
    """mean, std, and whose they are where they were not given: CIFAR's or ImageNet's."""
    channels, size = images.shape[1:3]
    if mean is not None and std is not None:
        for name, values, low in (("mean", mean, 0.0), ("std", std, 1e-6)):
            if len(values) != channels:
                raise ValueError(f"{name} must hold {channels} values, one a channel, got {len(values)}")
            for value in values:
                checks.real(name, value, low, 1)
        return tuple(map(float, mean)), tuple(map(float, std)), None
    known = dataset is None or dataset.removeprefix("folder:").startswith(("cifar", "imagenet"))
    if channels != 3 or classes not in (10, 100) or not known:
        what = f"{channels} channels, {classes} classes and dataset={dataset!r} has no usual ones"
        raise ValueError(f"mean and std must be given, those of the real training images in 0..1: a set of {what}")
    return (CIFAR_MEAN, CIFAR_STD, "CIFAR's, assumed") if size < 64 else (IMAGENET_MEAN, IMAGENET_STD, "ImageNet's, assumed")


def _is_normalised(method: str, images: Tensor, unwhitened: bool, assumed: str | None) -> bool:
    """Whether mean and std are in the values. MTT's authors whiten images in 0..1, KIP's standardised ones."""
    if method == "kip":
        normalised = bool((images < 0).any() or (images > 1).any())
        if normalised and assumed:
            raise ValueError(f"images are standardised ({images.min():.3g}..{images.max():.3g}): mean and std must be given")
        return normalised
    return method == "dsa" or (method == "mtt" and not unwhitened)


def _refuse_whitened(path: Path, images: Tensor, plain: Tensor) -> None:
    """Raise a ValueError where the file's name, its images or the same un-normalised (plain) look ZCA-whitened."""
    outside = ((plain < 0) | (plain > 1)).float().mean().item()
    contrast = images.std().item()
    pairs = torch.stack([images[..., :-1].flatten(), images[..., 1:].flatten()])
    correlation = torch.corrcoef(pairs)[0, 1].item() if images.shape[-1] > 1 and contrast else 1.0
    named = "zca" in path.stem.lower().split("_")
    if named or contrast < CONTRAST or correlation < CORRELATION or outside > OUTSIDE:
        raise ValueError(
            f"it looks ZCA-whitened (named so: {named}; std {contrast:.2f}, normalised images have about 1; neighbouring pixels correlate "
            f"at {correlation:.2f}, in images above {CORRELATION}; {outside:.0%} of the values would lie outside 0..1). Give zca, the "
            "transform's inverse as (matrix [D, D], mean [D]) or a safetensors file of the two, or whitened=False if it is not"
        )


def _inverse(zca: str | Path | tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    if isinstance(zca, (str, Path)):
        if not Path(zca).is_file():
            raise FileNotFoundError(f"zca: no file at {zca}")
        try:
            held = safetensors.torch.load_file(zca)
            zca = held["matrix"], held["mean"]
        except (safetensors.SafetensorError, KeyError) as error:
            raise ValueError(f"zca: {zca} must be a safetensors file of 'matrix' and 'mean': {error}") from error
    if not isinstance(zca, (tuple, list)) or len(zca) != 2 or not all(isinstance(part, Tensor) for part in zca):
        raise TypeError(f"zca must be a pair of tensors (matrix, mean) or a path, got {type(zca).__name__}")
    return checks.finite("zca's matrix", zca[0].float()), checks.finite("zca's mean", zca[1].float().flatten())


def _unwhiten(images: Tensor, matrix: Tensor, mean: Tensor) -> Tensor:
    flat = images.flatten(1)
    wide = flat.shape[1]
    if list(matrix.shape) != [wide, wide] or len(mean) != wide:
        raise ValueError(f"zca must be a matrix [{wide}, {wide}] and a mean [{wide}], got {list(matrix.shape)} and {list(mean.shape)}")
    return (flat @ matrix + mean).view_as(images)


def _clamped(images: Tensor, limited: bool) -> tuple[Tensor, int]:
    """Images clamped to 0..1 and how many values that moved. Where limited, a larger share than OUTSIDE is refused."""
    count = int(((images < -ROUNDING) | (images > 1 + ROUNDING)).sum())
    if limited and count > OUTSIDE * images.numel():
        low, high = images.min().item(), images.max().item()
        raise ValueError(f"images must lie in 0..1 once un-normalised, got {low:.3g}..{high:.3g} with {count / images.numel():.0%} outside")
    return images.clamp(0, 1), count
