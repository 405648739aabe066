"""Pixel checks: the reasons why a cutout cannot be scored.

Surveys ship images that are blank, cut by a detector's edge, masked, or damaged, and a network gives each
of them a score without a word. Every check here ends in a status, so that no such image is scored as if it
were fine. The masked value of exactly 100 in every band, and planes that are copies of each other, are those
of the data of the Bologna lens finding challenge (Metcalf et al. 2019).
"""

import numpy as np

MASK_VALUE = 100.0
# Fewer pixels may be 100 by chance.
MIN_MASKED_PIXELS = 4
MIN_MASKED_FRACTION = 0.01


class Status:
    """What became of a row: `OK`, `FILLED_NAN`, or the reason why it has no score."""

    OK = "ok"
    FILLED_NAN = "filled_nan"
    """Scored, after NaN pixels were replaced by the median of their band."""
    NULL_IMAGE = "null_image"
    CORRUPT_IMAGE = "corrupt_image"
    """The bytes cannot be decoded."""
    WRONG_SHAPE = "wrong_shape"
    """Not the bands, height and width of the survey."""
    NAN = "nan"
    """More NaN pixels than the model's bundle allows, or a band that is NaN throughout."""
    INFINITE = "infinite"
    MASKED = "masked"
    """Pixels of exactly 100 in every band."""
    CONSTANT = "constant"
    """A band holds one value only."""
    DUPLICATE_BANDS = "duplicate_bands"
    """Two bands are copies of each other."""
    NULL_OBJECT_ID = "null_object_id"
    """No id to find the object by."""
    DUPLICATE_OBJECT_ID = "duplicate_object_id"
    UNREADABLE = "unreadable"
    """The row's part of the file cannot be read."""
    FAILED = "failed"
    """The model fails on it, again and again."""
    NO_POSITION = "no_position"
    """The catalogue has no position of the source, or none on the sky."""
    OFF_IMAGE = "off_image"
    """No mosaic holds the source's position."""
    MISSING_BAND = "missing_band"
    """A band of its tile has no file."""
    NO_WCS = "no_wcs"
    """A mosaic of its tile does not say where on the sky it lies."""
    DIFFERENT_GRIDS = "different_grids"
    """The bands of its tile do not have the same pixels."""


SCORED = (Status.OK, Status.FILLED_NAN)
"""Statuses of the rows that have a score."""


def check_pixels(
    images: np.ndarray, status: np.ndarray, max_nan_fraction: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Give a status to images whose pixels cannot be scored, and fill NaN pixels where that is allowed.

    Parameters
    ----------
    images : ndarray of uint8, float16 or float32, shape (N, bands, height, width)
        May be read-only; it is never changed.
    status : ndarray of str objects, shape (N,)
        Rows that are not ``ok`` are left as they are.
    max_nan_fraction : float
        Largest fraction of an image's pixels, over all its bands, that may be NaN and is filled.

    Returns
    -------
    images : ndarray
        The same array, or a copy in which NaN pixels within the allowed fraction are the median of the other
        pixels of their band.
    status : ndarray of str objects, shape (N,)
        The first of ``nan``, ``infinite``, ``masked``, ``constant`` and ``duplicate_bands`` that holds, else
        ``filled_nan`` or what came. Masked: every band is exactly 100 at 4 pixels or more; where there is one
        band, or where all values are whole numbers (a picture holds a 100 by chance), at 1% of the pixels;
        a single band of whole numbers never.

    Notes
    -----
    One pass for the extremes of each band finds the few images that need a closer look.
    """
    status = status.copy()
    rows = np.flatnonzero(status == Status.OK)
    if not len(rows) or not images[0].size:
        return images, status
    low, high = _extremes(images)
    if images.dtype.kind == "f":
        images, low, high = _check_nan(images, status, rows, low, high, max_nan_fraction)
        _check_infinite(status, rows, low, high)
        _check_masked(images, status, rows, low, high)
    _mark(status, rows[(low == high)[rows].any(1)], Status.CONSTANT)
    _check_duplicate_bands(images, status, rows, low, high)
    return images, status


def _extremes(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest value of each band, shape (N, bands); NaN where there is a NaN."""
    planes = images.reshape(*images.shape[:2], -1)
    with np.errstate(invalid="ignore"):
        return planes.min(-1), planes.max(-1)


def _mark(status: np.ndarray, rows: np.ndarray, reason: str) -> None:
    """Give `rows` a reason, unless they have one."""
    free = [row for row in rows if status[row] in (Status.OK, Status.FILLED_NAN)]
    status[free] = reason


def _check_nan(
    images: np.ndarray,
    status: np.ndarray,
    rows: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    max_nan_fraction: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mark or fill images with NaN; returns images and extremes with the filled ones."""
    rows = rows[np.isnan(low[rows]).any(1)]
    if not len(rows):
        return images, low, high
    missing = np.isnan(images[rows])
    blank_band = missing.all((2, 3)).any(-1)
    fillable = (missing.mean((1, 2, 3)) <= max_nan_fraction) & ~blank_band
    _mark(status, rows[~fillable], Status.NAN)
    rows = rows[fillable]
    if not len(rows):
        return images, low, high
    images, low, high = images.copy(), low.copy(), high.copy()
    for row in rows:
        images[row] = fill_nan(images[row])
    low[rows], high[rows] = _extremes(images[rows])
    status[rows] = Status.FILLED_NAN
    return images, low, high


def fill_nan(image: np.ndarray) -> np.ndarray:
    """A copy of one image (bands, height, width) whose NaN pixels are the median of their band.

    >>> fill_nan(np.array([[[1.0, np.nan], [2.0, 6.0]]])).tolist()
    [[[1.0, 2.0], [2.0, 6.0]]]
    """
    medians = np.nanmedian(image, axis=(1, 2), keepdims=True)
    return np.where(np.isnan(image), medians, image).astype(image.dtype)


def _check_infinite(status: np.ndarray, rows: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
    infinite = np.isinf(low[rows]).any(1) | np.isinf(high[rows]).any(1)
    _mark(status, rows[infinite], Status.INFINITE)


def _check_masked(
    images: np.ndarray, status: np.ndarray, rows: np.ndarray, low: np.ndarray, high: np.ndarray
) -> None:
    possible = ((low[rows] <= MASK_VALUE) & (high[rows] >= MASK_VALUE)).all(1)
    rows = rows[possible]
    _mark(status, np.array([row for row in rows if _is_masked(images[row])], dtype=int), Status.MASKED)


def _is_masked(image: np.ndarray) -> bool:
    """Whether one image (bands, height, width) holds masked pixels, as `check_pixels` defines them."""
    masked = np.count_nonzero((image == MASK_VALUE).all(0))
    if masked < MIN_MASKED_PIXELS:
        return False
    single_band = len(image) == 1
    whole_numbers = bool((image == np.rint(image)).all())
    if single_band and whole_numbers:
        return bool((image == MASK_VALUE).all())
    at_least_a_part = masked >= MIN_MASKED_FRACTION * image[0].size
    return at_least_a_part or not (single_band or whole_numbers)


def _check_duplicate_bands(
    images: np.ndarray, status: np.ndarray, rows: np.ndarray, low: np.ndarray, high: np.ndarray
) -> None:
    bands = images.shape[1]
    for first in range(bands):
        for second in range(first + 1, bands):
            alike = (low[rows, first] == low[rows, second]) & (high[rows, first] == high[rows, second])
            # uint8 extremes are often equal: a line of pixels rules out nearly all of the rest.
            middle = images.shape[2] // 2
            some = rows[alike]
            some = some[(images[some, first, middle] == images[some, second, middle]).all(-1)]
            same = (images[some, first] == images[some, second]).all((1, 2))
            _mark(status, some[same], Status.DUPLICATE_BANDS)
