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

from lensray import cutouts
from lensray.cutout_format import CutoutFormat
from lensray.simulation.deflectors import Hosts, red_offset
from lensray.simulation.draws import Draws, Floats
from lensray.simulation.galaxies import neighbours
from lensray.simulation.injected_table import inject_table, measure_table
from lensray.simulation.photometry import coloured, red_colours
from lensray.simulation.population import SEEING, SEEING_SCATTER, lensing, places, seeing_of
from lensray.simulation.rendering import MICRO_BATCH, render
from lensray.simulation.scene import Artefacts, Scene, SceneBuilder, Stars
from lensray.simulation.simulator import Simulated, observe, random_numbers
from lensray.survey import Survey, moffat_alpha
from lensray.survey_imaging import HostSurvey

DESIGN_SEEDS = 1 << 42
"""Added to a seed, so that no lens repeats one of a simulated survey of that seed."""
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
        parts.append((images, {**scene.parameters, **lensed}))
    return Simulated(
        images=torch.cat([images for images, _ in parts]),
        kind=np.full(len(indices), "lens"),
        parameters={
            name: np.concatenate([drawn[name] for _, drawn in parts]).astype(np.float32)
            for name in parts[0][1]
        },
    )


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

    ``object_id`` is a lens's number. A ``psf_factor`` is that of the simulator's widths which is nearest to the one
    asked for, and the column says which. Parameters that were drawn have columns with ``drawn_`` before their names.
    """
    given = dict(columns)
    if "psf_factor" in given:
        given["psf_factor"] = np.asarray(SEEING)[seeing_of(given["psf_factor"])]
    made = designed_lenses(survey, indices, given, seed=seed, size=size, device=device)
    limit = np.finfo(np.float16).max
    images = made.images.cpu().numpy().clip(-limit, limit).astype(np.float16)
    drawn = {f"drawn_{name}": values for name, values in made.parameters.items()}
    return cutouts.make_table(
        _format(survey, images),
        indices,
        images,
        **{name: pa.array(v) for name, v in {**given, **drawn}.items()},
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
        With the given parameters, ``host_id``, and what was measured of the galaxies: ``foreground_mag`` (isophotal, in the first
        band by the colour of an early type), ``effective_radius`` (half-light radius less that of the PSF, in quadrature)
        and ``ellipticity``. The pixels keep the survey's type.
    """
    measured = taken(measure_table(table, hosts, faintest_i), rows)
    chosen = table.take(pa.array(rows))
    made = inject_table(
        chosen,
        hosts,
        indices,
        measured,
        seed=DESIGN_SEEDS + seed,
        einstein_radius=columns["einstein_radius"],
        arc_mag=columns["arc_mag"],
        device=device,
    )
    imaging = hosts.imaging
    star = moffat_half_light_radius(float(np.mean(imaging.psf_fwhm_arcsec)), imaging.psf_moffat_beta)
    galaxy = {
        "foreground_mag": measured.i_mag + red_offset(imaging.bands[0]),
        "effective_radius": np.sqrt(np.maximum(measured.half_light_radius**2 - star**2, 0.0)),
        "ellipticity": 1 - measured.axis_ratio,
    }
    return cutouts.make_table(
        _format(imaging, made.images),
        indices,
        made.images,
        ra=chosen["ra"].cast(pa.float64()).combine_chunks(),
        dec=chosen["dec"].cast(pa.float64()).combine_chunks(),
        host_id=chosen["object_id"].cast(pa.string()).combine_chunks(),
        **{name: pa.array(values) for name, values in {**columns, **galaxy}.items()},
    )


def moffat_half_light_radius(fwhm: float, beta: float) -> float:
    """Radius that holds half of the light of a Moffat profile, in the unit of its full width at half maximum.

    >>> round(moffat_half_light_radius(1.0, 3.0), 3)
    0.631
    """
    return moffat_alpha(fwhm, beta) * float(np.sqrt(2 ** (1 / (beta - 1)) - 1))


def taken(hosts: Hosts, rows: NDArray[np.int64]) -> Hosts:
    """The measurements of some of the galaxies, which may come several times."""
    return Hosts(**{field.name: getattr(hosts, field.name)[rows] for field in fields(Hosts)})


def _format(survey: Survey, images: NDArray) -> CutoutFormat:
    return CutoutFormat(
        survey=survey.name,
        bands=survey.bands,
        pixel_scale_arcsec=survey.pixel_scale_arcsec,
        shape=images.shape[1:],
        dtype=images.dtype,
    )
