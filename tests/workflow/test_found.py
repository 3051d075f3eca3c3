"""What a folder holds is used only for what it was made from and for what is asked for."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import make_data
from yoco import CondensedSet, cli, condense, data, dynamics, workflow, zoo
from yoco.condense import mtt_experts
from yoco.condense.expert_training import ExpertSettings
from yoco.data import pixel_cache
from yoco.experiments import results_file, study
from yoco.training import network as training
from yoco.utils import digests, locks, owned, tensor_files
from yoco.workflow import parameters

EXACT = {"precision": "float32", "progress": False}
KIP = {"method": "kip", "ipc": 1, "preset": "smoke", "iterations": 1, "kernel": "fc", **EXACT}
HOW = r".*choose another folder \(--run-dir\), or start from scratch \(--fresh\)"


def changed(images):
    images = images.clone()
    images[0, 0, 0, 0] ^= 1
    return images


# each of the inputs, changed as little as can be
CHANGES = {
    "training images": lambda of: replace(of, train_images=changed(of.train_images)),
    "training labels": lambda of: replace(of, train_labels=of.train_labels.flip(0)),
    "test images": lambda of: replace(of, test_images=changed(of.test_images)),
    "test labels": lambda of: replace(of, test_labels=of.test_labels.flip(0)),
    "class names": lambda of: replace(of, classes=("a", "b", "c")),
    "mean and std": lambda of: replace(of, std=tuple(value + 0.01 for value in of.std)),
}
CONDENSED_FROM = [name for name in CHANGES if not name.startswith("test")]
TESTED_ON = [name for name in CHANGES if not name.startswith("training")]


def get(run, of, **options):
    return workflow.get_condensed(run, "toy", lambda: of, **{**KIP, **options})


def without_digests(path, kind):
    """A file as the previous version wrote it."""
    tensors, info = tensor_files.load_tensors(path, kind)
    for told in (info, info.get("info", {}), info.get("identity", {})):
        told.pop(digests.MADE_FROM, None)
    return tensor_files.save_tensors(path, kind, tensors, info)


@pytest.fixture(scope="module")
def whole(toy, tmp_path_factory):
    """A run with a set."""
    run = tmp_path_factory.mktemp("whole") / "run"
    get(run, toy)
    return run


@pytest.mark.parametrize("part", CHANGES)
def test_a_set_is_found_for_the_data_that_it_was_made_from(whole, toy, part):
    other = CHANGES[part](toy)
    if part not in CONDENSED_FROM:
        assert get(whole, other).ipc == 1
        return
    said = "class 0 'dark', not 'a'" if part == "class names" else f"differ in {part}{HOW}"
    for options in ({}, {"go_on": True}):
        with pytest.raises(ValueError, match=said):
            get(whole, other, **options)


def test_a_set_of_the_previous_version_is_taken_with_a_warning(toy, tmp_path):
    get(tmp_path / "run", toy)
    without_digests(tmp_path / "run/condensed.safetensors", "condensed")
    with pytest.warns(UserWarning, match="condensed.safetensors is from an earlier version"):
        get(tmp_path / "run", CHANGES["training images"](toy))


def test_a_set_is_found_though_its_images_are_elsewhere_now(whole):
    def gone():
        raise FileNotFoundError("no folder at toy")

    with pytest.warns(
        UserWarning, match="cannot check whether the set was made from toy.*no folder at"
    ):
        assert workflow.get_condensed(whole, "toy", gone).ipc == 1
    with pytest.raises(FileNotFoundError):
        workflow.get_condensed(whole.with_name("other"), "toy", gone)


@pytest.mark.parametrize("part", CONDENSED_FROM)
def test_a_checkpoint_and_experts_go_on_with_the_same_data(toy, tmp_path, part):
    other, path = CHANGES[part](toy), tmp_path / "c.safetensors"
    begin = lambda of: condense.condense(of, checkpoint=path, time_budget=0, **KIP)
    few = ExpertSettings(epochs=1, width=4, batch_size=64)
    train = lambda of: mtt_experts.train_experts(of, tmp_path, few, count=1, **EXACT)
    begin(toy), train(toy)
    begin(toy), train(toy)
    for call, what in ((begin, "checkpoint .*c.safetensors"), (train, "expert .*expert-000")):
        with pytest.raises(ValueError, match=f"{what}.*was made from other data.*in {part}{HOW}"):
            call(other)
    without_digests(path, "checkpoint")
    without_digests(tmp_path / "expert-000.safetensors", "expert")
    for call in (begin, train):
        with pytest.warns(UserWarning, match="is from an earlier version of yoco"):
            call(other)


def test_dynamics_are_of_a_set_with_its_statistics(toy_set, tmp_path, capsys):
    few = {"epochs": 1, "width": 4, "jobs": 1, **EXACT}
    get = lambda of, **other: workflow.get_dynamics(tmp_path, of, "toy", 0, **{**few, **other})
    get(toy_set)
    for part, said in (("class names", "class names"), ("mean and std", "mean and std")):
        other = CHANGES[part](toy_set)
        with pytest.raises(ValueError, match=f"dynamics.safetensors.*differ in {said}{HOW}"):
            get(other)
    assert not dynamics.Dynamics.load(tmp_path / "dynamics.safetensors").of(other)
    with pytest.raises(
        ValueError, match=rf"recorded with epochs=1, but epochs=2 was asked for{HOW}"
    ):
        get(toy_set, epochs=2, explicit=["epochs"])
    with pytest.raises(
        ValueError, match=r"recorded with last_batch='even', but .*small' was asked for"
    ):
        get(toy_set, protocol="paper", explicit=["protocol"])
    with pytest.raises(ValueError, match="recorded with seed=0, but seed=1 was asked for"):
        workflow.get_dynamics(tmp_path, toy_set, "toy", 1, 1, **few)
    without_digests(tmp_path / "dynamics.safetensors", "dynamics")
    with pytest.warns(UserWarning, match="is from an earlier version"):
        get(toy_set, epochs=2)
    capsys.readouterr()
    get(replace(toy_set, images=1 - toy_set.images))
    assert "is of another set (perhaps an earlier version): recording again" in (
        capsys.readouterr().out
    )


@pytest.fixture
def at_once(monkeypatch):
    """Trainings that give an accuracy without work; the numbers of those that were asked for."""
    done = []

    def accuracies(work, data, *, only, **options):
        for number in only:
            done.append(number)
            yield number, 50.0

    monkeypatch.setattr(study, "accuracies", accuracies)
    return done


@pytest.mark.parametrize("part", CHANGES)
def test_a_row_is_of_what_it_was_tested_on(toy, toy_set, tmp_path, at_once, part):
    named = replace(toy_set, classes=("0", "1", "2"))
    few = {
        "methods": ["random"],
        "ipc_to": [1],
        "epochs": 1,
        "results": tmp_path / "r.csv",
        **EXACT,
    }
    run = lambda of, condensed=named: study.run(condensed, of, [None], **few)
    run(toy)
    if part not in TESTED_ON or part == "mean and std":
        run(CHANGES[part](toy))
        assert at_once == [0]
        if part in TESTED_ON:  # the set's count
            with pytest.raises(ValueError, match=f"a row of .*r.csv.* differ in {part}{HOW}"):
                run(toy, CHANGES[part](named))
        return
    with pytest.raises(ValueError, match=f"a row of .*r.csv.* differ in {part}{HOW}"):
        run(CHANGES[part](toy))
    rows = results_file.read_results(tmp_path / "r.csv")
    older = [name for name in results_file.STORED if name != results_file.DATA]
    texts = [{name: str(row[name]) for name in older} for row in rows.values()]
    lines = [[*text.values(), results_file._check(text, older)] for text in texts]
    text = "\n".join(",".join(line) for line in [[*older, "check"], *lines])
    (tmp_path / "r.csv").write_text(text + "\n")
    with pytest.warns(UserWarning, match="a row of .*r.csv is from an earlier version"):
        run(CHANGES[part](toy))
    assert at_once == [0]


def test_rows_of_whitened_sets_are_of_the_training_images_too(toy, toy_set):
    plain = study.grid(toy_set, [None], [{"method": "random"}], ipc_to=[1])[0]
    white = replace(toy_set, bounded=False, whitening="pixels")
    told = study._tested_on(replace(plain, condensed=white), toy)
    assert "training images=" in told and "training images" not in study._tested_on(plain, toy)


def test_a_row_tells_the_precision_that_it_was_trained_in(
    toy, toy_set, tmp_path, at_once, monkeypatch
):
    few = {"methods": ["random"], "ipc_to": [1], "epochs": 1, "progress": False}
    for precision in ("bfloat16", "float32"):  # of two machines
        monkeypatch.setenv("YOCO_PRECISION", precision)
        table = study.run(toy_set, toy, [None], results=tmp_path / "r.csv", **few)
        assert table.precision.tolist() == ["bfloat16"]
    assert at_once == [0]


def test_two_folders_of_one_name_are_told_apart(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("YOCO_RUNS", str(tmp_path / "runs"))
    source = np.random.default_rng(0)
    for place, classes in (("a/data", ("cat", "dog")), ("b/data", ("dog", "zebra"))):
        for split in ("train", "test"):
            for name in classes:
                (tmp_path / place / split / name).mkdir(parents=True)
                for number in range(4):
                    pixels = source.integers(0, 255, (16, 16, 3), np.uint8)
                    path = tmp_path / place / split / name / f"{number}.png"
                    Image.fromarray(pixels).save(path)
    command = lambda place: [
        *("condense", "--dataset", f"folder:{tmp_path / place}", "--method", "idc", "--ipc", "1"),
        *("--preset", "smoke", "--outer-loops", "1", "--inner-loops", "1", "--width", "4"),
    ]
    assert cli.main(command("a/data")) == 0
    assert cli.main(command("b/data")) == 2
    assert "does not fit folder:data: it has class 0 'cat', not 'dog'" in capsys.readouterr().err
    assert cli.main([*command("b/data"), "--fresh"]) == 0
    assert "runs/data is renamed to data.before-1" in capsys.readouterr().out
    held = [
        CondensedSet.load(path / "condensed.safetensors") for path in (tmp_path / "runs").iterdir()
    ]
    assert {of.classes for of in held} == {("cat", "dog"), ("dog", "zebra")}


def test_an_image_replaced_at_equal_size_and_time_is_read(tmp_path):
    for split in ("train", "test"):
        for number, name in enumerate(("a", "b")):
            (tmp_path / split / name).mkdir(parents=True)
            Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(
                tmp_path / split / name / "x.bmp"
            )
    load = lambda: data.load(f"folder:{tmp_path}", cache=tmp_path / "cache", progress=False)
    first, path = load(), tmp_path / "train/a/x.bmp"
    before = path.stat()
    Image.fromarray(np.full((8, 8, 3), 7, np.uint8)).save(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    second = load()
    assert second.train_images[0].unique().tolist() == [7]
    assert first.made_from["training images"] != second.made_from["training images"]


def test_the_digest_lies_beside_the_cache_and_is_that_of_memory(tmp_path, monkeypatch):
    for split in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            pixels = np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / split / name / "x.png")
    monkeypatch.setattr(digests, "BLOCK", 100)
    load = lambda cache: data.load(f"folder:{tmp_path}", cache=cache, progress=False)
    made, memory = load(tmp_path / "cache"), load(False)
    found = load(tmp_path / "cache")
    copied = digests.of_tensor(found.train_images.clone())
    monkeypatch.setattr(digests, "of_block", lambda values: pytest.fail("read again"))
    of = [digests.of_tensor(images.train_images) for images in (made, memory, found)]
    assert [*of, copied] == of[:1] * 4
    assert hasattr(found.train_images, pixel_cache.MAPPED_FROM)


def explicit(**given):
    return parameters.validated("04_pruning", {"dataset": "digits", **given}).condensation()


@pytest.mark.parametrize(
    "given, said",
    [
        ({"seed": 1}, "seed=0, but seed=1 was asked for"),
        ({"ipc": 5}, "ipc=10, but ipc=5 was asked for"),
        ({"preset": "laptop"}, "preset='smoke', but preset='laptop' was asked for"),
        ({"size": 8}, "size=16, but size=8 was asked for"),
        ({"method": "dream", "ipc": 10}, "method='idc', but method='dream' was asked for"),
        ({"outer_loops": 77}, r"outer_loops=\d+, but outer_loops=77 was asked for"),
        ({"ipc": 5, "seed": 3}, "ipc=10, seed=0, but ipc=5, seed=3 was asked for"),
    ],
)
def test_what_is_given_by_name_must_hold_for_what_is_found(tmp_path, given, said):
    digits = data.load("digits")
    find = lambda **given: workflow.get_condensed(
        tmp_path, "digits", lambda: digits, **explicit(**given)
    )
    shipped = zoo.load("digits-idc-ipc10")
    told = {name: value for name, value in shipped.info.items() if name != digests.MADE_FROM}
    replace(shipped, info=told).save(tmp_path / "condensed.safetensors")
    with pytest.warns(UserWarning, match="earlier version"):
        assert find().ipc == find(ipc=10, seed=0, preset="smoke").ipc == 10
    # of trainings, which any set may have
    with pytest.warns(UserWarning, match="earlier version"):
        find(width=8, precision="float32")
    with pytest.raises(ValueError, match=f"condensed.safetensors holds a set with {said}{HOW}"):
        find(**given)


def test_budgets_above_ipc_are_named_before_a_set_is_made(tmp_path, monkeypatch):
    from yoco.workflow import condensation

    monkeypatch.setattr(condensation, "condense", lambda *_, **__: pytest.fail("condensed"))
    run = tmp_path / "run"
    with pytest.raises(ValueError, match="ipc_to must be between 1 and 10, got 20"):
        workflow.get_condensed(run, "digits", **explicit(ipc_to=[1, 20], seed=7))
    assert not run.exists()
    cifar = zoo.load("cifar10-idc-ipc10")  # a set that is there may be larger than the default
    replace(cifar, info={**cifar.info, "dataset": "digits"}).save(
        owned.claim(run) / "condensed.safetensors"
    )
    assert workflow.get_condensed(run, "digits", **explicit(ipc_to=[1, 20])).ipc == 10


def test_given_parameters_must_hold_for_zoo_and_path(tmp_path):
    name = "zoo:digits-idc-ipc10"
    chosen = lambda **given: parameters.validated("02_scores", {"dataset": name, **given})
    run = tmp_path / "run"
    with pytest.raises(
        ValueError, match=f"{name} holds a set with ipc=10, but ipc=5 was asked for"
    ):
        workflow.get_condensed(run, name, **chosen(ipc=5).condensation())
    for _ in range(2):
        workflow.get_condensed(run, name, **chosen(seed=3, ipc=10).condensation())
    with pytest.raises(ValueError, match="holds another set than zoo:digits-dsa-ipc10"):
        workflow.get_condensed(run, "zoo:digits-dsa-ipc10")
    path = str(zoo.load("digits-idc-ipc10").save(tmp_path / "x.safetensors"))
    with pytest.raises(
        ValueError, match="set_path=.* holds a set with ipc=10, but ipc=5 was asked for"
    ):
        workflow.get_condensed(
            tmp_path / "given",
            "digits",
            lambda: data.load("digits"),
            **explicit(set_path=path, ipc=5),
        )


def test_a_cell_s_value_is_given_if_it_was_edited_or_injected():
    plain = {
        name: field.default
        for name, field in parameters.NOTEBOOKS["04_pruning"].model_fields.items()
    }
    own = "# Parameters that matter most here\n" + "\n".join(
        f"{name} = {plain[name]!r}" for name in parameters.NOTEBOOKS["04_pruning"].shown
    )
    check = lambda *cells, **values: parameters.check(
        "04_pruning", {**plain, **values, "In": ["", own, *cells]}
    )
    assert check().explicit == frozenset()
    assert check("# Parameters\nseed = 0\nsize = None\n").explicit == {"seed"}
    shown = parameters.NOTEBOOKS["04_pruning"].shown[0]
    assert check(**{shown: "folder:x"}).explicit == {shown}
    assert parameters.validated("04_pruning", {"ipc": 10}).explicit == {"ipc"}


def test_a_fresh_start_sets_only_the_run_aside(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        workflow, "get_condensed", lambda run, *_, **__: tensor_files.write_text(run / "made", "x")
    )
    command = ["condense", "--run-dir", "mine", "--fresh"]
    for _ in range(3):
        assert cli.main(command) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "mine",
        "mine.before-1",
        "mine.before-2",
    ]
    Path("theirs").mkdir()
    Path("theirs/table.csv").write_text("x")
    assert cli.main(["condense", "--run-dir", "theirs", "--fresh"]) == 2
    assert Path("theirs/table.csv").exists()


def test_data_made_in_another_order_is_the_same():
    assert make_data().made_from == make_data().made_from
    assert torch.equal(make_data().train_images, make_data().train_images)


@pytest.mark.parametrize(
    "name", ["sweep.csv", "dynamics", "04_pruning.ipynb", "dream/x.safetensors"]
)
def test_a_fresh_start_leaves_a_folder_in_which_a_run_works(tmp_path, name):
    run = owned.claim(tmp_path / "run")
    with locks.hold(run / name), pytest.raises(BlockingIOError, match="is being worked on by"):
        workflow.set_aside(run)
    workflow.set_aside(run)
    assert not run.exists()


def test_a_fresh_start_keeps_the_set_that_it_starts_from(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    owned.claim(Path("mine"))
    command = ["condense", "--run-dir", "mine", "--start", "mine/condensed.safetensors", "--fresh"]
    assert cli.main(command) == 2 and Path("mine").exists()
    assert "which holds start=mine/condensed.safetensors" in capsys.readouterr().err


def test_a_set_that_was_made_meanwhile_is_not_made_again(toy, tmp_path):
    def load():
        monkey = get(tmp_path / "run", toy)  # another process finishes it while data is loaded
        assert monkey.ipc == 1
        return toy

    with pytest.raises(BlockingIOError, match="was changed by another run meanwhile"):
        workflow.get_condensed(tmp_path / "run", "toy", load, **{**KIP, "seed": 1})


def test_recordings_of_one_study_are_alike(toy_set, tmp_path):
    short = {"width": 8, "device": "cpu", **EXACT}
    record = lambda seeds, **how: workflow.get_all_dynamics(
        tmp_path, toy_set, "toy", seeds, **{**short, **how}
    )
    record([0], epochs=2)
    with pytest.raises(ValueError, match=r"epochs=2 and dynamics-1.* epochs=3: .*" + HOW[2:]):
        record([0, 1], epochs=3)
    assert len(record([0, 1], epochs=2)) == 2
    assert [found.info["epochs"] for found in record([0, 1], epochs=3)] == [2, 2], "both found"


def test_a_recording_that_cannot_be_saved_keeps_its_checkpoint(toy_set, tmp_path, monkeypatch):
    find = lambda: workflow.get_dynamics(
        tmp_path, toy_set, "toy", 0, 0, epochs=2, width=4, precision="float32", progress=False
    )
    with monkeypatch.context() as patch:
        patch.setattr(dynamics.Dynamics, "save", lambda *_: (_ for _ in ()).throw(OSError("full")))
        with pytest.raises(OSError, match="full"):
            find()
    assert len([*tmp_path.glob("*unfinished*")]) == 1
    monkeypatch.setattr(training.Run, "epoch", lambda *_: pytest.fail("trained again"))
    assert len(find().correct) == 2 and not [*tmp_path.glob("*unfinished*")]
