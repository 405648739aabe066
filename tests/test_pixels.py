"""Pixel checks against a slow oracle that looks at one image at a time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lensray.pixels import Status, check_pixels


def oracle(image: np.ndarray, max_nan_fraction: float) -> str:
    """The status of one image, by the words of the contract."""
    filled = False
    if np.isnan(image).any():
        if np.isnan(image).mean() > max_nan_fraction or any(np.isnan(band).all() for band in image):
            return "nan"
        image = np.stack([np.where(np.isnan(band), np.nanmedian(band), band) for band in image])
        filled = True
    if np.isinf(image).any():
        return "infinite"
    if image.dtype != np.uint8 and oracle_masked(image):
        return "masked"
    if any(len(set(band.ravel().tolist())) == 1 for band in image):
        return "constant"
    planes = [tuple(band.ravel().tolist()) for band in image]
    if len(set(planes)) < len(planes):
        return "duplicate_bands"
    return "filled_nan" if filled else "ok"


def oracle_masked(image: np.ndarray) -> bool:
    bands, height, width = image.shape
    count = sum(all(image[b, y, x] == 100 for b in range(bands)) for y in range(height) for x in range(width))
    whole = all(float(value).is_integer() for value in image.ravel())
    part = count >= 0.01 * height * width
    if count < 4:
        return False
    if bands == 1:
        return count == height * width if whole else part
    return part if whole else True


def check(images: np.ndarray, max_nan_fraction: float = 0.0) -> tuple[np.ndarray, list[str]]:
    images, status = check_pixels(images, np.full(len(images), Status.OK, object), max_nan_fraction)
    return images, status.tolist()


def noise(count: int = 1, bands: int = 3, size: int = 8, dtype: str = "float32") -> np.ndarray:
    values = np.random.default_rng(0).normal(50, 10, (count, bands, size, size))
    return values.astype(dtype)


few_values = st.sampled_from([0.0, 1.0, 2.5, 100.0, np.nan, np.inf, -np.inf])
mostly_plain = st.sampled_from([0.0, 1.0, 2.5, 3.5, 4.5, 100.0])
dtypes = st.sampled_from(["float32", "float16"])
shapes = st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 4), st.integers(2, 4))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_statuses_are_those_of_the_oracle(data: st.DataObject):
    elements = data.draw(st.sampled_from([few_values, mostly_plain]))
    images = data.draw(hnp.arrays(data.draw(dtypes), data.draw(shapes), elements=elements))
    fraction = data.draw(st.sampled_from([0.0, 0.3, 1.0]))
    images.flags.writeable = False
    before = images.copy()
    checked, status = check(images, fraction)
    np.testing.assert_array_equal(images, before)
    assert status == [oracle(image, fraction) for image in images]
    for image, after, reason in zip(images, checked, status, strict=True):
        if reason == "filled_nan":
            expected = [np.where(np.isnan(b), np.nanmedian(b).astype(b.dtype), b) for b in image]
            np.testing.assert_array_equal(after, np.stack(expected))
        elif reason == "ok":
            np.testing.assert_array_equal(after, image)


@settings(max_examples=100, deadline=None)
@given(hnp.arrays(np.uint8, shapes, elements=st.sampled_from([0, 1, 100, 255])))
def test_statuses_of_bytes_are_those_of_the_oracle(images: np.ndarray):
    checked, status = check(images)
    assert checked is images
    assert status == [oracle(image, 0.0) for image in images]


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
def test_good_images_are_ok_and_not_copied(dtype: str):
    images = noise(50, dtype=dtype)
    checked, status = check(images)
    assert checked is images
    assert set(status) == {"ok"}


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda image: image[1, 2].fill(np.nan), "nan"),
        (lambda image: image.fill(np.nan), "nan"),
        (lambda image: image[0, 0].fill(np.inf), "infinite"),
        (lambda image: image[2, 0].fill(-np.inf), "infinite"),
        (lambda image: image[:, :2, :2].fill(100), "masked"),
        (lambda image: image[1].fill(3), "constant"),
        (lambda image: image.__setitem__(2, image[0]), "duplicate_bands"),
    ],
)
def test_damage_is_named_and_leaves_the_neighbours_alone(damage, reason: str):
    images = noise(3)
    damage(images[1])
    assert check(images)[1] == ["ok", reason, "ok"]


def test_few_pixels_of_the_mask_value_are_no_mask():
    images = noise()
    images[0, :, 0, :3] = 100
    assert check(images)[1] == ["ok"]


def test_single_band_needs_one_percent_of_masked_pixels():
    images = noise(2, bands=1, size=30)
    images[0, 0, 0, :8] = 100
    images[1, 0, 0, :9] = 100
    assert check(images)[1] == ["ok", "masked"]


def test_grey_picture_with_a_grey_value_of_100_is_no_mask():
    images = np.random.default_rng(0).integers(90, 110, (1, 1, 64, 64)).astype(np.float32)
    assert (images == 100).mean() > 0.02
    assert check(images)[1] == ["ok"]


def test_nan_is_filled_by_the_median_of_its_band_where_that_is_allowed():
    images = noise()
    images[0, 1, 3, :4] = np.nan
    original = images.copy()
    checked, status = check(images, max_nan_fraction=4 / 192)
    assert status == ["filled_nan"]
    assert (checked[0, 1, 3, :4] == np.nanmedian(original[0, 1])).all()
    np.testing.assert_array_equal(images, original)
    assert check(images, max_nan_fraction=3 / 192)[1] == ["nan"]


def test_band_of_nan_alone_is_never_filled():
    images = noise()
    images[0, 1] = np.nan
    assert check(images, max_nan_fraction=1.0)[1] == ["nan"]


def test_filled_image_that_is_constant_is_constant():
    images = noise()
    images[0, 1] = 7
    images[0, 1, 0, 0] = np.nan
    assert check(images, max_nan_fraction=1.0)[1] == ["constant"]


def test_rows_that_have_a_reason_keep_it():
    images = np.zeros((2, 1, 4, 4), np.float32)
    before = np.array(["null_image", "ok"], dtype=object)
    _, status = check_pixels(images, before)
    assert status.tolist() == ["null_image", "constant"]
    assert before.tolist() == ["null_image", "ok"]


def test_no_images_are_no_trouble():
    images, status = check(np.zeros((0, 3, 8, 8), np.float32))
    assert images.shape == (0, 3, 8, 8)
    assert status == []
