import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lensray.inspection.composites import NAN_COLOUR, composite, wavelength_nm


def noisy_blob(colour, peak=200.0, size=40, seed=0) -> np.ndarray:
    """A Gaussian galaxy of the given fluxes in its bands, with noise of 1."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    blob = peak * np.exp(-(x**2 + y**2) / 30)
    noise = np.random.default_rng(seed).normal(size=(len(colour), size, size))
    return (np.asarray(colour)[:, None, None] * blob + noise).astype(np.float32)


@pytest.mark.parametrize("bands", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.uint8])
def test_picture_of_any_number_of_bands(bands, dtype):
    image = np.clip(noisy_blob([1.0] * bands), 0, 255).astype(dtype)
    picture = composite(image, [f"band{i}" for i in range(bands)])
    assert (picture.shape, picture.dtype) == ((40, 40, 3), np.uint8)


def test_red_galaxy_is_red_and_a_blue_one_blue():
    red = composite(noisy_blob([0.1, 0.5, 1.0]), "gri")[20, 20].astype(int)
    blue = composite(noisy_blob([1.0, 0.5, 0.1]), "gri")[20, 20].astype(int)
    assert red[0] > red[1] > red[2]
    assert blue[2] > blue[1] > blue[0]


def test_colours_follow_the_names_of_the_bands_and_not_their_order():
    image = noisy_blob([0.1, 0.5, 1.0])
    np.testing.assert_array_equal(composite(image, "gri"), composite(image[[2, 0, 1]], "igr"))


def test_bands_of_unknown_names_are_blue_first():
    image = noisy_blob([0.1, 0.5, 1.0])
    np.testing.assert_array_equal(composite(image, "gri"), composite(image, ["a", "b", "c"]))


def test_stretched_images_are_shown_as_they_are():
    image = np.random.default_rng(0).integers(0, 256, (3, 5, 6), dtype=np.uint8)
    np.testing.assert_array_equal(composite(image, "gri"), image[::-1].transpose(1, 2, 0))


def test_one_band_is_grey_and_two_have_their_mean_as_green():
    grey = composite(noisy_blob([1.0]), ["F814W"])
    assert (grey == grey[..., :1]).all()
    image = np.stack([np.full((4, 4), 200), np.full((4, 4), 100)]).astype(np.uint8)
    assert composite(image, ["g", "i"])[0, 0].tolist() == [100, 150, 200]


@pytest.mark.parametrize("factor", [1e-9, 1.0, 1e9])
def test_units_of_the_fluxes_do_not_matter(factor):
    image = noisy_blob([0.2, 0.6, 1.0]).astype(np.float64)
    difference = composite(image * factor, "gri").astype(int) - composite(image, "gri")
    assert np.abs(difference).max() <= 1


def test_faint_sky_is_dark_and_grey_however_bright_it_was():
    image = noisy_blob([1.0, 1.0, 1.0]) + np.array([10.0, 500.0, 2000.0], np.float32)[:, None, None]
    sky = composite(image, "gri")[:8, :8].reshape(-1, 3).mean(0)
    assert sky.max() < 60
    assert np.ptp(sky) < 15


def test_noise_alone_is_not_blown_up():
    picture = composite(noisy_blob([1.0] * 3, peak=0.0), "gri")
    assert np.median(picture.max(axis=-1)) < 80


def test_pixels_without_a_value_have_a_colour_of_their_own():
    image = noisy_blob([0.2, 0.6, 1.0])
    damaged = image.copy()
    damaged[1, :5] = np.nan
    damaged[0, -1, -1] = np.inf
    picture = composite(damaged, "gri")
    assert (picture[:5] == NAN_COLOUR).all()
    assert (picture[-1, -1] == NAN_COLOUR).all()
    assert not (picture[20:30, 20:30] == NAN_COLOUR).all(-1).any()


def test_image_that_is_nan_throughout_has_that_colour_throughout():
    assert (composite(np.full((3, 8, 8), np.nan, np.float32), "gri") == NAN_COLOUR).all()


@pytest.mark.parametrize("value", [0.0, 7.5])
def test_constant_image_is_black(value):
    assert not composite(np.full((3, 8, 8), value, np.float32), "gri").any()


def test_image_without_noise_shows_its_galaxy():
    y, x = np.mgrid[:32, :32] - 15.5
    image = np.repeat(np.where(x**2 + y**2 < 40, 1.0, 0.0)[None], 3, axis=0)
    picture = composite(image, "gri")
    assert picture[16, 16].min() > 100
    assert picture[0, 0].max() < 40


@given(st.integers(1, 5), st.integers(1, 6), st.integers(1, 6), st.integers(0, 3))
def test_no_size_is_too_small(bands, height, width, seed):
    image = np.random.default_rng(seed).normal(size=(bands, height, width)).astype(np.float32)
    assert composite(image, [f"b{i}" for i in range(bands)]).shape == (height, width, 3)


def test_bands_must_be_those_of_the_image():
    with pytest.raises(ValueError, match="cannot have the bands"):
        composite(np.zeros((3, 4, 4)), "gr")


def test_wavelengths_are_in_the_order_of_the_filters():
    names = ["u", "HSC-G", "r", "VIS", "DES_i", "F814W", "z", "y", "Y", "F125W", "J", "F160W", "H"]
    wavelengths = [wavelength_nm(name) for name in names]
    assert all(value is not None for value in wavelengths)
    assert wavelengths == sorted(wavelengths, key=float)  # pyright: ignore[reportArgumentType]
    assert wavelength_nm("pan") is None
