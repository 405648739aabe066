"""Lenses of given parameters, made by the simulator or put onto real galaxies: what a selection function is measured with.

The parameters of a design are given: magnitude of the foreground galaxy and of the arc in the survey's first band,
the foreground's half-light radius, Sersic index and ellipticity, the Einstein radius and, if wanted, the widths of PSF and sky
noise in units of the survey's. All else is drawn as in `lensray.simulation.population`: the source's size, shape, colour and
place, the shape of the mass about that of the light, shear, red colours of the foreground, neighbours, centring. So the
completeness at a point is that of lenses which differ in all of these (the thesis kept them fixed). No arc is
too faint to be made: how many are not seen is the question.
"""

from collections.abc import Mapping
from dataclasses import fields

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from scipy.spatial import KDTree

from lensray import cutouts
from lensray.metrics.selection import design
from lensray.simulation.deflectors import Hosts, measure_hosts, red_offset
from lensray.simulation.draws import Draws, Floats
from lensray.simulation.galaxies import neighbours
from lensray.simulation.injected_table import inject_table, measure_table
from lensray.simulation.photometry import coloured, red_colours
from lensray.simulation.population import SEEING, SEEING_SCATTER, lensing, places, seeing_of
from lensray.simulation.rendering import MICRO_BATCH, render
from lensray.simulation.scene import Artefacts, Scene, SceneBuilder, Stars
from lensray.simulation.simulator import Simulated, observe, random_numbers
from lensray.simulation.table import as_stored, format_of
from lensray.survey import Survey
from lensray.survey_imaging import HostSurvey

DESIGN_SEEDS = 1 << 42
"""Added to a seed, so that no lens repeats one of a simulated survey of that seed."""
APERTURE = 1.5
"""Radius, arcsec, in which the magnitude of a galaxy is measured."""
TRIED, ALIKE = 1000, 8
"""Simulated galaxies that are measured, and how many of them stand for a real one."""
EARLY_TYPES = {
    "foreground_mag": (17.0, 27.0),
    "effective_radius": (0.1, 5.0),
    "sersic_index": (2.5, 5.5),
    "ellipticity": (0.0, 0.6),
}
"""Parameters of these simulated galaxies."""

Columns = Mapping[str, Floats]


def designed_lenses(
    survey: Survey,
    indices: NDArray[np.int64],
    columns: Columns,
    *,
    seed: int,
    size: int,
    device: str | torch.device = "cpu",
) -> Simulated:
    """Simulate lenses of given parameters.

    Parameters
    ----------
    survey : Survey
        The imaging to imitate.
    indices : ndarray of int64, shape (N,)
        Numbers of the lenses: what is drawn beside the parameters depends on number and seed alone.
    columns : mapping of str to ndarray, shape (N,)
        ``foreground_mag`` and ``arc_mag`` (AB, in the survey's first band), ``effective_radius`` (arcsec, circularised),
        ``sersic_index``, ``einstein_radius`` (arcsec), ``ellipticity`` (one minus the axis ratio), and, where they differ from
        the survey's, ``psf_factor`` and ``noise_factor``.
    seed : int
        Not negative.
    size : int
        Side of a cutout in pixels.
    device : str or torch.device
        Where to render.

    Returns
    -------
    Simulated
        Their ``parameters`` are what was drawn beside the given ones.
    """
    parts = []
    for start in range(0, len(indices), MICRO_BATCH):
        rows = slice(start, start + MICRO_BATCH)
        batch = {name: values[rows] for name, values in columns.items()}
        uniforms, noise = random_numbers(indices[rows], DESIGN_SEEDS + seed, (len(survey.bands), size, size))
        scene = _scene(survey, size, batch, uniforms)
        clean, lensed = render(scene, survey, size, torch.device(device), arc_mag=batch["arc_mag"])
        images = observe(clean, noise, scene, survey, sky_factor=batch.get("noise_factor"))
        parameters = {
            name: values.astype(np.float32) for name, values in {**scene.parameters, **lensed}.items()
        }
        parts.append(Simulated(images=images, kind=scene.kind, parameters=parameters))
    return Simulated.joined(parts)


def _scene(survey: Survey, size: int, columns: Columns, uniforms: Floats) -> Scene:
    """The scene of lenses of given parameters."""
    d, count = Draws(uniforms), len(uniforms)
    builder = SceneBuilder(survey, size, count)
    owner, nobody = np.arange(count), np.empty(0, np.int64)
    x, y = places(survey, d)
    drawn_seeing = d.normal(0.0, SEEING_SCATTER, *np.log10(SEEING)[[0, -1]])
    seeing = columns.get("psf_factor", 10**drawn_seeing)
    neighbours(builder, d)
    i = columns["foreground_mag"] - red_offset(survey.bands[0])
    mag = coloured(survey, i, *red_colours(d, i))
    mag += columns["foreground_mag"][:, None] - mag[:, :1]
    main = {"i": i, "axis_ratio": 1 - columns["ellipticity"], "angle": d.angle()}
    builder.add(
        "sersic", owner, mag, x=x, y=y, axis_ratio=main["axis_ratio"], angle=main["angle"],
        radius=columns["effective_radius"], index=columns["sersic_index"],
    )  # fmt: skip
    systems = lensing(builder, owner, d, main, x, y, columns["einstein_radius"])
    return Scene(
        kind=np.full(count, "lens"),
        components=builder.components(),
        systems=systems,
        stars=Stars(owner=nobody, columns={}, mag=np.empty((0, len(survey.bands)))),
        artefacts=Artefacts(owner=nobody, code=nobody, columns={}),
        seeing=seeing_of(seeing),
        parameters=builder.parameters,
    )


def rendered_widths(psf_factor: Floats, low: float, high: float) -> Floats:
    """The nearest of the PSF widths that are rendered and lie within a range."""
    widths = np.asarray([width for width in SEEING if low <= width <= high])
    return widths[np.abs(np.log(psf_factor)[:, None] - np.log(widths)).argmin(axis=1)]


def designed_table(
    survey: Survey,
    indices: NDArray[np.int64],
    columns: Columns,
    *,
    seed: int,
    size: int,
    device: str = "cpu",
) -> pa.Table:
    """Simulated lenses of given parameters as a cutout table (arguments: `designed_lenses`).

    ``object_id`` is a lens's number. A ``psf_factor`` is one of the simulator's widths (`lensray.simulation.population.SEEING`). Parameters
    that were drawn have columns with ``drawn_`` before their names.
    """
    made = designed_lenses(survey, indices, columns, seed=seed, size=size, device=device)
    images = as_stored(made.images, "float16")
    drawn = {f"drawn_{name}": values for name, values in made.parameters.items()}
    return cutouts.make_table(
        format_of(survey, images),
        indices,
        images,
        **{name: pa.array(v) for name, v in {**columns, **drawn}.items()},
    )


def designed_onto_table(
    table: pa.Table,
    hosts: HostSurvey,
    rows: NDArray[np.int64],
    indices: NDArray[np.int64],
    columns: Columns,
    *,
    seed: int,
    faintest_i: float,
    device: str = "cpu",
) -> pa.Table:
    """Arcs of given parameters on galaxies of a survey, as a cutout table.

    Parameters
    ----------
    table : pyarrow.Table
        Cutouts of plausible deflectors, with the columns of `lensray.simulation.injected_table.columns_needed`.
    hosts : HostSurvey
        The survey.
    rows : ndarray of int64, shape (N,)
        Row of `table` that each arc is painted on.
    indices : ndarray of int64, shape (N,)
        Numbers of the lenses, which become their ``object_id``.
    columns : mapping of str to ndarray, shape (N,)
        ``arc_mag`` and ``einstein_radius`` (`designed_lenses`).
    seed, faintest_i, device
        As of `lensray.simulation.injected_table.injected_table`.

    Returns
    -------
    pyarrow.Table
        With the given parameters, ``host_id``, and `measured_foreground` of the galaxies. The pixels keep the survey's type.
    """
    images, _ = cutouts.images_of(table, hosts.format)
    measured = measure_table(table, hosts, faintest_i)
    galaxies = measured_foreground(images, measured, hosts.imaging)
    chosen = table.take(pa.array(rows))
    made = inject_table(
        chosen,
        hosts,
        indices,
        taken(measured, rows),
        seed=DESIGN_SEEDS + seed,
        einstein_radius=columns["einstein_radius"],
        arc_mag=columns["arc_mag"],
        device=device,
    )
    return cutouts.make_table(
        format_of(hosts.imaging, made.images),
        indices,
        made.images,
        ra=chosen["ra"].cast(pa.float64()).combine_chunks(),
        dec=chosen["dec"].cast(pa.float64()).combine_chunks(),
        host_id=chosen["object_id"].cast(pa.string()).combine_chunks(),
        **{name: pa.array(values) for name, values in columns.items()},
        **{name: pa.array(values[rows]) for name, values in galaxies.items()},
    )


def measured_foreground(images: NDArray, hosts: Hosts, survey: Survey) -> dict[str, Floats]:
    """What is seen of galaxies: magnitude in the first band within `APERTURE`, isophotal half-light radius, ellipticity.

    None of these is a parameter of the galaxy: apertures and isophotes lose light, the PSF adds to the radius. `true_foreground` says which
    galaxies look so.
    """
    height, width = images.shape[2:]
    y, x = np.mgrid[:height, :width] * survey.pixel_scale_arcsec
    x, y = x - x.mean(), y - y.mean()
    near = np.hypot(x - hosts.x[:, None, None], y - hosts.y[:, None, None]) < APERTURE
    light = np.nan_to_num(images[:, 0].astype(np.float64) - hosts.sky_level[:, :1, None])
    flux = np.maximum((light * near).sum((1, 2)), survey.sky_sigma[0])
    return {
        "measured_mag": survey.zero_point_mag[0] - 2.5 * np.log10(flux),
        "measured_radius": hosts.half_light_radius,
        "measured_ellipticity": 1 - hosts.axis_ratio,
    }


def true_foreground(
    measured: Columns, survey: Survey, *, size: int, faintest_i: float, seed: int
) -> dict[str, Floats]:
    """Parameters of the simulated galaxies that measure as given ones do.

    Parameters
    ----------
    measured : mapping of str to ndarray, shape (N,)
        As of `measured_foreground`.
    survey : Survey
        What the galaxies were imaged with.
    size : int
        Side of a cutout in pixels.
    faintest_i : float
        As the galaxies were judged by.
    seed : int

    Returns
    -------
    dict of str to ndarray, shape (N,)
        ``foreground_mag``, ``effective_radius`` and ``ellipticity``: means over the `ALIKE` of `TRIED` simulated early types without
        an arc, judged as the real ones were, that measure most alike.
    """
    columns = design(EARLY_TYPES, TRIED, seed=seed) | {
        "arc_mag": np.full(TRIED, 60.0),
        "einstein_radius": np.ones(TRIED),
    }
    images = designed_lenses(survey, np.arange(TRIED), columns, seed=seed, size=size).images.numpy()
    hosts = measure_hosts(images, survey, faintest_i=faintest_i)
    rows = np.flatnonzero(hosts.plausible)
    seen = measured_foreground(images[rows], taken(hosts, rows), survey)
    known = np.column_stack([seen[name] for name in seen])
    wanted = np.column_stack([np.asarray(measured[name], np.float64) for name in seen])
    scale = known.std(axis=0)
    _, alike = KDTree(known / scale).query(wanted / scale, k=min(ALIKE, len(rows)))
    alike = np.asarray(alike).reshape(len(wanted), -1)
    return {
        name: columns[name][rows][alike].mean(axis=1)
        for name in ("foreground_mag", "effective_radius", "ellipticity")
    }


def taken(hosts: Hosts, rows: NDArray[np.int64]) -> Hosts:
    """The measurements of some of the galaxies, which may come several times."""
    return Hosts(**{field.name: getattr(hosts, field.name)[rows] for field in fields(Hosts)})
