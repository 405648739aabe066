"""The simulated sky: what is drawn for a lens, for each kind of non-lens, and for the field around both.

The false positives of every lens search in this field are spirals, rings, mergers, close pairs and
artefacts, so these are the non-lenses here, beside plain ellipticals (`MIXTURE`). Nothing but the lensing
must tell the two classes apart: lens galaxies and ellipticals come from one population (`early_type`),
neighbours, centring, seeing and noise from one for all objects.

The distributions are plausible, not fitted to a survey; what they must do is to leave a network no easier
way than the arcs. Known weaknesses: field galaxies do not cluster, sources are single smooth profiles, and a
cutout is centred on an object of i = 17 to 22, though surveys hold more that are fainter.
"""

import numpy as np
from numpy.typing import NDArray

from lensray.simulation.draws import Draws, Floats
from lensray.simulation.galaxies import early_type, merger, neighbours, pair, ring, spiral
from lensray.simulation.photometry import blue_colours, coloured
from lensray.simulation.scene import Artefacts, Rows, Scene, SceneBuilder, Stars, Systems
from lensray.survey import Survey

MIXTURE: dict[str, float] = {
    "elliptical": 0.35,
    "spiral": 0.25,
    "pair": 0.15,
    "artefact": 0.09,
    "star": 0.08,
    "merger": 0.05,
    "ring": 0.03,
}
"""Share of each kind among the non-lenses."""

UNIFORMS = 160
"""Uniform numbers an object: more than any kind draws."""
ARC_LIGHT_MAG = 0.25
"""What lens galaxies are fainter than ellipticals, so that with their arcs both kinds are about equally bright:
the total flux of HSC cutouts tells them apart with an AUROC of 0.61 (0.66 without). In shallow surveys arcs must
be brighter to be seen, and it is 0.70 in DES."""
SEEING: tuple[float, ...] = tuple(float(10 ** (0.01 * k)) for k in range(-8, 9))
"""PSF widths over the survey's median, between which cutouts differ: few, so that each is transformed once."""
SEEING_SCATTER = 0.035
"""Scatter of the seeing, in dex (8%)."""


def _stars(b: SceneBuilder, owner: Rows, d: Draws, x: Floats, y: Floats) -> Stars:
    """Stars from saturated to faint, of the colours of the stellar locus; spikes grow with brightness."""
    i = np.where(d.true_with(0.5), d.uniform(12.5, 18.0), d.uniform(18.0, 22.5))
    g_r = d.uniform(0.2, 1.5)
    mag = coloured(b.survey, i, g_r, np.where(g_r < 1.3, 0.35 * g_r, 0.45 + d.uniform(0.0, 1.0)))
    b.note_mag(owner, mag)
    length = d.uniform(0.06, 0.2) * b.reach.frame
    angle = d.normal(np.pi / 4, 0.05) + np.where(d.true_with(0.5), np.pi / 4, 0.0)
    return Stars(owner=owner, columns={"x": x, "y": y, "spike_length": length, "spike_angle": angle}, mag=mag)


def _artefacts(b: SceneBuilder, owner: Rows, d: Draws, x: Floats, y: Floats) -> Artefacts:
    """An ordinary galaxy with a cosmic ray, a satellite's trail, a detector's edge or a step of the noise."""
    code = d.choice([0.35, 0.25, 0.25, 0.15])
    columns = {
        "band": np.floor(d.unit() * len(b.survey.bands)),
        "angle": d.angle(),
        "offset": d.uniform(-0.35, 0.35),
        "length": d.uniform(0.05, 0.4),
        "strength": 10 ** d.uniform(0.7, 2.0),
        "all_bands": d.true_with(0.6).astype(np.float64),
    }
    early_type(b, owner, d, x, y)
    return Artefacts(owner=owner, code=code, columns=columns)


def _lens(b: SceneBuilder, owner: Rows, d: Draws, x: Floats, y: Floats) -> Systems:
    """An early-type galaxy and what it lenses."""
    return lensing(b, owner, d, early_type(b, owner, d, x, y, ARC_LIGHT_MAG), x, y)


def typical_log_einstein_radius(i: Floats) -> Floats:
    """Logarithm (base 10) of the Einstein radius, in arcsec, that is usual for a galaxy of an i magnitude."""
    return np.log10(1.35) - 0.08 * (i - 19.5)


def lensing(
    b: SceneBuilder,
    owner: Rows,
    d: Draws,
    main: dict[str, Floats],
    x: Floats,
    y: Floats,
    einstein_radius: Floats | None = None,
) -> Systems:
    """A galaxy at (x, y) as deflector and a blue source inside 0.55 Einstein radii.

    Of the galaxy `main`, the magnitude ``i``, the ``axis_ratio`` and the ``angle`` count. The Einstein radius
    follows its brightness loosely (0.13 dex of scatter) if it is not given. A source at ``beta`` behind an isothermal
    sphere has two images and the magnification ``2 theta_E / beta``, here at least 3.6.
    """
    typical = typical_log_einstein_radius(main["i"])
    low, high = np.log10(b.reach.einstein_low), np.log10(b.reach.einstein_high)
    drawn = 10 ** d.normal(typical, 0.13, low, high)
    radius = drawn if einstein_radius is None else einstein_radius
    q = np.clip(main["axis_ratio"] + d.normal(0.0, 0.07), 0.5, 0.98)
    angle = main["angle"] + d.normal(0.0, 0.15)
    gamma, direction = 0.035 * np.sqrt(-2 * np.log1p(-0.97 * d.unit())), d.angle()
    deflector = {
        "x": x + d.normal(0.0, 0.02), "y": y + d.normal(0.0, 0.02), "einstein_radius": radius, "axis_ratio": q,
        "angle": angle, "gamma1": gamma * np.cos(direction), "gamma2": gamma * np.sin(direction),
    }  # fmt: skip
    beta, azimuth = 0.55 * radius * np.sqrt(d.unit()), d.angle()
    g_r, r_i = blue_colours(d)
    source = {
        "x": deflector["x"] + beta * np.cos(azimuth), "y": deflector["y"] + beta * np.sin(azimuth),
        "axis_ratio": d.uniform(0.4, 1.0), "angle": d.angle(),
        "radius": np.clip(0.2 * 10 ** d.normal(0.0, 0.17), 0.07, np.minimum(0.5, 0.35 * radius)),
        "index": d.normal(1.1, 0.35, 0.5, 2.0),
    }  # fmt: skip
    mag = coloured(b.survey, np.zeros(d.count), g_r, r_i)
    b.note(owner, einstein_radius_arcsec=radius, source_offset_arcsec=beta, shear=gamma)
    b.note(owner, source_radius_arcsec=source["radius"], deflector_axis_ratio=q)
    return Systems(
        owner=owner, deflector=deflector, source=source, colour=mag - mag[:, :1], mag_rank=d.unit()
    )


def places(survey: Survey, d: Draws) -> tuple[Floats, Floats]:
    """Where the main object lies, arcsec from the middle: detections are centred to a pixel or two."""
    shift = 1.5 * survey.pixel_scale_arcsec
    return d.uniform(-shift, shift), d.uniform(-shift, shift)


def seeing_of(width: Floats) -> NDArray[np.int64]:
    """Index into `SEEING` of the width that is nearest, in dex, to a PSF width over the survey's median."""
    dex = np.log10(SEEING)
    return np.rint((np.log10(width) - dex[0]) / (dex[1] - dex[0])).astype(np.int64)


def draw_scene(survey: Survey, size: int, is_lens: NDArray[np.bool_], uniforms: Floats) -> Scene:
    """Turn uniform numbers into a sky.

    Parameters
    ----------
    survey : Survey
        Bands, pixel scale and seeing.
    size : int
        Side of a cutout in pixels; companions and Einstein radii fit into it.
    is_lens : ndarray of bool, shape (N,)
        Which objects are lenses.
    uniforms : ndarray of float64, shape (N, UNIFORMS)
        Uniform numbers in [0, 1), a row an object; an object depends on its own row alone.
    """
    common = Draws(uniforms)
    builder = SceneBuilder(survey, size, len(is_lens))
    names = np.array([*MIXTURE, "lens"])
    kind = names[np.where(is_lens, len(MIXTURE), common.choice(list(MIXTURE.values())))]
    x, y = places(survey, common)
    seeing = seeing_of(10 ** common.normal(0.0, SEEING_SCATTER, *np.log10(SEEING)[[0, -1]]))
    neighbours(builder, common)
    made = {}
    draw = {
        "elliptical": early_type, "spiral": spiral, "pair": pair, "artefact": _artefacts, "star": _stars,
        "merger": merger, "ring": ring, "lens": _lens,
    }  # fmt: skip
    for name, function in draw.items():
        rows = np.flatnonzero(kind == name)
        made[name] = function(builder, rows, Draws(uniforms[rows], common.column), x[rows], y[rows])
    return Scene(
        kind=kind,
        components=builder.components(),
        systems=made["lens"],
        stars=made["star"],
        artefacts=made["artefact"],
        seeing=seeing,
        parameters=builder.parameters,
    )
