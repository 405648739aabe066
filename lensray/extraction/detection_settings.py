"""What a user says of detection: what counts as a source, and which sources are kept."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from lensray.errors import InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectionSettings:
    """What counts as a source, and which sources are kept."""

    threshold: float = 1.5
    """Sigmas of the background that a (filtered) pixel of a source lies above it (LensFlow: 1.5)."""
    min_area: int = 5
    """Pixels above the threshold that a source has at least (SExtractor's long-time default; LensFlow:
    200 of 0.03 arcsec, the area of 6 pixels of HSC)."""
    mesh: int = 64
    """Side of the background's meshes in pixels: several times that of the largest galaxy, or it loses its wings."""
    local_noise: bool = True
    """Take the noise from each mesh (coadds of varying depth); else one value for the image."""
    filter: bool = True
    """Smooth by SExtractor's 3 x 3 kernel before thresholding."""
    deblend_thresholds: int = 32
    """Levels between threshold and peak on which a source is searched for several peaks (1: none is divided)."""
    deblend_contrast: float = 0.001
    """Share of the light that a peak must have to be a source of its own (1: none is divided; SExtractor: 0.005, which
    loses faint sources beside bright ones)."""
    clean: float = 1.0
    """Leave out detections that the wings of brighter ones explain; larger leaves out fewer (0: none)."""
    mask_neighbours: bool = True
    """Leave pixels of other sources out of the photometry."""
    kron_minimum: float = 3.5
    """Least size of the photometric aperture, in second moments of the source (SExtractor's)."""
    magnitudes: tuple[str, ...] = ()
    """Keep only sources within these limits, inclusive, such as i=15..23.5 r=15..23.5 g=15..24.8 (the HSC search)."""
    no_stars: bool = False
    """Leave out point sources."""

    def __post_init__(self) -> None:
        _positive("threshold", self.threshold)
        _positive("min_area", self.min_area)
        _positive("deblend_thresholds", self.deblend_thresholds)
        if self.mesh < 8:
            raise InputError(f"--mesh is {self.mesh}; a background needs meshes of 8 pixels a side or more")
        if not 0 <= self.deblend_contrast <= 1:
            raise InputError(f"--deblend-contrast is {self.deblend_contrast}; it must lie in 0 to 1")
        for name in ("clean", "kron_minimum"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{_option(name)} is {getattr(self, name)}; it must be 0 or more")
        magnitude_ranges(self.magnitudes)

    def check_bands(self, zero_points: Mapping[str, float | None]) -> None:
        """Raise InputError if `magnitudes` asks for a band that is not there or has no zero point."""
        for band in magnitude_ranges(self.magnitudes):
            if band not in zero_points:
                raise InputError(
                    f"--magnitudes names the band {band!r}; the bands are {', '.join(zero_points) or 'none'}"
                )
            if zero_points[band] is None:
                raise InputError(
                    f"--magnitudes limits the band {band!r}, whose zero point is not known; give it"
                )


def magnitude_ranges(words: tuple[str, ...]) -> dict[str, tuple[float, float]]:
    """Brightest and faintest magnitude by band, of words such as ``i=15..23.5``.

    >>> magnitude_ranges(("i=15..23.5", "g=15..24.8"))
    {'i': (15.0, 23.5), 'g': (15.0, 24.8)}
    """
    ranges = {}
    for word in words:
        band, equals, limits = word.partition("=")
        low, dots, high = limits.partition("..")
        try:
            ranges[band] = (float(low), float(high))
        except ValueError:
            equals = ""
        if not (band and equals and dots) or not ranges[band][0] <= ranges[band][1]:
            raise InputError(f"--magnitudes {word!r} is not a band and its limits, such as i=15..23.5")
    if len(ranges) < len(words):
        raise InputError(f"--magnitudes {' '.join(words)} names a band twice; give one range a band")
    return ranges


def _positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise InputError(f"{_option(name)} is {value}; it must be positive")


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
