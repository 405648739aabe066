"""Cutout surveys to one: common bands, pixel scale and size, different ids, and the columns of all.

Surveys are read in batches of bounded size, one file after the other. A row whose image is null or damaged
stays a row, with a null image that a scan gives a status. Survey files are not changed: in a survey that is
added to, the columns are those that it has.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from lensray.cutout_format import stored_description
from lensray.cutouts import (
    CutoutFormat,
    cutout_schema,
    existing_files,
    fit_cutouts,
    images_of,
    read_format,
    tensor_column,
    write_survey,
)
from lensray.errors import InputError, LensRayError
from lensray.extraction.config import MadeSurvey, MakeCutoutsConfig
from lensray.extraction.object_ids import choose_prefixes, read_ids, with_prefix
from lensray.io import storage
from lensray.io.explain import explained
from lensray.pixels import Status
from lensray.resampling import SAME_SCALE

BATCH_BYTES = 16 << 20
# Row groups of other programs can have gigabytes; they are read through a window.
READ_BUFFER_BYTES = 8 << 20
OWN_COLUMNS = ("object_id", "ra", "dec", "image")


@dataclass(frozen=True, kw_only=True, slots=True)
class _File:
    """A Parquet file of a survey."""

    url: str
    """Address of the survey."""
    filesystem: pafs.FileSystem
    path: str
    schema: pa.Schema
    format: CutoutFormat

    def simple_columns(self) -> pa.Schema:
        """The columns beside id, position and image that any survey can have: numbers, truth values, text, times."""
        return pa.schema(
            [
                pa.field(field.name, _value_type(field.type))
                for field in self.schema
                if field.name not in OWN_COLUMNS and _is_simple(_value_type(field.type))
            ]
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Target:
    """What all rows are brought to."""

    format: CutoutFormat
    schema: pa.Schema
    prefixes: dict[str, str | None]
    """What goes before the ids of a survey; None: nothing, and integers stay integers."""


@dataclass(kw_only=True, slots=True)
class _Problems:
    """Rows without an image: how many, and what the first is."""

    count: int = 0
    first: str | None = None


def join_surveys(config: MakeCutoutsConfig) -> MadeSurvey:
    """Write the rows of ``config.surveys`` as one survey; nothing is left if it fails.

    Bands, pixel scale and size are those of the options, else of the survey that is added to, else of the first
    one. With a pixel scale but no size, the field of view stays. Pixels are of the surveys' common type if none
    is resampled, else float32 (of uint8 surveys uint8, rounded).

    Raises
    ------
    InputError
        If a survey cannot be read, or they do not fit together: a band is missing, only some are uint8 (which
        are normalized already), or ids or types of columns clash.
    """
    _check_addresses(config)
    files = [file for url in config.surveys for file in _files(url)]
    existing = _files(config.output)[0] if config.append and existing_files(config.output) else None
    target = _target(config, files, existing)
    problems = _Problems()
    rows = write_survey(_tables(files, target, problems), config.output, target.format, append=config.append)
    present = {name for file in files for name in file.schema.names}
    return MadeSurvey(
        format=target.format,
        rows=rows,
        unreadable=problems.count,
        first_problem=problems.first,
        left_out=tuple(sorted(present - set(target.schema.names))),
    )


def _check_addresses(config: MakeCutoutsConfig) -> None:
    """A survey that comes twice would be all duplicates."""
    seen = [storage.resolve(config.output)[1].rstrip("/")]
    for url in config.surveys:
        path = storage.resolve(url)[1].rstrip("/")
        if path in seen:
            where = "the --output, too" if path == seen[0] else "named twice"
            raise InputError(f"{url} in --surveys is {where}; name each survey once")
        seen.append(path)


def _files(url: str) -> list[_File]:
    filesystem, _ = storage.resolve(url)
    files = []
    for entry, footer in storage.read_footers(url):
        schema = footer.metadata.schema.to_arrow_schema()
        fmt = _format(schema, entry.path)
        files.append(_File(url=url, filesystem=filesystem, path=entry.path, schema=schema, format=fmt))
    return files


def _format(schema: pa.Schema, path: str) -> CutoutFormat:
    described = stored_description(schema)
    if "image" in schema.names and not (described.get("bands") and described.get("pixel_scale_arcsec")):
        raise InputError(
            f"{path} does not say its bands and pixel scale (metadata key lensray.survey); make it again with "
            "--bands and --input-pixel-scale"
        )
    try:
        return read_format(schema)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _target(config: MakeCutoutsConfig, files: Sequence[_File], existing: _File | None) -> _Target:
    fmt = _common_format(config, files, existing)
    columns = _common_columns(files, existing)
    prefixes = _prefixes(config, existing)
    schema = cutout_schema(fmt, _id_type(files, existing, prefixes.values()), columns)
    return _Target(format=fmt, schema=schema, prefixes=prefixes)


def _common_format(config: MakeCutoutsConfig, files: Sequence[_File], existing: _File | None) -> CutoutFormat:
    model = (existing or files[0]).format
    bands = config.keep_bands or model.bands
    for file in files:
        missing = [band for band in bands if band not in file.format.bands]
        if missing:
            raise InputError(
                f"{file.url} lacks the band {', '.join(missing)} (it has {', '.join(file.format.bands)}); "
                "name bands that all have with --keep-bands"
            )
    scale = config.pixel_scale or model.pixel_scale_arcsec
    zoom = model.pixel_scale_arcsec / scale
    height, width = (max(1, round(side * zoom)) for side in model.shape[1:])
    return CutoutFormat(
        survey=model.survey if config.survey == "unknown" else config.survey,
        bands=bands,
        pixel_scale_arcsec=scale,
        shape=(len(bands), config.size or height, config.size or width),
        dtype=_common_dtype(files, existing, scale),
    )


def _common_dtype(files: Sequence[_File], existing: _File | None, scale: float) -> np.dtype:
    everyone = [*([existing] if existing else []), *files]
    kinds = {file.format.dtype: file.url for file in everyone}
    normalized = kinds.pop(np.dtype(np.uint8), None)
    if normalized and kinds:
        raise InputError(
            f"{normalized} has uint8 pixels, which are normalized already, but {next(iter(kinds.values()))} has "
            "floats; join surveys of one kind"
        )
    if normalized:
        return np.dtype(np.uint8)
    resampled = any(abs(scale / file.format.pixel_scale_arcsec - 1) >= SAME_SCALE for file in files)
    dtype = np.result_type(*kinds, *([np.float32] if resampled else []))
    if existing and existing.format.dtype != dtype:
        if not np.can_cast(dtype, existing.format.dtype):
            raise InputError(
                f"{existing.url} has {existing.format.dtype} pixels and cannot take {dtype} ones; join both with "
                "--surveys into a new --output"
            )
        return existing.format.dtype
    return dtype


def _value_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_simple(kind: pa.DataType) -> bool:
    return any(
        is_kind(kind)
        for is_kind in (pa.types.is_primitive, pa.types.is_string, pa.types.is_large_string, pa.types.is_null)
    )


def _common_columns(files: Sequence[_File], existing: _File | None) -> pa.Schema:
    """The simple columns that any survey has, or of these those that the survey that is added to has."""
    everyone = [*([existing] if existing else []), *files]
    try:
        columns = pa.unify_schemas([file.simple_columns() for file in everyone], promote_options="permissive")
    except pa.ArrowTypeError as error:
        raise InputError(
            f"a column has different types in the surveys ({error}); rename it in one of them, or write it alike"
        ) from None
    return existing.simple_columns() if existing else columns


def _prefixes(config: MakeCutoutsConfig, existing: _File | None) -> dict[str, str | None]:
    ids = [read_ids(url) for url in config.surveys]
    chosen = choose_prefixes(ids, read_ids(existing.url) if existing else None, config.id_prefix)
    return dict(zip(config.surveys, chosen, strict=True))


def _id_type(files: Sequence[_File], existing: _File | None, prefixes: Iterable[str | None]) -> pa.DataType:
    """That of the survey that is added to; else strings as soon as one survey's are."""
    if existing:
        return existing.schema.field("object_id").type
    integers = all(pa.types.is_integer(file.schema.field("object_id").type) for file in files)
    return pa.int64() if integers and not any(prefixes) else pa.string()


def _tables(files: Sequence[_File], target: _Target, problems: _Problems) -> Iterator[pa.Table]:
    """All rows in tables of the target; counts in `problems` those without an image."""
    for file in files:
        wanted = [name for name in file.schema.names if name in target.schema.names]
        row_bytes = max(int(np.prod(fmt.shape)) * fmt.dtype.itemsize for fmt in (file.format, target.format))
        for batch in _batches(file, wanted, max(1, BATCH_BYTES // row_bytes)):
            yield _table(batch, file, target, problems)


def _batches(file: _File, columns: Sequence[str], rows: int) -> Iterator[pa.Table]:
    with explained(file.path, LensRayError), file.filesystem.open_input_file(file.path) as source:
        parquet = pq.ParquetFile(source, buffer_size=READ_BUFFER_BYTES, pre_buffer=False)
        for batch in parquet.iter_batches(rows, columns=columns):
            yield pa.Table.from_batches([batch])


def _table(table: pa.Table, file: _File, target: _Target, problems: _Problems) -> pa.Table:
    images, status = images_of(table, file.format)
    bad = np.flatnonzero(status != Status.OK)
    problems.count += len(bad)
    if len(bad) and problems.first is None:
        problems.first = f"{table['object_id'][int(bad[0])]} of {file.url}: {status[bad[0]]}"
    made = {
        "object_id": _ids(table["object_id"], target.prefixes[file.url]),
        "image": tensor_column(_fit(images, file.format, target.format), null=status != Status.OK),
    }
    columns = []
    for field in target.schema:
        column = made.get(field.name)
        if column is None:
            has = field.name in table.column_names
            column = table[field.name] if has else pa.nulls(table.num_rows, field.type)
        columns.append(_cast(column, field, file))
    return pa.table(columns, schema=target.schema)


def _ids(ids: pa.ChunkedArray, prefix: str | None) -> pa.ChunkedArray:
    return ids if prefix is None else with_prefix(ids, prefix)


def _fit(images: np.ndarray, given: CutoutFormat, wanted: CutoutFormat) -> np.ndarray:
    size = (wanted.shape[1], wanted.shape[2])
    fitted = fit_cutouts(images, given, wanted.bands, size, wanted.pixel_scale_arcsec)
    if wanted.dtype == np.uint8 and fitted.dtype != np.uint8:
        fitted = np.rint(np.clip(fitted, 0, 255))
    return fitted.astype(wanted.dtype, copy=False)


def _cast(column: pa.ChunkedArray | pa.Array, field: pa.Field, file: _File) -> pa.ChunkedArray | pa.Array:
    if column.type == field.type:
        return column
    try:
        return column.cast(field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(
            f"the column {field.name!r} of {file.url} cannot be made {field.type}, as in the other survey ({error}); "
            "rename it, or write it alike"
        ) from None
