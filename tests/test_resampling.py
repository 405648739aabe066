"""Fitting cutouts: constants, positions and surface brightness are kept; SciPy and direct sums are the references."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from lensray.cutouts import CutoutFormat
from lensray.errors import InputError
from lensray.resampling import crop_or_pad, fit_cutouts, resampling_matrix


def format_of(
    images: np.ndarray, scale: float = 0.168, bands: tuple[str, ...] = ("g", "r", "i")
) -> CutoutFormat:
    return CutoutFormat(
        bands=bands[: images.shape[1]], pixel_scale_arcsec=scale, shape=images.shape[1:], dtype=images.dtype
    )


def fit(images: np.ndarray, size: int | tuple[int, int], scale: float, new_scale: float) -> np.ndarray:
    fmt = format_of(images, scale)
    return fit_cutouts(images, fmt, fmt.bands, size, new_scale)


def gaussian(size: int, sigma: float, dy: float = 0.0, dx: float = 0.0) -> np.ndarray:
    """A round Gaussian of peak 1 at (dy, dx) pixels from the frame's centre; shape (1, 1, size, size)."""
    grid = np.arange(size) - (size - 1) / 2
    image = np.exp(-((grid[:, None] - dy) ** 2 + (grid - dx) ** 2) / (2 * sigma**2))
    return image[None, None].astype(np.float32)


def centroid(image: np.ndarray) -> np.ndarray:
    """Offset of the centroid from the frame's centre, in pixels (y, x)."""
    return np.array(ndimage.center_of_mass(image)) - (np.array(image.shape) - 1) / 2


@settings(max_examples=60, deadline=None)
@given(st.integers(3, 40), st.integers(1, 60), st.floats(0.2, 5))
def test_constant_stays_constant(old: int, new: int, ratio: float):
    images = np.full((1, 2, old, old + 1), 7.25, np.float32)
    np.testing.assert_allclose(fit(images, (new, new), 1.0, ratio), 7.25, rtol=1e-5)


@pytest.mark.parametrize("sizes", [(60, 60), (61, 60), (60, 61), (61, 61)])
@pytest.mark.parametrize("ratio", [0.5, 0.64, 1.3, 2.0])
def test_position_from_the_centre_is_kept_in_arcsec(sizes: tuple[int, int], ratio: float):
    old, new = sizes
    fitted = fit(gaussian(old, 3.0, dy=1.5, dx=-2.25), new, 1.0, ratio)[0, 0]
    np.testing.assert_allclose(centroid(fitted) * ratio, [1.5, -2.25], atol=0.02)


@pytest.mark.parametrize("ratio", [0.5, 0.8, 1.25, 1.5])
def test_surface_brightness_is_that_of_the_same_object_drawn_on_the_new_grid(ratio: float):
    fitted = fit(gaussian(80, 5.0), 40, 1.0, ratio)[0, 0]
    np.testing.assert_allclose(fitted, gaussian(40, 5.0 / ratio)[0, 0], atol=0.02)


def test_total_flux_times_pixel_area_is_kept():
    images = gaussian(80, 4.0)
    fitted = fit(images, 50, 1.0, 1.7)
    np.testing.assert_allclose(fitted.sum() * 1.7**2, images.sum(), rtol=1e-3)


def test_finer_grid_agrees_with_scipy():
    """SciPy's cubic spline is sharper than the cubic convolution; on a smooth image they are close."""
    images = ndimage.gaussian_filter(np.random.default_rng(0).normal(0, 1, (1, 1, 40, 40)), (0, 0, 3, 3))
    images = (images / images.std()).astype(np.float32)
    ratio = 39 / 79  # grid_mode=False: corner pixels fall on corner pixels
    expected = ndimage.zoom(images[0, 0], 80 / 40, order=3, mode="nearest", grid_mode=False)
    fitted = fit(images, 80, 1.0, ratio)[0, 0]
    np.testing.assert_allclose(fitted[4:-4, 4:-4], expected[4:-4, 4:-4], atol=0.02)


def test_coarser_grid_does_not_alias():
    """A pattern finer than the new pixels must vanish, not come back as a coarse one."""
    stripes = np.cos(np.pi * 0.9 * np.arange(120))[None, None, None] * np.ones((1, 1, 120, 1))
    fitted = fit(stripes.astype(np.float32), 40, 1.0, 3.0)
    assert np.abs(fitted[..., 2:-2]).max() < 0.02
    assert np.abs(stripes[..., ::3]).max() > 0.9


def test_matrix_is_the_sum_over_the_kernel():
    """Written out for each pixel: Keys' kernel, widened by the ratio, the last pixel repeated beyond the edge."""

    def keys(x: float) -> float:
        x = abs(x)
        if x <= 1:
            return 1.5 * x**3 - 2.5 * x**2 + 1
        return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0

    for old, new, ratio in ((9, 7, 1.4), (6, 11, 0.6)):
        weights, inside = resampling_matrix(old, new, ratio)
        for j in range(new):
            centre = (j - (new - 1) / 2) * ratio + (old - 1) / 2
            expected = np.zeros(old)
            for k in range(-40, 40):
                expected[min(max(k, 0), old - 1)] += keys((k - centre) / max(1, ratio))
            np.testing.assert_allclose(weights[j], expected / expected.sum(), atol=1e-6)
            assert inside[j] == (-0.5 <= centre <= old - 0.5)


def test_outside_is_the_median_of_the_border():
    images = np.random.default_rng(0).normal(5, 1, (2, 2, 20, 20)).astype(np.float32)
    fitted = fit(images, 60, 1.0, 0.5)
    border = [np.concatenate([b[0], b[-1], b[1:-1, 0], b[1:-1, -1]]) for b in images.reshape(4, 20, 20)]
    corners = fitted[:, :, :9, :9].reshape(4, 81)
    np.testing.assert_allclose(corners, np.median(border, axis=1)[:, None] * np.ones((1, 81)), rtol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_bad_pixel_stays_bad_and_does_not_spread_beyond_the_kernel(value: float):
    images = np.ones((1, 1, 41, 41), np.float32)
    images[0, 0, 20, 20] = value
    fitted = fit(images, 41, 1.0, 0.999 * 0.9)[0, 0]
    bad = ~np.isfinite(fitted)
    assert bad[20, 20]
    assert bad.sum() <= 25
    assert not np.isfinite(fitted[20, 20])
    np.testing.assert_array_equal(fitted[bad], np.full(bad.sum(), value, np.float32))
    np.testing.assert_allclose(fitted[~bad], 1, rtol=1e-5)


def test_bands_come_in_the_wanted_order():
    images = np.arange(3, dtype=np.float32).reshape(1, 3, 1, 1) * np.ones((2, 3, 4, 4), np.float32)
    fmt = format_of(images)
    assert fit_cutouts(images, fmt, ("i", "g"), 4, 0.168)[1, :, 0, 0].tolist() == [2, 0]
    assert fit_cutouts(images, fmt, ("i", "g"), 4, 0.2)[1, :, 0, 0].tolist() == pytest.approx([2, 0])
    with pytest.raises(InputError, match="z is wanted but the images have g, r, i"):
        fit_cutouts(images, fmt, ("g", "z"), 4, 0.168)


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
def test_same_scale_keeps_pixels_and_type(dtype: str):
    images = np.random.default_rng(0).integers(0, 200, (2, 3, 9, 9)).astype(dtype)
    assert fit(images, 9, 0.168, 0.168) is images
    cropped = fit(images, (5, 7), 0.168, 0.16801)
    np.testing.assert_array_equal(cropped, images[:, :, 2:7, 1:8])
    padded = fit(images, (11, 12), 0.168, 0.168)
    assert padded.dtype == images.dtype
    np.testing.assert_array_equal(padded[:, :, 1:10, 2:11], images)
    assert fit(images, 9, 0.168, 0.3).dtype == np.float32


def test_read_only_images_are_not_changed():
    images = np.random.default_rng(0).normal(0, 1, (2, 3, 9, 9)).astype(np.float32)
    images.flags.writeable = False
    for size in (5, 13):
        for scale in (0.168, 0.2):
            fit(images, size, 0.168, scale)


@given(st.integers(1, 12), st.integers(1, 12))
def test_crop_undoes_pad(old: int, new: int):
    images = np.random.default_rng(0).normal(0, 1, (1, 1, old, old))
    if new >= old:
        np.testing.assert_array_equal(crop_or_pad(crop_or_pad(images, new, new), old, old), images)


def test_padding_ignores_nan_in_the_border():
    images = np.full((1, 2, 4, 4), 3.0, np.float32)
    images[0, 0, 0] = np.nan
    images[0, 1] = np.nan
    padded = crop_or_pad(images, 6, 6)
    assert padded[0, 0, 0, 0] == 3
    assert np.isnan(padded[0, 1]).all()
