"""What the processes of a scan share: tries that did not end, and counts for the dashboard."""

import uuid
from collections import Counter
from dataclasses import dataclass
from typing import Any

import ray
from ray.util import metrics


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class _AttemptBook:
    """Tries that began and did not end, by stage and fragment; lives as long as the scan."""

    def __init__(self) -> None:
        self.open: Counter[tuple[str, int]] = Counter()

    def begin(self, stage: str, fragment: int) -> int:
        self.open[stage, fragment] += 1
        return self.open[stage, fragment]

    def end(self, stage: str, fragment: int) -> None:
        self.open.pop((stage, fragment), None)


@dataclass(frozen=True, slots=True)
class RayAttempts:
    """`Attempts` kept in an actor, so that they outlive the process that a fragment kills."""

    book: Any

    @classmethod
    def start(cls) -> "RayAttempts":
        """Attempts with a book of their own."""
        return cls(_AttemptBook.options(name=f"lensray-attempts-{uuid.uuid4().hex}").remote())

    def begin(self, stage: str, fragment: int) -> int:
        """One more try; returns how many have begun and not ended."""
        return ray.get(self.book.begin.remote(stage, fragment))

    def end(self, stage: str, fragment: int) -> None:
        """The try came to an end."""
        self.book.end.remote(stage, fragment)


class CutoutCounter:
    """Counts of cutouts by status in Ray's own metrics (``ray_lensray_cutouts_total`` in Prometheus)."""

    def __init__(self) -> None:
        self._counter: metrics.Counter | None = None

    def __call__(self, statuses: Counter) -> None:
        """Add the statuses of one fragment."""
        if self._counter is None:
            self._counter = metrics.Counter(
                "lensray_cutouts_total",
                description="Cutouts that went through a scorer.",
                tag_keys=("status",),
            )
        for status, count in statuses.items():
            self._counter.inc(count, tags={"status": status})
