import os
import pickle
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F

from yoco import data, prune
from yoco.condensed import CondensedSet

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
read = CondensedSet.from_published


def smooth(count: int = 20, size: int = 12, channels: int = 3) -> torch.Tensor:
    """Images in 0..1 whose neighbouring pixels are alike, as in photographs."""
    coarse = torch.rand(count, channels, 4, 4, generator=torch.Generator().manual_seed(1))
    return F.interpolate(coarse, (size, size), mode="bilinear", align_corners=False)


def normalised(images: torch.Tensor, mean=data.CIFAR_MEAN, std=data.CIFAR_STD) -> torch.Tensor:
    return (images - torch.tensor(mean).view(1, -1, 1, 1)) / torch.tensor(std).view(1, -1, 1, 1)


def whitening(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Whitened images, and the inverse's matrix and mean."""
    flat = images.flatten(1).double()
    mean = flat.mean(0)
    values, vectors = torch.linalg.eigh((flat - mean).T @ (flat - mean) / len(flat) + 0.1 * torch.eye(flat.shape[1]))
    white = (flat - mean) @ (vectors * values.rsqrt()) @ vectors.T
    return white.float().view_as(images), ((vectors * values.sqrt()) @ vectors.T).float(), mean.float()


LABELS = torch.arange(10).repeat(2)  # 0, 1, …, 9, 0, 1, …: to be sorted
IMAGES = smooth()
ORDER = LABELS.argsort(stable=True)
ONE_HOT = F.one_hot(LABELS, 10).float() - 0.1  # mean-centred, as KIP's


def save_dsa(path, held):
    torch.save({"data": held, "accs_all_exps": {"ConvNet": [np.float64(0.5), np.float32(0.5), np.int64(3)]}}, path)
    return path


def save_mtt(folder, images, labels=LABELS):
    torch.save(images, folder / "images_best.pt")
    torch.save(labels, folder / "labels_best.pt")
    return folder / "images_best.pt"


def save_kip(path, images, labels, names=("images", "labels")):
    np.savez(path, **{names[0]: images.permute(0, 2, 3, 1).numpy(), names[1]: labels.numpy()})
    return path


@pytest.mark.parametrize("method", ["idc", "dream"])
@pytest.mark.parametrize("container", [list, tuple])
def test_idc_and_dream(tmp_path, method, container):
    torch.save(container([IMAGES, LABELS]), tmp_path / "data.pt")
    read_set = read(tmp_path / "data.pt", method, factor=2, dataset="cifar10")
    assert torch.equal(read_set.images, IMAGES[ORDER]) and torch.equal(read_set.labels, LABELS[ORDER])
    assert (read_set.factor, read_set.method, read_set.ipc) == (2, method, 2) and read_set.classes == tuple("0123456789")
    assert (read_set.mean, read_set.std) == (data.CIFAR_MEAN, data.CIFAR_STD)
    info = read_set.info
    assert info["source"] == "data.pt" and info["published_by"] == method and info["dataset"] == "cifar10" and info["clamped"] == 0
    assert info["unnormalised"] is None and str(tmp_path) not in str(info)


def test_a_read_set_is_saved_and_pruned(tmp_path, toy_dynamics):
    labels = torch.arange(3).repeat_interleave(5)
    torch.save([smooth(15, 16), labels], tmp_path / "data.pt")
    read_set = read(tmp_path / "data.pt", "idc", factor=2, mean=MEAN, std=STD, classes=("a", "b", "c"))
    assert read_set.classes == ("a", "b", "c") and read_set.mean == MEAN and read_set.info["statistics"] == "given"
    again = CondensedSet.load(read_set.save(tmp_path / "set.safetensors"))
    assert torch.equal(again.images, read_set.images) and again.info == read_set.info
    toy_dynamics.info["set"], before = again.fingerprint, toy_dynamics.info["set"]
    try:
        assert len(prune.prune(again, toy_dynamics, ipc_to=2).indices) == 3 * 8
    finally:
        toy_dynamics.info["set"] = before


def test_an_overshoot_is_clamped_and_counted_and_more_is_refused(tmp_path):
    images = IMAGES.clone()
    images[0, 0, 0, :3], images[1, 0, 0, 0] = 1.2, -0.1
    images[2, 0, 0, 0] = 1 + 1e-7  # rounding
    torch.save([images, LABELS], tmp_path / "data.pt")
    read_set = read(tmp_path / "data.pt", "idc")
    assert read_set.info["clamped"] == 4 and torch.equal(read_set.images, images.clamp(0, 1)[ORDER])
    torch.save([normalised(IMAGES), LABELS], tmp_path / "data.pt")
    with pytest.raises(ValueError, match=r"data.pt holds no idc set.*must lie in 0..1.*% outside"):
        read(tmp_path / "data.pt", "idc")


def test_imagenet_sized_images_take_imagenet_s_statistics_and_others_are_asked_for(tmp_path):
    torch.save([smooth(20, 64), LABELS], tmp_path / "data.pt")
    assert read(tmp_path / "data.pt", "idc", factor=3).mean == data.IMAGENET_MEAN
    with pytest.raises(ValueError, match="mean and std must be given.*dataset='svhn'"):
        read(tmp_path / "data.pt", "idc", dataset="svhn")
    for images, labels in ((smooth(20, 12, 1), LABELS), (IMAGES, LABELS % 5)):
        save_dsa(tmp_path / "dsa.pt", [[images, labels]])
        with pytest.raises(ValueError, match="mean and std must be given"):
            read(tmp_path / "dsa.pt", "dsa")


def test_dsa_s_experiments(tmp_path):
    path = save_dsa(tmp_path / "res_DSA_CIFAR10_ConvNet_2ipc.pt", [[normalised(IMAGES), LABELS], (normalised(1 - IMAGES, MEAN, STD), LABELS)])
    first = read(path, "dsa")
    assert torch.allclose(first.images, IMAGES[ORDER], atol=1e-6) and first.info["clamped"] == 0 and first.info["experiment"] == 0
    assert first.info["unnormalised"] == {"mean": list(data.CIFAR_MEAN), "std": list(data.CIFAR_STD)} and "assumed" in first.info["statistics"]
    second = read(path, "dsa", experiment=1, mean=MEAN, std=STD)
    assert torch.allclose(second.images, 1 - IMAGES[ORDER], atol=1e-6)
    with pytest.raises(ValueError, match="2ipc.pt holds 2 experiments, counted from 0; got experiment=2"):
        read(path, "dsa", experiment=2)


def test_dsa_s_overshoot_is_clamped(tmp_path):
    images = normalised(IMAGES)
    images[0, :, 0, 0] = 9.0
    assert read(save_dsa(tmp_path / "d.pt", [[images, LABELS]]), "dsa").info["clamped"] == 3


def test_numpy_numbers_of_an_older_numpy_are_read(tmp_path):
    path = save_dsa(tmp_path / "d.pt", [[normalised(IMAGES), LABELS]])
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "old.pt", "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert (tmp_path / "old.pt").read_bytes() != path.read_bytes() and b"numpy.core" in (tmp_path / "old.pt").read_bytes()
    assert read(tmp_path / "old.pt", "dsa").ipc == 2


def test_mtt(tmp_path):
    read_set = read(save_mtt(tmp_path, normalised(IMAGES)), "mtt")
    assert torch.allclose(read_set.images, IMAGES[ORDER], atol=1e-6) and read_set.info["unwhitened"] is False
    (tmp_path / "labels_best.pt").unlink()
    with pytest.raises(FileNotFoundError, match="labels_best.pt, which holds the labels of images_best.pt"):
        read(tmp_path / "images_best.pt", "mtt")
    (tmp_path / "images_best.pt").rename(tmp_path / "best.pt")
    with pytest.raises(ValueError, match="beside which lies the labels'"):
        read(tmp_path / "best.pt", "mtt")


def test_whitened_mtt_is_refused_and_unwhitened_by_the_inverse(tmp_path):
    white, matrix, mean = whitening(IMAGES)
    path = save_mtt(tmp_path, white)
    with pytest.raises(ValueError, match="images_best.pt.*looks ZCA-whitened.*std 0..*Give zca.*or whitened=False"):
        read(path, "mtt")
    safetensors.torch.save_file({"matrix": matrix, "mean": mean}, tmp_path / "zca.safetensors")
    for zca in ((matrix, mean), tmp_path / "zca.safetensors"):
        for whitened in (None, True):
            read_set = read(path, "mtt", zca=zca, whitened=whitened)
            assert torch.allclose(read_set.images, IMAGES[ORDER], atol=1e-4) and read_set.info["unwhitened"] and read_set.info["unnormalised"] is None
    assert read(path, "mtt", whitened=False).info["unwhitened"] is False


@pytest.mark.parametrize("sign", ["noise", "outside"])
def test_each_sign_of_whitening_is_enough(tmp_path, sign):
    noise = torch.randn(20, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    images = noise if sign == "noise" else normalised(IMAGES) * 4
    with pytest.raises(ValueError, match="looks ZCA-whitened"):
        read(save_mtt(tmp_path, images), "mtt")
    assert read(tmp_path / "images_best.pt", "mtt", whitened=False).info["clamped"] > 0


@pytest.mark.parametrize("names", [("images", "labels"), ("x", "y")])
@pytest.mark.parametrize("labels", [LABELS, ONE_HOT, ONE_HOT + 0.1])
def test_kip_archives(tmp_path, names, labels):
    path = save_kip(tmp_path / "kip.npz", normalised(IMAGES, MEAN, STD), labels, names)
    read_set = read(path, "kip", mean=MEAN, std=STD)
    assert torch.allclose(read_set.images, IMAGES[ORDER], atol=1e-6) and torch.equal(read_set.labels, LABELS[ORDER])
    assert read_set.info["unnormalised"] == {"mean": list(MEAN), "std": list(STD)}
    assert read_set.info.get("label_agreement") == (None if labels.ndim == 1 else {"mean": 1.0, "min": 1.0})
    with pytest.raises(ValueError, match="images are standardised .*mean and std must be given"):
        read(path, "kip")


def test_kip_in_the_unit_range_and_as_torch_files(tmp_path):
    held = IMAGES.permute(0, 2, 3, 1).contiguous()
    soft = ONE_HOT + 0.3 * torch.rand(20, 10, generator=torch.Generator().manual_seed(0))
    for value in ((held, soft), {"images": held, "labels": soft}, {"x": held, "y": soft}):
        torch.save(value, tmp_path / "kip.pt")
        read_set = read(tmp_path / "kip.pt", "kip")
        assert torch.equal(read_set.images, IMAGES[ORDER]) and read_set.info["unnormalised"] is None
        assert 0.8 < read_set.info["label_agreement"]["min"] < read_set.info["label_agreement"]["mean"] < 0.999


def test_whitened_kip_is_told_by_its_published_name_and_unwhitened(tmp_path):
    images, given = normalised(IMAGES, MEAN, STD), {"mean": MEAN, "std": STD}
    path = save_kip(tmp_path / "ConvNet_ssize100_zca_nol_noaug_ckpt1000.npz", images, ONE_HOT)
    with pytest.raises(ValueError, match="looks ZCA-whitened .named so: True"):
        read(path, "kip", **given)
    assert read(path, "kip", **given, whitened=False).ipc == 2
    assert read(save_kip(tmp_path / "ConvNet_nozca_nol.npz", images, ONE_HOT), "kip", **given).ipc == 2
    white, matrix, mean = whitening(images.permute(0, 2, 3, 1))  # in the file's order of dimensions
    path = save_kip(tmp_path / "a_zca.npz", white.permute(0, 3, 1, 2), ONE_HOT)
    assert torch.allclose(read(path, "kip", **given, zca=(matrix, mean)).images, IMAGES[ORDER], atol=1e-4)


class Evil:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("method", ["idc", "dsa", "mtt", "kip"])
@pytest.mark.parametrize("how", ["torch", "plain", "newer"])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_code_in_a_file_is_not_run(tmp_path, method, how):
    path, trace = tmp_path / "images.pt", tmp_path / "trace"
    if how == "torch":
        torch.save([IMAGES, LABELS, Evil(trace)], path)
    else:
        path.write_bytes(pickle.dumps(Evil(trace), protocol=2 if how == "plain" else 4))
    torch.save(LABELS, tmp_path / "labels.pt")
    said = "images.pt .*holds more than tensors; nothing in it" if how == "newer" else "images.pt holds more than tensors; what it holds is not run"
    with pytest.raises(ValueError, match=said):
        read(path, method)
    assert not trace.exists()
    pickle.loads(pickle.dumps(Evil(trace)))  # noqa: S301
    assert trace.exists(), "a trap that does not close tests nothing"


def test_objects_in_an_archive_are_refused(tmp_path):
    np.savez(tmp_path / "k.npz", images=np.array([Evil(tmp_path / "trace")], dtype=object), labels=LABELS.numpy())
    with pytest.raises(ValueError, match="k.npz holds more than tensors"):
        read(tmp_path / "k.npz", "kip")
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("method, name", [("idc", "images.pt"), ("dsa", "images.pt"), ("mtt", "images.pt"), ("kip", "images.pt"), ("kip", "k.npz")])
def test_missing_cut_and_garbage_files(tmp_path, method, name):
    path = tmp_path / name
    with pytest.raises(FileNotFoundError, match=f"no file at .*{name}"):
        read(path, method)
    if name == "k.npz":
        save_kip(path, IMAGES, LABELS)
    else:
        torch.save([IMAGES, LABELS], path)
    torch.save(LABELS, tmp_path / "labels.pt")
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    for damaged in (b"", whole[:40], whole[: len(whole) // 2], whole[:-1], b"\x00" * 500, b"no torch file " * 50):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=f"{name} is damaged"):
            read(path, method)
    if name == "k.npz":  # which has checksums
        path.write_bytes(flipped)
        with pytest.raises(ValueError, match="k.npz is damaged"):
            read(path, method)


@pytest.mark.parametrize("images, labels, match", [
    (IMAGES * float("nan"), LABELS, "images holds 8640 NaN"),
    ((IMAGES * 255).to(torch.uint8), LABELS, "images must be a plain float tensor, got torch.uint8"),
    (IMAGES * 255, LABELS, "images must lie in 0..1"),
    (IMAGES[0], LABELS, "images must have four dimensions"),
    (IMAGES[:0], LABELS[:0], "none of them 0"),
    (IMAGES[..., :8], LABELS, "images must be square, got 12×8 pixels"),
    pytest.param(IMAGES.to_sparse(), LABELS, "plain float tensor", marks=pytest.mark.filterwarnings("ignore:Validating sparse")),
    (IMAGES.to("meta"), LABELS, "plain float tensor"),
    ("images", LABELS, "got str"),
    (IMAGES, LABELS[:-1], r"labels must have shape \[20\], one label an image, got \[19\]"),
    (IMAGES, LABELS.float(), r"labels must be whole numbers.*got torch.float32 \[20\]"),
    (IMAGES, LABELS.tolist(), "labels must be whole numbers.*got list"),
    (IMAGES, LABELS.view(2, 10), "labels must be whole numbers"),
    (IMAGES, LABELS - 1, "labels must lie in 0..8, got -1..8"),
    (IMAGES, LABELS * 10**15, "labels must lie in 0..19"),
    (IMAGES, LABELS.clamp(max=8), r"as many images; counts are \[2, 2, 2, 2, 2, 2, 2, 2, 4\]"),
    (IMAGES, LABELS.clamp(min=1), r"counts are \[0, 4"),
    (IMAGES, ONE_HOT * 0, "single out one of K≥2 classes"),
    (IMAGES, ONE_HOT * float("inf"), "labels holds"),
])
def test_what_does_not_fit_is_refused_by_name(tmp_path, images, labels, match):
    torch.save([images, labels], tmp_path / "data.pt")
    with pytest.raises(ValueError, match=f"data.pt holds no idc set that can be read: .*{match}"):
        read(tmp_path / "data.pt", "idc")


@pytest.mark.parametrize("held, method, match", [
    (IMAGES, "idc", r"must hold a pair \[images, labels\], got Tensor"),
    ([IMAGES, LABELS, 1], "dream", "got list of 3"),
    ({"data": [[IMAGES]]}, "dsa", "must hold a pair.*got list of 1"),
    ({"images": IMAGES}, "dsa", r"whose 'data' lists.*got dict of \['images'\]"),
    ([IMAGES, LABELS], "dsa", "whose 'data' lists.*got list of 2"),
    ({"data": []}, "dsa", "holds 0 experiments"),
    ({"images": IMAGES, "z": 1}, "kip", "arrays named images/x and labels/y"),
])
def test_another_layout_is_refused(tmp_path, held, method, match):
    torch.save(held, tmp_path / "data.pt")
    with pytest.raises(ValueError, match=f"data.pt.*{match}"):
        read(tmp_path / "data.pt", method)


@pytest.mark.parametrize("method, options, error, match", [
    ("idk", {}, ValueError, "method='idk' is unknown.*allowed: idc, dream, dsa, mtt, kip"),
    ("idc", {"factor": 0}, ValueError, "factor must be between 1 and 12"),
    ("idc", {"mean": MEAN}, ValueError, "mean and std go together"),
    ("idc", {"mean": (0.5,), "std": (0.2,)}, ValueError, "mean must hold 3 values"),
    ("idc", {"mean": MEAN, "std": (0.2, 0.0, 0.2)}, ValueError, "std must be between 1e-06 and 1, got 0"),
    ("idc", {"mean": (120.0, 110.0, 100.0), "std": STD}, ValueError, "mean must be between 0"),
    ("idc", {"classes": "abcdefghij"}, ValueError, "classes must be a sequence of names"),
    ("idc", {"classes": ("a", "b")}, ValueError, "labels must lie in 0..1, got 0..9"),
    ("idc", {"classes": tuple("abcdefghijk")}, ValueError, "every one of 11 classes"),
    ("idc", {"experiment": 1}, ValueError, "experiment=1 chooses among those of a dsa file"),
    ("idc", {"dataset": 3}, TypeError, "dataset must be a name"),
    ("idc", {"whitened": True}, ValueError, "whitened and zca are for mtt and kip"),
    ("mtt", {"whitened": True}, ValueError, "whitened=True needs zca"),
    ("mtt", {"whitened": "yes"}, TypeError, "whitened must be True, False or None"),
    ("mtt", {"whitened": False, "zca": (torch.eye(2), torch.zeros(2))}, ValueError, "whitened=False says that there was none"),
    ("mtt", {"zca": (torch.eye(2), torch.zeros(2))}, ValueError, r"zca must be a matrix \[432, 432\] and a mean \[432\], got \[2, 2\]"),
    ("mtt", {"zca": (torch.eye(2) * float("nan"), torch.zeros(2))}, ValueError, "zca's matrix holds 4 NaN"),
    ("mtt", {"zca": torch.eye(2)}, TypeError, "zca must be a pair"),
    ("mtt", {"zca": "none.safetensors"}, FileNotFoundError, "zca: no file"),
])
def test_bad_arguments(tmp_path, method, options, error, match):
    path = save_mtt(tmp_path, normalised(IMAGES))
    if method == "idc":
        torch.save([IMAGES, LABELS], path)
    with pytest.raises(error, match=match):
        read(path, method, **options)


def test_a_zca_file_that_is_none(tmp_path):
    path = save_mtt(tmp_path, normalised(IMAGES))
    safetensors.torch.save_file({"matrix": torch.eye(2)}, tmp_path / "zca")
    with pytest.raises(ValueError, match="zca: .*must be a safetensors file of 'matrix' and 'mean'"):
        read(path, "mtt", zca=tmp_path / "zca")
    with pytest.raises(ValueError, match="zca: .*must be a safetensors file"):
        read(path, "mtt", zca=path)
