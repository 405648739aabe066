"""Mocks like the LSST single-epoch images of Nan Li, on which DeepLens was trained (Lanusse et al. 2017).

The published mocks are single-band images of 45×45 pixels of 0.18 arcsec, half of them lensed. They differ from
`lensray.simulation.simulate`, and so does this simulation, in what a network must not be misled by:

- A mock holds no lens light at all. Lensed images show the lensed source alone, unlensed images the same sort of
  source without a lens. So there is nothing to tell them apart but the source's shape, place and brightness.
- The source lies anywhere in a square of ±0.9 arcsec about the middle. With a source at redshift 2 this is what the
  magnifications in the file names say, and where the sources of the unlensed images are.
- The galaxies beside the source lie behind the lens too and are deflected with it, so that lensed images
  have fewer of them, and these are pushed outwards.
- Unlensed sources are several times brighter than lensed ones before lensing. Brightness therefore tells the classes
  apart, here as there.
- A few images have much more noise than the others, or a noise that is correlated as a blurred image's is.

Velocity dispersion, axis ratio and redshift follow the file names. `Population` holds what only the pixels
tell; its defaults were fitted to the training half (`lensray.extraction.lsst_mocks.find_mocks`) of a hundred published mocks, so
that the test half can judge what is trained on this simulation: by a random search for the smallest sum of
Wasserstein distances between the distributions, class by class, of 36 statistics (mean, scatter and 95th percentile
in nine rings; peaks, flux, noise and its correlation). Only the share of noisy images was set by hand. Lenses are
singular isothermal ellipsoids without external shear.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from lensray import cutouts
from lensray.cosmology import einstein_radius_arcsec
from lensray.extraction.lsst_mocks import PARAMETERS, PIXEL_SCALE_ARCSEC, SIZE, SOURCE_REDSHIFT, mock_format
from lensray.simulation.draws import Draws, Floats
from lensray.simulation.imaging import convolve_valid, moffat_kernels
from lensray.simulation.lenses import Deflectors, SersicLight, lensed_images
from lensray.simulation.light import Ellipses, Grid
from lensray.simulation.rendering import MICRO_BATCH, as_tensor
from lensray.simulation.simulator import Simulated

SOURCE_BOX_ARCSEC = 0.9
"""Half-side of the square in which the source lies."""
FIELD_BOX_ARCSEC = 5.0
"""Half-side of the square in the source's plane that other galaxies fill."""
MAX_FIELD_GALAXIES = 6
MARGIN_PIXELS = 10
PSF_BETA = 4.0
"""Exponent of the Moffat profile that stands for the PSF."""
TABLE_ROWS = 1024
UNIFORMS = 20 + 7 * MAX_FIELD_GALAXIES
"""Uniform numbers an object."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Population:
    """What is drawn, in the mocks' image units; "log" is the decimal logarithm, scatters are in dex."""

    unlensed_log_flux: float = 2.7
    """Mean of the logarithm of an unlensed source's flux."""
    unlensed_scatter: float = 0.27
    """Its scatter."""
    lensed_log_flux: float = 1.86
    """Mean of the logarithm of a lensed source's flux, before lensing."""
    lensed_scatter: float = 0.36
    """Its scatter."""
    unlensed_log_radius: float = -0.65
    """Mean of the logarithm of an unlensed source's half-light radius in arcsec."""
    lensed_log_radius: float = -0.75
    """Mean of the logarithm of a lensed source's half-light radius in arcsec."""
    radius_scatter: float = 0.2
    """Scatter of both."""
    field_galaxies: float = 2.35
    """Mean number of other galaxies in the square of `FIELD_BOX_ARCSEC`."""
    field_log_flux: float = 2.53
    """Mean of the logarithm of another galaxy's flux."""
    field_scatter: float = 0.35
    """Its scatter."""
    field_log_radius: float = -0.3
    """Mean of the logarithm of another galaxy's half-light radius in arcsec."""
    sky_sigma: float = 3.67
    """Median noise of a pixel."""
    sky_scatter: float = 0.035
    """Its scatter."""
    noisy_share: float = 0.03
    """Share of images whose noise is 1.5 to 4 times as large."""
    correlated_log_sigma: float = -1.25
    """Mean of the logarithm of the standard deviation of the correlated noise, in units of the pixel noise."""
    correlated_scatter: float = 0.5
    """Its scatter."""
    psf_fwhm_arcsec: float = 0.67
    """Median width of the point spread function."""
    psf_scatter: float = 0.03
    """Its scatter."""


def simulate_mocks(
    indices: NDArray[np.int64],
    is_lens: NDArray[np.bool_],
    *,
    seed: int,
    size: int = SIZE,
    population: Population | None = None,
) -> Simulated:
    """Simulate LSST mocks.

    Parameters
    ----------
    indices : ndarray of int64, shape (N,)
        Which mocks of the endless set of this seed; a mock depends on its index, its class and the seed alone.
    is_lens : ndarray of bool, shape (N,)
        Whether each is lensed.
    seed : int
        Not negative.
    size : int
        Side in pixels.
    population : Population, optional
        What is drawn; by default as in the published mocks.

    Returns
    -------
    Simulated
        Images of shape (N, 1, size, size); ``kind`` is ``lens`` or ``unlensed``. Parameters of the lens are NaN for
        unlensed mocks.
    """
    indices, is_lens = np.asarray(indices, np.int64), np.asarray(is_lens, bool)
    if indices.shape != is_lens.shape or indices.ndim != 1 or len(indices) == 0:
        raise ValueError(f"indices {indices.shape} and is_lens {is_lens.shape} must be vectors of one length")
    population = population or Population()
    starts = range(0, len(indices), MICRO_BATCH)
    chunks = [slice(start, start + MICRO_BATCH) for start in starts]
    parts = [_simulate_batch(indices[c], is_lens[c], seed, size, population) for c in chunks]
    parameters = {name: np.concatenate([p[1][name] for p in parts]) for name in parts[0][1]}
    return Simulated(
        images=torch.cat([images for images, _ in parts]),
        kind=np.where(is_lens, "lens", "unlensed"),
        parameters={name: values.astype(np.float32) for name, values in parameters.items()},
    )


def _simulate_batch(
    indices: NDArray[np.int64], is_lens: NDArray[np.bool_], seed: int, size: int, population: Population
) -> tuple[Tensor, dict[str, Floats]]:
    uniforms, noise = _random_numbers(indices, seed, size)
    d = Draws(uniforms)
    lens = _draw_lens(d, is_lens)
    source = _draw_source(d, is_lens, population)
    fwhm = population.psf_fwhm_arcsec * 10 ** d.normal(0.0, population.psf_scatter, -0.2, 0.2)
    observing = _draw_noise(d, population)
    field, is_there = _draw_field(d, population)
    maps = _lensed(lens, source, np.arange(len(indices)), size)
    lensed_flux = maps.sum((1, 2)).double().numpy()
    light = maps * as_tensor(source["flux"], maps.device)[:, None, None]
    for galaxy, present in zip(field, is_there, strict=True):
        rows = np.flatnonzero(present)
        if len(rows) == 0:
            continue
        images = (
            _lensed(lens, galaxy, rows, size) * as_tensor(galaxy["flux"][rows], maps.device)[:, None, None]
        )
        light[torch.from_numpy(rows)] += images
    kernels = moffat_kernels(as_tensor(fwhm, light.device), PSF_BETA, PIXEL_SCALE_ARCSEC, MARGIN_PIXELS)
    images = convolve_valid(light, kernels) + _noise(noise, kernels, observing)
    return images[:, None], _parameters(lens, source, lensed_flux, observing, fwhm, is_lens)


def _random_numbers(indices: NDArray[np.int64], seed: int, size: int) -> tuple[Floats, Tensor]:
    """Uniforms (N, UNIFORMS) and normal noise (N, 2, frame, frame), each row from its index alone."""
    side = size + 2 * MARGIN_PIXELS
    uniforms, noise = np.empty((len(indices), UNIFORMS)), torch.empty((len(indices), 2, side, side))
    generator = torch.Generator()
    for row, index in enumerate(indices.tolist()):
        sequence = np.random.SeedSequence([seed, index])
        uniforms[row] = np.random.Generator(np.random.PCG64(sequence)).random(UNIFORMS)
        generator.manual_seed(int(sequence.generate_state(1, np.uint64)[0]) >> 1)
        torch.randn(noise.shape[1:], generator=generator, out=noise[row])
    return uniforms, noise


def _draw_lens(d: Draws, is_lens: NDArray[np.bool_]) -> dict[str, Floats]:
    """Velocity dispersion and redshift as in the file names; unlensed mocks have an Einstein radius of 0."""
    sigma, redshift = d.uniform(155.0, 352.0), d.normal(0.41, 0.15, 0.2, 0.68)
    radius = einstein_radius_arcsec(sigma, redshift, SOURCE_REDSHIFT)
    return {
        "velocity_dispersion_km_s": sigma,
        "lens_redshift": redshift,
        "axis_ratio": d.uniform(0.5, 0.999),
        "angle": d.angle(),
        "einstein_radius_arcsec": np.where(is_lens, radius, 0.0),  # no deflection
    }


def _shape(d: Draws, log_radius: Floats | float, scatter: float) -> dict[str, Floats]:
    return {
        "radius": np.clip(10 ** (d.normal(0.0, scatter, -0.7, 0.7) + log_radius), 0.05, 1.5),
        "axis_ratio": d.uniform(0.35, 1.0),
        "angle": d.angle(),
        "index": d.uniform(0.5, 2.5),
    }


def _draw_source(d: Draws, is_lens: NDArray[np.bool_], p: Population) -> dict[str, Floats]:
    mean = np.where(is_lens, p.lensed_log_flux, p.unlensed_log_flux)
    scatter = np.where(is_lens, p.lensed_scatter, p.unlensed_scatter)
    log_radius = np.where(is_lens, p.lensed_log_radius, p.unlensed_log_radius)
    return {
        "x": d.uniform(-SOURCE_BOX_ARCSEC, SOURCE_BOX_ARCSEC),
        "y": d.uniform(-SOURCE_BOX_ARCSEC, SOURCE_BOX_ARCSEC),
        "flux": 10 ** (mean + scatter * d.normal(0.0, 1.0, -3.0, 3.0)),
        **_shape(d, log_radius, p.radius_scatter),
    }


def _draw_field(d: Draws, p: Population) -> tuple[list[dict[str, Floats]], list[NDArray[np.bool_]]]:
    """Galaxies beside the source in its plane, and which objects have each."""
    counts = np.arange(MAX_FIELD_GALAXIES + 1)
    factorials = np.cumprod(np.maximum(counts, 1))
    number = np.searchsorted(
        np.cumsum(p.field_galaxies**counts * np.exp(-p.field_galaxies) / factorials)[:-1], d.unit()
    )
    galaxies = [
        {
            "x": d.uniform(-FIELD_BOX_ARCSEC, FIELD_BOX_ARCSEC),
            "y": d.uniform(-FIELD_BOX_ARCSEC, FIELD_BOX_ARCSEC),
            "flux": 10 ** (p.field_log_flux + p.field_scatter * d.normal(0.0, 1.0, -3.0, 3.0)),
            **_shape(d, p.field_log_radius, p.radius_scatter),
        }
        for _ in range(MAX_FIELD_GALAXIES)
    ]
    return galaxies, [number > k for k in range(MAX_FIELD_GALAXIES)]


def _draw_noise(d: Draws, p: Population) -> dict[str, Floats]:
    sigma = p.sky_sigma * 10 ** d.normal(0.0, p.sky_scatter)
    factor = np.where(d.true_with(p.noisy_share), d.uniform(1.5, 4.0), 1.0)
    correlated = 10 ** (p.correlated_log_sigma + p.correlated_scatter * d.normal(0.0, 1.0, -3.0, 2.0))
    return {"sky_sigma": sigma * factor, "correlated_sigma": sigma * correlated}


def _lensed(lens: dict[str, Floats], galaxy: dict[str, Floats], rows: NDArray[np.intp], size: int) -> Tensor:
    """Images (rows, frame, frame) of galaxies of flux 1 seen through the lenses of some rows."""
    side = size + 2 * MARGIN_PIXELS
    zeros = torch.zeros(len(rows))
    lens_of = {name: as_tensor(values[rows], zeros.device) for name, values in lens.items()}
    light = {name: as_tensor(values[rows], zeros.device) for name, values in galaxy.items()}
    deflector = Deflectors(
        x=zeros,
        y=zeros,
        einstein_radius=lens_of["einstein_radius_arcsec"],
        axis_ratio=lens_of["axis_ratio"],
        angle=lens_of["angle"],
        gamma1=zeros,
        gamma2=zeros,
    )
    shapes = Ellipses(x=light["x"], y=light["y"], axis_ratio=light["axis_ratio"], angle=light["angle"])
    source = SersicLight(shapes=shapes, effective_radius=light["radius"], index=light["index"])
    return lensed_images(Grid(height=side, width=side, pixel_scale=PIXEL_SCALE_ARCSEC), deflector, source)


def _noise(noise: Tensor, kernels: Tensor, observing: dict[str, Floats]) -> Tensor:
    """Pixel noise, and noise that has gone through the PSF as a blurred image's has."""
    blurred = convolve_valid(noise[:, 1], kernels) / kernels.square().sum((1, 2), keepdim=True).sqrt()
    inner = slice(MARGIN_PIXELS, noise.shape[-1] - MARGIN_PIXELS)
    white, correlated = (
        as_tensor(observing[name], noise.device)[:, None, None] for name in ("sky_sigma", "correlated_sigma")
    )
    return white * noise[:, 0, inner, inner] + correlated * blurred


def _parameters(
    lens: dict[str, Floats],
    source: dict[str, Floats],
    lensed_flux: Floats,
    observing: dict[str, Floats],
    fwhm: Floats,
    is_lens: NDArray[np.bool_],
) -> dict[str, Floats]:
    """Parameters by the names of `lensray.extraction.lsst_mocks`; those of the lens are NaN without one."""
    of_lens = {name: values for name, values in lens.items() if name != "angle"}
    of_lens["position_angle_deg"] = np.degrees(lens["angle"])
    of_lens["magnification"] = lensed_flux
    known = {name: np.where(is_lens, values, np.nan) for name, values in of_lens.items()}
    return {
        **known,
        "source_flux": source["flux"],
        "source_radius_arcsec": source["radius"],
        "source_x_arcsec": source["x"],
        "source_y_arcsec": source["y"],
        "psf_fwhm_arcsec": fwhm,
        "sky_sigma": observing["sky_sigma"],
    }


def mock_tables(count: int, *, seed: int) -> Iterator[pa.Table]:
    """Simulated mocks as tables with the columns of `lensray.extraction.lsst_mocks.read_mocks`; every second is a lens."""
    for start in range(0, count, TABLE_ROWS):
        indices = np.arange(start, min(start + TABLE_ROWS, count), dtype=np.int64)
        is_lens = indices % 2 == 0
        made = simulate_mocks(indices, is_lens, seed=seed)
        parameters = {
            name: pa.array(made.parameters[name], pa.float32(), from_pandas=True) for name in PARAMETERS
        }
        images = made.images.numpy()
        yield cutouts.make_table(mock_format(), indices, images, label=pa.array(is_lens), **parameters)
