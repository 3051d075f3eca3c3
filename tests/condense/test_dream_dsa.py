"""DREAM and DSA: how they differ from IDC.

What all gradient matching shares is tested in tests/condense/test_idc.py.
"""

import pytest
import torch
import torch.nn.functional as F

from tests.conftest import make_data
from yoco import augment, condense, formation, models
from yoco.condense import dream, dsa, gradient_matching
from yoco.condense.gradient_matching import GradientMatcher, layer_weights
from yoco.data import to_floats
from yoco.data.normalise import normalise
from yoco.utils import kmeans, seeds

CPU = torch.device("cpu")
SHORT = {
    "preset": "smoke",
    "outer_loops": 2,
    "inner_loops": 3,
    "width": 8,
    "precision": "float32",
    "progress": False,
}


def dream_of(toy, **overrides):
    settings = dream.settings_for(
        "smoke", toy.size, 2, {"width": 8, "real_batch": 5, "network_images": 16, **overrides}
    )
    return dream.RepresentativeMatching(
        toy, 2, 2, settings, seeds.generator(0), CPU, "float32", False
    )


def dsa_of(toy, **overrides):
    settings = dsa.settings_for("smoke", toy.size, 2, {"width": 8, **overrides})
    return dsa.SiameseMatching(toy, 2, 1, settings, seeds.generator(0), CPU, "float32", False)


def test_dream_matches_images_nearest_to_centres(toy):
    method = dream_of(toy)
    for number in range(3):
        method.step(number)  # a network that has trained a little
    source = torch.Generator()
    source.set_state(method.source.get_state())
    method.due = True
    method.image_gradient()
    for label, members in enumerate(method.members):
        pool = members[torch.randperm(len(members), generator=source)]
        with torch.no_grad():
            embedded = method.model.features(
                normalise(to_floats(toy.train_images[pool]), toy.mean, toy.std)
            )
        assert torch.equal(
            method.representatives[label], pool[kmeans.representatives(embedded, 5, source)]
        )
        assert (toy.train_labels[method.real_batch(label)] == label).all() and len(
            set(method.real_batch(label).tolist())
        ) == 5


def test_dream_renews_its_choice_by_steps_and_networks(toy):
    method, chosen = dream_of(toy, renew_every=2, inner_loops=5), []
    for number in range(10):
        method.step(number)
        chosen.append(method.representatives.clone())
    renewed = [
        number for number in range(1, 10) if not torch.equal(chosen[number], chosen[number - 1])
    ]
    assert renewed == [2, 4, 5, 6, 8]


def test_dream_starts_from_representatives(toy):
    start = condense.start_set(toy, "dream", 2, preset="smoke", width=8)
    cells = formation.cells(start.images, 2)
    # each image as a cell
    real = formation.cells(
        formation.pack(to_floats(toy.train_images).repeat_interleave(4, 0), 2, toy.size), 2
    )[::4]
    distance = torch.cdist(
        cells.flatten(1), real.flatten(1), compute_mode="donot_use_mm_for_euclid_dist"
    )
    found = distance.argmin(1)
    assert (distance.amin(1) < 1e-5).all()
    assert (
        torch.equal(toy.train_labels[found], torch.arange(3).repeat_interleave(8))
        and len(found.unique()) == 24
    )
    assert not torch.equal(
        start.images, condense.start_set(toy, "idc", 2, preset="smoke", width=8).images
    )
    assert torch.equal(
        condense.start_set(toy, "idc", 2, preset="smoke", seed=3).images,
        condense.real_set(toy, 2, 2, 3).images,
    )


def test_dream_s_pool_bounds_what_is_embedded(toy, monkeypatch):
    embedded = []
    monkeypatch.setattr(
        kmeans,
        "representatives",
        lambda points, count, source: embedded.append(len(points)) or torch.arange(count),
    )
    dream_of(toy, pool=9)
    assert embedded == [9, 9, 9]
    embedded.clear()
    dream_of(toy, pool=3)  # as many as are to be chosen, at least: 2 images of 4 cells
    assert embedded == [8, 8, 8]


def test_dsa_distance_equals_row_cosines_by_hand():
    model = models.build_seeded(0, "convnet", 3, 4, 16, width=6)
    source = seeds.generator(0)
    real, synthetic = (
        torch.randn(6, 3, 16, 16, generator=source),
        torch.randn(4, 3, 16, 16, generator=source).requires_grad_(),
    )

    def gradients(images, create_graph):
        loss = F.cross_entropy(model(images), torch.full((len(images),), 2))
        return torch.autograd.grad(loss, list(model.parameters()), create_graph=create_graph)

    expected = 0
    for r, s in zip(gradients(real, False), gradients(synthetic, True)):
        if r.ndim == 1:  # biases and norms
            continue
        for row_r, row_s in zip(r.detach(), s):
            expected = (
                expected + 1 - (row_r.flatten() @ row_s.flatten()) / (row_r.norm() * row_s.norm())
            )
    ours = GradientMatcher(model, "cosine", layer_weights).match(model, real, synthetic, 2)
    assert ours.item() == pytest.approx(expected.item(), rel=1e-4)
    g_ours, g_expected = (torch.autograd.grad(value, synthetic)[0] for value in (ours, expected))
    assert torch.allclose(g_ours, g_expected, rtol=1e-3, atol=1e-4 * g_expected.abs().max().item())


def test_the_cosine_of_tiny_gradients_counts_them_as_far_apart():
    # the published epsilon, 1e-6, is added to the product of the norms, 2.5e-7
    row = torch.tensor([[3e-4, 4e-4]])
    assert gradient_matching.row_cosine((row,), (row,)).item() == pytest.approx(
        1 - 2.5e-7 / 1.25e-6, rel=1e-5
    )
    still = torch.zeros(1, 2, requires_grad=True)
    distance = gradient_matching.row_cosine((row,), (still,))
    assert distance.item() == 1 and torch.autograd.grad(distance, still)[0].isfinite().all()


def test_dsa_s_network_steps_by_plain_sgd(toy):
    optimizer = dsa_of(toy).network_step.optimizer
    assert (optimizer.lr, optimizer.momentum, optimizer.weight_decay) == (0.01, 0, 0)


def test_dsa_trains_on_its_images_except_after_the_last(toy, monkeypatch):
    method, trained = dsa_of(toy, inner_loops=3, network_epochs=2), []
    monkeypatch.setattr(
        method,
        "_train_network",
        lambda images, labels, **options: trained.append((images, labels, options)),
    )
    for number in range(6):
        method.step(number)
        expected = normalise(method.images, toy.mean, toy.std)
        if number % 3 < 2:
            images, labels, options = trained[-1]
            assert (
                torch.equal(images, expected)
                and labels.tolist() == [0, 0, 1, 1, 2, 2]
                and options == {"cutmix": 0}
            )
    assert len(trained) == 2 * 2 * 2


def test_dsa_steps_as_on_normalised_images(toy):
    method = dsa_of(toy, image_lr=0.1)
    before, gradient = method.images.clone(), torch.randn_like(method.images) * 0.01
    method._move_images(gradient)
    std = torch.tensor(toy.std).view(1, -1, 1, 1)
    # the chain rule: the gradient of a normalised pixel is std times a pixel's
    normalised = before / std - 0.1 * gradient * std
    assert torch.allclose(method.images, (normalised * std).clamp(0, 1), atol=1e-6)


def test_dsa_s_image_steps_descend_on_a_fixed_network(toy):
    method, losses = dsa_of(toy, inner_loops=100, network_epochs=0), []
    for number in range(1, 15):
        method.source.manual_seed(1)
        losses.append(method.step(number))
    assert losses[-1] < 0.8 * losses[0]


def test_methods_have_the_paper_s_settings_and_factors():
    idc, ours = (
        condense.METHODS["idc"].settings_for("paper", 32, 10, {}).record(),
        dream.settings_for("paper", 32, 10, {}).record(),
    )
    assert ours == {**idc, "real_batch": 128, "renew_every": 10, "pool": None}
    assert [
        dream.settings_for(preset, 32, 10, {}).real_batch for preset in ("laptop", "smoke")
    ] == [128, 32]
    siamese = dsa.settings_for("paper", 32, 10, {})
    assert (
        siamese.outer_loops,
        siamese.inner_loops,
        siamese.network_epochs,
        siamese.real_batch,
    ) == (1000, 10, 50, 256)
    assert (siamese.distance, siamese.image_lr, siamese.network_momentum) == ("cosine", 0.1, 0)
    assert (
        dsa.settings_for("paper", 32, 1, {}).inner_loops == 1
        and dsa.settings_for("paper", 32, 50, {}).inner_loops == 50
    )
    assert [condense.factor_of(m, 32) for m in ("idc", "dream", "dsa")] == [
        2,
        2,
        1,
    ] and condense.factor_of("idc", 224) == 3
    assert dsa.SiameseMatching.matching == augment.Augmentation(
        augment.OPERATIONS, shared=True, single=True
    )


@pytest.mark.parametrize(
    "method, setting, match",
    [
        ("dream", {"renew_every": 0}, "renew_every must be at least 1"),
        ("dream", {"pool": 0}, "pool must be at least 1"),
        ("dream", {"network_epochs": 1}, "setting='network_epochs' is unknown"),
        ("dsa", {"network_epochs": -1}, "network_epochs must be at least 0"),
        ("dsa", {"network_images": 1}, "setting='network_images' is unknown"),
        ("dsa", {"preset": "tiny"}, "preset='tiny' is unknown"),
    ],
)
def test_bad_settings_are_named(method, setting, match):
    with pytest.raises(ValueError, match=match):
        condense.condense(
            make_data(), method, 1, **{"preset": "smoke", "progress": False, **setting}
        )
