import pytest
import torch
from sklearn.cluster import KMeans

from yoco.utils import kmeans, seeds

SOURCE = torch.Generator().manual_seed(0)
CENTRES = torch.randn(7, 12, generator=SOURCE) * 4
POINTS = (CENTRES[:, None] + torch.randn(7, 30, 12, generator=SOURCE)).flatten(0, 1)


def inertia(centres: torch.Tensor) -> float:
    return torch.cdist(POINTS, centres).amin(1).square().sum().item()


def test_kmeans_is_as_good_as_scikit_learn_s():
    for count in (3, 7, 20):
        theirs = KMeans(count, n_init=10, random_state=0).fit(POINTS.numpy()).inertia_
        ours = [inertia(kmeans.kmeans(POINTS, count, seeds.generator(seed))) for seed in range(10)]
        assert min(ours) == pytest.approx(theirs, rel=0.03) and sum(ours) / 10 < 1.3 * theirs


def test_lloyd_iterations_equal_scikit_learn_s(monkeypatch):
    start = POINTS[::30]
    monkeypatch.setattr(kmeans, "_spread_start", lambda *_: start)
    theirs = (
        KMeans(7, init=start.numpy(), n_init=1, max_iter=kmeans.ITERATIONS, tol=0)
        .fit(POINTS.numpy())
        .cluster_centers_
    )
    assert torch.allclose(
        kmeans.kmeans(POINTS, 7, seeds.generator(0)), torch.from_numpy(theirs), atol=1e-4
    )


def test_a_cluster_that_loses_its_points_keeps_its_centre(monkeypatch):
    far = torch.full((1, 12), 1e3)
    monkeypatch.setattr(kmeans, "_spread_start", lambda *_: torch.cat([POINTS[::30], far]))
    assert torch.equal(kmeans.kmeans(POINTS, 8, seeds.generator(0))[-1:], far)


def test_representatives_are_nearest_to_their_centres():
    chosen = kmeans.representatives(POINTS, 7, seeds.generator(0))
    assert sorted((chosen // 30).tolist()) == list(range(7))
    for index in chosen:
        cluster = POINTS[index // 30 * 30 : index // 30 * 30 + 30]
        assert (cluster - cluster.mean(0)).norm(dim=1).argmin() == index % 30


def test_duplicates_and_as_many_clusters_as_points():
    assert sorted(kmeans.representatives(torch.ones(5, 3), 5, seeds.generator(0)).tolist()) == [
        0,
        1,
        2,
        3,
        4,
    ]
    assert sorted(kmeans.representatives(POINTS[:6], 6, seeds.generator(0)).tolist()) == [
        0,
        1,
        2,
        3,
        4,
        5,
    ]
    with pytest.raises(ValueError, match="clusters must be between 1 and 5, got 6"):
        kmeans.kmeans(torch.ones(5, 3), 6, seeds.generator(0))


def test_seed_gives_the_clusters():
    first, again, other = (
        kmeans.representatives(POINTS, 20, seeds.generator(seed)).tolist() for seed in (1, 1, 2)
    )
    assert first == again != other
