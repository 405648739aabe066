"""Learning rates over the course of a phase.

A schedule gives the factor on the phase's learning rate, from where the training stands alone: the step, the epoch
and the monitored metric of the epochs before. So a training that was stopped goes on with the same rates, and
nothing but the history has to be kept.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, kw_only=True, slots=True)
class Moment:
    """Where a training stands before a step."""

    epoch: int
    """Epochs that are done."""
    epochs: int
    """Epochs of the phase."""
    step: int
    """Steps that are done, over all epochs."""
    steps_per_epoch: int
    """Steps of the present epoch."""
    history: Sequence[float] = ()
    """The monitored metric after each epoch that is done; larger is better."""


class Schedule(Protocol):
    """What every schedule is."""

    def factor(self, moment: Moment) -> float:
        """Factor on the learning rate for the next step."""
        ...

    def batch_factor(self, history: Sequence[float]) -> int:
        """Factor on the batch size for the next epoch."""
        ...


class _ConstantBatch:
    """The batch size stays as it is."""

    __slots__ = ()

    def batch_factor(self, history: Sequence[float]) -> int:
        """Factor on the batch size: one."""
        return 1


@dataclass(frozen=True, slots=True)
class Constant(_ConstantBatch):
    """One learning rate throughout."""

    def factor(self, moment: Moment) -> float:
        """Factor on the learning rate: one."""
        return 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Steps(_ConstantBatch):
    """The rate is multiplied by `by` at each of some epochs (thesis, section 4.6; Lanusse et al. 2017)."""

    at: tuple[int, ...]
    """Epochs from whose beginning the rate is lower."""
    by: float = 0.1
    """Factor at each of them."""

    def factor(self, moment: Moment) -> float:
        """``by`` to the power of the epochs of `at` that have begun."""
        return self.by ** sum(moment.epoch >= epoch for epoch in self.at)


@dataclass(frozen=True, kw_only=True, slots=True)
class InverseTime(_ConstantBatch):
    """``1 / (1 + decay · steps)``: what Keras' optimizers of 2017 called ``decay``."""

    decay: float
    """Decay a step."""

    def factor(self, moment: Moment) -> float:
        """``1 / (1 + decay · step)``."""
        return 1.0 / (1.0 + self.decay * moment.step)


@dataclass(frozen=True, kw_only=True, slots=True)
class OneCycle(_ConstantBatch):
    """Up from a twenty-fifth of the rate and down to nearly nothing, both along a cosine (Smith & Topin 2018)."""

    warm_up: float = 0.15
    """Share of the phase in which the rate rises."""

    def factor(self, moment: Moment) -> float:
        """Between 1/25 and 1 while rising, down to 1e-5 at the end."""
        done = moment.step / max(1, moment.epochs * moment.steps_per_epoch)
        if done < self.warm_up:
            return _cosine(1 / 25, 1.0, done / self.warm_up)
        return _cosine(1.0, 1e-5, min(1.0, (done - self.warm_up) / (1 - self.warm_up)))


def _cosine(start: float, end: float, part: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * part)) / 2


@dataclass(frozen=True, kw_only=True, slots=True)
class OnPlateau:
    """When the monitored metric stalls, the rate falls and the batch grows (Saied, Syvis & Crettenand, section III C)."""

    patience: int = 2
    """Epochs without a new best that count as a stall."""
    by: float = 0.3
    """Factor on the rate at each stall."""
    batch_growth: int = 4
    """Factor on the batch size at each stall."""
    max_batch_factor: int = 16
    """Largest factor on the batch size (16: from 8 to 128)."""

    def factor(self, moment: Moment) -> float:
        """``by`` to the power of the stalls so far."""
        return self.by ** self._stalls(moment.history)

    def batch_factor(self, history: Sequence[float]) -> int:
        """``batch_growth`` to the power of the stalls so far, at most `max_batch_factor`."""
        return min(self.batch_growth ** self._stalls(history), self.max_batch_factor)

    def _stalls(self, history: Sequence[float]) -> int:
        stalls, since, best = 0, 0, -math.inf
        for value in history:
            since = 0 if value > best else since + 1
            best = max(best, value)
            if since == self.patience:
                stalls, since = stalls + 1, 0
        return stalls
