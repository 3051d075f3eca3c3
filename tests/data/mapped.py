"""Load a folder, condense from it, and report the memory that this took.

`python -m tests.data.mapped SMALL FOLDER` prints one line of JSON. The memory is the process's own
(RssAnon): pages of a mapped file belong to the system's cache, which releases them when memory is
needed for something else.
"""

import json
import re
import sys
import threading
import time
from pathlib import Path

from yoco import condense, data
from yoco.data import decode

SETTINGS = {
    "model": "convnet",
    "width": 2,
    "outer_loops": 1,
    "inner_loops": 1,
    "network_batch": 4,
    "network_images": 64,
    "real_batch": 4,
}


class Watch(threading.Thread):
    """The largest anonymous memory in MB, sampled every two milliseconds."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.before = self.most = self.now()
        self.start()

    def now(self) -> float:
        return int(re.search(r"RssAnon:\s*(\d+)", Path("/proc/self/status").read_text())[1]) / 1024

    def run(self) -> None:
        while True:
            self.most = max(self.most, self.now())
            time.sleep(0.002)


def work(folder: str) -> tuple[data.ImageData, bool]:
    """Load, read everything once, and condense.

    The network step takes 64 images, which are 75 MB as floats with 320 pixels per side.
    """
    real = data.load(f"folder:{folder}", progress=False)
    same = data.channel_statistics(real.train_images) == (real.mean, real.std)
    condense.condense(
        real, "idc", 1, 1, preset="smoke", progress=False, precision="float32", **SETTINGS
    )
    return real, same


def inodes(real: data.ImageData) -> list[str]:
    """The files from which this process maps the training images."""
    maps = Path("/proc/self/maps").read_text().splitlines()
    return sorted({line.split()[4] for line in maps if real.train_images.mapped_from.name in line})


def main() -> None:
    # a small folder with images of the same side: what is imported, and what a step takes
    work(sys.argv[1])
    decoded, read_image = [], decode.read_image
    decode.read_image = lambda *arguments: decoded.append(1) or read_image(*arguments)
    watch = Watch()
    real, same = work(sys.argv[2])
    sizes = {"grown_mb": watch.most - watch.before, "pixels_mb": real.train_images.nbytes / 2**20}
    print(json.dumps({**sizes, "decoded": len(decoded), "same": same, "inodes": inodes(real)}))


if __name__ == "__main__":
    main()
