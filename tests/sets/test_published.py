import os
import pickle
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from yoco import data, prune
from yoco.sets.condensed_set import CondensedSet

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
read = CondensedSet.from_published


def smooth(count: int = 20, size: int = 12, channels: int = 3) -> torch.Tensor:
    """Images in 0..1 whose neighbouring pixels are similar, as in photographs."""
    coarse = torch.rand(count, channels, 4, 4, generator=torch.Generator().manual_seed(1))
    return F.interpolate(coarse, (size, size), mode="bilinear", align_corners=False)


def normalised(images: torch.Tensor, mean=data.CIFAR_MEAN, std=data.CIFAR_STD) -> torch.Tensor:
    return (images - torch.tensor(mean).view(1, -1, 1, 1)) / torch.tensor(std).view(1, -1, 1, 1)


LABELS = torch.arange(10).repeat(2)  # 0, 1, …, 9, 0, 1, …: to be sorted
IMAGES = smooth()
ORDER = LABELS.argsort(stable=True)
ONE_HOT = F.one_hot(LABELS, 10).float() - 0.1  # mean-centred, as KIP's


LOGITS = torch.randn(20, 10, generator=torch.Generator().manual_seed(2)) + 5 * F.one_hot(LABELS, 10)


def real_data() -> data.ImageData:
    """Real images of the size and classes of `IMAGES`."""
    pixels = (smooth(60) * 255).to(torch.uint8)
    labels = torch.arange(60) % 10
    return data.ImageData(
        "real",
        pixels[:40],
        labels[:40],
        pixels[40:],
        labels[40:],
        tuple("abcdefghij"),
        data.CIFAR_MEAN,
        data.CIFAR_STD,
    )


def whitened_images() -> torch.Tensor:
    """Images as after whitening: neighbouring pixels hardly correlate."""
    return torch.randn(20, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def save_dsa(path, held):
    torch.save(
        {
            "data": held,
            "accs_all_exps": {"ConvNet": [np.float64(0.5), np.float32(0.5), np.int64(3)]},
        },
        path,
    )
    return path


def save_mtt(folder, images, labels=LABELS):
    torch.save(images, folder / "images_best.pt")
    torch.save(labels, folder / "labels_best.pt")
    return folder / "images_best.pt"


def save_kip(path, images, labels, names=("images", "labels")):
    np.savez(path, **{names[0]: images.permute(0, 2, 3, 1).numpy(), names[1]: labels.numpy()})
    return path


@pytest.mark.parametrize("method", ["idc", "dream", "auto"])
@pytest.mark.parametrize("container", [list, tuple])
def test_a_pair(tmp_path, capsys, method, container):
    torch.save(container([IMAGES, LABELS]), tmp_path / "data.pt")
    read_set = read(tmp_path / "data.pt", method, factor=2, dataset="cifar10")
    assert torch.equal(read_set.images, IMAGES[ORDER]) and torch.equal(
        read_set.labels, LABELS[ORDER]
    )
    assert (read_set.factor, read_set.ipc, read_set.bounded) == (
        2,
        2,
        True,
    ) and read_set.classes == tuple("0123456789")
    assert read_set.method == ("idc" if method == "auto" else method)
    assert (read_set.mean, read_set.std) == (data.CIFAR_MEAN, data.CIFAR_STD)
    info = read_set.info
    assert (
        info["source"] == "data.pt"
        and info["dataset"] == "cifar10"
        and info["outside"] == 0
        and str(tmp_path) not in str(info)
    )
    [line] = capsys.readouterr().out.splitlines()
    assert line.startswith(
        f"data.pt: a pair [images, labels], taken for {read_set.method}'s: 20 images of 10 "
        "classes; values 0."
    )


def test_a_read_set_is_saved_and_pruned(tmp_path, toy_dynamics):
    labels = torch.arange(3).repeat_interleave(5)
    torch.save([smooth(15, 16), labels], tmp_path / "data.pt")
    read_set = read(
        tmp_path / "data.pt", "idc", factor=2, mean=MEAN, std=STD, classes=("a", "b", "c")
    )
    assert (
        read_set.classes == ("a", "b", "c")
        and read_set.mean == MEAN
        and read_set.info["statistics"] == "given"
    )
    again = CondensedSet.load(read_set.save(tmp_path / "set.safetensors"))
    assert torch.equal(again.images, read_set.images) and again.info == read_set.info
    of_it = replace(toy_dynamics, info={"set": again.fingerprint})
    assert len(prune.prune(again, of_it, ipc_to=2).indices) == 3 * 8


def test_an_overshoot_is_kept_and_other_ranges_are_refused(tmp_path):
    images = IMAGES.clone()
    images[0, 0, 0, :3], images[1, 0, 0, 0] = 1.2, -0.1
    torch.save([images, LABELS], tmp_path / "data.pt")
    # statistics do not turn pixels into normalised ones
    for given in ({}, {"mean": data.CIFAR_MEAN, "std": data.CIFAR_STD}):
        read_set = read(tmp_path / "data.pt", "idc", **given)
        assert not read_set.bounded and torch.allclose(
            read_set.images, normalised(images)[ORDER], atol=1e-6
        )
    images = IMAGES.clone()
    images[2, 0, 0, 0] = 1 + 1e-7  # rounding
    torch.save([images, LABELS], tmp_path / "data.pt")
    assert read(tmp_path / "data.pt").bounded
    for values, match in (
        (IMAGES * 255, ("pixels in 0..1, or normalised by.*mean 1.*Give mean= and std=")),
        (IMAGES * 1e4, "values up to"),
    ):
        torch.save([values, LABELS], tmp_path / "data.pt")
        with pytest.raises(
            ValueError, match=f"data.pt holds no readable set: images must.*{match}"
        ):
            read(tmp_path / "data.pt", "idc")


def test_statistics_come_from_the_shape_the_name_or_the_caller(tmp_path):
    torch.save([smooth(20, 64), LABELS], tmp_path / "data.pt")
    assert read(tmp_path / "data.pt", "idc", factor=3).mean == data.IMAGENET_MEAN
    assert read(tmp_path / "data.pt", "idc", dataset="SVHN").mean == (0.4377, 0.4438, 0.4728)
    with pytest.raises(ValueError, match="mean and std must be given.*dataset='flowers'"):
        read(tmp_path / "data.pt", "idc", dataset="flowers")
    grey = smooth(20, 12, 1)
    path = save_dsa(
        tmp_path / "res_DC_MNIST_ConvNet_2ipc.pt",
        [[normalised(grey, (0.1307,), (0.3081,)), LABELS]],
    )
    read_set = read(path)
    assert (read_set.method, read_set.info["dataset"], read_set.mean) == (
        "dc",
        "mnist",
        (0.1307,),
    ) and read_set.bounded
    assert torch.allclose(read_set.images, grey[ORDER], atol=1e-6)
    path = path.rename(tmp_path / "res_DSA_BreastMNIST_ConvNet_2ipc.pt")
    with pytest.raises(ValueError, match="mean and std must be given.*its values lie in -0"):
        read(path)
    for images, labels in ((grey, LABELS), (IMAGES, LABELS % 5)):
        with pytest.raises(ValueError, match="mean and std must be given"):
            read(save_dsa(tmp_path / "dsa.pt", [[images, labels]]), "dsa")


def test_a_given_normalisation_reads_other_images(tmp_path):
    grey = smooth(20, 12, 1)
    path = save_dsa(
        tmp_path / "res_DSA_BreastMNIST_ConvNet_10ipc.pt",
        [[normalised(grey, (0.1,), (0.12,)), LABELS % 2]],
    )
    with pytest.raises(
        ValueError,
        match="10ipc.pt.*mean and std must be given.*its values lie in -0.*pixels in 0..1 are "
        "values . "
        "std . mean",
    ):
        read(path)
    with pytest.raises(
        ValueError, match="10ipc.pt.*got -0.*mean 3.*a mean of 1.*un-normalised. Give mean="
    ):
        read(path, dataset="mnist")
    assert torch.allclose(
        read(path, mean=[0.1], std=[0.12]).images,
        grey[(LABELS % 2).argsort(stable=True)],
        atol=1e-6,
    )


def test_dsa_s_experiments(tmp_path):
    path = save_dsa(
        tmp_path / "res_DSA_CIFAR10_ConvNet_2ipc.pt",
        [[normalised(IMAGES), LABELS], (normalised(1 - IMAGES, MEAN, STD), LABELS)],
    )
    first = read(path)
    assert (
        torch.allclose(first.images, IMAGES[ORDER], atol=1e-6)
        and first.bounded
        and first.method == "dsa"
    )
    assert first.info["statistics"] == "cifar10's" and first.info["dataset"] == "cifar10"
    second = read(path, "dsa", experiment=1, mean=MEAN, std=STD)
    assert torch.allclose(second.images, 1 - IMAGES[ORDER], atol=1e-6)
    with pytest.raises(
        ValueError, match="2ipc.pt.*it holds 2 experiments, counted from 0; got experiment=2"
    ):
        read(path, "dsa", experiment=2)


def test_unclipped_sets_are_kept_as_they_are(tmp_path):
    wild = normalised(IMAGES) * 4
    for path in (
        save_dsa(tmp_path / "res_DM_CIFAR10_ConvNet_2ipc.pt", [[wild, LABELS]]),
        save_mtt(tmp_path, wild),
    ):
        read_set = read(path)
        assert (
            torch.equal(read_set.images, wild[ORDER])
            and not read_set.bounded
            and read_set.whitening is None
        )
        assert (
            read_set.method == ("mtt" if "best" in path.name else "dm")
            and read_set.info["outside"] > 0.3
        )


def test_numpy_numbers_of_an_older_numpy_are_read(tmp_path):
    path = save_dsa(tmp_path / "d.pt", [[normalised(IMAGES), LABELS]])
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "old.pt", "w") as new:
        for name in old.namelist():
            new.writestr(
                name, old.read(name).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
            )
    assert (tmp_path / "old.pt").read_bytes() != path.read_bytes() and b"numpy.core" in (
        tmp_path / "old.pt"
    ).read_bytes()
    assert read(tmp_path / "old.pt", "dsa").ipc == 2


def test_labels_beside_images(tmp_path):
    read_set = read(save_mtt(tmp_path, normalised(IMAGES)))
    assert torch.allclose(read_set.images, IMAGES[ORDER], atol=1e-6) and read_set.method == "mtt"
    torch.save(torch.tensor(0.01), tmp_path / "lr_best.pt")  # authors' learning rate
    assert torch.equal(read(tmp_path).images, read_set.images)  # the folder that holds it
    torch.save(IMAGES, tmp_path / "labels_best.pt")  # a broken upload
    with pytest.raises(
        ValueError,
        match=r"labels .labels_best.pt. must be whole numbers .N. or float .N, K., got "
        r"torch.float32 "
        r".20, 3",
    ):
        read(tmp_path)
    (tmp_path / "labels_best.pt").unlink()
    with pytest.raises(
        FileNotFoundError, match="labels_best.pt, which holds the labels of images_best.pt"
    ):
        read(tmp_path / "images_best.pt", "mtt")
    (tmp_path / "images_best.pt").rename(tmp_path / "best.pt")
    with pytest.raises(ValueError, match="labels are looked for in labels"):
        read(tmp_path / "best.pt", "mtt")


def test_a_folder_of_several_sets_asks_for_one(tmp_path):
    save_mtt(tmp_path, normalised(IMAGES))
    torch.save([IMAGES, LABELS], tmp_path / "data.pt")
    with pytest.raises(
        ValueError,
        match="must hold the images of one set, .* holds data.pt, images_best.pt; name one file",
    ):
        read(tmp_path)


def test_mtt_s_logged_pictures_are_not_taken_for_the_set(tmp_path):
    torch.save(whitened_images(), tmp_path / "images_5000.pt")
    torch.save(IMAGES, tmp_path / "images_zca_5000.pt")
    torch.save(LABELS, tmp_path / "labels_5000.pt")
    with pytest.raises(ValueError, match="un-whitened images.*; pass images_5000.pt"):
        read(tmp_path / "images_zca_5000.pt")
    assert (
        read(tmp_path).info["source"] == "images_5000.pt" and read(tmp_path).whitening == "pixels"
    )


def test_whitened_sets_are_told_by_their_pixels_or_their_name(tmp_path):
    white = whitened_images()
    for given in (None, True):
        read_set = read(save_mtt(tmp_path, white), whitened=given)
        assert (
            torch.equal(read_set.images, white[ORDER])
            and read_set.whitening == "pixels"
            and not read_set.bounded
        )
    assert read(tmp_path, whitened=False).whitening is None
    named = save_kip(tmp_path / "ConvNet_ssize100_zca_nol_ckpt1000.npz", normalised(IMAGES), LABELS)
    assert read(named).whitening == "standardised" and read(named, whitened=False).whitening is None
    assert (
        read(save_kip(tmp_path / "ConvNet_nozca_nol.npz", normalised(IMAGES), LABELS)).whitening
        is None
    )


def test_real_data_names_the_classes_of_a_whitened_set(tmp_path):
    real = real_data()
    read_set = read(save_mtt(tmp_path, whitened_images()), whitened=real)
    assert (
        read_set.classes == real.classes
        and (read_set.mean, read_set.std) == (real.mean, real.std)
        and read_set.whitening == "pixels"
    )
    with pytest.raises(ValueError, match="whitened must be data with images of shape"):
        read(
            tmp_path,
            whitened=replace(
                real,
                train_images=real.train_images[..., :8, :8],
                test_images=real.test_images[..., :8, :8],
            ),
        )


@pytest.mark.parametrize("names", [("images", "labels"), ("x", "y")])
@pytest.mark.parametrize("labels", [LABELS, ONE_HOT, ONE_HOT + 0.1])
@pytest.mark.parametrize("last", [True, False])
def test_archives_of_kernel_methods(tmp_path, names, labels, last):
    path = save_kip(
        tmp_path / "kip.npz",
        normalised(IMAGES) if last else normalised(IMAGES).permute(0, 3, 1, 2),
        labels,
        names,
    )
    read_set = read(path)  # channels last as KIP's, or first as RFAD's
    assert (
        torch.allclose(read_set.images, IMAGES[ORDER], atol=1e-6)
        and torch.equal(read_set.labels, LABELS[ORDER])
        and read_set.method == "kip"
    )


def test_bare_arrays_side_by_side(tmp_path):
    np.save(tmp_path / "images.npy", (normalised(IMAGES) * 9).permute(0, 2, 3, 1).numpy())
    np.save(tmp_path / "labels.npy", LOGITS.numpy())
    read_set = read(tmp_path)
    order = LOGITS.argmax(1).argsort(stable=True)
    assert read_set.soft and torch.allclose(read_set.labels, LOGITS.softmax(1)[order])
    assert torch.allclose(read_set.images, 9 * normalised(IMAGES)[order], atol=1e-5)


@pytest.mark.parametrize(
    "values, kind",
    [
        (lambda: LOGITS, "logits"),
        (lambda: LOGITS.softmax(1), ""),
        (lambda: ONE_HOT + 0.3 * torch.rand(20, 10), "centred"),
    ],
)
def test_soft_labels(tmp_path, values, kind):
    torch.manual_seed(0)
    values = values()
    values = values - values.mean(1, keepdim=True) if kind == "centred" else values
    read_set = read(save_mtt(tmp_path, normalised(IMAGES), values))
    assert read_set.soft and read_set.method == "datm" and kind in read_set.info["labels"]
    assert torch.equal(read_set.labels.argmax(1), values.argmax(1).sort().values)
    shifted = (values + 1 / 10).clamp(min=0)  # sums to 1 but for what is negative
    wanted = shifted / shifted.sum(1, keepdim=True) if kind == "centred" else LOGITS.softmax(1)
    order = values.argmax(1).argsort(stable=True)
    assert torch.allclose(read_set.labels, wanted[order], atol=1e-6)


class Evil:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("method", ["idc", "dsa", "mtt", "kip", "auto"])
@pytest.mark.parametrize("how", ["torch", "plain", "newer"])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_code_in_a_file_is_not_run(tmp_path, method, how):
    path, trace = tmp_path / "images.pt", tmp_path / "trace"
    if how == "torch":
        torch.save([IMAGES, LABELS, Evil(trace)], path)
    else:
        path.write_bytes(pickle.dumps(Evil(trace), protocol=2 if how == "plain" else 4))
    torch.save(LABELS, tmp_path / "labels.pt")
    said = (
        "images.pt .*holds more than tensors; nothing in it"
        if how == "newer"
        else ("images.pt holds more than tensors; its code is not executed")
    )
    with pytest.raises(ValueError, match=said):
        read(path, method)
    assert not trace.exists()
    pickle.loads(pickle.dumps(Evil(trace)))
    assert trace.exists(), "a trap that does not close tests nothing"


def test_objects_in_an_archive_are_refused(tmp_path):
    np.savez(
        tmp_path / "k.npz",
        images=np.array([Evil(tmp_path / "trace")], dtype=object),
        labels=LABELS.numpy(),
    )
    with pytest.raises(ValueError, match="k.npz holds more than tensors"):
        read(tmp_path / "k.npz", "kip")
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    "method, name",
    [
        ("idc", "images.pt"),
        ("dsa", "images.pt"),
        ("mtt", "images.pt"),
        ("kip", "images.pt"),
        ("kip", "k.npz"),
    ],
)
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
    for damaged in (
        b"",
        whole[:40],
        whole[: len(whole) // 2],
        whole[:-1],
        b"\x00" * 500,
        b"no torch file " * 50,
    ):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=f"{name} is corrupted"):
            read(path, method)
    if name == "k.npz":  # which has checksums
        path.write_bytes(flipped)
        with pytest.raises(ValueError, match="k.npz is corrupted"):
            read(path, method)


@pytest.mark.parametrize(
    "images, labels, match",
    [
        (IMAGES * float("nan"), LABELS, "images holds 8640 NaN"),
        (
            (IMAGES * 255).to(torch.uint8),
            LABELS,
            "images must be a plain float tensor, got torch.uint8",
        ),
        (IMAGES[0], LABELS, "images must have four dimensions"),
        (IMAGES[:0], LABELS[:0], "no empty dimension"),
        (IMAGES[..., :8], LABELS, "images must be square images"),
        pytest.param(
            IMAGES.to_sparse(),
            LABELS,
            "dense",
            marks=pytest.mark.filterwarnings("ignore:Validating sparse"),
        ),
        (IMAGES.to("meta"), LABELS, "dense"),
        ("images", LABELS, "got str"),
        (IMAGES, LABELS[:-1], r"labels must have shape \[20\], one label per image, got \[19\]"),
        (
            IMAGES,
            LABELS.float(),
            r"labels .data.pt. must be whole numbers.*got torch.float32 \[20\]",
        ),
        (IMAGES, LABELS.tolist(), "labels .data.pt. must be a tensor of numbers, got list"),
        (IMAGES, LABELS.view(2, 10), "must be whole numbers"),
        (IMAGES, LABELS - 1, "must lie in 0..8, got -1..8"),
        (IMAGES, LABELS * 10**15, "must lie in 0..19"),
        (
            IMAGES,
            LABELS.clamp(max=8),
            (r"equally many images in each class; got counts \[2, 2, 2, 2, 2, 2, 2, 2, " r"4\]"),
        ),
        (IMAGES, LABELS.clamp(min=1), r"got counts \[0, 4"),
        (IMAGES, ONE_HOT * 0, "single out a class in every row"),
        (IMAGES, ONE_HOT * float("inf"), "labels .data.pt. holds"),
        (IMAGES, LOGITS[:, :7], "must be given"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(tmp_path, images, labels, match):
    torch.save([images, labels], tmp_path / "data.pt")
    with pytest.raises(ValueError, match=f"data.pt holds no readable set: .*{match}"):
        read(tmp_path / "data.pt", dataset="flowers" if "given" in match else "cifar10")


@pytest.mark.parametrize(
    "held, match",
    [
        (IMAGES, "it holds only Tensor; labels are looked for in"),
        ([IMAGES, LABELS, 1], r"must hold a pair \[images, labels\], got list of 3"),
        ({"data": [[IMAGES]]}, "must hold a pair.*got list of 1"),
        ({"images": IMAGES}, r"must hold images and labels .*got dict of \['images'\]"),
        ({"data": IMAGES}, "'data' must list .*got Tensor"),
        ({"data": []}, "holds 0 experiments"),
        ({"images": IMAGES, "labels": LABELS, "yoco": "{"}, "header is not valid"),
    ],
)
def test_another_layout_is_refused(tmp_path, held, match):
    torch.save(held, tmp_path / "data.pt")
    with pytest.raises(ValueError, match=f"data.pt.*{match}"):
        read(tmp_path / "data.pt")


@pytest.mark.parametrize(
    "options, error, match",
    [
        ({"method": "idcc"}, ValueError, "did you mean 'idc'"),
        ({"factor": 13}, ValueError, "factor must be between 1 and 12"),
        ({"mean": MEAN}, ValueError, "mean and std go together"),
        ({"mean": (0.5,), "std": (0.5,)}, ValueError, "mean must hold 3 values"),
        ({"mean": (0.5,) * 3, "std": (0.0,) * 3}, ValueError, "std.0. must be between"),
        ({"classes": "abc"}, TypeError, "classes must be a sequence, got 'abc'"),
        ({"classes": 3}, TypeError, "classes must be a sequence, got 3"),
        ({"factor": 0}, ValueError, "factor must be between 1 and 12, got 0"),
        (
            {"classes": tuple("abcdefghijk"), "dataset": "cifar10"},
            ValueError,
            ("equally many images in each class"),
        ),
        ({"experiment": 1}, ValueError, "experiment=1 chooses a pair of a dict"),
        ({"experiment": -1}, ValueError, "experiment must be at least 0"),
        ({"dataset": 3}, TypeError, "dataset must be a name"),
        (
            {"whitened": "yes"},
            TypeError,
            "whitened must be True, False, None .unknown. or the real data",
        ),
    ],
)
def test_bad_arguments(tmp_path, options, error, match):
    torch.save([IMAGES, LABELS], tmp_path / "data.pt")
    with pytest.raises(error, match=match):
        read(tmp_path / "data.pt", **options)
