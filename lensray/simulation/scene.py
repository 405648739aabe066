"""A scene: the tables of light, mass and artefacts that a batch of objects is rendered from.

Every table holds rows of one sort, each with the object (`owner`, a row of the batch) that it belongs to.
Lengths are arcsec from the middle of the cutout, angles radians, magnitudes AB.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lensray.simulation.draws import Floats
from lensray.survey import Survey

Rows = NDArray[np.int64]

ARTEFACTS = ("cosmic_ray", "satellite_trail", "edge", "noise_step")
"""Detector and satellite artefacts, in the order of `Artefacts.code`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Components:
    """Profiles of one sort that add up to the sky; each row belongs to one object."""

    profile: str
    """``sersic``, ``spiral`` or ``ring``."""
    owner: Rows
    """Row of the object in the batch."""
    columns: dict[str, Floats]
    """Geometry by name: x, y, axis_ratio, angle, radius and the profile's own parameters."""
    mag: Floats
    """AB magnitudes, shape (M, bands)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Systems:
    """Deflector and source of the lenses among the objects."""

    owner: Rows
    """Row of the object in the batch."""
    deflector: dict[str, Floats]
    """Fields of `lensray.simulation.lenses.Deflectors`."""
    source: dict[str, Floats]
    """x, y, axis_ratio, angle, radius, index of the source."""
    colour: Floats
    """Source magnitude of each band less that of the first, shape (M, bands)."""
    mag_rank: Floats
    """Uniform numbers that choose the source's magnitude among those that make a visible arc."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stars:
    """Point sources, drawn after the PSF."""

    owner: Rows
    """Row of the object in the batch."""
    columns: dict[str, Floats]
    """x, y, spike_length, spike_angle."""
    mag: Floats
    """AB magnitudes, shape (M, bands)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Artefacts:
    """Marks of the detector and of satellites, put on after the noise."""

    owner: Rows
    """Row of the object in the batch."""
    code: NDArray[np.int64]
    """Index into `ARTEFACTS`."""
    columns: dict[str, Floats]
    """band, angle, offset (of the frame's side), length, strength, all_bands."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """What is drawn for a batch of N objects."""

    kind: NDArray[np.str_]
    """Kind of each object, shape (N,)."""
    components: list[Components]
    """Extended light, a table a profile."""
    systems: Systems
    """The lenses."""
    stars: Stars
    """The stars."""
    artefacts: Artefacts
    """The artefacts."""
    seeing: NDArray[np.int64]
    """Index into `SEEING` of each object's PSF width, shape (N,)."""
    parameters: dict[str, Floats]
    """Named parameters of each object, NaN where one does not apply."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reach:
    """Lengths, in arcsec, that frame and seeing allow."""

    frame: float
    """Side of the cutout."""
    near: float
    """Least distance of a companion."""
    far: float
    """Largest distance of a companion."""
    einstein_low: float
    """Least Einstein radius: 1.2 times the best seeing."""
    einstein_high: float
    """Largest Einstein radius."""


def reach(survey: Survey, size: int) -> Reach:
    """Reach of a cutout of `size` pixels: companions lie where lensed images would."""
    frame = size * survey.pixel_scale_arcsec
    high = min(3.0, 0.3 * frame)
    low = min(max(0.3, 1.2 * min(survey.psf_fwhm_arcsec)), 0.8 * high)
    far = min(3.5, 0.42 * frame)
    return Reach(frame=frame, near=min(0.9, 0.4 * far), far=far, einstein_low=low, einstein_high=high)


class SceneBuilder:
    """Collects the components of a scene; every method takes the rows of the objects that it draws for."""

    def __init__(self, survey: Survey, size: int, count: int) -> None:
        self.survey = survey
        self.reach = reach(survey, size)
        self.count = count
        self.rows: dict[str, list[tuple[Rows, dict[str, Floats], Floats]]] = {}
        self.parameters: dict[str, Floats] = {}

    def add(self, profile: str, owner: Rows, mag: Floats, **columns: Floats) -> None:
        """Add profiles of one sort."""
        self.rows.setdefault(profile, []).append((owner, columns, mag))

    def note(self, owner: Rows, **values: Floats) -> None:
        """Note parameters of some objects, by name."""
        for name, value in values.items():
            self.parameters.setdefault(name, np.full(self.count, np.nan))[owner] = value

    def note_mag(self, owner: Rows, mag: Floats) -> None:
        """Note the magnitudes of the main objects."""
        self.note(owner, **{f"mag_{band}": mag[:, b] for b, band in enumerate(self.survey.bands)})

    def components(self) -> list[Components]:
        """Return one table a profile, in the order of the profiles' names."""
        tables = []
        for profile, parts in self.rows.items():
            owners, columns, mags = zip(*parts, strict=True)
            names = columns[0]
            joined = {name: np.concatenate([part[name] for part in columns]) for name in names}
            owner, mag = np.concatenate(owners), np.concatenate(mags)
            tables.append(Components(profile=profile, owner=owner, columns=joined, mag=mag))
        return sorted(tables, key=lambda table: table.profile)
