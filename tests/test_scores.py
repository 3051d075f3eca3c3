import math

import pytest
import torch
from sklearn.cluster import KMeans

from yoco import score_formulas, scores

# two epochs, three images, two classes; probabilities written as their logs
P = torch.tensor([[[0.9, 0.1], [0.4, 0.6], [0.5, 0.5]], [[0.8, 0.2], [0.2, 0.8], [0.3, 0.7]]])
LOGITS, LABELS = P.log(), torch.tensor([0, 0, 1])


def test_el2n_by_hand():
    by_hand = [
        (0.1 + 0.2) / 2 * math.sqrt(2),
        (0.6 + 0.8) / 2 * math.sqrt(2),
        (0.5 + 0.3) / 2 * math.sqrt(2),
    ]
    assert scores.el2n(LOGITS, LABELS).tolist() == pytest.approx(by_hand)
    assert scores.el2n(LOGITS, LABELS, epochs=1).tolist() == pytest.approx(
        [p * math.sqrt(2) for p in (0.1, 0.6, 0.5)]
    )


def test_lbpe_takes_the_most_accurate_epochs_among_the_first():
    # accuracies: epoch 0 has image 0 right (argmax of a tie is class 0): 1/3; epoch 1 images 0 and
    # 2: 2/3
    best = [p * math.sqrt(2) for p in (0.2, 0.8, 0.3)]
    assert scores.lbpe(LOGITS, LABELS, top_k=1).tolist() == pytest.approx(best)
    first = [p * math.sqrt(2) for p in (0.1, 0.6, 0.5)]
    assert scores.lbpe(LOGITS, LABELS, top_k=1, within=1).tolist() == pytest.approx(first)
    assert torch.equal(scores.lbpe(LOGITS, LABELS, top_k=2), scores.el2n(LOGITS, LABELS))


def test_lbpe_ties_go_to_the_earlier_epoch():
    # the same predictions, so the same accuracy
    doubled = torch.cat([LOGITS[:1], LOGITS[:1] * 0.5])
    assert torch.equal(
        scores.lbpe(doubled, LABELS, top_k=1), scores.lbpe(LOGITS[:1], LABELS, top_k=1)
    )


def test_lbpe_from_raw_logits_is_the_ablation():
    logits = torch.tensor([[[2.0, -1.0]]])
    assert scores.lbpe(logits, torch.tensor([0]), output="logits").item() == pytest.approx(
        math.sqrt(1 + 1)
    )
    with pytest.raises(ValueError, match="output='logit' is unknown"):
        scores.lbpe(logits, torch.tensor([0]), output="logit")


def test_aum_is_the_mean_margin_and_low_is_hard():
    logits = torch.tensor([[[3.0, 1.0, 0.0], [0.0, 2.0, 5.0]], [[1.0, 2.0, 0.0], [0.0, 4.0, 1.0]]])
    # image 0 (label 0): 3-1=2, 1-2=-1; image 1 (label 1): 2-5=-3, 4-1=3
    assert scores.aum(logits, torch.tensor([0, 1])).tolist() == [0.5, 0.0]


def test_forgetting_counts_right_to_wrong_only():
    correct = torch.tensor([[1, 0, 1, 0], [0, 0, 1, 1], [1, 0, 1, 0], [0, 0, 1, 1]]).bool()
    assert scores.forgetting(correct).tolist() == [2, 0, 0, 1]


def test_entropy_in_nats():
    logits = torch.tensor([[0.0, 0.0, 0.0], [100.0, 0.0, 0.0]])
    assert scores.entropy(logits).tolist() == pytest.approx([math.log(3), 0.0])


def test_scores_follow_permuted_images_and_classes():
    source = torch.Generator().manual_seed(0)
    logits, labels = (
        torch.randn(12, 20, 4, generator=source),
        torch.randint(4, (20,), generator=source),
    )
    images, classes = torch.randperm(20, generator=source), torch.randperm(4, generator=source)
    relabelled = torch.empty_like(logits)
    relabelled[..., classes] = logits
    for score in (lambda x, y: scores.lbpe(x, y, top_k=3), scores.el2n, scores.aum):
        assert torch.allclose(
            score(logits[:, images], labels[images]), score(logits, labels)[images]
        )
        assert torch.allclose(score(relabelled, classes[labels]), score(logits, labels), atol=1e-6)


def test_ssp_keeps_the_image_nearest_to_each_centre():
    clusters = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    # the first is the nearest to the mean
    offsets = torch.tensor([[0.1, 0.1], [-1.0, 0.0], [1.0, 0.0], [0.0, -1.0]])
    features = (clusters[:, None] + offsets).reshape(12, 2)
    assert sorted(scores.ssp(features, 3).tolist()) == [0, 4, 8]
    assert not set(scores.ssp(features, 3, farthest=True).tolist()) & {0, 4, 8}


def test_ssp_of_few_images_equals_that_in_their_span():
    source = torch.Generator().manual_seed(0)
    points = torch.rand(30, 8, generator=source)
    turn = torch.linalg.qr(torch.randn(200, 8, generator=source, dtype=torch.double)).Q
    many = points.double() @ turn.T  # the same 30 points, turned in 200 dimensions
    for n in (3, 12, 25):  # 25: clusters of two, whose images are as near
        assert scores.ssp(many, n).tolist() == scores.ssp(points, n).tolist()
        plain = KMeans(n, random_state=0, n_init=4).fit(many.numpy())
        nearest = [
            int(((many - centre) ** 2).sum(1).round(decimals=9).argmin())
            for centre in torch.from_numpy(plain.cluster_centers_)
        ]
        assert scores.ssp(many, n).tolist() == nearest


def test_the_span_keeps_every_distance():
    points = torch.randn(6, 50, dtype=torch.double)
    within = score_formulas._in_their_span(points)
    assert within.shape == (6, 6) and torch.allclose(
        torch.cdist(within, within), torch.cdist(points, points), atol=1e-9
    )


def test_ssp_with_duplicates_still_gives_different_images():
    chosen = scores.ssp(torch.ones(6, 4), 4)
    assert len(set(chosen.tolist())) == 4
    assert sorted(scores.ssp(torch.randn(5, 3), 5).tolist()) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "logits, labels, error, match",
    [
        (torch.zeros(2, 3), torch.zeros(3, dtype=torch.long), ValueError, "E, N, K"),
        (
            torch.zeros(0, 3, 2),
            torch.zeros(3, dtype=torch.long),
            ValueError,
            r"E, N, K\] with no empty dimension",
        ),
        (
            torch.full((1, 3, 2), float("nan")),
            torch.zeros(3, dtype=torch.long),
            ValueError,
            ("logits holds 6 NaN"),
        ),
        (torch.zeros(1, 3, 2), torch.tensor([0, 1, 2]), ValueError, "labels must lie in 0..1"),
        (torch.zeros(1, 3, 2), torch.zeros(2, dtype=torch.long), ValueError, r"shape \[3\]"),
        (torch.zeros(1, 3, 2), torch.zeros(3), TypeError, "int64"),
    ],
)
def test_bad_input_is_named(logits, labels, error, match):
    for score in (scores.lbpe, scores.el2n, scores.aum):
        with pytest.raises(error, match=match):
            score(logits, labels)


def test_bad_counts():
    with pytest.raises(ValueError, match="top_k must be at least 1, got 0"):
        scores.lbpe(LOGITS, LABELS, top_k=0)
    with pytest.raises(ValueError, match="n must be between 1 and 6, got 7"):
        scores.ssp(torch.ones(6, 4), 7)
    with pytest.raises(TypeError, match="correct must be bool"):
        scores.forgetting(torch.zeros(3, 4))
