"""The sources of a survey and where they lie in its tiles: what is cut out, as Parquet files without pixels.

A file of sources has ``object_id``, ``ra``, ``dec``, further columns of the catalogue or of the detection, and then ``tile``, ``cut_status`` (``ok``, or
why there will be no cutout) and, for each column of images, ``x_<column>`` and ``y_<column>``: pixel coordinates in the tile, the
first pixel being 0. Its rows are in the order of tiles and of the mosaics' rows, so that a fragment of a scan reads a band of
rows once. Every row of a catalogue is a source, those that lie nowhere too.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lensray.errors import InputError
from lensray.extraction.mosaic_images import pixel_columns
from lensray.extraction.placing import NOWHERE, place_sources
from lensray.extraction.tiles import SurveyedTile
from lensray.io import storage
from lensray.io.hats import hats_columns, table_files
from lensray.io.table_files import read_columns
from lensray.pixels import Status
from lensray.sky import DEC_NAMES, RA_NAMES, parse_positions, usual_column
from lensray.survey_rows import TRUTH_COLUMNS

# Sources that are placed at a time; some hundred bytes each.
PART_ROWS = 2_000_000
# A fragment reads whole row groups: at 48 KB a cutout of 3×64×64 floats this is 25 MB of pixels.
GROUP_ROWS = 512

RESERVED = ("object_id", "ra", "dec", "tile", "cut_status", "padded", "image")
"""Names that columns of sources and of their surveys have."""
ID_COLUMNS = ("object_id", "objectid", "id", "source_id", "coadd_object_id", "number", "name")
"""Columns of names that are looked for where none is named, in any case of letters."""

_WHOLE = re.compile(r"-?(0|[1-9]\d{0,17})")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(nan|inf)", re.IGNORECASE)
_TRUE, _FALSE = ("true", "t", "1", "yes"), ("false", "f", "0", "no")


@dataclass(frozen=True, kw_only=True, slots=True)
class CatalogColumns:
    """The columns of a catalogue that are read."""

    object_id: str
    """Column of the names."""
    ra: str
    """Column of right ascensions."""
    dec: str
    """Column of declinations."""
    further: tuple[str, ...] = ()
    """Columns that are kept, under their names."""

    @property
    def names(self) -> tuple[str, ...]:
        """All of them, each once."""
        return tuple(dict.fromkeys((self.object_id, self.ra, self.dec, *self.further)))


@dataclass(frozen=True, kw_only=True, slots=True)
class CatalogPart:
    """Rows of a catalogue that are placed together."""

    path: str
    """Path of the file."""
    row_groups: tuple[int, ...] | None = None
    """Row groups of a Parquet file; None: the whole file."""


def choose_columns(
    url: str,
    names: Sequence[str],
    *,
    object_id: str | None = None,
    ra: str | None = None,
    dec: str | None = None,
    keep: Sequence[str] = (),
) -> CatalogColumns:
    """Which columns of a catalogue hold what, by the user's words or by usual names.

    Raises
    ------
    InputError
        If one is not there.
    """
    return CatalogColumns(
        object_id=_column(url, names, object_id, ID_COLUMNS, "names of the sources", "--id-column"),
        ra=_column(url, names, ra, RA_NAMES, "right ascensions", "--ra-column"),
        dec=_column(url, names, dec, DEC_NAMES, "declinations", "--dec-column"),
        further=tuple(
            _column(url, names, name, (), "values", "--keep")
            for name in dict.fromkeys([*keep, *(name for name in TRUTH_COLUMNS if name in names)])
        ),
    )


def _column(
    url: str, names: Sequence[str], asked: str | None, usual: Sequence[str], what: str, option: str
) -> str:
    if asked is not None:
        if asked in names:
            return asked
        raise InputError(f"{option} {asked}: {url} has the columns {', '.join(names)}")
    found = usual_column(names, usual)
    if found is None:
        raise InputError(
            f"no column of {url} is known to hold the {what}; name it by {option}: {', '.join(names)}"
        )
    return found


def catalog_columns(
    url: str,
    *,
    object_id: str | None = None,
    ra: str | None = None,
    dec: str | None = None,
    keep: Sequence[str] = (),
) -> CatalogColumns:
    """The columns of the catalogue at an address (errors as of `choose_columns`); a HATS catalogue names its positions."""
    named = hats_columns(url)
    if named is not None:
        ra, dec = ra or named[0], dec or named[1]
    if own := [name for name in keep if name in RESERVED or name.startswith(("x_image", "y_image", "__"))]:
        raise InputError(
            f"--keep {own[0]}: sources have a column of that name anyway; leave it out, or rename the catalogue's"
        )
    chosen: list[CatalogColumns] = []

    def choose(names: Sequence[str]) -> list[str]:
        chosen.append(choose_columns(url, names, object_id=object_id, ra=ra, dec=dec, keep=keep))
        return [chosen[-1].object_id]

    first = table_files(url)[0]
    filesystem, _ = storage.resolve(url)
    with filesystem.open_input_file(first.path) as file:
        is_parquet = file.size() >= 4 and file.read_at(4, 0) == b"PAR1"
    if is_parquet:
        choose(
            storage.read_footer(filesystem, first.path, first.size).metadata.schema.to_arrow_schema().names
        )
    else:
        read_columns(url, choose)
    return chosen[0]


def catalog_parts(url: str) -> list[CatalogPart]:
    """A catalogue in parts that fit into memory, in its order (errors as of `storage.find_files`)."""
    files = table_files(url)
    if len(files) == 1 and not files[0].path.endswith(".parquet"):
        return [CatalogPart(path=files[0].path)]
    parts = []
    for entry, footer in storage.read_footers(url, files):
        sizes = [footer.metadata.row_group(i).num_rows for i in range(footer.metadata.num_row_groups)]
        parts += [CatalogPart(path=entry.path, row_groups=groups) for groups in _groups(sizes)]
    if not parts:
        raise InputError(f"{url} holds no rows; give a catalogue with at least one source")
    return parts


def _groups(sizes: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Numbers of row groups that hold `PART_ROWS` together, or are one."""
    groups: list[int] = []
    rows = 0
    for number, size in enumerate(sizes):
        if groups and rows + size > PART_ROWS:
            yield tuple(groups)
            groups, rows = [], 0
        groups.append(number)
        rows += size
    if groups:
        yield tuple(groups)


def read_part(url: str, part: CatalogPart, columns: CatalogColumns) -> pa.Table:
    """Rows of a catalogue: ``object_id``, ``ra`` and ``dec`` (degrees, NaN where there is none on the sky), and the kept columns.

    Raises
    ------
    InputError
        If ids or positions are of no usable type.
    """
    if part.row_groups is None:
        table = read_columns(url, lambda _: columns.names)
    else:
        filesystem, _ = storage.resolve(url)
        with filesystem.open_input_file(part.path) as source, pq.ParquetFile(source) as file:
            table = file.read_row_groups(list(part.row_groups), columns=list(columns.names))
    ra, dec = parse_positions(table[columns.ra], table[columns.dec])
    # Parquet has types of its own, and a guess for each part would differ between parts.
    guess = typed if part.row_groups is None else _as_it_is
    ids = guess(table[columns.object_id], whole_only=True)
    if not pa.types.is_integer(ids.type) and not pa.types.is_string(ids.type):
        ids = ids.cast(pa.string())
    arrays = {"object_id": ids, "ra": pa.array(ra), "dec": pa.array(dec)}
    for name in columns.further:
        arrays[name] = truth_values(table[name]) if name in TRUTH_COLUMNS else guess(table[name])
    return pa.table(arrays)


def _as_it_is(column: pa.ChunkedArray, *, whole_only: bool = False) -> pa.ChunkedArray:
    return column


def typed(column: pa.ChunkedArray, *, whole_only: bool = False) -> pa.ChunkedArray:
    """A column of texts, as CSV has it, as whole numbers or numbers if all of it are; names like ``00017`` stay texts.

    >>> typed(pa.chunked_array([["1", "20"]])).type, typed(pa.chunked_array([["01", "x"]])).type
    (DataType(int64), DataType(string))
    """
    if not pa.types.is_string(column.type):
        return column
    blank = pa.array([text is None or not text.strip() for text in column.to_pylist()])
    values = pc.call_function("if_else", [blank, pa.scalar(None, pa.string()), column])
    given = values.drop_null().to_pylist()
    kinds = [(_WHOLE, pa.int64())] if whole_only else [(_WHOLE, pa.int64()), (_NUMBER, pa.float64())]
    for pattern, kind in kinds:
        if given and all(pattern.fullmatch(text.strip()) for text in given):
            return pc.call_function("utf8_trim_whitespace", [values]).cast(kind)
    return column


def truth_values(column: pa.ChunkedArray) -> pa.ChunkedArray | pa.Array:
    """A column of truth as bool; texts and numbers are understood, others are not known."""
    if pa.types.is_boolean(column.type):
        return column
    words = [str(value).strip().lower() for value in column.to_pylist()]
    return pa.array(
        [True if word in _TRUE else False if word in _FALSE else None for word in words], pa.bool_()
    )


def placed(catalog: pa.Table, tiles: Sequence[SurveyedTile], columns: Iterable[str]) -> pa.Table:
    """A catalogue's rows with their places in the tiles, in the order in which they are cut.

    Parameters
    ----------
    catalog : pyarrow.Table
        With ``object_id``, ``ra`` and ``dec``.
    tiles : sequence of SurveyedTile
    columns : iterable of str
        Columns of images.
    """
    ra, dec = (catalog[name].to_numpy(zero_copy_only=False) for name in ("ra", "dec"))
    place = place_sources(ra, dec, tiles)
    names = np.array([tile.tile.name for tile in tiles] + [None], object)
    reasons = np.array([tile.status for tile in tiles] + [Status.OFF_IMAGE], object)
    status = reasons[place.tile]
    status[~(np.isfinite(ra) & np.isfinite(dec))] = Status.NO_POSITION
    table = catalog.append_column("tile", pa.array(names[place.tile], pa.string()))
    table = table.append_column("cut_status", pa.array(status, pa.string()))
    for column in columns:
        for name, values in zip(pixel_columns(column), _pixels(column, place, ra, dec, tiles), strict=True):
            table = table.append_column(name, pa.array(values))
    nowhere_last = np.where(place.tile == NOWHERE, len(tiles), place.tile)
    return table.take(pa.array(np.lexsort([place.x, place.y, nowhere_last])))


def _pixels(
    column: str, place, ra: NDArray[np.float64], dec: NDArray[np.float64], tiles: Sequence[SurveyedTile]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Pixel coordinates in the mosaics of a column of images, which may have pixels of another size."""
    x, y = place.x.copy(), place.y.copy()
    for number in np.unique(place.tile[place.tile != NOWHERE]):
        grids = tiles[number].grids
        if column in grids and grids[column] is not tiles[number].grid:
            rows = place.tile == number
            x[rows], y[rows] = grids[column].to_pixels(ra[rows], dec[rows])
    return x, y


def write_sources(table: pa.Table, url: str) -> None:
    """Write sources in row groups of one tile each (see the module)."""
    with (
        storage.atomic_output(url) as file,
        pq.ParquetWriter(file, table.schema, compression="zstd") as writer,
    ):
        names = np.asarray(table["tile"].to_pylist(), object)
        changes = np.flatnonzero(names[1:] != names[:-1]) + 1 if len(names) else []
        for start, stop in zip([0, *changes], [*changes, len(names)], strict=True):
            if stop > start or not len(names):
                writer.write_table(table.slice(start, stop - start), row_group_size=GROUP_ROWS)
