"""Selection functions: their parameters, and how one is read from the table that a measurement left.

from lensray.selection import read_selection

selection = read_selection("runs/selection")
completeness, error = selection.completeness({"einstein_radius": [0.8, 1.2], "arc_mag": 22.5})
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lensray.errors import InputError
from lensray.io import parquet, storage

if TYPE_CHECKING:
    from lensray.metrics.selection import SelectionFunction

TABLE = "selection.parquet"
METADATA = b"lensray.selection"
LARGEST_EINSTEIN_RADIUS = 0.3
"""In sides of the cutout: farther out an arc would leave it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Parameter:
    """A parameter of a lens."""

    label: str
    """What a figure calls it."""
    low: float
    """Least value that is made unless others are asked for."""
    high: float
    """Largest value, likewise."""
    reference: float
    """Value in cuts along other parameters."""
    limits: tuple[float, float]
    """Between these the simulator can make it (an Einstein radius: half a pixel to 0.3 of the cutout)."""


PARAMETERS: dict[str, Parameter] = {
    "foreground_mag": Parameter(
        label="foreground magnitude", low=18.0, high=25.0, reference=21.0, limits=(12.0, 30.0)
    ),
    "arc_mag": Parameter(label="arc magnitude", low=19.0, high=26.0, reference=22.0, limits=(12.0, 32.0)),
    "effective_radius": Parameter(
        label="effective radius (arcsec)", low=0.5, high=4.0, reference=1.2, limits=(0.05, 20.0)
    ),
    "sersic_index": Parameter(label="Sersic index", low=0.5, high=6.0, reference=4.0, limits=(0.3, 8.0)),
    "einstein_radius": Parameter(
        label="Einstein radius (arcsec)", low=0.3, high=6.0, reference=1.5, limits=(0.0, np.inf)
    ),
    "ellipticity": Parameter(label="ellipticity", low=0.0, high=0.6, reference=0.2, limits=(0.0, 0.8)),
    "psf_factor": Parameter(
        label="PSF width / median", low=0.84, high=1.2, reference=1.0, limits=(0.832, 1.202)
    ),
    "noise_factor": Parameter(
        label="sky noise / survey's", low=0.5, high=2.0, reference=1.0, limits=(0.05, 20.0)
    ),
}
"""The six of figure 3.3 of the thesis (Pourrahmani 2019), and two of the observation. Figure 4.2 has wider ranges: magnitudes of 18
to 27, radii of 0.5 to 6 and Einstein radii of 0.1 to 6 arcsec, where few lenses lie and none is found."""
OBSERVATION = ("psf_factor", "noise_factor")
"""Parameters that vary as in the survey unless they are asked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Space:
    """Which parameters of the lenses vary, and between what."""

    ranges: dict[str, tuple[float, float]]
    """Least and largest value of those that vary."""
    fixed: dict[str, float] = field(default_factory=dict)
    """Values of those that do not."""

    @property
    def reference(self) -> dict[str, float]:
        """A lens in the midst of the space: the parameters' references, as far as they lie in it."""
        return {
            name: float(np.clip(PARAMETERS[name].reference, low, high))
            for name, (low, high) in self.ranges.items()
        }


def space(words: Sequence[str], frame_arcsec: float, pixel_scale_arcsec: float) -> Space:
    """The space that a user asks for, of cutouts of that side.

    Parameters
    ----------
    words : sequence of str
        ``NAME=LOW..HIGH`` for a parameter that varies, ``NAME=VALUE`` for one that does not; the others are as in `PARAMETERS`.
    frame_arcsec, pixel_scale_arcsec : float
        Sides of a cutout and of a pixel, arcsec.

    Raises
    ------
    InputError
        If a word is no such thing, or a value is beyond what the simulator can make.
    """
    radii = pixel_scale_arcsec / 2, LARGEST_EINSTEIN_RADIUS * frame_arcsec
    ranges = {
        name: (one.low, min(one.high, radii[1]) if name == "einstein_radius" else one.high)
        for name, one in PARAMETERS.items()
        if name not in OBSERVATION
    }
    fixed: dict[str, float] = {}
    named = [word.partition("=")[0] for word in words]
    for word in words:
        name, low, high = _word(word)
        if named.count(name) > 1:
            raise InputError(f"{name} is given twice; give one range or one value")
        ranges.pop(name, None)
        if high is None:
            fixed[name] = low
        else:
            ranges[name] = (low, high)
        _check(name, low, high, radii)
    # In the order of the parameters, whatever that of the words: a design depends on it.
    ordered = {name: ranges[name] for name in PARAMETERS if name in ranges}
    if len(ordered) < 2:
        raise InputError("a selection function needs two parameters that vary; give ranges as NAME=LOW..HIGH")
    low, high = ordered.get("einstein_radius", (0.0, 1.0))
    if not low < high:
        raise InputError(
            f"cutouts of {frame_arcsec:.2f} arcsec hold Einstein radii up to {high:.2f} only; give einstein_radius=LOW..HIGH"
        )
    return Space(ranges=ordered, fixed=fixed)


def _word(word: str) -> tuple[str, float, float | None]:
    """Name, least and largest value of a word; no largest where it is one value."""
    name, _, text = word.partition("=")
    if name not in PARAMETERS:
        raise InputError(f"there is no parameter {name!r}; choose among {', '.join(PARAMETERS)}")
    low, dots, high = text.partition("..")
    try:
        return name, float(low), float(high) if dots else None
    except ValueError:
        raise InputError(f"{word!r} is no range; write {name}=LOW..HIGH, or {name}=VALUE") from None


def _check(name: str, low: float, high: float | None, radii: tuple[float, float]) -> None:
    """Raise InputError if a range has no values, or some that cannot be simulated; `radii` limit the Einstein radius."""
    least, most = radii if name == "einstein_radius" else PARAMETERS[name].limits
    if high is not None and not low < high:
        raise InputError(f"{name}={low:g}..{high:g} has no values in between; give the lower one first")
    if name == "psf_factor" and high is not None and high < 1.05 * low:
        raise InputError(
            f"psf_factor={low:g}..{high:g} is narrower than the steps in which PSFs are rendered; give 5% at least"
        )
    if not (least <= low and (low if high is None else high) <= most):
        asked = f"{low:g}" if high is None else f"{low:g} to {high:g}"
        raise InputError(
            f"{name} of {asked} is out of what can be simulated in these cutouts: {least:.3g} to {most:.3g}"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """Lenses that were made and scored, and what it takes to be found."""

    space: Space
    """What was made."""
    threshold: float
    """Score from which on a lens is found."""
    lenses: pa.Table
    """A row a lens: ``object_id``, parameters, ``score``, ``status``, ``found``; ``host_id`` where there are hosts."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """Where it comes from, as JSON has it."""

    def column(self, name: str) -> np.ndarray:
        """A column's values."""
        return self.lenses[name].to_numpy(zero_copy_only=False)

    def function(self) -> "SelectionFunction":
        """Completeness as a function of the parameters that vary."""
        # Here: scikit-learn takes a second to load, and a wrong word is answered at once.
        from lensray.metrics.selection import SelectionFunction

        return SelectionFunction(
            parameters={name: self.column(name).astype(np.float64) for name in self.space.ranges},
            found=self.column("found").astype(bool),
            ranges=self.space.ranges,
            reference=self.space.reference,
        )


def write_selection(selection: Selection, folder: str, name: str = TABLE) -> str:
    """Write the table, which says by itself what it is; returns its address."""
    described = {
        "ranges": selection.space.ranges,
        "fixed": selection.space.fixed,
        "threshold": selection.threshold,
        "provenance": selection.provenance,
    }
    table = selection.lenses.replace_schema_metadata({METADATA: json.dumps(described)})
    url = storage.join(folder, name)
    with storage.atomic_output(url) as file:
        pq.write_table(table, file, **parquet.options(table.schema))
    return url


def open_selection(url: str) -> Selection:
    """A measurement by the address of its folder or table.

    Raises
    ------
    InputError
        If there is none.
    """
    address = url if url.endswith(".parquet") else storage.join(url, TABLE)
    if not storage.exists(address):
        raise InputError(f"{url} holds no {TABLE}; give the --output of measure_selection.py")
    table = parquet.read_table(address)
    if METADATA not in (table.schema.metadata or {}):
        raise InputError(f"{address} is no table of a selection function")
    described = json.loads(table.schema.metadata[METADATA])
    return Selection(
        space=Space(
            ranges={name: (low, high) for name, (low, high) in described["ranges"].items()},
            fixed=described["fixed"],
        ),
        threshold=described["threshold"],
        lenses=table,
        provenance=described["provenance"],
    )


def read_selection(url: str) -> "SelectionFunction":
    """The selection function that was measured into a folder (`open_selection`)."""
    return open_selection(url).function()
