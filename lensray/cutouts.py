"""Cutout surveys: the table that every part of LensRay reads and writes.

A cutout survey is a Parquet file or folder with a row a galaxy: ``object_id`` (integer or string, unique),
``ra`` and ``dec`` (degrees, ICRS, nullable), and ``image`` (Arrow ``fixed_shape_tensor`` of uint8, float16 or
float32, bands × height × width); optionally ``label`` (bool, true = lens), ``is_tracer`` (bool) and any other
columns. The schema metadata key ``lensray.survey`` holds JSON: ``survey``, ``bands`` (in the order of the
planes), ``pixel_scale_arcsec``, and ``shape`` where the column's type does not have it. Columns of further
resolutions are described under ``images``: ``{"image_nisp": {"bands": [...], "pixel_scale_arcsec": 0.3}}``.

Plain lists of pixels and the bytes of FITS, PNG or JPEG files are read as well.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lensray.cutout_format import METADATA_KEY, CutoutFormat, cutout_schema, read_format, stored_description
from lensray.errors import InputError
from lensray.io import storage, tables
from lensray.io.parquet import write_folder
from lensray.io.tables import tensor_column
from lensray.pixels import Status, check_pixels
from lensray.resampling import fit_cutouts

__all__ = [
    "METADATA_KEY",
    "CutoutFormat",
    "Status",
    "add_images",
    "align_table",
    "check_pixels",
    "cutout_schema",
    "existing_files",
    "fit_cutouts",
    "images_of",
    "make_table",
    "read_format",
    "tensor_column",
    "write_survey",
]

ROW_GROUP_BYTES = 16 << 20
FILE_BYTES = 256 << 20


def make_table(
    format: CutoutFormat,
    object_ids: Sequence[int] | Sequence[str] | np.ndarray | pa.Array,
    images: np.ndarray | pa.Array,
    ra: Sequence[float] | np.ndarray | pa.Array | None = None,
    dec: Sequence[float] | np.ndarray | pa.Array | None = None,
    **columns: Any,
) -> pa.Table:
    """Cutouts as a table of the survey's schema.

    Parameters
    ----------
    format : CutoutFormat
    object_ids : array of int or str, shape (N,)
    images : ndarray, shape (N, bands, height, width), or an Arrow array of the column's type
    ra, dec : array of float, shape (N,), optional
        Degrees (ICRS); null if not given.
    **columns : array, shape (N,)
        Further columns, such as ``label`` or ``is_tracer``.

    Raises
    ------
    ValueError
        If the images are not of the format.
    """
    if isinstance(images, np.ndarray):
        if images.shape[1:] != format.shape or images.dtype != format.dtype or format.encoding != "tensor":
            raise ValueError(
                f"images are {images.dtype} of {images.shape[1:]}, the format says {format.dtype} of {format.shape} "
                f"as {format.encoding}"
            )
        images = tensor_column(images)
    ids = pa.array(object_ids)
    unknown = pa.nulls(len(ids), pa.float64())
    extra = {name: pa.array(values) for name, values in columns.items()}
    fields = [pa.field(name, values.type) for name, values in extra.items()]
    schema = cutout_schema(format, ids.type, fields)
    positions = [unknown if values is None else pa.array(values, pa.float64()) for values in (ra, dec)]
    return pa.table([ids, *positions, images, *extra.values()], schema=schema)


def add_images(
    table: pa.Table, format: CutoutFormat, images: np.ndarray, null: np.ndarray | None = None
) -> pa.Table:
    """A table with a further column of images, of another resolution, described in its metadata.

    Parameters
    ----------
    table : pyarrow.Table
        Of a survey's schema.
    format : CutoutFormat
        Of the new images, with the new column's name.
    images : ndarray, shape (N, bands, height, width)
    null : ndarray of bool, shape (N,), optional
        True where the row has no image.
    """
    if images.shape[1:] != format.shape or images.dtype != format.dtype:
        raise ValueError(
            f"images are {images.dtype} of {images.shape[1:]}, the format says {format.dtype} of {format.shape}"
        )
    metadata = dict(table.schema.metadata or {})
    described = json.loads(metadata.get(METADATA_KEY, b"{}"))
    further = {"bands": list(format.bands), "pixel_scale_arcsec": format.pixel_scale_arcsec}
    described["images"] = {**described.get("images", {}), format.column: further}
    metadata[METADATA_KEY] = json.dumps(described).encode()
    return table.append_column(format.column, tensor_column(images, null=null)).replace_schema_metadata(
        metadata
    )


def images_of(table: pa.Table, format: CutoutFormat) -> tuple[np.ndarray, np.ndarray]:
    """The images of a table, and which of its rows have none.

    Parameters
    ----------
    table : pyarrow.Table
    format : CutoutFormat

    Returns
    -------
    images : ndarray of ``format.dtype``, shape (N, bands, height, width)
        A read-only view of the table where it can be; rows without an image are zeros.
    status : ndarray of str objects, shape (N,)
        ``ok``, ``null_image``, ``corrupt_image`` or ``wrong_shape``.
    """
    array = tables.one_array(table.column(format.column))
    if format.encoding == "tensor":
        return tables.decode_tensors(array, format.shape, format.dtype)
    if format.encoding == "list":
        return tables.decode_lists(array, format.shape, format.dtype)
    return tables.decode_bytes(array, format.shape, format.dtype)


def write_survey(
    parts: Iterable[pa.Table],
    url: str,
    format: CutoutFormat,
    *,
    rows_per_file: int | None = None,
    row_group_bytes: int = ROW_GROUP_BYTES,
    append: bool = False,
) -> int:
    """Write a survey, all of it or nothing, in bounded memory.

    Parameters
    ----------
    parts : iterable of pyarrow.Table
        Tables of one schema and of any number of rows.
    url : str
        Folder of the survey, local or S3. Files are ``part-00000.parquet`` and so on.
    format : CutoutFormat
    rows_per_file : int, optional
        By default as many as make 256 MB of pixels.
    row_group_bytes : int
        Pixels a row group; readers decode a row group at a time.
    append : bool
        Add to the survey that is there (`align_table`) instead of refusing to.

    Returns
    -------
    int
        Number of rows written.

    Raises
    ------
    InputError
        If there are Parquet files in the folder and `append` is false, if they are of another format, or
        if there is no row.
    """
    existing = existing_files(url)
    if existing and not append:
        raise InputError(f"{url} holds Parquet files already ({existing[0]}); choose another --output")
    if existing:
        parts = _aligned(parts, storage.join(url, existing[0]))
    row_bytes = int(np.prod(format.shape)) * format.dtype.itemsize
    group_rows = max(1, row_group_bytes // row_bytes)
    file_rows = rows_per_file or max(1, FILE_BYTES // row_bytes // group_rows) * group_rows
    return write_folder(
        parts, url, group_rows=group_rows, file_rows=file_rows, first_part=_next_part(existing)
    )


def existing_files(url: str) -> list[str]:
    """Names of the Parquet files in a folder that need not exist."""
    if not storage.exists(url):
        return []
    filesystem, path = storage.resolve(url)
    if filesystem.get_file_info(path).is_file:
        raise InputError(f"{url} is a file; give a folder as --output")
    return [name for name in storage.list_names(filesystem, path) if name.endswith(".parquet")]


def _next_part(existing: list[str]) -> int:
    numbers = [name.removeprefix("part-").removesuffix(".parquet") for name in existing]
    return max((int(number) + 1 for number in numbers if number.isdecimal()), default=0)


def _aligned(parts: Iterable[pa.Table], existing_url: str) -> Iterator[pa.Table]:
    """Tables with the columns of a file that is there; optional columns that they lack are null."""
    with storage.open_input(existing_url) as file:
        schema = pq.read_schema(file)
    # The hash of that file's content is not that of ours.
    metadata = {key: value for key, value in (schema.metadata or {}).items() if key == METADATA_KEY}
    for part in parts:
        yield align_table(part, schema.with_metadata(metadata))


def align_table(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A table as rows of another survey: integer ids become strings, optional columns that it lacks are null.

    Raises
    ------
    InputError
        If its images, bands or pixel scale are others, or it has a column that the survey lacks.
    """
    extra = [name for name in table.column_names if name not in schema.names]
    if extra:
        raise InputError(
            f"the survey lacks the column {', '.join(extra)}, so these cutouts cannot be added to it"
        )
    _check_same_survey(table.schema, schema)
    columns = []
    for field in schema:
        if field.name not in table.column_names:
            columns.append(pa.nulls(table.num_rows, field.type))
        else:
            column = table.column(field.name)
            columns.append(column if column.type == field.type else column.cast(field.type))
    return pa.table(columns, schema=schema)


def _check_same_survey(new: pa.Schema, old: pa.Schema) -> None:
    here, there = stored_description(new), stored_description(old)
    if here.get("bands") != there.get("bands"):
        raise InputError(
            f"the survey's bands are {there.get('bands')} but these cutouts have {here.get('bands')}"
        )
    scales = [float(described.get("pixel_scale_arcsec") or np.nan) for described in (here, there)]
    if not np.isclose(*scales, rtol=1e-3, equal_nan=True):
        raise InputError(
            f"the survey's pixels are {scales[1]} arcsec wide but those of these cutouts {scales[0]}"
        )
    for field in new:
        kind = old.field(field.name).type
        if field.type != kind and not (field.name == "object_id" and pa.types.is_string(kind)):
            raise InputError(
                f"the survey's column {field.name!r} is {kind} but that of these cutouts is {field.type}"
            )


def without_pixel_scale(table: pa.Table) -> pa.Table:
    """A table whose metadata leaves the pixel scale open, so that `read_format` asks for it."""
    described = {**stored_description(table.schema), "pixel_scale_arcsec": None}
    return table.replace_schema_metadata({METADATA_KEY: json.dumps(described).encode()})
