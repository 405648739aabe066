"""Galaxies of the simulated sky: ellipticals, spirals, pairs, mergers, rings, and the field around them.

Each function draws one sort for the objects of the rows `owner`, at their places (x, y), and adds their light
to the scene. Sizes follow the brightness (luminous red galaxies at redshifts of 0.2 to 0.8 have about an
arcsec at i = 19.5), number counts follow ``dN/dm ∝ 10^(slope m)``.
"""

import numpy as np

from lensray.simulation.draws import Draws, Floats
from lensray.simulation.photometry import blue_colours, coloured, red_colours
from lensray.simulation.scene import Rows, SceneBuilder

NEIGHBOURS = 5
"""Most field galaxies in a cutout."""
FIELD_DENSITY = 60.0
"""Field galaxies a square arcmin brighter than i = 25.3 (HSC counts)."""


def early_type(
    b: SceneBuilder, owner: Rows, d: Draws, x: Floats, y: Floats, fainter_mag: float = 0.0
) -> dict[str, Floats]:
    """One red de Vaucouleurs-like galaxy an object: the lens galaxies and the ellipticals alike."""
    i = d.normal(19.6, 1.1, 16.8, 22.3) + fainter_mag
    mag = coloured(b.survey, i, *red_colours(d, i))
    radius = 10 ** (-0.12 * (i - 19.5) + d.normal(0.0, 0.15))
    index = d.normal(4.0, 0.8, 2.5, 5.5)
    q, angle = d.normal(0.8, 0.13, 0.45, 0.99), d.angle()
    radius = np.clip(radius, 0.2, 4.0)
    b.add("sersic", owner, mag, x=x, y=y, axis_ratio=q, angle=angle, radius=radius, index=index)
    b.note_mag(owner, mag)
    b.note(owner, effective_radius_arcsec=radius, sersic_index=index, axis_ratio=q)
    return {"i": i, "axis_ratio": q, "angle": angle, "radius": radius}


def spiral(b: SceneBuilder, owner: Rows, d: Draws, x: Floats, y: Floats) -> Floats:
    """Red bulge and bluer disc with two to four arms; returns the i magnitude."""
    i = d.counts(0.25, 17.0, 22.3)
    bulge = d.uniform(0.05, 0.5)
    disc_mag = coloured(
        b.survey, i - 2.5 * np.log10(1 - bulge), d.normal(0.5, 0.18, 0.1, 1.0), d.normal(0.25, 0.1)
    )
    bulge_mag = coloured(b.survey, i - 2.5 * np.log10(bulge), d.normal(1.1, 0.2), d.normal(0.45, 0.1))
    radius = np.clip(10 ** (0.15 - 0.12 * (i - 19.5) + d.normal(0.0, 0.13)), 0.4, 3.5)
    q, angle = d.uniform(0.25, 1.0), d.angle()
    arms = np.asarray(2 + d.choice([0.7, 0.15, 0.15]), dtype=np.float64)
    pitch = np.radians(d.uniform(10.0, 35.0)) * np.where(d.true_with(0.5), 1.0, -1.0)
    b.add(
        "spiral", owner, disc_mag, x=x, y=y, axis_ratio=q, angle=angle, radius=radius,
        arms=arms, pitch=pitch, contrast=d.uniform(0.3, 4.0), phase=d.angle(),
    )  # fmt: skip
    inner, index = radius * d.uniform(0.12, 0.35), d.uniform(1.0, 4.0)
    round_q = 0.5 + 0.5 * q
    b.add("sersic", owner, bulge_mag, x=x, y=y, axis_ratio=round_q, angle=angle, radius=inner, index=index)
    total = -2.5 * np.log10(10 ** (-0.4 * disc_mag) + 10 ** (-0.4 * bulge_mag))
    b.note_mag(owner, total)
    b.note(owner, effective_radius_arcsec=radius, axis_ratio=q)
    return i


def _companion(b: SceneBuilder, d: Draws, i: Floats, angle: Floats) -> tuple[Floats, dict[str, Floats]]:
    """Magnitudes and shape of a small galaxy: blue in two cases of three, often drawn out across `angle`."""
    red = d.true_with(0.33)
    (red_gr, red_ri), (blue_gr, blue_ri) = red_colours(d, i), blue_colours(d)
    mag = coloured(b.survey, i, np.where(red, red_gr, blue_gr), np.where(red, red_ri, blue_ri))
    radius = np.clip(0.3 * 10 ** (-0.08 * (i - 22.0) + d.normal(0.0, 0.15)), 0.1, 0.8)
    q = d.uniform(0.3, 1.0)
    tangential = d.true_with(0.4)
    orientation = np.where(tangential, angle + np.pi / 2 + d.normal(0.0, 0.3), d.angle())
    index = np.where(red, 3.0, d.uniform(0.5, 2.0))
    return mag, {"axis_ratio": q, "angle": orientation, "radius": radius, "index": index}


def pair(b: SceneBuilder, owner: Rows, d: Draws, x: Floats, y: Floats) -> None:
    """A red galaxy with one to three companions where lensed images would be, half of them face to face."""
    main = early_type(b, owner, d, x, y)
    number = 1 + d.choice([0.5, 0.35, 0.15])
    first = d.angle()
    for k in range(3):
        opposite = d.true_with(0.5)
        angle = np.where(opposite, first + np.pi + d.normal(0.0, 0.35), d.angle()) if k else first
        distance = d.uniform(b.reach.near, b.reach.far)
        i = np.clip(main["i"] + d.uniform(0.8, 4.0), 18.5, 25.0)
        mag, shape = _companion(b, d, i, angle)
        shape |= {"x": x + distance * np.cos(angle), "y": y + distance * np.sin(angle)}
        rows = number > k
        b.add("sersic", owner[rows], mag[rows], **{name: value[rows] for name, value in shape.items()})


def merger(b: SceneBuilder, owner: Rows, d: Draws, x: Floats, y: Floats) -> None:
    """Two galaxies of like brightness with two tidal arcs about the first."""
    i = d.normal(19.8, 1.1, 17.0, 22.3)
    g_r, r_i = d.normal(0.85, 0.25, 0.3, 1.5), d.normal(0.4, 0.12, 0.1, 0.8)
    mag = coloured(b.survey, i, g_r, r_i)
    radius = np.clip(10 ** (-0.05 - 0.12 * (i - 19.5) + d.normal(0.0, 0.15)), 0.25, 2.5)
    q, angle, index = d.uniform(0.45, 1.0), d.angle(), d.uniform(1.0, 3.5)
    b.add("sersic", owner, mag, x=x, y=y, axis_ratio=q, angle=angle, radius=radius, index=index)
    b.note_mag(owner, mag)
    b.note(owner, effective_radius_arcsec=radius, axis_ratio=q, sersic_index=index)
    distance, direction = d.uniform(0.6 * b.reach.near, 0.7 * b.reach.far), d.angle()
    second = mag + d.uniform(0.1, 1.5)[:, None]
    x2, y2 = x + distance * np.cos(direction), y + distance * np.sin(direction)
    q2, angle2 = d.uniform(0.4, 1.0), d.angle()
    b.add("sersic", owner, second, x=x2, y=y2, axis_ratio=q2, angle=angle2, radius=0.8 * radius, index=index)
    for k in range(2):
        tail = coloured(b.survey, i + d.uniform(1.0, 2.8), g_r - d.uniform(0.0, 0.4), r_i - 0.05)
        ring = d.uniform(b.reach.near, 0.9 * b.reach.far)
        b.add(
            "ring", owner, tail, x=x + 0.3 * ring * np.cos(direction), y=y + 0.3 * ring * np.sin(direction),
            axis_ratio=d.uniform(0.4, 0.9), angle=d.angle(), radius=ring, width=ring * d.uniform(0.08, 0.25),
            lobes=np.ones(d.count), contrast=d.uniform(1.5, 10.0), phase=direction + k * np.pi + d.normal(0.0, 0.7),
        )  # fmt: skip


def ring(b: SceneBuilder, owner: Rows, d: Draws, x: Floats, y: Floats) -> None:
    """A ring galaxy: a red core in a blue, inclined, knotty ring."""
    i = d.normal(19.6, 1.1, 17.0, 22.3)
    core = coloured(b.survey, i, d.normal(1.0, 0.2), d.normal(0.4, 0.1))
    ring = coloured(b.survey, i + d.uniform(0.0, 2.0), *blue_colours(d))
    radius = d.uniform(b.reach.near, 0.8 * b.reach.far)
    q, angle, index = d.uniform(0.35, 1.0), d.angle(), d.uniform(1.5, 4.0)
    inner = np.clip(radius * d.uniform(0.15, 0.45), 0.15, None)
    b.add("sersic", owner, core, x=x, y=y, axis_ratio=0.5 + 0.5 * q, angle=angle, radius=inner, index=index)
    b.add(
        "ring", owner, ring, x=x, y=y, axis_ratio=q, angle=angle, radius=radius, width=radius * d.uniform(0.1, 0.3),
        lobes=np.asarray(1 + d.choice([0.3, 0.3, 0.2, 0.2]), dtype=np.float64), contrast=d.uniform(0.0, 0.8), phase=d.angle(),
    )  # fmt: skip
    b.note_mag(owner, core)
    b.note(owner, effective_radius_arcsec=inner, axis_ratio=q, sersic_index=index)


def neighbours(b: SceneBuilder, d: Draws) -> None:
    """Field galaxies anywhere in the frame, as many around lenses as around others."""
    mean = FIELD_DENSITY * (b.reach.frame / 60.0) ** 2
    poisson = np.cumsum(
        [np.exp(-mean) * mean**k / float(np.prod(np.arange(1, k + 1))) for k in range(NEIGHBOURS)]
    )
    number = np.searchsorted(poisson, d.unit(), side="right")
    half = 0.55 * b.reach.frame
    for k in range(NEIGHBOURS):
        x, y, i = d.uniform(-half, half), d.uniform(-half, half), d.counts(0.35, 20.0, 25.3)
        red = d.true_with(0.25)
        (red_gr, red_ri), (blue_gr, blue_ri) = red_colours(d, i), blue_colours(d)
        mag = coloured(b.survey, i, np.where(red, red_gr, blue_gr), np.where(red, red_ri, blue_ri))
        radius = np.clip(0.35 * 10 ** (-0.07 * (i - 23.0) + d.normal(0.0, 0.15)), 0.08, 1.2)
        q, angle, index = d.uniform(0.3, 1.0), d.angle(), np.where(red, 3.0, d.uniform(0.7, 2.0))
        rows = np.flatnonzero(number > k)
        shape = {"x": x, "y": y, "axis_ratio": q, "angle": angle, "radius": radius, "index": index}
        b.add("sersic", rows, mag[rows], **{name: value[rows] for name, value in shape.items()})
