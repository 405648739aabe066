"""The Bologna lens finding challenges as cutout surveys (Metcalf et al. 2019, A&A 625, A119).

A challenge is published as a folder of FITS files a band (``EUC_VIS/imageEUC_VIS-100000.fits``,
``Band1/imageSDSS_R-100000.fits``), an object's number at the end of each name, and a table of the truth as CSV
(`lensray.truth_table`).

Bands of one image size make one column of the survey: the largest images ``image``, those of the other
instrument ``image_nisp``. Masked pixels, which have the value 100, become NaN. Copies of one band in another (one
non-lens of the first challenge) are found when the survey is read (`lensray.pixels`).
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lensray import cutouts
from lensray.cutouts import CutoutFormat
from lensray.errors import InputError
from lensray.io import storage
from lensray.io.fits import read_planes
from lensray.pixels import MASK_VALUE
from lensray.truth_table import ids_of_kind, read_truth_table

PIXEL_SCALES_ARCSEC = {"VIS": 0.1, "Y": 0.3, "J": 0.3, "H": 0.3, "U": 0.2, "G": 0.2, "R": 0.2, "I": 0.2}
"""Pixel scales of the challenges' bands: Euclid's VIS and NISP, and the ground-based images of KiDS."""
ROWS_AT_ONCE = 128
_NAME = re.compile(r"image(?:[A-Za-z]+_)?(?P<band>[A-Za-z]+)-(?P<number>\d+)\.fits(?:\.gz)?$")


@dataclass(frozen=True, kw_only=True, slots=True)
class Challenge:
    """The images and the truth of a challenge; nothing but names and the table is read for it."""

    files: dict[int, dict[str, str]]
    """Paths of the FITS files by number of the object and band."""
    is_lens: dict[int, bool]
    """Truth of each object."""
    formats: tuple[CutoutFormat, ...]
    """Columns of the survey, the largest images first."""
    folder: str
    """Address of the folder."""

    @property
    def numbers(self) -> NDArray[np.int64]:
        """Objects that have images and a truth, ascending."""
        return np.array(sorted(self.files.keys() & self.is_lens.keys()), np.int64)


def open_challenge(folder: str, truth: str) -> Challenge:
    """Find the images of a challenge, and read its table.

    Parameters
    ----------
    folder : str
        Folder of the bands' folders, local or s3://.
    truth : str
        Address of the CSV table.

    Raises
    ------
    InputError
        If there are no such images, the table lacks the columns of both challenges, or they do not belong together.
    """
    files: dict[int, dict[str, str]] = {}
    for entry in storage.find_files(folder, suffix=(".fits", ".fits.gz")):
        match = _NAME.search(entry.path)
        if match:
            files.setdefault(int(match["number"]), {})[match["band"]] = entry.path
    if not files:
        raise InputError(
            f"{folder} holds no images of a challenge; their names end like EUC_VIS/imageEUC_VIS-100000.fits"
        )
    found = Challenge(files=files, is_lens=read_truth(truth), formats=_formats(folder, files), folder=folder)
    if len(found.numbers) == 0:
        raise InputError(f"no image of {folder} stands in {truth}; give the table of these images")
    return found


def read_truth(url: str) -> dict[int, bool]:
    """Which objects are lenses, by the challenge's table; those of which it is not known are left out.

    Raises
    ------
    InputError
        If its columns are neither those of the first challenge nor of the second, or a value is no truth.
    """
    truth = read_truth_table(url)
    numbers = ids_of_kind(truth.ids, pa.int64()).to_pylist()
    known = zip(numbers, truth.is_lens.to_pylist(), strict=True)
    return {number: lens for number, lens in known if number is not None and lens is not None}


def _formats(folder: str, files: dict[int, dict[str, str]]) -> tuple[CutoutFormat, ...]:
    """Bands of one size as one format, by the images of an object that has them all."""
    bands = sorted({band for one in files.values() for band in one}, key=_wavelength)
    whole = next((one for one in files.values() if len(one) == len(bands)), None)
    if whole is None:
        raise InputError(f"no object of {folder} has an image in every band ({', '.join(bands)})")
    unknown = [band for band in bands if band not in PIXEL_SCALES_ARCSEC]
    if unknown:
        raise InputError(
            f"the pixel scale of band {unknown[0]} is not known; known are {', '.join(PIXEL_SCALES_ARCSEC)}"
        )
    shapes = {band: _read(folder, whole[band]).shape for band in bands}
    sizes = sorted(set(shapes.values()), reverse=True)
    columns = ["image", "image_nisp", *(f"image_{k}" for k in range(3, len(sizes) + 1))]
    return tuple(
        _format(column, [band for band in bands if shapes[band] == shape], shape)
        for column, shape in zip(columns, sizes, strict=False)
    )


def _wavelength(band: str) -> tuple[int, str]:
    order = ("U", "G", "R", "VIS", "I", "Y", "J", "H")
    return (order.index(band) if band in order else len(order), band)


def _format(column: str, bands: Sequence[str], shape: tuple[int, int]) -> CutoutFormat:
    return CutoutFormat(
        survey="bologna_challenge",
        bands=tuple(bands),
        pixel_scale_arcsec=PIXEL_SCALES_ARCSEC[bands[0]],
        shape=(len(bands), *shape),
        column=column,
    )


def challenge_tables(challenge: Challenge, numbers: Sequence[int] | NDArray[np.int64]) -> Iterator[pa.Table]:
    """Some objects as cutout tables with the column ``label``.

    A plane whose file is missing, damaged or of another size is NaN, so that the row gets a status when it is read.
    """
    for start in range(0, len(numbers), ROWS_AT_ONCE):
        rows = [int(number) for number in numbers[start : start + ROWS_AT_ONCE]]
        first, *further = challenge.formats
        truth = pa.array([challenge.is_lens[number] for number in rows])
        table = cutouts.make_table(first, np.array(rows), _images(challenge, rows, first), label=truth)
        for fmt in further:
            table = cutouts.add_images(table, fmt, _images(challenge, rows, fmt))
        yield table


def _images(challenge: Challenge, numbers: Sequence[int], fmt: CutoutFormat) -> NDArray[np.float32]:
    images = np.full((len(numbers), *fmt.shape), np.nan, np.float32)
    for row, number in enumerate(numbers):
        for plane, band in enumerate(fmt.bands):
            path = challenge.files[number].get(band)
            pixels = None if path is None else _read_or_none(challenge.folder, path)
            if pixels is not None and pixels.shape == fmt.shape[1:]:
                images[row, plane] = np.where(pixels == MASK_VALUE, np.nan, pixels)
    return images


def _read_or_none(folder: str, path: str) -> NDArray[np.float32] | None:
    try:
        return _read(folder, path)
    except Exception:
        # astropy fails in many ways on damaged bytes, and no bad row may end a reading.
        return None


def _read(folder: str, path: str) -> NDArray[np.float32]:
    filesystem, _ = storage.resolve(folder)
    with filesystem.open_input_stream(path) as source:
        return read_planes(source.read())[0].astype(np.float32)
