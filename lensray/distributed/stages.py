"""The stages of the scan as plain callables on Arrow tables: read, score, write.

None of them imports ray: what they need of the cluster (an attempt counter, counters for the
dashboard) is handed to them, so each can be tested and reused by itself.
"""

import logging
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lensray import cutouts
from lensray.bundle import Bundle, Inputs
from lensray.cutouts import Status
from lensray.distributed.ledger import Ledger
from lensray.errors import LensRayError
from lensray.io import storage
from lensray.pixels import SCORED
from lensray.reading import ImageReader, blank_images, fit_images

MAX_ATTEMPTS = 3
# Columns that a fragment's table carries from stage to stage: its number, and the rows it must have.
FRAGMENT, ROWS = "__fragment", "__rows"

log = logging.getLogger(__name__)


class Attempts(Protocol):
    """Counts the tries of a stage at a fragment that did not come to an end."""

    def begin(self, stage: str, fragment: int) -> int:
        """One more try; returns how many have begun and not ended."""
        ...

    def end(self, stage: str, fragment: int) -> None:
        """The try came to an end: the fragment does not kill its process."""
        ...

    def give_up(self, stage: str, fragment: int) -> None:
        """The fragment is given up.

        Raises
        ------
        LensRayError
            If several were, and none came to an end: the fault is not theirs.
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadFragment:
    """Bytes to pixels: one row of the plan becomes the table of that fragment's cutouts."""

    survey: str
    """Address of the table of cutouts or sources."""
    images: ImageReader
    """From its rows to their images."""
    inputs: Inputs
    """What the bundle wants."""
    columns: tuple[str, ...]
    """Columns that are carried into the scores."""
    schema: pa.Schema
    """Types of these columns."""
    attempts: Attempts
    """Counts the tries; a fragment that kills its reader is given up after `MAX_ATTEMPTS`."""

    def __call__(self, plan_rows: pa.Table) -> pa.Table:
        """Read the fragment named by the one row of `plan_rows`."""
        (fragment,) = plan_rows.to_pylist()
        if self.attempts.begin("read", fragment["fragment"]) > MAX_ATTEMPTS:
            log.error(
                "fragment %d killed its reader %d times: its rows get a status",
                fragment["fragment"],
                MAX_ATTEMPTS,
            )
            table = self._unusable(fragment, Status.FAILED)
        else:
            table = self._read(fragment)
        self.attempts.end("read", fragment["fragment"])
        return table

    def _read(self, fragment: dict) -> pa.Table:
        try:
            stored, decoded, status = self._decode(fragment)
        except (pa.ArrowException, OSError, ValueError) as error:
            if fragment["row_groups"] > 1:
                return pa.concat_tables([self._read(part) for part in row_groups(self.survey, fragment)])
            log.error("fragment %d (%s) cannot be decoded: %s", fragment["fragment"], fragment["path"], error)
            return self._unusable(fragment, Status.UNREADABLE)
        status = _mark_ids(status, stored["object_id"], fragment)
        images, status = fit_images(decoded, status, self.images.formats, self.inputs)
        return self._table(fragment, stored.select(list(self.columns)), images, status)

    def _decode(self, fragment: dict) -> tuple[pa.Table, dict[str, np.ndarray], np.ndarray]:
        """Columns, images and statuses as stored; a failure counts when it comes twice."""
        try:
            return self._decode_once(fragment)
        except (pa.ArrowException, OSError, ValueError) as error:
            _raise_if_unreachable(self.survey, fragment, error)
            return self._decode_once(fragment)

    def _decode_once(self, fragment: dict) -> tuple[pa.Table, dict[str, np.ndarray], np.ndarray]:
        stored = read_slice(
            self.survey, fragment, tuple(dict.fromkeys((*self.columns, *self.images.columns)))
        )
        return stored, *self.images(stored)

    def _table(self, fragment: dict, columns: pa.Table, images: np.ndarray, status: np.ndarray) -> pa.Table:
        columns = columns.cast(self.schema)
        columns = columns.append_column("status", pa.array(status, pa.string()))
        for name, value in ((FRAGMENT, fragment["fragment"]), (ROWS, fragment["rows"])):
            columns = columns.append_column(name, pa.array(np.full(len(status), value, np.int64)))
        return columns.append_column(self.inputs.column, cutouts.tensor_column(images))

    def _unusable(self, fragment: dict, reason: str) -> pa.Table:
        """A fragment of which no image can be used: every row is there, with the reason."""
        rows = slice_rows(fragment)
        images = blank_images(rows, self.images.formats, self.inputs)
        return self._table(fragment, self._unread_columns(fragment), images, np.full(rows, reason, object))

    def _unread_columns(self, fragment: dict) -> pa.Table:
        """The columns without the images; nulls where not even these can be read."""
        try:
            return read_slice(self.survey, fragment, self.columns).cast(self.schema)
        except (pa.ArrowException, OSError, ValueError):
            return pa.table(
                [pa.nulls(slice_rows(fragment), field.type) for field in self.schema], schema=self.schema
            )


def fragment_of(table: pa.Table) -> int:
    """Number of the fragment that a table is, whole.

    Raises
    ------
    LensRayError
        If rows are missing: Ray split the block, and each piece would be written over the other.
    """
    fragment, rows = table[FRAGMENT][0].as_py(), table[ROWS][0].as_py()
    if table.num_rows != rows:
        raise LensRayError(
            f"fragment {fragment} came in pieces ({table.num_rows} of {rows} rows); keep fewer columns"
        )
    return fragment


def slice_rows(fragment: dict) -> int:
    """Rows of a fragment, or of the row group of it that is read by itself."""
    return fragment.get("slice_rows", fragment["rows"])


def read_slice(survey: str, fragment: dict, columns: tuple[str, ...]) -> pa.Table:
    """Rows of one fragment, the named columns alone, each in one chunk."""
    filesystem, _ = storage.resolve(survey)
    with (
        filesystem.open_input_file(fragment["path"]) as source,
        pq.ParquetFile(source, pre_buffer=True) as file,
    ):
        groups = range(fragment["row_group"], fragment["row_group"] + fragment["row_groups"])
        table = file.read_row_groups(list(groups), columns=list(columns), use_threads=False)
    rows = slice_rows(fragment)
    table = table.slice(fragment["offset"], rows)
    if table.num_rows != rows:
        raise ValueError(f"{table.num_rows} rows where the plan has {rows}")
    return table.select(list(columns)).combine_chunks()


def row_groups(survey: str, fragment: dict) -> list[dict]:
    """The fragment as one for each of its row groups, so that damage in one does not cost the others."""
    filesystem, _ = storage.resolve(survey)
    with filesystem.open_input_file(fragment["path"]) as source:
        metadata = pq.read_metadata(source)
    parts, start = [], 0
    for group in range(fragment["row_group"], fragment["row_group"] + fragment["row_groups"]):
        rows = metadata.row_group(group).num_rows
        mine = [row - start for row in fragment["duplicates"] if start <= row < start + rows]
        parts.append(
            {**fragment, "row_group": group, "row_groups": 1, "slice_rows": rows, "duplicates": mine}
        )
        start += rows
    return parts


def _raise_if_unreachable(survey: str, fragment: dict, error: Exception) -> None:
    """Tell damaged bytes, which the scan passes over, from storage that fails, which stops it."""
    filesystem, _ = storage.resolve(survey)
    try:
        with filesystem.open_input_stream(fragment["path"]) as source:
            while source.read(8 << 20):
                pass
    except OSError as unreachable:
        raise unreachable from error


def _mark_ids(status: np.ndarray, ids: pa.ChunkedArray, fragment: dict) -> np.ndarray:
    """Rows without an id, or whose id came before, get a status, unless their image is unusable anyway."""
    status = status.copy()
    missing = ids.is_null().to_numpy()
    status[missing & (status == Status.OK)] = Status.NULL_OBJECT_ID
    repeated = np.asarray(fragment["duplicates"], dtype=np.int64)
    status[repeated[status[repeated] == Status.OK]] = Status.DUPLICATE_OBJECT_ID
    return status


class ScoreFragment:
    """An actor's callable: holds the network, and turns a fragment's cutouts into scores."""

    def __init__(
        self,
        bundle: Bundle,
        attempts: Attempts,
        count: Callable[[Counter], None],
        *,
        threads: int | None = None,
        device: str | None = None,
        classes: tuple[str, ...] = (),
    ) -> None:
        from lensray.scoring import Scorer

        self.scorer = Scorer(bundle, device=device, threads=threads, positive_classes=classes or None)
        self.attempts = attempts
        self.count = count

    def __call__(self, table: pa.Table) -> pa.Table:
        """Scores of one fragment; after `MAX_ATTEMPTS` tries its rows get a status instead."""
        fragment = fragment_of(table)
        if self.attempts.begin("score", fragment) > MAX_ATTEMPTS:
            log.error("fragment %d failed %d times: its rows get a status", fragment, MAX_ATTEMPTS)
            self.attempts.give_up("score", fragment)
            return self.scorer(_give_up(table))
        try:
            scored = self.scorer(table)
        except Exception:
            # A GPU that failed once may fail for ever; a fresh process tries again.
            log.exception("fragment %d could not be scored", fragment)
            leave_process()
        self.attempts.end("score", fragment)
        self.count(Counter(scored["status"].to_pylist()))
        return scored


def leave_process() -> NoReturn:
    """End this process at once; Ray starts another and gives it the fragment again."""
    logging.shutdown()
    os._exit(1)


def _give_up(table: pa.Table) -> pa.Table:
    """The same table with no row left to score."""
    status = np.asarray(table["status"].to_pylist(), object)
    status[np.isin(status.astype(str), SCORED)] = Status.FAILED
    return table.set_column(table.schema.get_field_index("status"), "status", pa.array(status, pa.string()))


@dataclass(frozen=True, kw_only=True, slots=True)
class WriteFragment:
    """Scores to storage, then the done-marker; both depend on the input alone."""

    output: str
    """Folder of the scan."""
    columns: tuple[str, ...]
    """Columns of the scores beside score and status, in order."""

    def __call__(self, table: pa.Table) -> pa.Table:
        """Write one fragment's scores; returns its number, rows and scored rows."""
        ledger = Ledger(self.output)
        fragment = fragment_of(table)
        extra = [name for name in table.column_names if name.startswith("score_")]
        names = ["object_id", "ra", "dec", "score", "status", *self.columns[3:], *extra]
        with storage.atomic_output(ledger.part_url(fragment)) as file:
            pq.write_table(table.select(names).replace_schema_metadata(None), file, compression="zstd")
        scored = table.num_rows - table["score"].null_count
        statuses = Counter(table["status"].to_pylist())
        ledger.mark_done(
            fragment, {"rows": table.num_rows, "scored": scored, "statuses": dict(sorted(statuses.items()))}
        )
        return pa.table({"fragment": [fragment], "rows": [table.num_rows], "scored": [scored]})
