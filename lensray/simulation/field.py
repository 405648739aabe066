"""A field of sky: galaxies and some lenses at known places in mosaics of all bands, to try detection and cutting on.

The galaxies stand apart, one a cell of a grid, so that what is found can be told from what is missed. Their magnitudes follow
number counts, ``dN/dm ∝ 10^(0.3 m)``; lenses are bright early types with arcs around them.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lensray.simulation.imaging import noise_sigma
from lensray.simulation.lenses import Deflectors, LensParameters, SersicLight, render_lenses
from lensray.simulation.light import Ellipses
from lensray.survey import Survey

STAMP = 96
"""Side of the frame that a galaxy is rendered in, in pixels."""
BATCH = 64
NO_LIGHT = 60.0
"""Magnitude of a source that is not there."""
COUNT_SLOPE = 0.3


@dataclass(frozen=True, kw_only=True, slots=True)
class Field:
    """A field of sky and what is in it."""

    images: dict[str, NDArray[np.float32]]
    """Mosaics by band, in the survey's image units."""
    x: NDArray[np.float64]
    """Centre of each galaxy, in pixels, the first being 0; shape (N,)."""
    y: NDArray[np.float64]
    """The same along the columns."""
    is_lens: NDArray[np.bool_]
    """Whether arcs surround it."""
    mag: NDArray[np.float64]
    """AB magnitudes of the galaxies without the arcs, shape (N, bands)."""


def simulate_field(
    survey: Survey,
    shape: tuple[int, int],
    *,
    galaxies: int,
    lenses: int,
    seed: int,
    magnitudes: tuple[float, float] = (18.0, 25.0),
) -> Field:
    """Simulate the mosaics of a field.

    Parameters
    ----------
    survey : Survey
        Bands, pixel scale, zero points, PSF and noise.
    shape : (int, int)
        Height and width, in pixels.
    galaxies, lenses : int
        How many galaxies, and how many of them are lenses (the first ones of the tables).
    seed : int
    magnitudes : (float, float)
        Brightest and faintest galaxy in the last band.

    Raises
    ------
    ValueError
        If the galaxies would not stand apart.
    """
    generator = np.random.default_rng(seed)
    x, y = _places(shape, galaxies, generator)
    is_lens = np.arange(galaxies) < lenses
    parameters, mag = _draw(survey, is_lens, magnitudes, x, y, generator)
    images = {band: np.zeros(shape, np.float32) for band in survey.bands}
    for start in range(0, galaxies, BATCH):
        rows = slice(start, start + BATCH)
        stamps = render_lenses(_rows(parameters, rows), survey, size=STAMP).numpy()
        for stamp, column, row in zip(stamps, x[rows], y[rows], strict=True):
            _add(images, survey, stamp, column, row)
    for place, band in enumerate(survey.bands):
        _add_noise(images[band], survey.sky_sigma[place], survey.gain[place], generator)
    return Field(images=images, x=x, y=y, is_lens=is_lens, mag=mag)


def _places(
    shape: tuple[int, int], galaxies: int, generator: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Places in different cells of a grid, away from the cells' edges."""
    height, width = shape
    cell = math.sqrt(height * width / max(galaxies, 1))
    rows, columns = int(height / cell), int(width / cell)
    while rows * columns < galaxies:
        rows, columns = rows + 1, columns + 1
    side = min(height / rows, width / columns)
    if side < 40:
        raise ValueError(
            f"{galaxies} galaxies in {height} × {width} pixels are {side:.0f} pixels apart; give 40"
        )
    cells = generator.choice(rows * columns, galaxies, replace=False)
    jitter = generator.uniform(0.3, 0.7, (2, galaxies))
    x = (cells % columns + jitter[0]) * width / columns - 0.5
    y = (cells // columns + jitter[1]) * height / rows - 0.5
    return x, y


def _draw(
    survey: Survey,
    is_lens: NDArray[np.bool_],
    magnitudes: tuple[float, float],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    generator: np.random.Generator,
) -> tuple[LensParameters, NDArray]:
    """Parameters of all systems, placed in frames of which the pixel ``STAMP // 2`` holds the galaxy's centre."""
    count, pixel = len(is_lens), survey.pixel_scale_arcsec

    def uniform(low: float, high: float) -> NDArray[np.float64]:
        return generator.uniform(low, high, count)

    brightest, faintest = magnitudes
    counts = uniform(10 ** (COUNT_SLOPE * brightest), 10 ** (COUNT_SLOPE * faintest))
    last = np.where(is_lens, uniform(18.5, 20.0), np.log10(counts) / COUNT_SLOPE)
    colours = np.arange(len(survey.bands))[::-1] * np.where(is_lens, 0.9, uniform(0.2, 0.8))[:, None]
    mag = last[:, None] + colours
    # The middle of a frame of an even side lies half a pixel before its pixel STAMP // 2.
    middle = STAMP // 2 - (STAMP - 1) / 2
    dx = (x - np.floor(x + 0.5) + middle) * pixel
    dy = (y - np.floor(y + 0.5) + middle) * pixel
    radius = np.where(is_lens, uniform(0.6, 1.2), np.clip(0.9 * 10 ** (-0.12 * (last - 20)), 0.2, 1.5))
    einstein = np.where(is_lens, uniform(1.2, 2.0), 1e-3)
    axis_ratio, angle = uniform(0.5, 1.0), uniform(0, np.pi)
    offset, turn = 0.3 * einstein, uniform(0, 2 * np.pi)
    source_mag = np.where(is_lens, uniform(23.5, 24.5), NO_LIGHT)[:, None] + 0.1 * np.arange(
        len(survey.bands)
    )
    t = _tensor
    return LensParameters(
        foreground=SersicLight(
            shapes=Ellipses(x=t(dx), y=t(dy), axis_ratio=t(axis_ratio), angle=t(angle)),
            effective_radius=t(radius),
            index=t(np.where(is_lens, 4.0, uniform(0.8, 2.5))),
        ),
        foreground_mag=t(mag),
        deflector=Deflectors(
            x=t(dx),
            y=t(dy),
            einstein_radius=t(einstein),
            axis_ratio=t(np.clip(axis_ratio, 0.7, 1.0)),
            angle=t(angle),
            gamma1=t(np.zeros(count)),
            gamma2=t(np.zeros(count)),
        ),
        source=SersicLight(
            shapes=Ellipses(
                x=t(dx + offset * np.cos(turn)),
                y=t(dy + offset * np.sin(turn)),
                axis_ratio=t(uniform(0.6, 1)),
                angle=t(angle),
            ),
            effective_radius=t(uniform(0.15, 0.3)),
            index=t(np.ones(count)),
        ),
        source_mag=t(source_mag),
    ), mag


def _tensor(values: NDArray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32))


def _rows(parameters: LensParameters, rows: slice) -> LensParameters:
    """Some of the systems."""

    def light(table: SersicLight) -> SersicLight:
        shapes = table.shapes
        return SersicLight(
            shapes=Ellipses(
                x=shapes.x[rows],
                y=shapes.y[rows],
                axis_ratio=shapes.axis_ratio[rows],
                angle=shapes.angle[rows],
            ),
            effective_radius=table.effective_radius[rows],
            index=table.index[rows],
        )

    mass = parameters.deflector
    names = ("x", "y", "einstein_radius", "axis_ratio", "angle", "gamma1", "gamma2")
    return LensParameters(
        foreground=light(parameters.foreground),
        foreground_mag=parameters.foreground_mag[rows],
        deflector=Deflectors(**{name: getattr(mass, name)[rows] for name in names}),
        source=light(parameters.source),
        source_mag=parameters.source_mag[rows],
    )


def _add(images: dict[str, NDArray[np.float32]], survey: Survey, stamp: NDArray, x: float, y: float) -> None:
    """Add the light of a frame to the mosaics, as far as it lies in them."""
    height, width = next(iter(images.values())).shape
    left, bottom = (int(np.floor(v + 0.5)) - STAMP // 2 for v in (x, y))
    rows = slice(max(bottom, 0), min(bottom + STAMP, height))
    columns = slice(max(left, 0), min(left + STAMP, width))
    inner = slice(rows.start - bottom, rows.stop - bottom), slice(columns.start - left, columns.stop - left)
    for place, band in enumerate(survey.bands):
        images[band][rows, columns] += stamp[place][inner]


def _add_noise(image: NDArray[np.float32], sky: float, gain: float, generator: np.random.Generator) -> None:
    """Photon and background noise, in bands of rows."""
    for start in range(0, len(image), 512):
        rows = torch.from_numpy(image[start : start + 512])
        sigma = noise_sigma(rows[None], torch.tensor([sky]), torch.tensor([gain]))[0].numpy()
        image[start : start + 512] += sigma * generator.standard_normal(rows.shape, np.float32)
