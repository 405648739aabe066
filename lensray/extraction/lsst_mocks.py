"""The published LSST mocks of Nan Li as cutout tables, with the parameters that their file names carry.

A mock is a FITS file of one image, 45×45 pixels of 0.18 arcsec, named
``{lensed|unlensed}_{id}_{velocity dispersion}_{axis ratio}_{position angle}_{lens redshift}_{magnification}_imgs.fits.gz``.
What the fields mean is not published; the radii of the lensed rings and the ranges of the values leave no other reading
that we know of. An unlensed mock's name has a lens too, of magnification 1, which its image does not show: its
parameters are null here, so that a regression learns from lenses alone.

The Einstein radius is not in the name. It is that of a singular isothermal sphere with a source at redshift 2
(`SOURCE_REDSHIFT`), where it agrees with the rings to be seen.
"""

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs

from lensray import cutouts
from lensray.cosmology import einstein_radius_arcsec
from lensray.cutout_format import CutoutFormat
from lensray.errors import InputError
from lensray.io import fits, storage

PIXEL_SCALE_ARCSEC = 0.18
SIZE = 45
BAND = "band_1"
"""Name of the one band, which is not published: what ``make_cutouts.py`` calls a single plane without a name."""
SOURCE_REDSHIFT = 2.0
"""Redshift of every source: that for which the rings have the radius that follows from the names."""
PARAMETERS = (
    "velocity_dispersion_km_s",
    "axis_ratio",
    "position_angle_deg",
    "lens_redshift",
    "magnification",
    "einstein_radius_arcsec",
)
"""Columns that a name gives, and the radius that follows from them."""

Half = Literal["training", "test", "all"]

_NAME = re.compile(
    r"(lensed|unlensed)_(\d+)" + r"_(-?\d+(?:\.\d+)?(?:e-?\d+)?)" * 5 + r"(?:_imgs)?\.fits(?:\.gz)?"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Mock:
    """A mock by its file."""

    path: str
    """Path within its filesystem."""
    is_lens: bool
    """Whether the name begins with ``lensed``."""
    number: int
    """Its number; unlensed mocks count from 10,000."""
    values: tuple[float, ...]
    """Velocity dispersion, axis ratio, position angle, lens redshift and magnification."""


def parse_name(path: str) -> Mock | None:
    """What a file's name says; None for any other file.

    Examples
    --------
    >>> mock = parse_name("0/lensed_8_312.4_0.99_260.4_0.527_11.55_imgs.fits.gz")
    >>> mock.is_lens, mock.number, mock.values
    (True, 8, (312.4, 0.99, 260.4, 0.527, 11.55))
    """
    found = _NAME.fullmatch(path.rsplit("/", 1)[-1])
    if found is None:
        return None
    kind, number, *values = found.groups()
    return Mock(
        path=path, is_lens=kind == "lensed", number=int(number), values=tuple(float(v) for v in values)
    )


def find_mocks(folder: str, half: Half = "all") -> list[Mock]:
    """The mocks below a folder, in the order of class and number.

    Parameters
    ----------
    folder : str
        Local or S3; subfolders are searched.
    half : {"training", "test", "all"}
        Which of them: in the order of their numbers, the first, third and so on of each class are the training half,
        the others the test half.

    Raises
    ------
    InputError
        If there is no lensed or no unlensed mock.
    """
    named = (parse_name(entry.path) for entry in storage.find_files(folder, (".fits", ".fits.gz")))
    mocks = sorted((m for m in named if m is not None), key=lambda m: (m.is_lens, m.number, m.path))
    classes = [[m for m in mocks if m.is_lens == is_lens] for is_lens in (False, True)]
    if not all(classes):
        raise InputError(
            f"{folder} holds {len(classes[1])} lensed and {len(classes[0])} unlensed mocks; both are needed, named "
            "lensed_{id}_{velocity dispersion}_{axis ratio}_{angle}_{redshift}_{magnification}_imgs.fits.gz and unlensed_…"
        )
    part = {"training": slice(0, None, 2), "test": slice(1, None, 2), "all": slice(None)}[half]
    return [mock for members in classes for mock in members[part]]


def mock_format(size: int = SIZE) -> CutoutFormat:
    """Format of a survey of mocks."""
    return CutoutFormat(
        survey="lsst_mocks",
        bands=(BAND,),
        pixel_scale_arcsec=PIXEL_SCALE_ARCSEC,
        shape=(1, size, size),
        dtype=np.dtype(np.float32),
    )


def read_mocks(folder: str, half: Half = "all") -> pa.Table:
    """The mocks of a folder as a cutout table: ``label`` and the columns of `PARAMETERS`, null for the unlensed.

    An image that cannot be read, or is not of 45×45 pixels, is a row of NaN pixels, which every reader of surveys
    leaves out and counts.

    Raises
    ------
    InputError
        As `find_mocks`.
    """
    mocks = find_mocks(folder, half)
    filesystem, _ = storage.resolve(folder)
    images = np.stack([_image(filesystem, mock) for mock in mocks])
    label = np.array([mock.is_lens for mock in mocks])
    values = np.where(label[:, None], np.array([mock.values for mock in mocks]), np.nan)
    columns = dict(zip(PARAMETERS, _with_radius(values).T, strict=True))
    ids = [f"{'lensed' if mock.is_lens else 'unlensed'}_{mock.number}" for mock in mocks]
    parameters = {name: pa.array(column, pa.float32(), from_pandas=True) for name, column in columns.items()}
    return cutouts.make_table(mock_format(), ids, images, label=pa.array(label), **parameters)


def _image(filesystem: pafs.FileSystem, mock: Mock) -> np.ndarray:
    with filesystem.open_input_file(mock.path) as file:
        data = file.read()
    try:
        planes = fits.read_planes(data)
    except Exception:
        # Damaged files fail in many ways, each of which means the same: no image.
        planes = np.empty(0)
    wanted = (1, SIZE, SIZE)
    return planes.astype(np.float32) if planes.shape == wanted else np.full(wanted, np.nan, np.float32)


def _with_radius(values: np.ndarray) -> np.ndarray:
    radius = einstein_radius_arcsec(values[:, 0], values[:, 3], SOURCE_REDSHIFT)
    return np.column_stack([values, radius])
