"""Training sets from what is at hand: random cutouts of a survey, and the top of a ranking."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lensray.cutout_format import METADATA_KEY
from lensray.errors import InputError
from lensray.io import parquet, storage
from lensray.survey_rows import TRUTH_COLUMNS, sample_rows

KEPT = ("object_id", "ra", "dec")


def random_negatives(survey: str, count: int, *, seed: int, image: Sequence[str] = ("image",)) -> pa.Table:
    """Random cutouts of a survey, its known lenses left out, as non-lenses.

    Nearly all objects of a survey are no lenses: the one in thousands that is does no harm in training.
    """
    drawn = sample_rows(survey, count, seed=seed, columns=[*KEPT, *image])
    return with_label(drawn, False)


def with_label(table: pa.Table, label: bool) -> pa.Table:
    """Cutouts, all with one label; columns beside position and images are dropped."""
    kept = [name for name in table.column_names if name in KEPT or name.startswith("image")]
    values = pa.array(np.full(table.num_rows, label))
    made = table.select(kept).append_column("label", values)
    return made.replace_schema_metadata({METADATA_KEY: table.schema.metadata[METADATA_KEY]})


def all_with_label(survey: str, label: bool) -> Iterator[pa.Table]:
    """Every cutout of a survey, in row groups, with one label."""
    for table in row_groups(survey):
        yield with_label(table, label)


def rows_of(survey: str) -> int:
    """Number of rows of a survey."""
    return sum(footer.metadata.num_rows for _, footer in storage.read_footers(survey))


def check_labelled(survey: str, label: str = "label") -> None:
    """Raise InputError unless a survey has a bool column that is true for some cutouts and false for others."""
    found: set[bool | None] = set()
    filesystem, _ = storage.resolve(survey)
    for entry in storage.find_files(survey):
        with filesystem.open_input_file(entry.path) as source, pq.ParquetFile(source) as file:
            if label not in file.schema_arrow.names or file.schema_arrow.field(label).type != pa.bool_():
                raise InputError(
                    f"{survey} has no bool column {label!r}, which says which cutouts are lenses"
                )
            found.update(file.read(columns=[label])[label].unique().to_pylist())
    if not {True, False} <= found:
        raise InputError(f"{survey}: the column {label!r} must be true for some cutouts and false for others")


def row_groups(survey: str) -> Iterator[pa.Table]:
    """A survey, a row group at a time."""
    filesystem, _ = storage.resolve(survey)
    for entry in storage.find_files(survey):
        with filesystem.open_input_file(entry.path) as source, pq.ParquetFile(source) as file:
            for group in range(file.num_row_groups):
                yield file.read_row_group(group)


def top_of(run: str, depth: int) -> pa.Table:
    """The first `depth` candidates of a scan with their pixels, truth and rank.

    Raises
    ------
    InputError
        If there is none.
    """
    table = parquet.read_table(storage.join(run, "candidates.parquet")).slice(0, depth)
    if table.num_rows == 0:
        raise InputError(f"the scan {run} has no candidate: nothing survives into the next phase")
    return table


def known_lenses(table: pa.Table) -> np.ndarray:
    """Which rows are known lenses, by ``label`` or ``is_tracer``."""
    known = np.zeros(table.num_rows, bool)
    for name in TRUTH_COLUMNS:
        if name in table.column_names:
            known |= table[name].fill_null(False).to_numpy()
    return known


def false_positives(run: str, depth: int, *, count: int | None = None, seed: int = 0) -> pa.Table:
    """The non-lenses among the first `depth` candidates of a scan, or `count` of them drawn at random.

    Known lenses are left out by their label; in a survey without labels someone has to look first.

    Raises
    ------
    InputError
        If none is left.
    """
    top = top_of(run, depth)
    rows = np.flatnonzero(~known_lenses(top))
    if len(rows) == 0:
        raise InputError(f"the first {depth} candidates of {run} are all lenses: no negative is left")
    if count is not None and count < len(rows):
        rows = np.sort(np.random.default_rng(seed).choice(rows, count, replace=False))
    return with_label(top.take(pa.array(rows)), False)


def known_lenses_of(survey: str) -> Iterator[pa.Table]:
    """The known lenses of a survey, in row groups, with the label true."""
    filesystem, _ = storage.resolve(survey)
    for entry in storage.find_files(survey):
        with filesystem.open_input_file(entry.path) as source, pq.ParquetFile(source) as file:
            truth = [name for name in TRUTH_COLUMNS if name in file.schema_arrow.names]
            for group in range(file.num_row_groups if truth else 0):
                rows = np.flatnonzero(known_lenses(file.read_row_group(group, columns=truth)))
                if len(rows):
                    yield with_label(file.read_row_group(group).take(pa.array(rows)), True)
