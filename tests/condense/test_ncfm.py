"""NCFM: the loss against the published formula, its steps and pool, nested sets, given starts."""

import cmath
import math
import types

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call

import yoco
from tests.conftest import make_data
from yoco import augment, condense, evaluate, formation
from yoco.condense import expert_training, ncfm
from yoco.condense.expert_training import PairSettings
from yoco.condense.mtt_experts import train_experts
from yoco.condense.ncfm_draws import DeviceDraws
from yoco.condense.ncfm_frequencies import Mixture
from yoco.condense.ncfm_loss import characteristic, distance, prefix_averages, prefix_shares
from yoco.condense.nested import budgets
from yoco.data import to_floats
from yoco.data.normalise import normalise
from yoco.parallel import distributed
from yoco.training import network as training
from yoco.training import resumable
from yoco.utils import seeds

CPU = torch.device("cpu")
AUGMENT = augment.Augmentation(augment.MATCHING)
QUICK = {
    "width": 4,
    "iterations": 6,
    "real_batch": 12,
    "frequencies": 16,
    "pool_networks": 2,
    "pool_epochs": 2,
    "pool_batch": 32,
}
SHORT = {"preset": "smoke", "precision": "float32", "progress": False, **QUICK}


def method(
    data, ipc=2, factor=2, seed=0, prefixes=(), folder=None, alone=distributed.ALONE, **overrides
):
    settings = ncfm.settings_for("smoke", data.size, ipc, {**QUICK, **overrides})
    options = {"experts": folder, "prefixes": prefixes, "progress": False, "ranks": alone}
    return ncfm.CharacteristicMatching(
        data, ipc, factor, settings, seeds.generator(seed), CPU, "float32", False, **options
    )


def literal_loss(real, synthetic, frequencies):
    """The published formula in float64, image by image and frequency by frequency."""

    def phi(features, t):
        angles = [
            sum(a * b for a, b in zip(t.tolist(), f.tolist()))
            / math.sqrt(sum(x * x for x in f.tolist()))
            for f in features
        ]
        return sum(cmath.exp(1j * angle) for angle in angles) / len(features)

    total = 0.0
    for t in frequencies:
        r, s = phi(real, t), phi(synthetic, t)
        amplitude = (abs(r) - abs(s)) ** 2
        phase = 2 * (abs(r) * abs(s) - r.real * s.real - r.imag * s.imag)
        total += math.sqrt(0.5 * amplitude + 0.5 * phase)
    return 300 * total / len(frequencies)


def test_a_prefix_moves_only_images_new_to_it():
    assert prefix_shares([1, 2, 4], 4, 0.25).tolist() == [
        [1, 1, 1, 1],
        [0.25, 1, 1, 1],
        [0.25, 0.25, 1, 1],
    ]


def test_loss_is_the_published_one_per_class_and_prefix():
    source = seeds.generator(0)
    real, synthetic = (
        torch.randn(2, 7, 5, generator=source).abs(),
        torch.randn(2, 6, 5, generator=source).abs(),
    )
    t = torch.randn(9, 5, generator=source)
    ours = distance(
        characteristic(real, t, prefix_averages([7], 7)),
        characteristic(synthetic, t, prefix_averages([2, 6], 6)),
    )
    expected = [
        [literal_loss(real[k].double(), synthetic[k, :n].double(), t.double()) for n in (2, 6)]
        for k in range(2)
    ]
    assert ours.tolist() == [pytest.approx(row, rel=1e-4) for row in expected]


def test_equal_sets_have_no_loss_and_a_finite_gradient():
    features = torch.rand(1, 4, 5, generator=seeds.generator(0)).requires_grad_()
    t, average = torch.randn(8, 5, generator=seeds.generator(1)), prefix_averages([4], 4)
    loss = distance(
        characteristic(features.detach(), t, average), characteristic(features, t, average)
    )
    assert (
        loss.item() == pytest.approx(0, abs=1e-3)
        and torch.autograd.grad(loss.sum(), features)[0].isfinite().all()
    )


def test_matching_finds_the_two_gaussians_that_it_is_shown():
    """A planted problem: two classes of points about two directions.

    Ten points of each class start between the directions.
    """
    source = seeds.generator(0)
    real = torch.eye(3)[:2].view(2, 1, 3) + 0.2 * torch.randn(2, 500, 3, generator=source)
    points = (torch.ones(3) / 3 + 0.1 * torch.randn(2, 10, 3, generator=source)).requires_grad_()
    adam, average = torch.optim.Adam([points], 0.05), prefix_averages([10], 10)
    for _ in range(300):
        t = torch.randn(64, 3, generator=source)
        loss = distance(
            characteristic(real, t, prefix_averages([500], 500)), characteristic(points, t, average)
        ).sum()
        adam.zero_grad()
        loss.backward()
        adam.step()
    found, wanted = F.normalize(points.detach(), dim=-1), F.normalize(real, dim=-1)
    assert torch.allclose(found.mean(1), wanted.mean(1), atol=0.02), (
        "they lie about the same directions"
    )
    assert torch.allclose(found.std(1), wanted.std(1), atol=0.03), "and spread as far"


def by_hand(ours, draws, prefixes):
    """Losses and gradients of a step from its draws.

    Class after class, in one graph, with the network called as a module. A prefix's loss reaches
    the images of a smaller one by `prefix_share`.
    """
    share = ours.settings.prefix_share
    data, t = ours.data, draws.frequencies.detach().requires_grad_()
    images = ours.images.clone().requires_grad_()
    losses = []
    for label in range(3):
        own = formation.form(images[label * ours.ipc : (label + 1) * ours.ipc], ours.factor)
        both = normalise(
            torch.cat([to_floats(data.train_images[draws.real[label]]), own]), data.mean, data.std
        )
        seen = AUGMENT.apply(both, draws.augmentation.of(torch.full((len(both),), label))).split(
            [12, len(own)]
        )
        weights = [ours.network._named(vector) for vector in (draws.between, draws.trained)]
        skeleton = ours.network.skeleton
        f_real, f_own = (
            F.normalize(
                functional_call(
                    Features(skeleton), {f"network.{n}": p for n, p in weights[0].items()}, (x,)
                )
            )
            for x in seen
        )
        logits = functional_call(skeleton, weights[1], (seen[1],))
        errors = F.cross_entropy(logits, torch.full((len(own),), label), reduction="none")
        parts = []
        for before, n in zip([0, *prefixes], prefixes):
            held = f_own[:before]
            seen_alike = torch.cat([share * held + (1 - share) * held.detach(), f_own[before:n]])
            wrong = (share * errors[:before].sum() + errors[before:n].sum()) / n
            far = distance_of(f_real.detach() @ t.T, seen_alike @ t.T)
            parts.append(far + ours.settings.calibration * wrong)
        losses.append(sum(parts) / len(parts))
    return torch.stack(losses), *torch.autograd.grad(sum(losses), (images, t))


class Features(torch.nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        return self.network.features(images)


def distance_of(real, own):
    """From angles [n, T]."""
    gaps = [function(real).mean(0) - function(own).mean(0) for function in (torch.cos, torch.sin)]
    return 300 * ((gaps[0] ** 2 + gaps[1] ** 2) / 2 + 1e-12).sqrt().mean()


@pytest.mark.parametrize(
    "factor, prefixes, together, sampler, share, calibration",
    [
        (1, (), 80, 0, 0, 0.3),
        (2, (), 1, 3, 0, 1),
        (2, (4, 8), 16, 0, 0, 1),
        (2, (4, 8), 80, 0, 0.5, 2),
    ],
)
def test_the_gradient_of_a_step_is_that_of_the_plain_computation(
    toy, monkeypatch, factor, prefixes, together, sampler, share, calibration
):
    monkeypatch.setattr(ncfm, "TOGETHER_CPU", together)
    how = {"prefix_share": share, "calibration": calibration}
    ours = method(toy, factor=factor, prefixes=prefixes, sampler=sampler, **how)
    draws = ours.draws.next(ours.source)
    losses, *gradients = ours.gradients(ours.images, draws, calibrated=True)
    expected, *wanted = by_hand(ours, draws, prefixes or [2 * factor**2])
    assert losses.tolist() == pytest.approx(expected.tolist(), rel=1e-4)
    for ours, theirs in zip(gradients[: 1 + bool(sampler)], wanted):
        assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-4 * theirs.abs().max().item())


def test_the_smallest_prefix_is_moved_as_if_it_were_alone(toy):
    nested, alone = method(toy, prefixes=(4, 8)), method(toy, ipc=1)
    alone.images = nested.images[::2].clone()
    draws = nested.draws.next(nested.source)
    moved, wanted = (m.gradients(m.images, draws, calibrated=True)[1] for m in (nested, alone))
    # the loss is the mean of two prefixes'
    assert torch.allclose(2 * moved[::2], wanted, rtol=1e-3, atol=1e-4 * wanted.abs().max().item())


def test_the_weights_lie_between_a_network_s_first_and_last(toy):
    ours = method(toy, pool_networks=1)
    first, last = ours.pool.experts.pair(0, 0, 1)
    for _ in range(3):
        between, trained = ours.draws.weights(ours.source)
        share = (between - first) @ (last - first) / (last - first).square().sum()
        assert (
            0 < share < 1
            and torch.allclose(between, torch.lerp(first, last, share), atol=1e-5)
            and torch.equal(trained, last)
        )


def test_every_network_of_the_pool_is_drawn(toy):
    ours, asked = method(toy, pool_networks=3), []
    pair = ours.pool.experts.pair
    ours.pool.experts = types.SimpleNamespace(
        pair=lambda number, *epochs: asked.append(number) or pair(number, *epochs)
    )
    for _ in range(40):
        ours.draws.weights(ours.source)
    # the calibrating network is drawn independently of the other one
    assert set(zip(asked[::2], asked[1::2])) == {(m, n) for m in range(3) for n in range(3)}


def test_an_image_step_is_adam_clamped_with_a_rate_that_falls(toy):
    ours = method(toy, image_lr=0.1, final_lr=0.02, iterations=100)
    images = ours.images.clone().requires_grad_()
    adam, moved = torch.optim.Adam([images], lr=0.1), (ours.images, ours.mean, ours.square)
    for number in range(5):
        images.grad = torch.randn(images.shape, generator=seeds.generator(number))
        corrections = [1 - 0.9 ** (number + 1), 1 - 0.999 ** (number + 1)]
        moved = ncfm.adam(*moved, images.grad, ours.settings.lr_at(number), corrections)
        adam.step()
        with torch.no_grad():
            images.clamp_(0, 1)
    assert (
        torch.allclose(moved[0], images.detach(), atol=1e-3)
        and moved[0].min() == 0
        and moved[0].max() == 1
    )
    settings = ours.settings
    assert [settings.lr_at(n) for n in (0, 50, 75, 100)] == pytest.approx([0.1, 0.1, 0.06, 0.02])


def test_steps_lower_the_loss():
    data = make_data(per_class=40)
    ours, losses = method(data, real_batch=40, iterations=200, pool_epochs=4, image_lr=0.02), []
    for number in range(25):
        ours.source.manual_seed(1)  # the same network, draws and real images
        losses.append(ours.step(number))
    assert losses[-1] < 0.7 * losses[0]


def test_calibration_can_be_rarer(toy, monkeypatch):
    ours, calls = method(toy, calibrate_every=3), []
    calibration = ours._calibration
    monkeypatch.setattr(
        ours, "_calibration", lambda *values: calls.append(number) or calibration(*values)
    )
    for number in range(6):
        ours.step(number)
    assert sorted(set(calls)) == [0, 3]


def test_compiled_or_in_bfloat16_the_features_are_the_network_s(toy):
    ours = method(toy, width=16)
    weights, images = (
        ours.draws.weights(ours.source)[0],
        torch.randn(5, 3, 16, 16, generator=seeds.generator(0)),
    )
    exact = ours.network.features(weights, images)
    near = ncfm.Network(ours.network.skeleton, "bfloat16", False).features(weights, images).float()
    assert torch.cosine_similarity(exact, near).min() > 0.999


def test_a_gradient_that_leaves_the_numbers_moves_nothing(toy, monkeypatch):
    ours = method(toy)
    before = ours.images.clone()
    monkeypatch.setattr(
        ours,
        "gradients",
        lambda *_: (torch.zeros(3), torch.full_like(before, math.nan), torch.zeros(16, 1)),
    )
    assert math.isnan(ours.step(0)) and torch.equal(ours.images, before)


def test_a_mixture_starts_near_normal_and_stays_bounded():
    mixture = Mixture(5, 3, seeds.generator(0), CPU)
    drawn = mixture.draw(20_000, seeds.generator(1))
    assert drawn.shape == (20_000, 5)
    assert torch.allclose(drawn.mean(0), torch.zeros(5), atol=0.2) and torch.allclose(
        drawn.std(0), torch.ones(5), atol=0.2
    )
    mixture.raw = torch.full((2, 3, 5), 100.0)
    extreme = mixture.draw(20_000, seeds.generator(1))
    assert torch.allclose(extreme.mean(0), torch.ones(5), atol=0.1) and torch.allclose(
        extreme.std(0), torch.full((5,), 2.0), atol=0.1
    )


def test_a_mixture_is_trained_to_make_the_loss_large():
    """Classes that differ in one direction only: the mixture learns to look there."""
    source = seeds.generator(0)
    spread = torch.tensor([1.0, 0.02, 0.02])
    real, own = (
        F.normalize(
            torch.tensor([centre, 1.0, 1.0]) + spread * torch.randn(1, 50, 3, generator=source),
            dim=-1,
        )
        for centre in (0.5, -0.5)
    )
    average, mixture, losses = prefix_averages([50], 50), Mixture(3, 4, source, CPU), []
    for _ in range(150):
        t = mixture.draw(256, source)
        leaf = t.detach().requires_grad_()
        loss = distance(
            characteristic(real, leaf, average), characteristic(own, leaf, average)
        ).sum()
        mixture.ascend(t, torch.autograd.grad(loss, leaf)[0])
        losses.append(loss.item())
    assert sum(losses[-20:]) > 1.15 * sum(losses[:20])


def test_a_step_with_a_mixture_is_resumed_bit_for_bit(toy):
    whole, first, rest = (method(toy, sampler=3) for _ in range(3))
    assert torch.equal(whole.images, method(toy).images)
    start = whole.sampler.raw.clone()
    for number in range(4):
        whole.step(number)
    assert not torch.equal(whole.sampler.raw, start)
    for number in range(2):
        first.step(number)
    state = first.state()
    first.step(2)
    rest.restore(state)
    for number in (2, 3):
        rest.step(number)
    assert set(state) > {"sampler.raw", "sampler.steps"} and all(
        torch.equal(values, rest.state()[name]) for name, values in whole.state().items()
    )


def test_draws_on_the_device_are_of_the_same_kind(toy):
    """Real images of their class, each once if there are enough; networks of the pool."""
    for count in (24, 30):
        ours = method(toy, real_batch=count)
        draws = DeviceDraws(ours.pool, ours.draws.members, 16, count, 16, ours.sampler, CPU)
        drawn = draws.next(seeds.generator(0))
        assert (
            drawn.real.shape == (3, count)
            and (toy.train_labels[drawn.real] == torch.arange(3).view(3, 1)).all()
        )
        assert count > 24 or all(len(set(row.tolist())) == count for row in drawn.real)
    few = [ours.draws.members[0][:5], *ours.draws.members[1:]]
    real = DeviceDraws(ours.pool, few, 16, 8, 16, ours.sampler, CPU).real(seeds.generator(0))
    assert set(real[0].tolist()) <= set(few[0].tolist()) and len(set(real[1].tolist())) == 8
    first, last = draws.pairs.unbind(1)
    shares = [
        ((drawn.between - a) @ (b - a) / (b - a).square().sum(), a, b) for a, b in zip(first, last)
    ]
    assert any(
        torch.allclose(drawn.between, torch.lerp(a, b, share), atol=1e-5) and 0 <= share <= 1
        for share, a, b in shares
    )
    assert any(torch.equal(drawn.trained, b) for b in last) and drawn.frequencies.shape == (
        16,
        ours.network.width,
    )


def pairs(data, folder=None, **options):
    settings = PairSettings(**{"epochs": 3, "width": 4, "batch_size": 16, **options})
    return train_experts(
        data, folder, settings, count=2, precision="float32", compiled=False, progress=False
    )


def test_a_pair_is_first_and_last_weights_of_a_training(toy, monkeypatch):
    rates, decays, step = [], set(), training.Step.__call__

    def watched(self, *arguments):
        rates.append(self.optimizer.lr)
        decays.add(self.optimizer.weight_decay)
        return step(self, *arguments)

    monkeypatch.setattr(training.Step, "__call__", watched)
    made = pairs(toy, warmup=0.2)
    assert decays == {5e-4}
    assert [len(trajectory) for trajectory in made.trajectories] == [2, 2]
    group = rates[:15]  # 72 images in batches of 16, three times
    assert (
        group[0] == 0
        and max(group) == pytest.approx(0.04, rel=0.1)
        and group[3] == max(group)
        and group[-1] < 0.002
    )
    assert group[3:] == sorted(group[3:], reverse=True)
    assert not torch.equal(*made.trajectories[0]) and not torch.equal(
        made.trajectories[0][0], made.trajectories[1][0]
    )


def test_a_pair_that_was_stopped_ends_as_if_it_was_not(toy, tmp_path, monkeypatch):
    whole, step = pairs(toy), expert_training.ExpertTraining.step
    monkeypatch.setattr(resumable, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(
        expert_training.ExpertTraining,
        "step",
        lambda self, number: pytest.fail("killed") if number == 2 else step(self, number),
    )
    with pytest.raises(pytest.fail.Exception):
        pairs(toy, tmp_path)
    epochs = []
    monkeypatch.setattr(
        expert_training.ExpertTraining,
        "step",
        lambda self, number: epochs.append(number) or step(self, number),
    )
    rest = pairs(toy, tmp_path)
    assert epochs == [2, 0, 1, 2]
    assert all(
        torch.equal(torch.stack(rest.pair(number, 0, 1)), whole.trajectories[number])
        for number in (0, 1)
    )


def test_networks_lie_beside_the_checkpoint_and_runs_share_them(toy, tmp_path, monkeypatch):
    condense.condense(toy, "ncfm", 1, checkpoint=tmp_path / "checkpoint.safetensors", **SHORT)
    assert sorted(path.name for path in (tmp_path / "networks").iterdir()) == [
        "expert-000.safetensors",
        "expert-001.safetensors",
    ]
    monkeypatch.setattr(
        expert_training.ExpertTraining, "step", lambda *_: pytest.fail("an epoch was trained")
    )
    condense.condense(
        toy, "ncfm", 2, nested=True, seed=1, checkpoint=tmp_path / "other.safetensors", **SHORT
    )
    with pytest.raises(
        ValueError, match=r"belongs to another run \(batch_size: 32 there, 8 here\)"
    ):
        condense.condense(
            toy, "ncfm", 1, expert_folder=tmp_path / "networks", **{**SHORT, "pool_batch": 8}
        )


def test_a_nested_set_says_so_and_is_ranked_as_it_is(toy, tmp_path):
    made = condense.condense(toy, "ncfm", 3, nested=[1], **SHORT)
    assert made.info["nested"] == [1, 3] and made.info["settings"]["iterations"] == 6
    ranked, (formed, labels) = made.rank(), made.form()
    assert ranked.info["ranked_by"] == "nested" and ranked.info["budgets"] == [1, 3]
    for k in (1, 4, 12):
        images, taken = ranked.take(per_class=k)
        first = torch.cat([torch.arange(k) + 12 * label for label in range(3)])
        assert torch.equal(images, formed[first]) and torch.equal(taken, labels[first])
    flat = condense.condense(toy, "ncfm", 3, **SHORT)
    assert "nested" not in flat.info and not torch.equal(flat.images, made.images)
    with pytest.raises(
        ValueError,
        match="dynamics of this set are needed, got None: only a set condensed with nested=",
    ):
        flat.rank()
    path = tmp_path / "checkpoint.safetensors"
    condense.condense(toy, "ncfm", 3, checkpoint=path, **SHORT)
    with pytest.raises(ValueError, match=r"nested: None there, \[1, 3\] here"):
        condense.condense(toy, "ncfm", 3, nested=[1], checkpoint=path, **SHORT)


def test_budgets_of_nested_sets():
    assert (
        budgets(True, 10) == [1, 2, 3, 5, 7, 10]
        and budgets(True, 1) == [1]
        and budgets(True, 6) == [1, 2, 3, 5, 6]
    )
    assert (
        budgets(True, 50) == [1, 2, 3, 5, 7, 10, 20, 30, 50]
        and budgets([5, 2], 10) == [2, 5, 10]
        and budgets([10], 10) == [10]
    )


@pytest.mark.parametrize(
    "nested, error, match",
    [
        (False, ValueError, "nested must be True, a list of budgets or None, got False"),
        ([0], ValueError, "nested must be between 1 and 2, got 0"),
        ([3], ValueError, "nested must be between 1 and 2, got 3"),
        ([1, 1], ValueError, "nested must all differ"),
        ([], ValueError, "nested must hold at least one"),
        (2, TypeError, "nested must be a sequence"),
        ([1.5], TypeError, "nested must be a whole number"),
    ],
)
def test_bad_budgets_are_named(toy, nested, error, match):
    with pytest.raises(error, match=match):
        condense.condense(toy, "ncfm", 2, nested=nested, **SHORT)
    with pytest.raises(ValueError, match="nested=True is for ncfm, got method='idc'"):
        condense.condense(toy, "idc", 2, nested=True, preset="smoke")


def test_nested_prefix_is_nearer_to_the_real_images():
    data, losses = make_data(per_class=40), {}
    for prefixes in ((4, 12), ()):
        ours = method(
            data,
            ipc=3,
            prefixes=prefixes,
            real_batch=40,
            iterations=40,
            pool_epochs=1,
            image_lr=0.05,
            calibration=0.0,
        )
        for number in range(41):
            # the same network, real images, frequencies and augmentation at every step
            ours.source.manual_seed(7)
            if number < 40:
                ours.step(number)
        ours.averages, ours.weights = prefix_averages([4], 12), torch.ones(1)
        losses[prefixes] = (
            ours.gradients(ours.images, ours.draws.next(ours.source), calibrated=False)[0]
            .mean()
            .item()
        )
    assert losses[4, 12] < 0.8 * losses[()], losses


@pytest.mark.slow
def test_nested_prefix_of_digits_trains_better_than_flat(tmp_path):
    digits = yoco.data.load("digits")
    # the preset's 80 steps are too few for a lead that rounding cannot undo
    options = {"preset": "smoke", "iterations": 240, "progress": False, "expert_folder": tmp_path}
    sets = [
        condense.condense(digits, "ncfm", 3, nested=nested, **options) for nested in (True, None)
    ]
    sets.append(condense.start_set(digits, "ncfm", 3, preset="smoke"))
    first = torch.cat([torch.arange(4) + 12 * label for label in range(10)])
    means = []
    for each in sets:
        images, labels = (part[first] for part in each.form())
        means.append(
            sum(
                evaluate.evaluate(images, labels, digits, epochs=60, seed=seed, width=32)
                for seed in range(4)
            )
            / 4
        )
    assert means[0] > means[1] + 1 and means[1] > means[2] + 2


@pytest.mark.parametrize(
    "overrides, error, match",
    [
        ({"real_batch": 0}, ValueError, "real_batch must be at least 1"),
        ({"frequencies": 1.5}, TypeError, "frequencies must be a whole number"),
        ({"sampler": -1}, ValueError, "sampler must be at least 0"),
        ({"image_lr": -1.0}, ValueError, "image_lr must be"),
        ({"calibration": -1.0}, ValueError, "calibration must be"),
        ({"calibrate_every": 0}, ValueError, "calibrate_every must be at least 1"),
        ({"pool_epochs": 0}, ValueError, "pool_epochs must be at least 1"),
        ({"pool_images": 0}, ValueError, "pool_images must be at least 1"),
        ({"pool_seed": -1}, ValueError, "pool_seed must be"),
        ({"model": "densenet"}, ValueError, "model='densenet' has batch norm"),
        ({"width": 0}, ValueError, "width must be at least 1"),
        ({"buffer_epochs": 1}, ValueError, "setting='buffer_epochs' is unknown"),
    ],
)
def test_bad_settings_are_named(overrides, error, match):
    with pytest.raises(error, match=match):
        ncfm.settings_for("smoke", 16, 1, overrides)


def test_bad_settings_of_a_pair_are_named():
    with pytest.raises(ValueError, match="warmup must be between 0 and 1"):
        PairSettings(warmup=2.0)
    with pytest.raises(ValueError, match="weight_decay must be"):
        PairSettings(weight_decay=-1.0)


def test_the_paper_preset_is_the_published_configuration():
    paper = ncfm.settings_for("paper", 32, 10, {})
    assert (
        paper.real_batch,
        paper.frequencies,
        paper.pool_networks,
        paper.pool_epochs,
        paper.iterations,
    ) == (1024, 4096, 20, 60, 20_000)
    assert (
        paper.image_lr == 0.001
        and ncfm.settings_for("paper", 224, 10, {}).model == "resnet10ap"
        and condense.factor_of("ncfm", 32) == 2
    )
