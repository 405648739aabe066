"""Rows of a survey whose object_id came before.

The first row of an id is scored; later ones get the status ``duplicate_object_id``, for two rows of
one id could not be told apart in a catalogue. Ids are compared exactly, in buckets by their hash, so
that memory is bounded whatever the survey's size; each bucket is a Ray task that reads the id column alone.
"""

import logging

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import ray
from pandas.core.util.hashing import hash_array

from lensray.distributed.planning import ScanPlan
from lensray.io import storage

# Ids a bucket holds in memory: some hundred MB of strings at most.
BUCKET_ROWS = 4_000_000

log = logging.getLogger(__name__)


def find(plan: ScanPlan, bucket_rows: int = BUCKET_ROWS) -> pa.Table:
    """All rows, counted through the survey, whose object_id an earlier row has.

    Returns
    -------
    pyarrow.Table
        One column ``row`` (int64), ascending.
    """
    buckets = -(-plan.rows // bucket_rows)
    first_rows = plan.fragments.group_by("path").aggregate([("first_row", "min")])
    files = ray.put([(row["path"], row["first_row_min"]) for row in first_rows.to_pylist()])
    task = ray.remote(num_cpus=0.5)(rows_in_bucket)
    found = ray.get([task.remote(plan.survey, files, bucket, buckets) for bucket in range(buckets)])
    return pa.table({"row": pa.array(np.sort(np.concatenate(found)), pa.int64())})


def rows_in_bucket(survey: str, files: list[tuple[str, int]], bucket: int, buckets: int) -> np.ndarray:
    """Rows of one bucket of ids whose id an earlier row has.

    Parameters
    ----------
    survey : str
        Address of the survey.
    files : list of (path, first row)
        In the order of the survey.
    bucket, buckets : int
        Ids whose hash modulo `buckets` is `bucket` are looked at.

    Returns
    -------
    numpy.ndarray of int64
    """
    filesystem, _ = storage.resolve(survey)
    ids: list[pd.Series] = []
    rows: list[np.ndarray] = []
    for path, first_row in files:
        try:
            with filesystem.open_input_file(path) as source:
                column = pq.read_table(source, columns=["object_id"])["object_id"]
        except (pa.ArrowException, OSError) as error:
            # The reader of its fragments meets the same damage and says so on each row.
            log.error("the ids of %s cannot be read: %s", path, error)
            continue
        # Without nulls, for with them pandas would round large integers to floating point.
        present = np.flatnonzero(column.is_valid().to_numpy())
        values = column.drop_null().to_numpy()
        mine = np.ones(len(values), bool)
        if buckets > 1:
            mine = hash_array(values) % buckets == bucket
        ids.append(pd.Series(values[mine]))
        rows.append(first_row + present[mine])
    if not ids:
        return np.empty(0, np.int64)
    repeated = pd.concat(ids, ignore_index=True).duplicated(keep="first").to_numpy()
    return np.concatenate(rows)[repeated].astype(np.int64)


def with_duplicates(fragments: pa.Table, repeated: pa.Table | None) -> pa.Table:
    """The fragments with a column ``duplicates``: repeated rows, counted within the fragment."""
    rows = np.empty(0, np.int64) if repeated is None else repeated["row"].to_numpy()
    first = fragments["first_row"].to_numpy()
    start = np.searchsorted(rows, first)
    stop = np.searchsorted(rows, first + fragments["rows"].to_numpy())
    lists = [(rows[a:b] - row).tolist() for a, b, row in zip(start, stop, first, strict=True)]
    return fragments.append_column("duplicates", pa.array(lists, pa.list_(pa.int64())))
