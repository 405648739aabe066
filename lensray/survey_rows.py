"""Random rows of a cutout survey in bounded memory: negatives for a training set, hosts for injected arcs.

A survey may be far larger than the machine, so row groups (tens of megabytes each) are taken in random order
until they hold enough rows to choose from; only these are read, one at a time. Every row of the survey is as
likely to be chosen as any other (those of a file's last, smaller row group a little less: a fifth, where three
row groups suffice). The chosen rows share their row groups, which often are one part of the sky each, so
`SPREAD` times as many rows are looked at as are wanted.
"""

import contextlib
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lensray.cutout_format import METADATA_KEY
from lensray.errors import InputError, LensRayError
from lensray.io import storage
from lensray.io.explain import explained

SPREAD = 4
"""Rows looked at for each row that is wanted, where the survey has as many."""
MAX_FILES = 512
"""Of a survey of more files, this many are drawn: each footer is a request to the storage."""
WHOLE = (0.0, 1.0)
"""The share of a survey that is all of it."""
TRUTH_COLUMNS = ("label", "is_tracer")
"""Columns that are true for a known lens."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Some rows of one row group."""

    path: str
    """Path of the Parquet file, on the survey's file system."""
    row_group: int
    """Which row group of the file."""
    rows: tuple[int, ...]
    """Rows of the row group, ascending."""


def sample_rows(
    url: str,
    count: int,
    *,
    seed: int,
    columns: Sequence[str] | None = None,
    exclude_lenses: bool = True,
    exclude_ids: Collection[int] | Collection[str] = (),
) -> pa.Table:
    """Draw rows of a survey at random, without repetition.

    Parameters
    ----------
    url : str
        A Parquet file or folder, local or S3.
    count : int
        How many rows; where the survey has fewer that may be drawn, these.
    seed : int
        Not negative; the same rows of the same survey come for the same seed.
    columns : sequence of str, optional
        Columns to read, in this order; all by default.
    exclude_lenses : bool
        Leave out the rows whose ``label`` or ``is_tracer`` is true, and those without an ``object_id``.
    exclude_ids : collection of int or str
        Further ``object_id`` to leave out.

    Returns
    -------
    pyarrow.Table
        In the order of the survey's files and rows, with its ``lensray.survey`` metadata.

    Raises
    ------
    InputError
        If there is no survey, no row that may be drawn, or a column is missing.
    """
    places = choose_rows(url, count, seed=seed, exclude_lenses=exclude_lenses, exclude_ids=exclude_ids)
    if not places:
        raise InputError(f"{url} has no cutout that may be drawn (known lenses are left out); give another")
    return pa.concat_tables(read_places(url, places, columns))


def choose_rows(
    url: str,
    count: int,
    *,
    seed: int,
    exclude_lenses: bool = True,
    exclude_ids: Collection[int] | Collection[str] = (),
    share: tuple[float, float] = WHOLE,
) -> list[Place]:
    """Where `sample_rows` reads, in the survey's order; no pixel is read for it.

    Only rows of the `share` are drawn: each row has a place between 0 and 1 by its ``object_id`` alone, so that
    sets from shares that do not overlap have no object in common.
    """
    generator = np.random.default_rng(np.random.SeedSequence([seed, count]))
    found: list[Place] = []
    eligible = 0
    drawn = shuffled_places(
        url, seed=seed, exclude_lenses=exclude_lenses, exclude_ids=exclude_ids, share=share
    )
    for place in drawn:
        found.append(place)
        eligible += len(place.rows)
        if eligible >= SPREAD * count:
            break
    chosen = np.zeros(eligible, bool)
    chosen[generator.choice(eligible, min(count, eligible), replace=False)] = True
    return sorted(_only(found, chosen), key=lambda place: (place.path, place.row_group))


def _only(places: list[Place], chosen: NDArray[np.bool_]) -> Iterator[Place]:
    """The places with those of their rows, taken in order, that are chosen."""
    start = 0
    for place in places:
        here = chosen[start : start + len(place.rows)]
        start += len(place.rows)
        if here.any():
            rows = tuple(row for row, wanted in zip(place.rows, here.tolist(), strict=True) if wanted)
            yield Place(path=place.path, row_group=place.row_group, rows=rows)


def shuffled_places(
    url: str,
    *,
    seed: int,
    exclude_lenses: bool = True,
    exclude_ids: Collection[int] | Collection[str] = (),
    share: tuple[float, float] = WHOLE,
) -> Iterator[Place]:
    """The survey's row groups in random order, each with its rows that may be drawn (arguments: `choose_rows`)."""
    generator = np.random.default_rng(np.random.SeedSequence([seed]))
    files = storage.find_files(url)
    if len(files) > MAX_FILES:
        files = [files[i] for i in np.sort(generator.choice(len(files), MAX_FILES, replace=False))]
    groups = [
        (entry.path, group)
        for entry, footer in storage.read_footers(url, files)
        for group in range(footer.metadata.num_row_groups)
    ]
    for index in generator.permutation(len(groups)):
        path, group = groups[index]
        rows = _eligible(url, path, group, exclude_lenses, exclude_ids, share)
        if len(rows):
            yield Place(path=path, row_group=group, rows=tuple(rows.tolist()))


def _eligible(
    url: str,
    path: str,
    group: int,
    exclude_lenses: bool,
    exclude_ids: Collection[int] | Collection[str],
    share: tuple[float, float],
) -> NDArray[np.int64]:
    """Rows of a row group that may be drawn, by their ids and truth."""
    with _opened(url, path) as file:
        truth = [name for name in TRUTH_COLUMNS if exclude_lenses and name in file.schema_arrow.names]
        table = file.read_row_group(group, columns=["object_id", *truth], use_threads=False)
    wrong = [name for name in truth if table.schema.field(name).type != pa.bool_()]
    if wrong:
        raise InputError(f"column {wrong[0]!r} must be bool; write it as bool")
    allowed = np.ones(table.num_rows, bool)
    if exclude_lenses:
        allowed &= table["object_id"].is_valid().to_numpy()
    for name in truth:
        allowed &= ~table[name].fill_null(False).to_numpy()
    if exclude_ids:
        ids = pa.array(list(exclude_ids))
        if ids.type != table.schema.field("object_id").type:
            ids = ids.cast(table.schema.field("object_id").type)
        allowed &= ~pc.call_function("is_in", [table["object_id"]], pc.SetLookupOptions(ids)).to_numpy()
    if share != WHOLE:
        allowed &= _in_share(table["object_id"].to_pylist(), share)
    return np.flatnonzero(allowed)


def _in_share(ids: list[int] | list[str], share: tuple[float, float]) -> NDArray[np.bool_]:
    places = np.array([zlib.crc32(repr(name).encode()) for name in ids]) / 2**32
    return (places >= share[0]) & (places < share[1])


def read_places(
    url: str, places: Iterable[Place], columns: Sequence[str] | None = None
) -> Iterator[pa.Table]:
    """Read rows, one table a place, all of the schema of the first."""
    schema: pa.Schema | None = None
    for place in places:
        table = _read(url, place, columns)
        if schema is not None and table.schema != schema:
            raise InputError(f"{place.path} has other columns than the rest of the survey; write them alike")
        schema = table.schema
        yield table


def _read(url: str, place: Place, columns: Sequence[str] | None) -> pa.Table:
    with _opened(url, place.path) as file:
        stored = file.schema_arrow
        wanted = list(stored.names if columns is None else columns)
        missing = [name for name in wanted if name not in stored.names]
        if missing:
            raise InputError(f"the survey has no column {missing[0]!r}; it has {', '.join(stored.names)}")
        table = file.read_row_group(place.row_group, columns=wanted, use_threads=False)
    # The hash of the file's content, which stands beside it, is not that of these rows.
    metadata = {key: value for key, value in (stored.metadata or {}).items() if key == METADATA_KEY}
    return table.select(wanted).take(pa.array(place.rows)).replace_schema_metadata(metadata or None)


@contextlib.contextmanager
def _opened(url: str, path: str) -> Iterator[pq.ParquetFile]:
    filesystem, _ = storage.resolve(url)
    with (
        explained(path, LensRayError),
        filesystem.open_input_file(path) as source,
        pq.ParquetFile(source, pre_buffer=True) as file,
    ):
        yield file
