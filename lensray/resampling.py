"""Fitting cutouts to what a model was made for: its bands, its pixel scale, its size.

Resampling is one matrix product an axis: the matrix holds the weights of the Keys cubic kernel (a = -1/2;
Keys 1981, IEEE Trans. Acoust. Speech Signal Process. 29, 1153), widened by the ratio of the pixel scales
where pixels get larger, so that it also is the low-pass filter that avoids aliasing. Weights sum to one: the
surface brightness (value of a pixel) is kept, so the sum over an object changes with the area of a pixel.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from lensray.errors import InputError

if TYPE_CHECKING:
    from lensray.cutouts import CutoutFormat

# Pixel scales closer than this shift the corner of a 200-pixel cutout by less than a tenth of a pixel.
SAME_SCALE = 1e-3
# Bounds the float32 copy of stored uint8 images.
CHUNK_ROWS = 256


def fit_cutouts(
    images: np.ndarray,
    format: "CutoutFormat",
    bands: Sequence[str],
    size: int | tuple[int, int],
    pixel_scale_arcsec: float,
) -> np.ndarray:
    """Select bands, resample to a pixel scale, and crop or pad to a size, about the centre.

    Parameters
    ----------
    images : ndarray, shape (N, bands, height, width)
        Never changed.
    format : CutoutFormat
        Their bands and pixel scale.
    bands : sequence of str
        Wanted bands, in the wanted order.
    size : int or (int, int)
        Wanted height and width, in pixels.
    pixel_scale_arcsec : float
        Wanted pixel scale.

    Returns
    -------
    ndarray, shape (N, len(bands), height, width)
        float32 if resampled, else of the type of `images` (which it may be a view of).

    Raises
    ------
    InputError
        If a band is missing.

    Notes
    -----
    What lies outside the image is padded with the median of the outermost pixels of its band. The centre of
    the frame stays the centre of the frame when resampled; when only cropped or padded, pixel ``n // 2`` of an
    axis does, which moves the frame's centre by half a pixel between an even and an odd size. A NaN makes NaN of every pixel whose kernel touches it, as an infinite
    pixel makes infinite ones, and of no others.
    """
    height, width = (size, size) if isinstance(size, int) else size
    images = _select(images, format.bands, bands)
    ratio = pixel_scale_arcsec / format.pixel_scale_arcsec
    if abs(ratio - 1) < SAME_SCALE:
        return crop_or_pad(images, height, width)
    fitted = np.empty((*images.shape[:2], height, width), np.float32)
    for start in range(0, len(images), CHUNK_ROWS):
        rows = slice(start, start + CHUNK_ROWS)
        fitted[rows] = resample(images[rows], height, width, ratio)
    return fitted


def _select(images: np.ndarray, has: Sequence[str], wants: Sequence[str]) -> np.ndarray:
    missing = [band for band in wants if band not in has]
    if missing:
        raise InputError(f"the band {', '.join(missing)} is wanted but the images have {', '.join(has)}")
    if tuple(wants) == tuple(has):
        return images
    return images[:, [tuple(has).index(band) for band in wants]]


def crop_or_pad(images: np.ndarray, height: int, width: int) -> np.ndarray:
    """Images (N, bands, …) of another size about their centre, padded with the median of their border.

    >>> crop_or_pad(np.arange(9).reshape(1, 1, 3, 3), 1, 5).tolist()
    [[[[4, 3, 4, 5, 4]]]]
    """
    (into_y, from_y), (into_x, from_x) = (
        _overlap(old, new) for old, new in zip(images.shape[2:], (height, width), strict=True)
    )
    if images.shape[2:] == (height, width):
        return images
    if into_y == slice(0, height) and into_x == slice(0, width):
        return images[:, :, from_y, from_x]
    fitted = np.empty((*images.shape[:2], height, width), images.dtype)
    fitted[:] = border_median(images)[:, :, None, None].astype(images.dtype)
    fitted[:, :, into_y, into_x] = images[:, :, from_y, from_x]
    return fitted


def _overlap(old: int, new: int) -> tuple[slice, slice]:
    """Where the old pixels go in the new frame, and which they are."""
    start = abs(old // 2 - new // 2)
    if new <= old:
        return slice(0, new), slice(start, start + new)
    return slice(start, start + old), slice(0, old)


def border_median(images: np.ndarray) -> np.ndarray:
    """Median of the outermost pixels of each band, shape (N, bands); NaN pixels do not count."""
    border = np.concatenate(
        [images[:, :, 0], images[:, :, -1], images[:, :, 1:-1, 0], images[:, :, 1:-1, -1]], axis=-1
    )
    if images.dtype.kind == "f" and np.isnan(border).any():
        blank = np.all(np.isnan(border), axis=-1)
        filled = np.where(blank[..., np.newaxis], 0, border)
        return np.where(blank, np.nan, np.nanmedian(filled, axis=-1))
    return np.median(border, axis=-1)


def resample(images: np.ndarray, height: int, width: int, ratio: float) -> np.ndarray:
    """Images (N, bands, …) on a grid of `height` × `width` pixels, each `ratio` old pixels wide; float32."""
    images = images.astype(np.float32, copy=False)
    rows, inside_y = resampling_matrix(images.shape[2], height, ratio)
    columns, inside_x = resampling_matrix(images.shape[3], width, ratio)
    finite = np.isfinite(images)
    fitted = rows @ np.where(finite, images, 0) @ columns.T
    if not finite.all():
        _spread(fitted, images, rows, columns)
    outside = ~(inside_y[:, np.newaxis] & inside_x)
    if outside.any():
        fitted[:, :, outside] = border_median(images)[:, :, None]
    return fitted


def _spread(fitted: np.ndarray, images: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> None:
    """Put NaN and infinities where the kernel touches them, into `fitted`."""
    touched_rows, touched_columns = (rows != 0).astype(np.float32), (columns != 0).astype(np.float32)
    for value, where in (
        (np.inf, images == np.inf),
        (-np.inf, images == -np.inf),
        (np.nan, np.isnan(images)),
    ):
        if where.any():
            fitted[touched_rows @ where.astype(np.float32) @ touched_columns.T > 0.5] = value


@lru_cache(maxsize=64)
def resampling_matrix(old: int, new: int, ratio: float) -> tuple[np.ndarray, np.ndarray]:
    """Weights of the old pixels in each new one along an axis, and which new ones lie in the old frame.

    Parameters
    ----------
    old, new : int
        Number of pixels.
    ratio : float
        Width of a new pixel, in old pixels.

    Returns
    -------
    weights : ndarray of float32, shape (new, old)
        Rows sum to one. Beyond its edge the image goes on with its last pixel.
    inside : ndarray of bool, shape (new,)
        True where the centre of the new pixel lies in the old frame.
    """
    centre = (np.arange(new) - (new - 1) / 2) * ratio + (old - 1) / 2
    widening = max(1.0, ratio)
    reach = int(np.ceil(2 * widening))
    taps = np.floor(centre).astype(int)[:, None] + np.arange(-reach, reach + 1)
    kernel = keys_cubic((taps - centre[:, None]) / widening)
    kernel /= kernel.sum(1, keepdims=True)
    weights = np.zeros((new, old))
    np.add.at(weights, (np.arange(new)[:, None], np.clip(taps, 0, old - 1)), kernel)
    return weights.astype(np.float32), (centre >= -0.5) & (centre <= old - 0.5)


def keys_cubic(x: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution kernel with a = -1/2; zero from a distance of 2."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x**2 + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))
