"""Progress of a long job: how far, how fast, how long still.

A bar on a terminal; on a log (a Ray job, a pipe) a line every ten seconds, which stays readable.
"""

import sys
import time
from types import TracebackType

from rich import progress
from rich.console import Console

LOG_EVERY_S = 10.0


class Progress:
    """Counts `unit`s of `total`; those `done` before this run count for the end but not for the rate."""

    def __init__(self, name: str, *, total: int, done: int = 0, unit: str) -> None:
        self.name, self.total, self.done, self.unit = name, total, done, unit
        self._before = done
        self._started = self._logged = time.monotonic()
        self._stopped: float | None = None
        self._said = -1
        self._bar = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[rate]}"),
            progress.TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task(name, total=total, completed=done, rate="")

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped = time.monotonic()
        self._bar.stop()
        if kind is None and self._said != self.done:
            self._log()

    @property
    def elapsed(self) -> float:
        """Seconds since the start, up to the end."""
        return (self._stopped or time.monotonic()) - self._started

    @property
    def rate(self) -> float:
        """Units a second of this run."""
        return (self.done - self._before) / self.elapsed if self.elapsed else 0.0

    @property
    def _rate(self) -> str:
        return f"{self.rate:,.0f}" if self.rate >= 10 else f"{self.rate:.2g}"

    def advance(self, count: int) -> None:
        """`count` more are done."""
        self.done += count
        self._bar.update(self._task, completed=self.done, rate=f"{self._rate} {self.unit}/s")
        if time.monotonic() - self._logged > LOG_EVERY_S:
            self._log()

    def move_to(self, done: int, total: int) -> None:
        """`done` of `total` are done; what was done at the first call counts as done before."""
        if not self.total:
            self._before = self.done = done
            self._started = time.monotonic()
        self.total = total
        self._bar.update(self._task, total=total)
        self.advance(done - self.done)

    def note(self, text: str) -> None:
        """Say something beside the bar."""
        self._bar.console.print(f"{self.name}: {text}", highlight=False, soft_wrap=True)

    def _log(self) -> None:
        self._logged, self._said = time.monotonic(), self.done
        if self._bar.disable:
            text = f"{self.done:,} of {self.total:,} {self.unit}"
            if self.done > self._before:
                text += f", {self._rate}/s, {(self.total - self.done) / self.rate:,.0f} s left"
            self.note(text)
