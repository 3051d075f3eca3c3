"""Digests of what an artefact was made from, and the check that it is used with the same."""

import hashlib
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor

MADE_FROM = "made_from"  # key under which artefacts store their digests, by part
BLOCK = 2**23  # bytes of images digested at a time
HOW = "choose another folder (--run-dir), or start from scratch (--fresh)"
_HELD = "yoco_digest"  # attribute of a tensor: its version and its digest


def of_bytes(*parts: bytes | memoryview) -> str:
    """Return 16 hexadecimal digits of the BLAKE2b hash of some bytes."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def of_text(value: object) -> str:
    """Return the digest of a value's repr."""
    return of_bytes(repr(value).encode())


def of_tensor(values: Shaped[Tensor, "..."]) -> str:
    """Return the digest of a tensor's bytes, block by block; a mapped file is read once.

    It is stored with the tensor until the tensor is written to.
    """
    version = writes(values)
    held = getattr(values, _HELD, None)
    if held is not None and held[0] == version:
        return held[1]
    row = max(1, values[:1].numel() * values.itemsize)
    digest = of_blocks([of_block(part) for part in values.split(rows_of(row))])
    setattr(values, _HELD, (version, digest))
    return digest


def rows_of(row_bytes: int) -> int:
    """Return the number of rows per block, for rows of `row_bytes` bytes."""
    return max(1, BLOCK // row_bytes)


def of_block(values: Shaped[Tensor, "..."]) -> str:
    """Return the digest of a tensor's bytes, dtype, and shape beyond the first dimension."""
    plain = values.detach().cpu().contiguous()
    told = repr((str(plain.dtype), list(plain.shape[1:]))).encode()
    return of_bytes(told, plain.reshape(-1).view(torch.uint8).numpy().data)


def of_blocks(blocks: list[str]) -> str:
    """Return the digest of a tensor from those of its blocks, in order."""
    return of_text(blocks)


def keep(values: Shaped[Tensor, "*shape"], digest: str) -> Shaped[Tensor, "*shape"]:
    """Store a digest that was computed along with the tensor's blocks; return the tensor."""
    setattr(values, _HELD, (writes(values), digest))
    return values


def writes(values: Shaped[Tensor, "..."]) -> int:
    """Return how often a tensor was written to; 0 in inference mode, where that is not known."""
    return 0 if values.is_inference() else values._version


def check(what: str, stored: Any, own: Mapping[str, str], how: str = HOW) -> None:
    """Check that an artefact was made from the data that it is used with now.

    Args:
        what: the artefact, for messages.
        stored: its digests by part; None in a file of the previous version, which only warns. Parts
            that it lacks are not compared (see `found_set.is_of`).
        own: the current digests.
        how: what the user can do, for the error.

    Raises:
        ValueError: if a part differs; it names all parts that do.
    """
    if stored is None:
        warnings.warn(
            f"{what} is from an earlier version of yoco, which did not record the data that it was "
            "made from, so whether the data are the same cannot be checked",
            stacklevel=3,
        )
        return
    parts = stored if isinstance(stored, Mapping) and stored else dict.fromkeys(own)
    differ = [part for part, digest in own.items() if parts.get(part, digest) != digest]
    if differ:
        raise ValueError(
            f"{what} was made from other data, which differ in {', '.join(differ)}: {how}"
        )
