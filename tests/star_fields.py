"""Simulated images of the sky, and what is in them: stars and galaxies of known places and magnitudes."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from lensray.simulation.imaging import (
    apply_transform,
    kernel_transform,
    moffat_kernels,
    noise_sigma,
    star_images,
)
from lensray.simulation.light import Ellipses, Grid, sersic_images
from lensray.survey import HSC_WIDE, Survey

FRAME = 81
"""Side of the frames that sources are drawn in, in pixels; the PSF reaches `REACH` pixels."""
REACH = 24


@dataclass(frozen=True, kw_only=True, slots=True)
class Field:
    """An image without noise and its truth, a row a source."""

    light: NDArray[np.float32]
    """Shape (bands, height, width)."""
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    mag: NDArray[np.float64]
    """Shape (N, bands)."""
    is_star: NDArray[np.bool_]
    survey: Survey

    def observed(self, seed: int = 1, sky: float = 0.0) -> dict[str, NDArray[np.float32]]:
        """Planes by band, with the survey's noise above a constant sky."""
        light = torch.from_numpy(self.light)
        sigma = noise_sigma(light, torch.tensor(self.survey.sky_sigma), torch.tensor(self.survey.gain))
        noise = np.random.default_rng(seed).standard_normal(self.light.shape, dtype=np.float32)
        planes = self.light + noise * sigma.numpy() + np.float32(sky)
        return dict(zip(self.survey.bands, planes, strict=True))


def scattered(count: int, shape: tuple[int, int], apart: float, seed: int) -> tuple[NDArray, NDArray]:
    """Columns and rows of `count` places, none within `apart` pixels of another or of the edge."""
    rng = np.random.default_rng(seed)
    cells = [int((side - 2 * apart) // (2 * apart)) for side in shape]
    cell = rng.choice(cells[0] * cells[1], count, replace=False)
    row, column = np.divmod(cell, cells[1])
    step = [(side - 2 * apart) / n for side, n in zip(shape, cells, strict=True)]
    inside = rng.uniform(0.25, 0.75, (2, count))
    return apart + (column + inside[0]) * step[1], apart + (row + inside[1]) * step[0]


def field(
    x: NDArray,
    y: NDArray,
    mag: NDArray,
    radius: NDArray,
    shape: tuple[int, int],
    *,
    survey: Survey = HSC_WIDE,
    seed: int = 1,
) -> Field:
    """Draw sources of magnitudes `mag` (N, bands): stars where `radius` (arcsec) is 0, else Sersic galaxies."""
    rng = np.random.default_rng(seed)
    ratio, angle, index = (
        torch.from_numpy(rng.uniform(*limits, len(x))).float() for limits in ((0.4, 1), (0, 3.14), (0.8, 3))
    )
    dx, dy = (torch.from_numpy((v - np.rint(v)) * survey.pixel_scale_arcsec).float() for v in (x, y))
    shapes = Ellipses(x=dx, y=dy, axis_ratio=ratio, angle=angle)
    light = np.zeros((len(survey.bands), shape[0] + 2 * FRAME, shape[1] + 2 * FRAME), np.float32)
    flux = 10 ** (0.4 * (np.array(survey.zero_point_mag) - mag))
    corner = [np.rint(v).astype(int) + FRAME - FRAME // 2 for v in (y, x)]
    for kind, draw in ((radius > 0, _galaxies), (radius == 0, _stars)):
        for rows in np.array_split(np.nonzero(kind)[0], 1 + kind.sum() // 64):
            images = draw(survey, _rows(shapes, rows), torch.from_numpy(radius[rows]).float(), index[rows])
            for k, image in zip(rows, images.numpy(), strict=True):
                row, column = corner[0][k], corner[1][k]
                light[:, row : row + FRAME, column : column + FRAME] += image * flux[k, :, None, None]
    light = light[:, FRAME:-FRAME, FRAME:-FRAME].copy()
    return Field(light=light, x=x, y=y, mag=mag, is_star=radius == 0, survey=survey)


def _rows(shapes: Ellipses, rows: NDArray) -> Ellipses:
    return Ellipses(**{name: getattr(shapes, name)[rows] for name in ("x", "y", "axis_ratio", "angle")})


def _galaxies(survey: Survey, shapes: Ellipses, radius: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    side, pixel = FRAME + 2 * REACH, survey.pixel_scale_arcsec
    kernels = moffat_kernels(torch.tensor(survey.psf_fwhm_arcsec), survey.psf_moffat_beta, pixel, REACH)
    light = sersic_images(Grid(height=side, width=side, pixel_scale=pixel), shapes, radius, index)
    return apply_transform(light[:, None], kernel_transform(kernels, side, side), REACH)


def _stars(survey: Survey, shapes: Ellipses, radius: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    grid = Grid(height=FRAME, width=FRAME, pixel_scale=survey.pixel_scale_arcsec)
    fwhm = torch.tensor(survey.psf_fwhm_arcsec).expand(len(radius), -1)
    spikes = torch.full_like(radius, 0.5)
    return star_images(grid, shapes.x, shapes.y, fwhm, survey.psf_moffat_beta, spikes, shapes.angle)


def survey_field(count: int, shape: tuple[int, int], *, seed: int = 1, stars: float = 0.3) -> Field:
    """Stars and galaxies of 18 to 25.5 in i, as many of each magnitude as on the sky, none within 20 pixels of another."""
    rng = np.random.default_rng(seed)
    x, y = scattered(count, shape, 20, seed)
    i = 18 + np.log10(1 + rng.random(count) * (10 ** (0.3 * 7.5) - 1)) / 0.3
    radius = np.clip(10 ** rng.normal(np.log10(0.55) - 0.06 * (i - 22), 0.2), 0.12, 2.5)
    radius[rng.random(count) < stars] = 0
    return field(x, y, np.stack([i + 1.2, i + 0.4, i], 1), radius, shape, seed=seed)
