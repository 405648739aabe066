"""Catalogues: the ranked candidates of a scan, and its objects by name.

A ranking of billions needs no sort: `TopK` keeps the best K rows while the scores pass by, fragment after
fragment, and gives the same list whatever their order. Equal scores are ranked in the order of the survey.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.dataset as ds
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from numpy.typing import ArrayLike, NDArray

from lensray.errors import InputError
from lensray.io import hats, parquet, storage

_FRAGMENT, _ROW = "__fragment", "__row"
NOT_FOUND = "not_found"


class TopK:
    """The `k` rows of a scan with the highest scores.

    Parameters
    ----------
    k : int

    Notes
    -----
    Rows are ordered by score, then fragment, then row, which is a total order: neither the order in which fragments
    are added nor the way they are merged changes the result. At most ``k`` rows and one fragment are held.
    """

    def __init__(self, k: int) -> None:
        if k < 1:
            raise ValueError(f"k must be at least 1; got {k}")
        self.k = k
        self._best: pa.Table | None = None

    def add(self, table: pa.Table, *, fragment: int, first_row: int = 0) -> None:
        """Offer the rows of a fragment, or of a part of it that begins at its row `first_row`.

        Parameters
        ----------
        table : pyarrow.Table
            With the column ``score``; rows whose score is null are left out.
        fragment : int
            Place of the fragment in the survey.
        first_row : int
            Place of the table's first row in the fragment.

        Raises
        ------
        ValueError
            If a score is NaN.
        """
        rows = np.arange(first_row, first_row + table.num_rows)
        table = table.append_column(_FRAGMENT, pa.array(np.full(table.num_rows, fragment, np.int64)))
        table = table.append_column(_ROW, pa.array(rows))
        table = table.filter(table["score"].is_valid())
        if np.isnan(table["score"].to_numpy()).any():
            raise ValueError(
                f"fragment {fragment} has NaN scores; a row without a score has null and a status"
            )
        self._take(table)

    def merge(self, other: "TopK") -> None:
        """Add the rows that `other` kept of other fragments."""
        if other._best is not None:
            self._take(other._best)

    def _take(self, table: pa.Table) -> None:
        if self._best is None:
            self._best = _best_rows(table, self.k)
            return
        if self._best.num_rows == self.k:
            lowest = self._best["score"][-1].as_py()
            table = table.filter(pa.array(table["score"].to_numpy() >= lowest))
        if table.num_rows:
            self._best = _best_rows(pa.concat_tables([self._best, table]), self.k)

    def table(self) -> pa.Table:
        """The best rows in order, with ``rank`` from 1 as the first column.

        Raises
        ------
        ValueError
            If no table was ever added, so that the columns are not known.
        """
        if self._best is None:
            raise ValueError("no fragment was added, so there is nothing to rank")
        kept = self._best.drop_columns([_FRAGMENT, _ROW])
        return kept.add_column(0, "rank", pa.array(np.arange(1, kept.num_rows + 1)))

    def origins(self) -> pa.Table:
        """Where the rows of `table` came from: ``fragment``, and ``row`` in it."""
        if self._best is None:
            raise ValueError("no fragment was added, so there is nothing to rank")
        return pa.table({"fragment": self._best[_FRAGMENT], "row": self._best[_ROW]})


def _best_rows(table: pa.Table, k: int) -> pa.Table:
    """The first `k` rows by descending score, fragment and row; copied, so that no fragment is held alive."""
    order = np.lexsort([table[_ROW].to_numpy(), table[_FRAGMENT].to_numpy(), -table["score"].to_numpy()])
    return table.take(pa.array(order[:k])).combine_chunks()


def with_ordinality(candidates: pa.Table, ordinality: ArrayLike) -> pa.Table:
    """Candidates with the column ``ordinality`` after their ``rank``."""
    values = pa.array(np.asarray(ordinality, dtype=np.float64))
    return candidates.add_column(candidates.column_names.index("rank") + 1, "ordinality", values)


def with_probability(candidates: pa.Table, probability: ArrayLike) -> pa.Table:
    """Candidates with the column ``probability`` after their ``score``."""
    values = pa.array(np.asarray(probability, dtype=np.float64))
    return candidates.add_column(candidates.column_names.index("score") + 1, "probability", values)


def write_candidates(candidates: pa.Table, url: str) -> None:
    """Write ``candidates.parquet``, and without the images ``candidates.csv`` and the HATS catalogue ``candidates_hats``.

    Parameters
    ----------
    candidates : pyarrow.Table
        From `TopK.table`, with whatever columns were added, such as ``image``.
    url : str
        The scan's output folder, local or S3. Each file appears complete or not at all; there is no HATS catalogue where no
        candidate has a position.

    Notes
    -----
    Numbers are written to CSV with as many digits as tell them apart from their neighbours. Columns that
    are no single values (images, lists, bytes) are in the Parquet file alone.
    """
    with storage.atomic_output(storage.join(url, "candidates.parquet")) as file:
        pq.write_table(candidates, file, **parquet.options(candidates.schema))
    simple = [field.name for field in candidates.schema if _fits_csv(field.type)]
    with storage.atomic_output(storage.join(url, "candidates.csv")) as file:
        pacsv.write_csv(
            candidates.select(simple), file, pacsv.WriteOptions(quoting_style="needed", quoting_header="none")
        )
    if {"ra", "dec"} <= set(simple):
        hats.write_hats(candidates.select(simple), storage.join(url, "candidates_hats"), "candidates")


def _fits_csv(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.BaseExtensionType) or pa.types.is_nested(kind):
        return False
    return not (
        pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)
    )


def score_files(run_url: str) -> list[storage.FileEntry]:
    """The score files of a run that are complete: those with a done-marker in its ledger.

    Raises
    ------
    InputError
        If the folder holds no run, or nothing of it is done yet.
    """
    files = storage.find_files(storage.join(run_url, "scores"))
    markers = storage.list_names(*storage.resolve(storage.join(run_url, "ledger", "done")))
    done = {int(name.removesuffix(".json")) for name in markers if name.endswith(".json")}
    complete = [entry for entry in files if _fragment_of(entry.path) in done]
    if not complete:
        raise InputError(f"{run_url} holds no completed scores; start its scan again to go on with it")
    return complete


def finished_score_files(run_url: str) -> list[storage.FileEntry]:
    """The score files of a run of which all fragments are done, in the order of the survey.

    Raises
    ------
    InputError
        If the folder holds no run, or one that is not done.
    """
    files = score_files(run_url)
    with storage.open_input(storage.join(run_url, "ledger", "fragments.parquet")) as file:
        planned = pq.read_metadata(file).num_rows
    if len(files) < planned:
        raise InputError(
            f"of {run_url} {len(files):,} of {planned:,} fragments are done; start its scan again to go on with it"
        )
    return files


def _fragment_of(path: str) -> int:
    """Number of the fragment that a file ``part-<fragment>.parquet`` holds; -1 for any other name."""
    number = path.rpartition("/")[2].removeprefix("part-").removesuffix(".parquet")
    return int(number) if number.isdecimal() else -1


def find_objects(run_url: str, object_ids: Sequence[int] | Sequence[str]) -> pa.Table:
    """Look objects up in a run's scores.

    Parameters
    ----------
    run_url : str
        A scan's output folder.
    object_ids : sequence of int or str
        Ids, in the type of the survey or as text.

    Returns
    -------
    pyarrow.Table
        ``object_id``, ``rank``, ``score``, ``status`` and the other columns of the scores, in the order of
        `object_ids`; an id that occurs twice in the survey has two rows. ``rank`` is one plus the number of
        greater scores, null without a score. Ids that are not there have the status ``not_found``.

    Raises
    ------
    InputError
        If there is no run, or an id is not of the survey's type.
    """
    filesystem, _ = storage.resolve(run_url)
    paths = [entry.path for entry in score_files(run_url)]
    kind = pq.read_schema(paths[0], filesystem=filesystem).field("object_id").type
    wanted = _ids_of_type(object_ids, kind)
    parts = [pq.read_table(path, filesystem=filesystem, filters=_is_one_of(wanted)) for path in paths]
    found = pa.concat_tables(parts).combine_chunks()
    found = pa.concat_tables([found, _not_found(found, wanted)]).combine_chunks()
    ranks = _ranks(found["score"], _scores(filesystem, paths))
    place = {value: i for i, value in enumerate(wanted)}
    order = np.argsort([place[value] for value in found["object_id"].to_pylist()], kind="stable")
    return found.add_column(found.column_names.index("score"), "rank", ranks).take(pa.array(order))


def _is_one_of(wanted: list[int] | list[str]) -> ds.Expression:
    return ds.field("object_id").isin(wanted)


def _ids_of_type(object_ids: Sequence[int] | Sequence[str], kind: pa.DataType) -> list[int] | list[str]:
    """The ids, each once, as values of the survey's type."""
    texts = list(dict.fromkeys(str(value) for value in object_ids))
    try:
        return pa.array(texts, pa.string()).cast(kind).to_pylist()
    except pa.ArrowInvalid:
        raise InputError(
            f"the object ids of this survey are {kind}, which {texts} are not; check them"
        ) from None


def _not_found(found: pa.Table, wanted: list[int] | list[str]) -> pa.Table:
    """Rows, in the columns of `found`, for the ids that it lacks."""
    there = set(found["object_id"].to_pylist())
    missing = [value for value in wanted if value not in there]
    columns = {field.name: pa.nulls(len(missing), field.type) for field in found.schema}
    columns["object_id"] = pa.array(missing, found.schema.field("object_id").type)
    columns["status"] = pa.array([NOT_FOUND] * len(missing), found.schema.field("status").type)
    return pa.table(columns, schema=found.schema)


def _scores(filesystem: pafs.FileSystem, paths: list[str]) -> Iterator[NDArray[np.float32]]:
    """The scores of a run, a fragment at a time."""
    for path in paths:
        yield pq.read_table(path, columns=["score"], filesystem=filesystem)["score"].drop_null().to_numpy()


def _ranks(scores: pa.ChunkedArray, survey: Iterator[NDArray[np.float32]]) -> pa.Array:
    """One plus the number of greater scores in the survey; null where there is no score."""
    values = scores.to_numpy()
    missing = scores.is_null().to_numpy()
    thresholds = np.unique(values[~missing])
    # Bin i counts the scores above i thresholds: those above threshold i are in the bins after it.
    bins = np.zeros(len(thresholds) + 1, np.int64)
    for part in survey:
        bins += np.bincount(np.searchsorted(thresholds, part, side="left"), minlength=len(bins))
    ranks = 1 + bins.sum() - np.cumsum(bins)
    return pa.array(ranks[np.searchsorted(thresholds, values)], pa.int64(), mask=missing)
