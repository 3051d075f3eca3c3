"""`Dynamics`: what one training run showed for each formed image, epoch by epoch.

Also their file format, and the epochs that LBPE reads by default.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int64, jaxtyped
from torch import Tensor

from yoco.sets.condensed_set import CondensedSet
from yoco.training.protocol import BEFORE
from yoco.utils import above, checks, digests, tensor_files

KIND = "dynamics"
EARLY = 10  # epochs that EL2N reads
# runs of at most this length keep the logits of all epochs, so LBPE allows any settings
SHORT = 30
CUTMIX = 0.5  # probability while recording, for any augmentation, as in the published code
# paper settings of LBPE (design §5): top_k and within; for CIFAR-10, and CIFAR-100 and ImageNet-10
LBPE_SMALL, LBPE_LARGE = (10, 100), (10, 200)


def lbpe_settings(condensed: CondensedSet) -> tuple[int, int]:
    """Return LBPE's (top_k, within) for a set.

    They are what its method declares (`condense.Condenser.lbpe`), or else the paper's, by number of
    classes and size.
    """
    own = condensed.info.get("lbpe")
    if own is None:  # the paper's, or a file of version 0.1
        own = above.FUNCTIONS["lbpe_declared"](condensed.method, condensed.factor)
    large = len(condensed.classes) >= 100 or condensed.size >= 64
    top_k, within = own or (LBPE_LARGE if large else LBPE_SMALL)
    return top_k, within


@dataclass(frozen=True, eq=False)
class Dynamics:
    """What one training run showed for N formed images of K classes over E epochs.

    Attributes:
        logits: float [E_kept, N, K], of the epochs in `kept`.
        kept: int64 [E_kept], ascending: the epochs whose logits a score can use.
        correct: bool [E, N].
        aum: float [N], mean margin over the epochs.
        labels: int64 [N].
        final_logits: float [N, K], of the trained network on the unaugmented images (None if the
            run stopped before the end of the schedule).
        features: float [N, D], likewise.
        margins: float [E_early, N], the margin in each epoch of the longest window (None in files
            of earlier versions).
        info: fingerprint of the set, settings, seed, top_k, windows.

    Raises:
        TypeError, ValueError: if these do not fit each other.
    """

    logits: Float[Tensor, "kept images classes"]
    kept: Int64[Tensor, "kept"]
    correct: Bool[Tensor, "epochs images"]
    aum: Float[Tensor, "images"]
    labels: Int64[Tensor, "images"]
    final_logits: Float[Tensor, "images classes"] | None = None
    features: Float[Tensor, "images features"] | None = None
    margins: Float[Tensor, "first images"] | None = None
    info: Mapping[str, Any] = field(default_factory=dict)

    @property
    def accuracy(self) -> Float[Tensor, "epochs"]:
        """Training accuracy of each epoch, float [E] in 0..1."""
        return self.correct.float().mean(1)

    @property
    def forgetting(self) -> Float[Tensor, "images"]:
        """How often each image went from right to wrong, float [N]."""
        return forgotten(self.correct)

    @property
    def complete(self) -> bool:
        """Whether the whole schedule was run, which AUM, forgetting, entropy and SSP need."""
        return self.final_logits is not None

    @property
    def training(self) -> dict[str, str]:
        """The `Protocol` fields that the training runs of a study must share.

        These are "last_batch" and "augmentation"; empty if the info does not say how the dynamics
        were recorded.
        """
        return (
            {name: self.info.get(name, before) for name, before in BEFORE.items()}
            if "epochs" in self.info
            else {}
        )

    def label_probability(
        self, indices: Sequence[int] | Int[Tensor, "chosen"]
    ) -> Float[Tensor, "kept chosen"]:
        """Return the probability of each image's label in the kept epochs, [E_kept, n] in 0..1.

        indices: formed images, in 0..N-1; may be empty. Raises TypeError or ValueError for others.
        """
        numbers, last = torch.as_tensor(indices).tolist(), len(self.labels) - 1
        checked = [checks.whole("indices", number, 0, last) for number in numbers]
        chosen = torch.tensor(checked, dtype=torch.long)
        return self.logits[:, chosen].softmax(-1)[:, torch.arange(len(chosen)), self.labels[chosen]]

    def of(self, condensed: CondensedSet) -> bool:
        """Return whether these dynamics were recorded on that set.

        The labels must be the same, and so must the images, mean and std if the info records them.
        """
        told = self.info.get(digests.MADE_FROM, {}).get("mean and std")
        return (
            torch.equal(self.labels, condensed.formed_labels)
            and self.info.get("set") in (None, condensed.fingerprint)
            and told in (None, condensed.made_from["mean and std"])
        )

    def early_logits(self, epochs: int = EARLY) -> Float[Tensor, "epochs images classes"]:
        """Return the logits of the first `epochs` epochs, or of all if there are fewer.

        Raises ValueError if they were not kept.
        """
        wanted = torch.arange(min(checks.whole("epochs", epochs, 1), len(self.correct)))
        return self._rows(wanted, f"the first {epochs} epochs", "early")

    def early_aum(self, within: int) -> Float[Tensor, "images"]:
        """Return the mean margin over the first `within` epochs, or over all if there are fewer.

        It is over all epochs of files of earlier versions too, which hold no margins. Raises
        ValueError if `within` exceeds the longest window recorded.
        """
        if checks.whole("within", within, 1) >= len(self.correct) or self.margins is None:
            return self.aum
        if within > len(self.margins):
            raise ValueError(
                f"within={within} exceeds the {len(self.margins)} epochs whose margins were kept; "
                f"record again with other windows (recorded with: {dict(self.info)})"
            )
        return self.margins[:within].mean(0)

    def top_logits(self, top_k: int, within: int) -> Float[Tensor, "epochs images classes"]:
        """Return the logits of the `top_k` most accurate epochs among the first `within`.

        Raises ValueError if they were not kept.
        """
        return self._rows(
            top_epochs(self.accuracy, top_k, within),
            f"the best {top_k} of the first {within} epochs",
            "top_k or windows",
        )

    def _rows(self, wanted: Tensor, what: str, setting: str) -> Tensor:
        rows = torch.searchsorted(self.kept, wanted).clamp(max=len(self.kept) - 1)
        if not torch.equal(self.kept[rows], wanted):
            raise ValueError(
                f"logits of {what} were not kept; record again with another {setting} (recorded "
                f"with: {dict(self.info)})"
            )
        return self.logits[rows]

    def save(self, path: str | Path, dtype: torch.dtype = torch.float32) -> Path:
        """Write one safetensors file, atomically.

        dtype: floating point dtype of logits and features; float16 halves the file. Raises
        TypeError for others.
        """
        if dtype not in checks.FLOATS:
            raise TypeError(f"dtype must be of {checks.FLOATS}, got {checks.shown(dtype)}")
        smaller = ("logits", "final_logits", "features")
        tensors = {
            name: values.to(dtype) if name in smaller else values
            for name, values in vars(self).items()
            if isinstance(values, Tensor)
        }
        # takes an eighth of the bytes of bool
        tensors["correct"] = torch.from_numpy(np.packbits(self.correct.numpy(), axis=1))
        return tensor_files.save_tensors(path, KIND, tensors, dict(self.info))

    @classmethod
    def load(cls, path: str | Path) -> "Dynamics":
        """Read a file written by `save`.

        Raises FileNotFoundError, or ValueError if the file is corrupted or inconsistent.
        """
        tensors, info = tensor_files.load_tensors(path, KIND)
        wide = {
            name: tensor.float() if tensor.is_floating_point() else tensor
            for name, tensor in tensors.items()
        }
        try:
            if wide["correct"].dtype == torch.uint8:  # bool in the first files
                wide["correct"] = _unpacked(wide["correct"], len(wide["labels"]))
            return cls(**wide, info=info)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ValueError(f"{path} holds no valid dynamics: {error}") from error

    @jaxtyped(typechecker=None)  # an axis has the same length in all of the fields
    def __post_init__(self) -> None:
        shapes: dict[str, Any] = {f.name: f.type for f in fields(self) if f.name != "info"}
        for name, kind in shapes.items():
            values = getattr(self, name)
            if not isinstance(values, kind):
                tensor = isinstance(values, Tensor)
                came = f"{values.dtype} {[*values.shape]}" if tensor else checks.shown(values)
                raise ValueError(
                    f"{name} must be {getattr(kind, '__name__', kind)}, with the images and "
                    f"classes of logits, got {came}"
                )
        checks.labels("labels", self.labels, *self.logits.shape[1:])
        kept, last = self.kept.tolist(), len(self.correct) - 1
        if kept != sorted({*kept}) or (kept and not 0 <= kept[0] <= kept[-1] <= last):
            raise ValueError(f"kept must be ascending, within 0..{last}, got {kept[:20]}")


def _unpacked(bits: Tensor, count: int) -> Tensor:
    if bits.ndim != 2 or bits.shape[1] != -(-count // 8):
        raise ValueError(
            f"correct must be uint8 [E, {-(-count // 8)}], 8 images per byte, got "
            f"{list(bits.shape)}"
        )
    return torch.from_numpy(np.unpackbits(bits.numpy(), axis=1, count=count)).bool()


def top_epochs(accuracy: Float[Tensor, "epochs"], top_k: int, within: int) -> Int[Tensor, "kept"]:
    """Return the `top_k` epochs of highest training accuracy [E] among the first `within`.

    The epochs are int64, ascending; ties: the earlier epoch. If there are fewer epochs, all are
    returned. Raises TypeError or ValueError unless both numbers are whole and at least 1.
    """
    checks.whole("top_k", top_k, 1)
    checks.whole("within", within, 1)
    order = accuracy[:within].argsort(descending=True, stable=True)
    return order[:top_k].sort().values


def margin(
    logits: Float[Tensor, "*epochs images classes"], labels: Int[Tensor, "images"]
) -> Float[Tensor, "*epochs images"]:
    """Return the logit of the label minus the largest other logit, float [..., N].

    logits: [..., N, K]. labels: int64 [N]. Raises ValueError if K is 1: there is no other logit,
    and infinite margins would order nothing.
    """
    if logits.shape[-1] < 2:
        raise ValueError(
            "logits must be of at least 2 classes, since a margin needs another class's logit, got "
            f"{list(logits.shape)}"
        )
    own = labels.expand(logits.shape[:-1]).unsqueeze(-1)
    others = logits.scatter(-1, own, float("-inf")).amax(-1)
    return logits.gather(-1, own).squeeze(-1) - others


def forgotten(correct: Bool[Tensor, "epochs images"]) -> Float[Tensor, "images"]:
    """Return how often each image goes from right to wrong, float [N] from bool [E, N]."""
    return (correct[:-1] & ~correct[1:]).sum(0).float()
