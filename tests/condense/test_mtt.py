import dataclasses
import time
import types
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call

from tests.conftest import make_data
from yoco import augment, condense, formation, models
from yoco.condense import expert_training, mtt, mtt_student
from yoco.condense.mtt_experts import Experts, ExpertSettings, train_experts
from yoco.data.normalise import normalise
from yoco.training import resumable
from yoco.utils import seeds, tensor_files

CPU = torch.device("cpu")
BUFFER = ExpertSettings(epochs=4, width=4, batch_size=32)
QUICK = {
    "width": 4,
    "iterations": 4,
    "student_steps": 3,
    "max_start_epoch": 2,
    "experts": 2,
    "buffer_epochs": 4,
    "buffer_batch": 32,
}


def trained(data, folder, settings=BUFFER, count=1, **options):
    return train_experts(
        data,
        folder,
        settings,
        count=count,
        precision="float32",
        compiled=False,
        progress=False,
        **options,
    )


def method(data, folder=None, ipc=2, factor=1, seed=0, **overrides):
    settings = mtt.settings_for("smoke", data.size, ipc, {**QUICK, **overrides})
    return mtt.TrajectoryMatching(
        data,
        ipc,
        factor,
        settings,
        seeds.generator(seed),
        CPU,
        "float32",
        False,
        experts=folder,
        progress=False,
    )


def network(dtype=torch.float64):
    model = models.build_seeded(0, "convnet", 3, 3, 16, width=4).to(dtype)
    return model, torch.nn.utils.parameters_to_vector(model.parameters()).detach()


def literal_distance(model, start, target, rate, batches):
    """The whole unroll as one graph, layer by layer, as in the published code.

    batches: (images, labels) per step.
    """
    names, shapes = zip(*((name, p.shape) for name, p in model.named_parameters()))
    theta = start.clone().requires_grad_()
    for images, labels in batches:
        parts = [
            part.view(shape)
            for part, shape in zip(theta.split([s.numel() for s in shapes]), shapes)
        ]
        loss = F.cross_entropy(functional_call(model, dict(zip(names, parts)), (images,)), labels)
        theta = theta - rate * torch.autograd.grad(loss, theta, create_graph=True)[0]
    return ((theta - target) ** 2).sum() / ((start - target) ** 2).sum()


def unaugmented(parts):
    """Batches whose draws change nothing: they name no operation of the strategy."""
    source = seeds.generator(0)
    return [
        (
            part,
            dataclasses.replace(
                expert_training.AUGMENTATION.draw(len(part), 16, source), operations=()
            ),
        )
        for part in parts
    ]


def test_the_adjoint_gives_the_gradients_of_the_whole_unroll():
    model, start = network()
    source = seeds.generator(1)
    target = start + 0.05 * torch.randn(start.shape, generator=source).double()
    images = torch.randn(6, 3, 16, 16, generator=source).double().requires_grad_()
    labels, rate = torch.arange(6) % 3, torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    parts = [torch.tensor(p) for p in ([0, 1, 2, 3], [4, 5], [3, 0, 5, 1], [2, 4])]
    expected = literal_distance(model, start, target, rate, [(images[p], labels[p]) for p in parts])
    by_images, by_rate = torch.autograd.grad(expected, (images, rate))
    ours = mtt_student.distance_gradients(
        mtt_student.Student(model),
        start,
        target,
        rate.detach(),
        images.detach(),
        labels,
        unaugmented(parts),
    )
    assert ours[0].item() == pytest.approx(expected.item(), rel=1e-12)
    assert torch.allclose(ours[1], by_images, rtol=1e-9, atol=1e-12 * by_images.abs().max().item())
    assert ours[2].item() == pytest.approx(by_rate.item(), rel=1e-9)


@pytest.mark.parametrize("factor", [1, 2])
def test_gradients_of_a_step_equal_the_plain_computation(toy, factor):
    """The same draws by hand: expert, start, batches and augmentation.

    Images are formed and normalised in one graph.
    """
    ours = method(toy, factor=factor, synthetic_batch=5, student_steps=6)
    assert ours.pool.experts  # trained before the draws
    before = ours.source.get_state()
    loss, by_images, by_rate = ours.gradients()
    ours.source.set_state(before)
    start, target = ours._trajectory()
    images, rate = ours.images.clone().requires_grad_(), ours.rate.clone().requires_grad_()
    formed = normalise(formation.form(images, factor), toy.mean, toy.std)
    batches = [
        (augment.Augmentation(augment.OPERATIONS, single=True).apply(formed[i], d), ours.labels[i])
        for i, d in ours._batches(len(formed))
    ]
    expected = literal_distance(ours.student.skeleton, start, target, rate, batches)
    wanted, wanted_rate = torch.autograd.grad(expected, (images, rate))
    assert (
        len({draw.operations for _, draw in ours._batches(len(formed))}) > 1 and len(batches) == 6
    )
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert torch.allclose(by_images, wanted, rtol=1e-3, atol=1e-4 * wanted.abs().max().item())
    assert by_rate.item() == pytest.approx(wanted_rate.item(), rel=1e-3)


def test_the_start_epoch_is_below_the_maximum(toy):
    ours, asked = method(toy, max_start_epoch=3), []
    ours.pool.experts = types.SimpleNamespace(
        pair=lambda number, epoch, steps: (
            asked.append((number, epoch, steps)) or (torch.zeros(1), torch.zeros(1))
        )
    )
    for _ in range(80):
        ours._trajectory()
    # as published; the last target is after all 4 epochs
    experts = range(ours.settings.experts)
    assert set(asked) == {(n, epoch, 2) for n in experts for epoch in range(3)} and len(experts) > 1


def test_the_distance_is_0_on_arrival_and_1_standing_still():
    model, start = network()
    images, labels = (
        torch.randn(4, 3, 16, 16, generator=seeds.generator(0)).double(),
        torch.tensor([0, 1, 2, 0]),
    )
    batches, rate = unaugmented([torch.arange(4)] * 2), torch.tensor(0.1, dtype=torch.float64)
    student, arrived = mtt_student.Student(model), start
    with torch.no_grad():  # as the student walks
        for _ in batches:
            arrived = arrived - rate * student.gradient(arrived, images, labels)
    assert (
        mtt_student.distance_gradients(student, start, arrived, rate, images, labels, batches)[0]
        == 0
    )
    assert (
        mtt_student.distance_gradients(student, start, arrived, 0 * rate, images, labels, batches)[
            0
        ]
        == 1
    )
    halfway = mtt_student.distance_gradients(
        student, start, 2 * arrived - start, rate, images, labels, batches
    )[0]
    assert halfway.item() == pytest.approx(0.25)  # half of the way is left, squared


def test_a_step_is_momentum_sgd_in_normalised_pixels_clamped(toy, monkeypatch):
    ours = method(toy, image_lr=0.5, student_lr=0.02, student_lr_lr=0.1)
    gradient, start = torch.randn(6, 3, 16, 16, generator=seeds.generator(0)), ours.images.clone()
    monkeypatch.setattr(
        ours, "gradients", lambda: (torch.tensor(0.7), gradient, torch.tensor(0.05))
    )
    assert ours.step(0) == pytest.approx(0.7)
    assert ours.rate.item() == pytest.approx(0.02 - 0.1 * 0.05)
    ours.step(1)
    lr = 0.5 * torch.tensor(toy.std).view(1, 3, 1, 1) ** 2
    expected = ((start - lr * gradient).clamp(0, 1) - 1.5 * lr * gradient).clamp(0, 1)
    assert (
        torch.allclose(ours.images, expected, atol=1e-6)
        and ours.images.min() == 0
        and ours.images.max() == 1
    )
    assert ours.rate.item() == pytest.approx(0.015 - 0.1 * 0.075)
    ours.step(2)
    assert ours.rate.item() == pytest.approx(mtt.LEAST_STUDENT_LR)


def test_steps_lower_the_distance_to_one_expert_from_one_start():
    toy = make_data(per_class=40)
    ours = method(
        toy, experts=1, max_start_epoch=1, image_lr=100.0, student_lr=0.05, student_steps=5
    )
    assert ours.pool.experts
    losses = []
    for number in range(20):
        ours.source.manual_seed(1)
        losses.append(ours.step(number))
    assert losses[-1] < 0.7 * losses[0]
    assert ours.images.min() >= 0 and ours.images.max() <= 1


def test_no_more_than_one_student_step_s_graph_is_kept(toy, monkeypatch):
    ours, slopes, gradients = method(toy, experts=1, student_steps=6), [], []
    assert ours.pool.experts
    slope, gradient = ours.student.slope, ours.student.gradient

    def watched(theta, direction, images, labels):
        assert theta.is_leaf and not direction.requires_grad
        # the step before, until its name is bound anew
        assert sum(made() is not None for made in slopes) <= 1
        made = slope(theta, direction, images, labels)
        slopes.append(weakref.ref(made))
        return made

    def forward(*inputs):
        gradients.append(gradient(*inputs))
        return gradients[-1]

    monkeypatch.setattr(ours.student, "slope", watched)
    monkeypatch.setattr(ours.student, "gradient", forward)
    ours.gradients()
    assert len(slopes) == len(gradients) == 6 and not any(g.requires_grad for g in gradients)


def test_same_seed_same_images_and_global_state_stays(toy, tmp_path):
    def images(seed, wild):
        torch.manual_seed(wild)
        before, ours = torch.random.get_rng_state(), method(toy, tmp_path, seed=seed)
        losses = [ours.step(number) for number in range(2)]
        assert torch.equal(torch.random.get_rng_state(), before) and losses[0] != losses[1]
        return ours.images

    assert torch.equal(images(3, 1), images(3, 2)) and not torch.equal(images(3, 1), images(4, 1))


def test_a_step_after_restore_is_the_step_of_a_run_that_went_on(toy, tmp_path):
    whole, rest = method(toy, tmp_path, synthetic_batch=4), method(toy, tmp_path, synthetic_batch=4)
    whole.step(0)
    state = {name: tensor.clone() for name, tensor in whole.state().items()}
    losses = [whole.step(number) for number in (1, 2)]
    rest.restore(state)
    assert [rest.step(number) for number in (1, 2)] == losses
    assert all(torch.equal(rest.state()[name], tensor) for name, tensor in whole.state().items())


def test_a_loss_that_leaves_the_numbers_moves_nothing(toy):
    ours = method(toy)
    ours.rate, images = torch.tensor(1e30), ours.images.clone()
    with pytest.raises(FloatingPointError, match="loss is nan at step 0"):
        resumable.run(ours, 4, {}, progress=False)
    assert torch.equal(ours.images, images) and ours.rate == 1e30


def test_experts_in_a_folder_equal_those_in_memory(toy, tmp_path):
    memory, stored = trained(toy, None, count=2), trained(toy, tmp_path, count=2)
    assert [path.name for path in stored.trajectories] == [
        "expert-000.safetensors",
        "expert-001.safetensors",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "expert-000.safetensors",
        "expert-001.safetensors",
    ]
    assert memory.trajectories[0].shape == (
        5,
        sum(p.numel() for p in models.ConvNet(3, 3, 16, width=4).parameters()),
    )
    for number, trajectory in enumerate(memory.trajectories):
        first, second = stored.pair(number, 1, 3)
        assert torch.equal(first, trajectory[1]) and torch.equal(second, trajectory[4])
    assert not torch.equal(*(trajectory[0] for trajectory in memory.trajectories))


def test_experts_learn_the_classes(toy):
    trajectory = trained(
        toy, None, dataclasses.replace(BUFFER, epochs=12, width=8, lr=0.05, momentum=0.9)
    ).trajectories[0]
    model = models.ConvNet(3, 3, 16, width=8)
    right = []
    for row in (trajectory[0], trajectory[-1]):
        torch.nn.utils.vector_to_parameters(row, model.parameters())
        logits = model(normalise(toy.test_images / 255, toy.mean, toy.std))
        right.append((logits.argmax(1) == toy.test_labels).float().mean().item())
    assert right[1] > max(0.8, right[0])


def test_an_expert_trains_on_a_subset_of_its_own(toy):
    few = dataclasses.replace(BUFFER, images=20)
    subsets = [
        expert_training.ExpertTraining(
            toy, few, {"seed": 0, "number": n, "precision": "float32"}, CPU, False, int
        ).images.chosen
        for n in (0, 1)
    ]
    assert len(subsets[0]) == 20 and not torch.equal(*subsets)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_an_expert_that_was_stopped_ends_as_if_it_was_not(toy, tmp_path, monkeypatch, momentum):
    settings = dataclasses.replace(BUFFER, momentum=momentum)
    whole = trained(toy, None, settings).trajectories[0]
    monkeypatch.setattr(resumable, "SAVE_EVERY", 0.0)
    step = expert_training.ExpertTraining.step
    monkeypatch.setattr(
        expert_training.ExpertTraining,
        "step",
        lambda self, number: pytest.fail("killed") if number == 2 else step(self, number),
    )
    with pytest.raises(pytest.fail.Exception):
        trained(toy, tmp_path, settings)
    assert [path.name for path in tmp_path.iterdir()] == ["expert-000.unfinished.safetensors"]
    epochs = []
    monkeypatch.setattr(
        expert_training.ExpertTraining,
        "step",
        lambda self, number: epochs.append(number) or step(self, number),
    )
    rest = trained(toy, tmp_path, settings)
    assert epochs == [2, 3]
    assert torch.equal(torch.stack([rest.pair(0, epoch, 0)[0] for epoch in range(5)]), whole)


def test_finished_experts_are_kept_and_more_are_added(toy, tmp_path, monkeypatch):
    first, _ = trained(toy, tmp_path, count=1).pair(0, 4, 0)
    step, numbers = expert_training.ExpertTraining.step, []
    monkeypatch.setattr(
        expert_training.ExpertTraining,
        "step",
        lambda self, number: numbers.append(number) or step(self, number),
    )
    assert len(trained(toy, tmp_path, count=2)) == 2 and numbers == [0, 1, 2, 3]
    assert torch.equal(trained(toy, tmp_path, count=2).pair(0, 4, 0)[0], first) and numbers == [
        0,
        1,
        2,
        3,
    ]


def test_a_time_budget_gives_the_finished_experts(toy, tmp_path):
    assert len(trained(toy, tmp_path, count=2, time_budget=0.0)) == 0 and not list(
        tmp_path.iterdir()
    )
    clock = iter(range(1000))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: float(next(clock)))
        done = len(trained(toy, tmp_path, count=3, time_budget=9.0))
    assert 0 < done < 3 and len(trained(toy, tmp_path, count=3)) == 3


def test_experts_of_other_settings_are_refused_before_training(toy, tmp_path, monkeypatch):
    trained(toy, tmp_path)
    monkeypatch.setattr(
        expert_training.ExpertTraining, "step", lambda *_: pytest.fail("an epoch was trained")
    )
    with pytest.raises(
        ValueError,
        match=r"expert-000.safetensors belongs to another run \(lr: 0.01 there, 0.02 " r"here\)",
    ):
        trained(toy, tmp_path, dataclasses.replace(BUFFER, lr=0.02), count=2)
    with pytest.raises(ValueError, match=r"dataset_images: 72 there, 60 here"):
        trained(make_data(per_class=20), tmp_path)


def test_experts_of_another_layout_are_refused(toy, tmp_path, monkeypatch):
    deep = ExpertSettings(epochs=1, model="resnet10ap-w2", images=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "LAYOUTS", {})  # as version 0.1
        trained(toy, tmp_path, deep)
    with pytest.raises(ValueError, match=r"belongs to another run \(layout: None there, 2 here\)"):
        trained(toy, tmp_path, deep)


def test_a_cut_or_foreign_expert_file_is_refused_with_a_sentence(toy, tmp_path):
    stored = trained(toy, tmp_path)
    path = stored.trajectories[0]
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    with pytest.raises(ValueError, match="expert-000.safetensors is corrupted or truncated"):
        trained(toy, tmp_path)
    with pytest.raises(ValueError, match="expert-000.safetensors is corrupted or truncated"):
        stored.pair(0, 0, 1)
    path.write_bytes(whole.replace(b'"yoco":"expert"', b'"yoco":"xxpert"'))
    with pytest.raises(ValueError, match="expert-000.safetensors is not a yoco expert file"):
        trained(toy, tmp_path)
    # the last parameter after the last epoch: NaN
    path.write_bytes(whole[:-4] + b"\x00\x00\xc0\x7f")
    with pytest.raises(
        ValueError,
        match="expert-000.safetensors is corrupted: parameters does not have the checksum",
    ):
        stored.pair(0, 3, 1)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="no file at .*expert-000"):
        stored.pair(0, 0, 1)


def test_an_expert_file_is_checked_once_and_again_after_a_change(toy, tmp_path, monkeypatch):
    stored = trained(toy, tmp_path)
    path, checked, load = stored.trajectories[0], [], tensor_files.load_tensors
    monkeypatch.setattr(
        tensor_files,
        "load_tensors",
        lambda *arguments: checked.append(arguments) or load(*arguments),
    )
    first = [stored.pair(0, epoch, 1)[1] for epoch in (0, 2, 0)]
    assert len(checked) == 1 and torch.equal(first[0], first[2])
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    for _ in range(2):
        with pytest.raises(ValueError, match="parameters does not have the checksum"):
            stored.pair(0, 0, 1)


def test_expert_files_with_a_checksum_per_row_are_read(toy, tmp_path, monkeypatch):
    """Earlier versions wrote such files."""
    with monkeypatch.context() as patch:
        entry = tensor_files._entry
        patch.setattr(tensor_files, "_entry", lambda tensor: entry(tensor, by_row=True))
        stored = trained(toy, tmp_path)
    path, trajectory = stored.trajectories[0], trained(toy, None).trajectories[0]
    assert torch.equal(stored.pair(0, 1, 2)[1], trajectory[3])
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="parameters does not have the checksum"):
        stored.pair(0, 0, 1)


def test_an_expert_that_diverges_is_said(toy, monkeypatch):
    with pytest.raises(FloatingPointError, match="loss is nan at step"):
        trained(toy, None, dataclasses.replace(BUFFER, lr=1e30))
    # after the last batch: no loss saw them
    monkeypatch.setattr(
        expert_training.ExpertTraining, "_parameters", lambda self: torch.tensor([1.0, torch.inf])
    )
    with pytest.raises(FloatingPointError, match="loss is nan at step 0"):
        trained(toy, None)


@pytest.mark.parametrize(
    "overrides, error, match",
    [
        ({"image_rl": 1.0}, ValueError, "setting='image_rl' is unknown .did you mean 'image_lr'"),
        ({"image_lr": -1.0}, ValueError, "image_lr must be"),
        ({"student_lr": 0.0}, ValueError, "student_lr must be finite and at least 1e-05"),
        ({"student_steps": 0}, ValueError, "student_steps must be at least 1"),
        ({"iterations": 2.5}, TypeError, "iterations must be a whole number"),
        ({"image_momentum": 1.5}, ValueError, "image_momentum must be between 0 and 1"),
        ({"synthetic_batch": 0}, ValueError, "synthetic_batch must be at least 1"),
        (
            {"max_start_epoch": 4},
            ValueError,
            ("buffer_epochs must be at least 5 for max_start_epoch=4 and expert_epochs=2, got 4"),
        ),
        ({"max_start_epoch": 0}, ValueError, "max_start_epoch must be at least 1"),
        ({"model": "vgg"}, ValueError, "model='vgg' is unknown"),
        ({"width": 0}, ValueError, "width must be at least 1"),
    ],
)
def test_bad_settings_are_named(overrides, error, match):
    with pytest.raises(error, match=match):
        mtt.settings_for("smoke", 16, 1, {**QUICK, **overrides})


def test_bad_arguments_of_the_experts_are_named(toy):
    with pytest.raises(ValueError, match="preset='huge' is unknown.*paper, laptop, smoke"):
        mtt.settings_for("huge", 16, 1, {})
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        trained(toy, None, count=0)
    with pytest.raises(ValueError, match="time_budget must be"):
        trained(toy, None, time_budget=-1.0)
    with pytest.raises(ValueError, match="epochs must be at least 1"):
        ExpertSettings(epochs=0)
    assert len(Experts([])) == 0


def test_paper_presets_are_the_published_rows_by_ipc():
    rows = {ipc: mtt.settings_for("paper", 32, ipc, {}) for ipc in (1, 3, 4, 10, 20, 30, 50, 100)}
    assert [rows[ipc].max_start_epoch for ipc in rows] == [5, 5, 15, 15, 15, 40, 40, 40]
    assert (rows[1].student_steps, rows[1].student_lr_lr, rows[1].student_lr) == (50, 1e-7, 1e-2)
    assert (rows[50].student_steps, rows[50].student_lr_lr, rows[50].student_lr) == (30, 1e-5, 1e-3)
    assert rows[10] == mtt.TrajectorySettings() and rows[10].steps == 5000
    assert mtt.settings_for("paper", 224, 10, {}).model == "resnet10ap"
    assert mtt.settings_for("smoke", 224, 10, {"iterations": 3}).steps == 3


def test_an_expert_that_another_run_trains_is_waited_for(toy, tmp_path):
    with ThreadPoolExecutor(2) as both, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # who waits says so
        first, second = both.map(lambda _: trained(toy, tmp_path), range(2))
    assert first.trajectories == second.trajectories == [tmp_path / "expert-000.safetensors"]


def test_a_folder_of_experts_may_start_with_a_tilde(toy, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    settings = {"expert_folder": "~/experts", "progress": False, "device": "cpu", **QUICK}
    condense.condense(toy, "mtt", 1, preset="smoke", **{**settings, "iterations": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
    assert len([*(tmp_path / "home/experts").glob("expert-*")]) == 2
