"""How alike images are, against loops, and on sets whose answer is known."""

import numpy as np
import pytest

from lensray.metrics.diversity import nearest, share_within, statistics_distances


def images(count, seed=0, size=16):
    """Noise on blobs of different places and widths."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    place, width = generator.uniform(4, 12, (count, 2)), generator.uniform(1, 4, count)
    squares = (y - place[:, :1, None]) ** 2 + (x - place[:, 1:, None]) ** 2
    blobs = np.exp(-squares / (2 * width[:, None, None] ** 2))
    return (blobs[:, None] + generator.normal(0, 0.05, (count, 2, size, size))).astype(np.float32)


def slow_distance(first, second):
    """Of two images, in the best of the eight orientations, on blocks of 4×4."""

    def blocks(image):
        return np.array(
            [
                [[p[i : i + 4, j : j + 4].mean() for j in range(0, 16, 4)] for i in range(0, 16, 4)]
                for p in image
            ]
        )

    found = []
    for quarter in range(4):
        turned = np.rot90(first, quarter, (1, 2))
        found += [np.sqrt(np.mean((blocks(i) - blocks(second)) ** 2)) for i in (turned, turned[:, ::-1])]
    return min(found)


def test_the_nearest_is_the_nearest_of_all_orientations():
    some, others = images(5), images(4, seed=1)
    slow = np.array([[slow_distance(a, b) for b in others] for a in some])
    distances, places = nearest(some, others)
    np.testing.assert_allclose(distances, slow.min(1), rtol=1e-5)
    assert places.tolist() == slow.argmin(1).tolist()


def test_within_a_set_an_image_is_not_its_own_neighbour():
    some = images(5)
    slow = np.array([[slow_distance(a, b) for b in some] for a in some])
    np.fill_diagonal(slow, np.inf)
    np.testing.assert_allclose(nearest(some)[0], slow.min(1), rtol=1e-5)
    assert nearest(some[:1])[0].shape == (0,)


def test_turned_copies_are_found_and_images_of_the_same_kind_are_not():
    training, unseen = images(40), images(400, seed=1)
    turned = np.rot90(training, 1, (2, 3))[..., ::-1]
    to_training = [nearest(found, training)[0] for found in (turned, unseen, images(400, seed=2))]
    share, limit = share_within(to_training[0], to_training[1])
    assert share == 1
    assert limit > 0
    share, _ = share_within(to_training[2], to_training[1])
    assert share == pytest.approx(0.05, abs=0.04)


def test_statistics_tell_sets_apart_only_where_they_differ():
    some, others = images(300), images(300, seed=1)
    same = statistics_distances(some, others)
    assert all(value < 0.15 for value in same.values())
    assert statistics_distances(some, some) == dict.fromkeys(same, 0.0)
    noisy = others + np.random.default_rng(2).normal(0, 0.2, others.shape)
    changed = statistics_distances(noisy, some)
    assert changed["pixel noise"] == 1
    assert changed["mean"] < 0.15


def test_images_that_are_not_square_are_refused():
    with pytest.raises(ValueError, match="square"):
        nearest(np.zeros((2, 1, 8, 12)))
