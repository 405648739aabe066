"""Random parameters from a table of uniform numbers, one row an object.

Every draw takes the next column and maps it through an inverse distribution function, element by
element. So an object's parameters depend on its own row alone: not on the objects beside it, not on
their number.
"""

import numpy as np
import scipy.special
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Draws:
    """Distributions drawn from the columns of a table of uniforms of shape (N, K), from left to right."""

    def __init__(self, uniforms: Floats, column: int = 0) -> None:
        self._uniforms = uniforms
        self.column = column
        """The next column."""

    @property
    def count(self) -> int:
        """Number of objects."""
        return self._uniforms.shape[0]

    def unit(self) -> Floats:
        """Uniform in [0, 1)."""
        self.column += 1
        return self._uniforms[:, self.column - 1]

    def uniform(self, low: float, high: float) -> Floats:
        """Uniform between two bounds."""
        return low + (high - low) * self.unit()

    def angle(self) -> Floats:
        """Uniform in [0, 2π)."""
        return self.uniform(0.0, 2.0 * np.pi)

    def normal(
        self, mean: Floats | float, sigma: float, low: float = -np.inf, high: float = np.inf
    ) -> Floats:
        """Normal, truncated to [low, high]."""
        below, above = (scipy.special.ndtr((bound - mean) / sigma) for bound in (low, high))
        p = np.clip(below + (above - below) * self.unit(), 1e-12, 1 - 1e-12)
        return np.clip(mean + sigma * scipy.special.ndtri(p), low, high)

    def counts(self, slope: float, bright: Floats | float, faint: Floats | float) -> Floats:
        """Magnitudes of number counts ``dN/dm ∝ 10^(slope m)`` between two limits."""
        width = np.asarray(faint, dtype=np.float64) - bright
        return bright + np.log10(1 + self.unit() * (10 ** (slope * width) - 1)) / slope

    def true_with(self, probability: float) -> NDArray[np.bool_]:
        """Booleans that are true with that probability."""
        return self.unit() < probability

    def choice(self, weights: list[float]) -> NDArray[np.int64]:
        """Index drawn with those weights (of sum 1)."""
        edges = np.cumsum(weights)[:-1]
        return np.searchsorted(edges, self.unit(), side="right").astype(np.int64)
