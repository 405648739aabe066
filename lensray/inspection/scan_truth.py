"""The objects of a truth table looked up in a finished scan: score, status, or not there.

The score files are read once, some ahead of others, since S3 takes its time; memory is proportional to the table.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lensray.errors import InputError
from lensray.io import storage
from lensray.io.explain import explained
from lensray.truth_table import TruthTable, ids_of_kind

READERS = 16
FILES_AT_ONCE = 64
SCAN_ROWS = ("all", "without_id", "without_truth", "repeated")


@dataclass(frozen=True, kw_only=True, slots=True)
class Fates:
    """What became of the objects of one kind."""

    in_truth: int
    """Rows of the truth table."""
    not_in_scan: int
    """Those of which the scan has no row."""
    unscored: Mapping[str, int]
    """Those that the scan could not score, by status."""
    scored: int
    """Those with a score."""


@dataclass(slots=True, eq=False)
class Matched:
    """A truth table's objects in a scan; every array is of the table's rows."""

    id_type: pa.DataType
    """Type of the scan's ids."""
    scores: NDArray[np.float64]
    """NaN without a score."""
    status: NDArray[np.object_]
    """Status in the scan."""
    in_scan: NDArray[np.bool_]
    """Whether the scan has a row of the object."""
    rows: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SCAN_ROWS, 0))
    """Rows of the scan: ``all``, ``without_id``, ``without_truth`` and ``repeated`` (of an id that came before)."""

    def add(self, part: pa.Table, places: NDArray[np.intp]) -> None:
        """Take the rows of a fragment, of which `places` are the places in the table, -1 for none.

        Of an id that comes again the first row in the survey's order counts, as it does for the scan.
        """
        inside = np.flatnonzero(places >= 0)
        targets, first = np.unique(places[inside], return_index=True)
        new = ~self.in_scan[targets]
        targets, source = targets[new], inside[first[new]]
        self.scores[targets] = part["score"].to_numpy()[source]
        self.status[targets] = part["status"].to_numpy()[source]
        self.in_scan[targets] = True
        self.rows["all"] += len(places)
        self.rows["without_id"] += part["object_id"].null_count
        self.rows["without_truth"] += len(places) - len(inside) - part["object_id"].null_count
        self.rows["repeated"] += len(inside) - len(targets)

    def fates(self, chosen: NDArray[np.bool_]) -> Fates:
        """What became of some objects."""
        scored = ~np.isnan(self.scores)
        statuses = Counter(self.status[chosen & self.in_scan & ~scored].tolist())
        return Fates(
            in_truth=int(chosen.sum()),
            not_in_scan=int((chosen & ~self.in_scan).sum()),
            unscored=dict(statuses.most_common()),
            scored=int((chosen & scored).sum()),
        )


def match(scan: str, files: Sequence[storage.FileEntry], truth: TruthTable) -> Matched:
    """Look up the objects of a table in a scan.

    Parameters
    ----------
    scan : str
        The scan's output folder.
    files : sequence of FileEntry
        Its score files, in the order of the survey.
    truth : TruthTable

    Raises
    ------
    InputError
        If none of them is there, or two of them are one object of the scan.
    """
    id_type = _id_type(scan, files[0].path)
    index, places = _index(truth, id_type)
    count = len(truth.ids)
    found = Matched(id_type, np.full(count, np.nan), np.full(count, "", object), np.zeros(count, bool))
    first_ids: list[Any] = []
    for part in _parts(scan, files):
        ids = part["object_id"].to_pylist()
        first_ids = first_ids or ids[:2]
        found.add(part, places[index.get_indexer(pd.Index(ids, dtype=object))])
    if not found.in_scan.any():
        raise InputError(_no_match(scan, first_ids, truth))
    return found


def _id_type(scan: str, path: str) -> pa.DataType:
    filesystem, _ = storage.resolve(scan)
    with explained(path, InputError):
        return pq.read_schema(path, filesystem=filesystem).field("object_id").type


def _index(truth: TruthTable, id_type: pa.DataType) -> tuple[pd.Index, NDArray[np.intp]]:
    """The table's ids as the scan writes them, and the place of each in the table; last -1, for those not found."""
    ids = ids_of_kind(truth.ids, id_type)
    possible = ids.is_valid()
    index = pd.Index(ids.filter(possible).to_pylist(), dtype=object)
    if not index.is_unique:
        name = index[index.duplicated()][0]
        raise InputError(f"{truth.url} has the id {name!r} in two ways of writing; give each object one row")
    return index, np.append(np.flatnonzero(possible.to_numpy(zero_copy_only=False)), -1)


def _parts(scan: str, files: Sequence[storage.FileEntry]) -> Iterator[pa.Table]:
    """Ids, scores and statuses of each score file, in order."""
    filesystem, _ = storage.resolve(scan)
    columns = ["object_id", "score", "status"]

    def read(entry: storage.FileEntry) -> pa.Table:
        with explained(entry.path, InputError):
            return pq.read_table(entry.path, columns=columns, filesystem=filesystem, use_threads=False)

    with ThreadPoolExecutor(READERS) as pool:
        for start in range(0, len(files), FILES_AT_ONCE):
            yield from pool.map(read, files[start : start + FILES_AT_ONCE])


def _no_match(scan: str, scan_ids: Sequence[Any], truth: TruthTable) -> str:
    ids = ", ".join(repr(name) for name in truth.ids[:2].to_pylist())
    return (
        f"none of the {len(truth.ids):,} objects of {truth.url} is in {scan}: the table's {truth.id_column} is {ids}, the "
        f"scan's object_id {', '.join(map(repr, scan_ids))}; give this scan's table, or name another column by --id-column"
    )
