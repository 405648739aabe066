"""What the processes of a scan share: tries that did not end, and counts for the dashboard."""

import time
import uuid
from collections import Counter
from dataclasses import dataclass
from typing import Any

import ray
from ray.util import metrics

from lensray.errors import LensRayError

# Fragments given up, before any is scored, after which the scan stops.
HOPELESS = 3


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class _AttemptBook:
    """Tries that began and did not end, by stage and fragment; lives as long as the scan."""

    def __init__(self) -> None:
        self.open: Counter[tuple[str, int]] = Counter()
        self.ended: Counter[str] = Counter()
        self.given_up: set[tuple[str, int]] = set()

    def begin(self, stage: str, fragment: int) -> int:
        self.open[stage, fragment] += 1
        return self.open[stage, fragment]

    def end(self, stage: str, fragment: int) -> None:
        self.open.pop((stage, fragment), None)
        self.ended[stage] += 1

    def give_up(self, stage: str, fragment: int) -> bool:
        """Note it; whether all is in vain: several were given up and none ever came to an end."""
        self.given_up.add((stage, fragment))
        return len(self.given_up) >= HOPELESS and not self.ended[stage]


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

    def give_up(self, stage: str, fragment: int) -> None:
        """The fragment is given up; LensRayError if the fault is not the fragments'."""
        if ray.get(self.book.give_up.remote(stage, fragment)):
            raise LensRayError(
                "the network fails on every fragment; the reason is in the logs of Ray's workers"
            )


class ScanMetrics:
    """A scoring actor's metrics in Ray's own exporter: ``ray_lensray_cutouts_total`` by status, and its rate."""

    def __init__(self) -> None:
        self._counter: metrics.Counter | None = None
        self._rate: metrics.Gauge | None = None
        self._since = 0.0

    def __call__(self, statuses: Counter) -> None:
        """Add the statuses of one fragment that was scored just now."""
        now = time.monotonic()
        if self._counter is None or self._rate is None:
            self._counter = metrics.Counter(
                "lensray_cutouts_total",
                description="Cutouts that went through a scorer.",
                tag_keys=("status",),
            )
            self._rate = metrics.Gauge(
                "lensray_cutouts_per_second",
                description="Cutouts a second of one scoring actor, fragment by fragment.",
            )
        else:
            self._rate.set(statuses.total() / max(now - self._since, 1e-9))
        self._since = now
        for status, count in statuses.items():
            self._counter.inc(count, tags={"status": status})
