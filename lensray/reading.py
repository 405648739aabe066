"""From a survey's table to the images that a network takes: decoded, checked, fitted and packed.

A scan and a training read pixels alike, through `read_formats` (once, from the schema) and `read_images` (for every
table). Most networks take one column of images. Where a survey has further ones, with larger pixels (Euclid's VIS
at 0.1 arcsec and NISP at 0.3), each is decoded, checked and fitted by itself, and their planes are packed into
one array, so that everything from Arrow to the network goes on handling one array an image.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from lensray import cutouts
from lensray.bundle import FurtherImages, Inputs
from lensray.cutout_format import stored_description
from lensray.cutouts import CutoutFormat
from lensray.errors import InputError
from lensray.pixels import SCORED, Status

Formats = Mapping[str, CutoutFormat]


class ImageReader(Protocol):
    """From rows of a survey's table to their images: stored in it, or cut out of mosaics."""

    @property
    def formats(self) -> Formats:
        """Format of each column of images."""
        ...

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the table that it needs."""
        ...

    def __call__(self, table: pa.Table) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Images of every column, and the first reason why a row lacks one (``ok`` where it does not)."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredImages:
    """Images that the survey's table holds."""

    formats: Formats
    """Their formats, as stored, by column."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of images."""
        return tuple(self.formats)

    def __call__(self, table: pa.Table) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """As `decode_images`."""
        return decode_images(table, self.formats)


def read_formats(schema: pa.Schema, inputs: Inputs, **overrides: Any) -> dict[str, CutoutFormat]:
    """The format of each column of images that a network wants, by the column's name.

    Parameters
    ----------
    schema : pyarrow.Schema
    inputs : Inputs
        What the network takes.
    **overrides
        As in `lensray.cutouts.read_format`, for the first column.

    Raises
    ------
    InputError
        If a column is missing, of a wrong type or not described by the survey.
    """
    formats = {inputs.column: cutouts.read_format(schema, column=inputs.column, **overrides)}
    for part in inputs.further:
        described = stored_description(schema, part.column)
        if part.column in schema.names and not {"bands", "pixel_scale_arcsec"} <= described.keys():
            raise InputError(
                f"the survey does not say the bands and pixel scale of {part.column!r}; add them to its metadata key "
                f'lensray.survey, as "images": {{"{part.column}": {{"bands": […], "pixel_scale_arcsec": …}}}}'
            )
        formats[part.column] = cutouts.read_format(schema, column=part.column)
    return formats


def lacking_bands(
    schema: pa.Schema, inputs: Inputs
) -> Iterator[tuple[Inputs | FurtherImages, tuple[str, ...]]]:
    """Each column of images that lacks a band of the network, with the bands that it has (errors as of `read_formats`)."""
    formats = read_formats(schema, inputs)
    for part in (inputs, *inputs.further):
        found = formats[part.column].bands
        if not set(part.bands) <= set(found):
            yield part, found


def read_images(table: pa.Table, formats: Formats, inputs: Inputs) -> tuple[np.ndarray, np.ndarray]:
    """The images of a table as a network takes them, and which of its rows have none.

    Parameters
    ----------
    table : pyarrow.Table
        With the columns of `inputs`.
    formats : mapping of str to CutoutFormat
        From `read_formats`.
    inputs : Inputs

    Returns
    -------
    images : ndarray, shape (N, *inputs.shape)
        Possibly a read-only view of the table.
    status : ndarray of str objects, shape (N,)
        ``ok`` or ``filled_nan`` where all images of a row are fit to be scored; else the first reason why one is
        not (see `lensray.pixels.Status`).
    """
    return fit_images(*decode_images(table, formats), formats, inputs)


def decode_images(table: pa.Table, formats: Formats) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Images of every column as stored, and the first reason why a row lacks one (``ok`` where it does not)."""
    images, status = {}, np.full(table.num_rows, Status.OK, object)
    for column, fmt in formats.items():
        images[column], found = cutouts.images_of(table, fmt)
        status = np.where(status == Status.OK, found, status)
    return images, status


def fit_images(
    images: Mapping[str, np.ndarray], status: np.ndarray, formats: Formats, inputs: Inputs
) -> tuple[np.ndarray, np.ndarray]:
    """Check decoded images, and bring them to the bands, sizes and pixel scales of a network; as `read_images`.

    Rows whose `status` is not ``ok`` are not checked and keep it.
    """
    parts = []
    for part in (inputs, *inputs.further):
        allowed = inputs.max_nan_fraction
        checked, found = cutouts.check_pixels(images[part.column], _open(status), max_nan_fraction=allowed)
        status = np.where(np.isin(status, SCORED) & (found != Status.OK), found, status)
        parts.append(
            cutouts.fit_cutouts(
                checked,
                formats[part.column],
                bands=part.bands,
                size=(part.height, part.width),
                pixel_scale_arcsec=part.pixel_scale_arcsec,
            )
        )
    return pack_planes(parts[0], parts[1:]), status


def _open(status: np.ndarray) -> np.ndarray:
    """The status for the check of one column: ``ok`` also where another column's NaN pixels were filled."""
    return np.where(status == Status.FILLED_NAN, Status.OK, status)


def blank_images(rows: int, formats: Formats, inputs: Inputs) -> np.ndarray:
    """Zeros of the shape and type that `read_images` gives to this many rows."""
    zeros = {column: np.zeros((rows, *fmt.shape), fmt.dtype) for column, fmt in formats.items()}
    return fit_images(zeros, np.full(rows, Status.FAILED, object), formats, inputs)[0]


def pack_planes(first: np.ndarray, further: Sequence[np.ndarray]) -> np.ndarray:
    """Planes of several resolutions in one array.

    Parameters
    ----------
    first : ndarray, shape (N, bands, height, width)
    further : sequence of ndarray, shapes (N, bands, smaller height, smaller width)
        Their sides differ from those of `first` by even numbers.

    Returns
    -------
    ndarray, shape (N, all bands, height, width)
        Of the arrays' common type. The further planes lie in the middle, at their own pixel scale, with zeros around:
        a network takes them out again exactly, and the symmetries of the square do to them what they would have
        done before. Without further planes it is `first` itself.

    >>> pack_planes(np.ones((1, 1, 3, 3)), [np.full((1, 1, 1, 1), 7.0)])[0, 1].tolist()
    [[0.0, 0.0, 0.0], [0.0, 7.0, 0.0], [0.0, 0.0, 0.0]]
    """
    if not further:
        return first
    count, bands, height, width = first.shape
    planes = bands + sum(part.shape[1] for part in further)
    packed = np.zeros((count, planes, height, width), np.result_type(first, *further))
    packed[:, :bands] = first
    for part in further:
        top, left = (height - part.shape[2]) // 2, (width - part.shape[3]) // 2
        stop = bands + part.shape[1]
        packed[:, bands:stop, top : top + part.shape[2], left : left + part.shape[3]] = part
        bands = stop
    return packed
