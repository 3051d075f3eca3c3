"""A folder in a few files of a limited size, which travel more easily than many or large ones.

`cat NAME.tar.* | tar x` unpacks them by hand.
"""

import io
import tarfile
from pathlib import Path

PIECE = 15 * 2**20  # bytes


def pack(folder: Path, out: Path, size: int = PIECE) -> int:
    """Write the files of `folder` to pieces of one archive in `out`; return how many there are.

    Pieces of an earlier archive are replaced once all new ones are written.
    """
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as archive:
        for path in sorted(folder.iterdir()):
            if path.is_file() and not path.name.startswith("."):
                archive.add(path, path.name)
    data, old = held.getvalue(), pieces(folder, out)
    parts = [data[begin : begin + size] for begin in range(0, len(data), size)]
    written = [out / f"{folder.name}.tar.{number}" for number in range(len(parts))]
    for path, part in zip(written, parts):
        _unfinished(path).write_bytes(part)
    for path in written:
        _unfinished(path).rename(path)
    for path in {*old} - {*written}:
        path.unlink()
    return len(written)


def _unfinished(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def unpack(folder: Path, out: Path) -> None:
    """Write the files in the pieces of `folder` in `out`, if there are any, back into it."""
    folder.mkdir(parents=True, exist_ok=True)
    data = b"".join(path.read_bytes() for path in pieces(folder, out))
    if data:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            archive.extractall(folder, filter="data")


def pieces(folder: Path, out: Path) -> list[Path]:
    """Return the pieces of `folder` in `out`, in order."""
    return sorted(out.glob(f"{folder.name}.tar.*"), key=lambda path: int(path.suffix[1:]))
