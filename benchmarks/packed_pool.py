"""NCFM's networks in one small file: trained weights in float16, initial ones drawn again.

Twenty networks of 320,010 weights take 51 MB in the pool's folder, and 13 MB here.
"""

from pathlib import Path
from typing import Any

import torch

from yoco.condense.expert_training import ExpertTraining, PairSettings
from yoco.condense.mtt_experts import KIND
from yoco.data import ImageData
from yoco.utils import tensor_files

PACKED = "pool"  # kind of the file
CPU = torch.device("cpu")


def pack(folder: Path, path: Path) -> int:
    """Write the finished networks of a pool's folder to `path`, and return their number."""
    trained, infos = [], []
    for file in sorted(folder.glob("expert-???.safetensors")):
        tensors, info = tensor_files.load_tensors(file, KIND)
        trained.append(tensors["parameters"][-1].half())
        infos.append({"name": file.name, "info": info})
    if trained:
        tensor_files.save_tensors(path, PACKED, {"trained": torch.stack(trained)}, {"of": infos})
    return len(trained)


def unpack(path: Path, folder: Path, data: ImageData, settings: PairSettings) -> None:
    """Write the networks of `path` into a pool's folder, if there is such a file.

    Their initial weights are drawn again from their seeds, on the CPU as at first.
    """
    if not path.exists():
        return
    tensors, held = tensor_files.load_tensors(path, PACKED)
    for trained, entry in zip(tensors["trained"], held["of"]):
        parameters = torch.stack([_initial(data, settings, entry["info"]), trained.float()])
        file = folder / entry["name"]
        tensor_files.save_tensors(file, KIND, {"parameters": parameters}, entry["info"])


def _initial(data: ImageData, settings: PairSettings, info: dict[str, Any]) -> torch.Tensor:
    training = ExpertTraining(data, settings, info["identity"], CPU, False, lambda images: None)
    return training.rows[0]
