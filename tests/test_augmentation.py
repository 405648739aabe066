import itertools

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, rotate

from lensray.augmentation import (
    all_symmetries,
    random_crops,
    random_rotations,
    random_shifts,
    random_symmetries,
    symmetry,
)

SQUARE = torch.arange(2 * 3 * 5 * 5).reshape(2, 3, 5, 5)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_symmetries_are_the_rotations_and_their_mirror_images():
    image = SQUARE[0, 0].numpy()
    turned = [np.rot90(image, k) for k in range(4)]
    expected = {
        array.tobytes() for array in [*map(np.ascontiguousarray, turned), *(t[::-1].copy() for t in turned)]
    }
    ours = {symmetry(SQUARE[:1, :1], k)[0, 0].numpy().copy(order="C").tobytes() for k in range(8)}
    assert len(expected) == 8
    assert ours == expected


def test_the_symmetries_form_a_group():
    elements = [symmetry(SQUARE, k) for k in range(8)]
    for a, b in itertools.product(range(8), repeat=2):
        product = symmetry(symmetry(SQUARE, a), b)
        assert sum(torch.equal(product, element) for element in elements) == 1
    for a in range(8):
        assert any(torch.equal(symmetry(symmetry(SQUARE, a), b), SQUARE) for b in range(8))


def test_all_symmetries_begins_with_the_images_themselves():
    everything = all_symmetries(SQUARE)
    assert everything.shape == (16, 3, 5, 5)
    assert torch.equal(everything[:2], SQUARE)
    assert len({image.numpy().tobytes() for image in everything}) == 16


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_random_symmetries_draws_all_eight_alike_and_keeps_bands_together(dtype):
    image = torch.arange(9, dtype=dtype).reshape(1, 1, 3, 3)
    batch = torch.cat([image, image + 1], dim=1).repeat(8000, 1, 1, 1)
    turned = random_symmetries(batch, generator())
    assert turned.dtype == dtype
    assert torch.equal(turned[:, 1], turned[:, 0] + 1)
    _, counts = np.unique(turned[:, 0].reshape(8000, 9).numpy(), axis=0, return_counts=True)
    assert len(counts) == 8
    # Binomial scatter of 1000 is 30.
    assert abs(counts - 1000).max() < 150


@pytest.mark.parametrize(
    "augmentation",
    [
        random_symmetries,
        lambda x, g: random_crops(x, 4, g),
        lambda x, g: random_shifts(x, 2, g),
        lambda x, g: random_rotations(x, 1.2, g),
    ],
    ids=["symmetries", "crops", "shifts", "rotations"],
)
def test_augmentation_depends_on_the_seed_alone_and_leaves_its_input(augmentation):
    batch = torch.rand(64, 2, 6, 6, generator=generator())
    before = batch.clone()
    first, again, other = (augmentation(batch, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == batch.shape
    assert torch.equal(batch, before)


def test_images_that_are_not_square_have_no_random_symmetry():
    with pytest.raises(ValueError, match="square"):
        random_symmetries(torch.zeros(2, 1, 3, 4), generator())


def test_a_crop_of_full_size_is_the_image():
    batch = torch.rand(3, 2, 6, 7)
    assert torch.equal(random_crops(batch[..., :6], 6, generator()), batch[..., :6])


def test_a_crop_rescaled_is_one_of_the_parts_rescaled():
    image = torch.rand(1, 1, 10, 10, generator=generator())
    parts = [
        torch.nn.functional.interpolate(image[..., top : top + 9, left : left + 9], size=10, mode="bilinear")
        for top, left in itertools.product((0, 1), repeat=2)
    ]
    crops = random_crops(image.repeat(40, 1, 1, 1), 9, generator())
    hits = [sum(torch.allclose(crop, part[0]) for crop in crops) for part in parts]
    assert sum(hits) == 40
    assert min(hits) > 0


def test_shifts_move_whole_pixels_and_fill_by_reflection():
    image = torch.arange(25).reshape(1, 1, 5, 5)
    shifted = random_shifts(image.repeat(200, 1, 1, 1), 2, generator())
    padded = np.pad(image[0, 0].numpy(), 2, mode="reflect")
    expected = {padded[y : y + 5, x : x + 5].tobytes() for y in range(5) for x in range(5)}
    assert {image[0].numpy().tobytes() for image in shifted} == expected


@pytest.mark.parametrize(("function", "size"), [(random_crops, 7), (random_crops, 0), (random_shifts, 6)])
def test_what_does_not_fit_into_the_image_is_refused(function, size):
    with pytest.raises(ValueError, match="does not fit"):
        function(torch.zeros(1, 1, 6, 6), size, generator())


def test_a_rotated_image_is_that_of_scipy():
    image = torch.zeros(1, 1, 33, 33)
    image[0, 0, 16, 16:26] = 1
    image = torch.from_numpy(gaussian_filter(image.numpy(), (0, 0, 2, 2)))
    turned = random_rotations(image.repeat(20, 2, 1, 1), 1.0, generator(3))
    angles = 360 * torch.rand((2, 20), generator=generator(3))[0].numpy()
    assert torch.equal(turned[:, 0], turned[:, 1])
    for made, angle in zip(turned[:, 0].numpy(), angles, strict=True):
        expected = rotate(image[0, 0].numpy(), angle, reshape=False, order=0, mode="reflect")
        assert np.abs(made - expected).mean() < 1e-3


def test_a_zoom_changes_lengths_and_keeps_the_centre():
    y, x = np.mgrid[:64, :64] - 31.5
    image = torch.from_numpy(np.exp(-(x**2 + y**2) / 50)).float()[None, None].repeat(500, 1, 1, 1)
    made = random_rotations(image, 1.25, generator(1))[:, 0].numpy()
    flux = made.sum((1, 2))
    np.testing.assert_allclose((made * x).sum((1, 2)) / flux, 0, atol=0.1)
    zoom = np.sqrt(flux / image[0].sum().item())
    assert zoom.min() == pytest.approx(1 / 1.25, rel=0.01)
    assert zoom.max() == pytest.approx(1.25, rel=0.01)
    assert np.median(np.log(zoom)) == pytest.approx(0, abs=0.03)


def test_a_zoom_below_one_is_refused():
    with pytest.raises(ValueError, match=r"at least 1; got 0\.5"):
        random_rotations(torch.zeros(1, 1, 4, 4), 0.5, generator())
