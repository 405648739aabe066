"""Two passes over a scan's scores, as Ray tasks over chunks of fragments.

The first keeps the top K and collects the scores of known lenses, the second counts how many scores lie
above and at each of these. What comes back is as large as the candidates, not as the survey.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import ray

from lensray import catalogs
from lensray.io import parquet
from lensray.metrics.truth import TruthCounts, TruthScores

CHUNK = 64
TASKS_IN_FLIGHT = 64

Result = TypeVar("Result")


@dataclass(slots=True)
class FirstPass:
    """What one pass over some fragments' scores finds."""

    top: catalogs.TopK
    """The best of them."""
    truth: TruthScores
    """Scores of known lenses, and the score histogram."""
    statuses: Counter[str]
    """Rows by status."""


def first_pass(parts: list[tuple[int, str]], k: int) -> FirstPass:
    """Top K, scores of the known lenses, and rows by status of some fragments."""
    found = FirstPass(catalogs.TopK(k), TruthScores(), Counter())
    for fragment, url in parts:
        scores = parquet.read_table(url)
        found.top.add(scores, fragment=fragment)
        found.truth.add(scores["score"].to_numpy(), **_truth_columns(scores))
        found.statuses.update(scores["status"].to_pylist())
    return found


def second_pass(parts: list[tuple[int, str]], counts: TruthCounts) -> TruthCounts:
    """How many scores of some fragments lie above and at each threshold; `counts` comes empty."""
    for _, url in parts:
        scores = parquet.read_table(url)
        counts.add(scores["score"].to_numpy(), **_truth_columns(scores))
    return counts


def _truth_columns(scores: pa.Table) -> dict[str, np.ndarray]:
    present = [name for name in ("is_tracer", "label") if name in scores.column_names]
    return {name: scores[name].to_numpy(zero_copy_only=False) for name in present}


def merged(passes: Iterable[FirstPass]) -> FirstPass:
    """One first pass over all fragments, of those over some."""
    merged: FirstPass | None = None
    for one in passes:
        if merged is None:
            merged = one
            continue
        merged.top.merge(one.top)
        merged.truth.merge(one.truth)
        merged.statuses.update(one.statuses)
    assert merged is not None  # a plan has at least one fragment
    return merged


def map_chunks(function: Callable[..., Result], items: list, *arguments: Any) -> Iterator[Result]:
    """``function(chunk, *arguments)`` as Ray tasks, a bounded number at a time, in any order."""
    task: Any = ray.remote(num_cpus=0.5)(function)
    waiting: list[ray.ObjectRef] = []
    for start in range(0, len(items), CHUNK):
        if len(waiting) >= TASKS_IN_FLIGHT:
            ready, waiting = ray.wait(waiting)
            yield ray.get(ready[0])
        waiting.append(task.remote(items[start : start + CHUNK], *arguments))
    while waiting:
        ready, waiting = ray.wait(waiting)
        yield ray.get(ready[0])
