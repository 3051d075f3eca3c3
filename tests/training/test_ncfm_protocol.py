"""The protocol of NCFM's published evaluation, and the checks on the test images that it counts."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from yoco import augment, data, dynamics, evaluate, models, zoo
from yoco.experiments import study
from yoco.training import resumable, stacked
from yoco.training.network import Run, batches
from yoco.training.protocol import AdamW, Optimiser, Protocol
from yoco.utils import seeds
from yoco.workflow.parameters import Pruning

TINY = {"width": 8, "precision": "float32"}


def test_ncfm_s_terms_and_the_published_changes():
    terms = Protocol.of("ncfm", epochs=4000)
    assert terms == Protocol(
        4000, batch_size=256, last_batch="small", optimiser=AdamW(), cutmix=0.5
    )
    assert (terms.optimiser.lr, terms.optimiser.weight_decay) == (0.001, 0.01)
    assert augment.EVALUATION == ("color", "crop", "flip", "scale", "rotate"), "and no cutout"
    few = Protocol.of("ncfm", epochs=2000, batch_size=128, optimiser=AdamW(lr=0.0006))
    assert few == replace(terms, epochs=2000, batch_size=128, optimiser=AdamW(0.0006))


@pytest.mark.parametrize("epochs", [1, 3, 7, 40, 2000])
@pytest.mark.parametrize(
    "optimiser, shares, drop",
    [(AdamW(), (1 / 5, 2 / 5, 3 / 5, 4 / 5), 0.5), (Optimiser(), (2 / 3, 5 / 6), 0.2)],
)
def test_rates_are_those_of_torch_s_schedule(optimiser, shares, drop, epochs):
    theirs = torch.optim.SGD([torch.zeros(1)], optimiser.lr)
    milestones = [int(share * epochs + 1e-9) for share in shares]
    schedule = torch.optim.lr_scheduler.MultiStepLR(theirs, milestones, drop)
    for epoch in range(epochs):
        assert optimiser.rate(epoch, epochs) == pytest.approx(schedule.get_last_lr()[0])
        theirs.step(), schedule.step()


def literal(images, labels, seed, epochs, batch_size):
    """Train as NCFM's code does, with the draws of `Run`."""
    source = seeds.generator(seed, stream=1)
    network = models.build_seeded(seeds.draw_seed(source), "convnet", 3, 3, 16, width=8)
    adam = torch.optim.AdamW(network.parameters(), lr=0.001, weight_decay=0.01)
    fifths = [part * epochs // 5 for part in range(1, 5)]
    schedule = torch.optim.lr_scheduler.MultiStepLR(adam, fifths, gamma=0.5)
    operations = augment.Augmentation(("color", "crop", "flip", "scale", "rotate"))
    for _ in range(epochs):
        for index in torch.randperm(len(images), generator=source).split(batch_size):
            seen = operations(images[index], source)
            seen, targets = augment.cutmix(seen, labels[index], 3, source, probability=0.5)
            adam.zero_grad()
            F.cross_entropy(network(seen), targets).backward()
            adam.step()
        schedule.step()
    return network


def test_a_run_is_a_literal_loop_with_torch_s_adamw():
    source = seeds.generator(5)
    images, labels = torch.randn(11, 3, 16, 16, generator=source), torch.arange(11) % 3
    protocol = Protocol.of("ncfm", epochs=6, batch_size=4, compiled=False, **TINY)
    run = Run(images, labels, 3, protocol, 7)
    for _ in range(6):
        run.epoch()
    theirs = literal(images, labels, 7, 6, 4)
    assert all(map(torch.equal, run.network.parameters(), theirs.parameters()))
    sizes = [len(part) for part in batches(400, 256, source, Protocol.of("ncfm").last_batch)]
    assert sizes == [256, 144]


def test_checks_have_the_last_epoch_and_the_best():
    real, (images, labels) = data.load("digits"), zoo.load("digits-idc-ipc10").form()
    images, labels = images[::4], labels[::4]
    how = {"epochs": 5, "seed": 3, "protocol": "ncfm", "batch_size": 16, **TINY}
    found = evaluate.checked(images, labels, real, every=2, **how)
    assert list(found.accuracies) == [2, 4, 5] and found.best == max(found.accuracies.values()) > 15
    alone = evaluate.evaluate(images, labels, real, **how)
    assert found.last == found.accuracies[5] == alone, "checks do not disturb the training"
    assert alone != evaluate.evaluate(images, labels, real, **{**how, "protocol": "paper"})
    falling = evaluate.Checks({2: 30.0, 4: 50.0, 5: 40.0})
    assert (falling.last, falling.best) == (40.0, 50.0)


@pytest.mark.parametrize("protocol", ["ncfm", "paper"])
def test_an_interrupted_training_resumes_to_the_same(toy, toy_set, tmp_path, monkeypatch, protocol):
    path, subset, trained = tmp_path / "unfinished.safetensors", toy_set.form(), []
    how = {"epochs": 6, "every": 2, "seed": 3, "protocol": protocol, "batch_size": 16, **TINY}
    whole = evaluate.checked(*subset, toy, **how)
    epoch = Run.epoch

    def interrupted(run, *seen):
        if len(trained) == 3:
            trained.append("stopped")
            raise KeyboardInterrupt
        trained.append(run.epochs)
        epoch(run, *seen)

    monkeypatch.setattr(Run, "epoch", interrupted)
    monkeypatch.setattr(resumable, "SAVE_EVERY", 0.0)
    with pytest.raises(KeyboardInterrupt):
        evaluate.checked(*subset, toy, checkpoint=path, **how)
    assert evaluate.checked(*subset, toy, checkpoint=path, **how) == whole
    assert trained == [0, 1, 2, "stopped", 3, 4, 5]
    assert evaluate.checked(*subset, toy, checkpoint=path, **how) == whole and len(trained) == 7
    with pytest.raises(ValueError, match="belongs to another run .seed: 3 there, 4 here"):
        evaluate.checked(*subset, toy, checkpoint=path, **{**how, "seed": 4})
    for part, changed in (
        ("images", (1 - subset[0], subset[1], toy)),
        ("labels", (subset[0], subset[1].flip(0), toy)),
        ("test images", (*subset, replace(toy, test_images=255 - toy.test_images))),
        ("mean and std", (*subset, replace(toy, mean=(0.1, 0.2, 0.3)))),
    ):
        with pytest.raises(ValueError, match=f"made from other data, which differ in {part}:"):
            evaluate.checked(*changed, checkpoint=path, **how)
    del how["every"]
    with pytest.raises(ValueError, match="belongs to another run .every: 2 there, 6 here"):
        evaluate.evaluate(*subset, toy, checkpoint=path, **how)


def test_no_dynamics_or_studies_on_ncfm_s_terms(toy, toy_set):
    told = r"follow the paper, .* got optimiser=AdamW\(.*; allowed: protocol='even' or 'paper'"
    with pytest.raises(ValueError, match=told):
        dynamics.record(toy_set, epochs=2, seed=0, protocol="ncfm")
    with pytest.raises(ValueError, match=told):
        study.run(toy_set, toy, [None], methods=["random"], epochs=1, protocol="ncfm")
    with pytest.raises(ValueError, match="protocol='ncfm' is unknown; allowed: even, paper"):
        Pruning(protocol="ncfm")
    gpu, shape = torch.device("cuda"), torch.Size([10, 3, 32, 32])
    kinds = [(Protocol.of("ncfm"), shape, None)] * 2
    assert stacked.grouped(kinds, gpu) == [[0], [1]], "each trains alone"


def test_the_interval_of_the_checks_is_a_number(toy, toy_set):
    with pytest.raises(ValueError, match="every must be at least 1, got 0"):
        evaluate.checked(*toy_set.form(), toy, epochs=2, seed=0, every=0, **TINY)


@pytest.mark.parametrize(
    ("optimiser", "given", "told"),
    [
        (Optimiser, {"lr": -1}, "lr must be finite and at least 0, got -1"),
        (Optimiser, {"lr": "x"}, "lr must be a number, got 'x'"),
        (AdamW, {"momentum": 5}, "momentum must be between 0 and 1, got 5"),
        (AdamW, {"square": -0.1}, "square must be between 0 and 1, got -0.1"),
    ],
)
def test_an_optimiser_names_its_bad_values(optimiser, given, told):
    with pytest.raises((TypeError, ValueError), match=told):
        optimiser(**given)
