"""Gravitational lens systems from explicit parameters: LensCrafter's recipe, batched.

A Sersic source is seen through a singular isothermal ellipsoid with external shear, a Sersic foreground is
composed over it, the whole is convolved with the PSF, and noise is added (thesis, Pourrahmani 2019, section
4.4 and figure 4.2; the order of PSF and noise is ours, see `lensray.simulation.imaging`).

Source and foreground are each rendered once, and the bands are mixed by flux: a profile has one shape in
every band, as in figure 4.2, whose flux ratios `magnitudes_from_g` turns into magnitudes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import scipy.fft
import torch
from torch import Tensor

from lensray.simulation.imaging import convolve_valid, moffat_kernels, noise_sigma
from lensray.simulation.light import Ellipses, Grid, sersic_images, sersic_profile
from lensray.simulation.mass import shear_deflection, sie_deflection
from lensray.survey import Survey

OVERSAMPLING = 2
"""Points a pixel and direction at which the lensed source is sampled."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Deflectors:
    """N singular isothermal ellipsoids with external shear; angles in radians."""

    x: Tensor
    """Centre, arcsec from the middle of the frame."""
    y: Tensor
    """Centre, arcsec."""
    einstein_radius: Tensor
    """Einstein radius, arcsec."""
    axis_ratio: Tensor
    """Minor over major axis of the convergence, in (0, 1]."""
    angle: Tensor
    """Angle of the major axis."""
    gamma1: Tensor
    """External shear along the axes."""
    gamma2: Tensor
    """External shear along the diagonals."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SersicLight:
    """N Sersic profiles."""

    shapes: Ellipses
    """Centres (arcsec from the middle of the frame), axis ratios and angles."""
    effective_radius: Tensor
    """Circularised half-light radius, arcsec."""
    index: Tensor
    """Sersic index."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LensParameters:
    """N lens systems: what figure 4.2 tabulates, plus external shear and the PSF's width."""

    foreground: SersicLight
    """Light of the lens galaxy."""
    foreground_mag: Tensor
    """Its AB magnitudes, shape (N, bands)."""
    deflector: Deflectors
    """Mass of the lens galaxy."""
    source: SersicLight
    """Light of the background galaxy, in the source plane."""
    source_mag: Tensor
    """Its AB magnitudes without lensing, shape (N, bands)."""
    psf_fwhm_arcsec: Tensor | None = None
    """PSF widths, shape (N, bands); the survey's where None."""


def magnitudes_from_g(g_mag: Tensor, flux_ratios: Sequence[float]) -> Tensor:
    """AB magnitudes (N, bands) from the g magnitude and each band's flux over that of g (1 for g itself)."""
    return g_mag[:, None] - 2.5 * torch.log10(torch.as_tensor(list(flux_ratios)).to(g_mag))


def fluxes(survey: Survey, mag: Tensor) -> Tensor:
    """Total fluxes in image units of AB magnitudes (..., bands)."""
    return 10.0 ** (0.4 * (torch.as_tensor(survey.zero_point_mag).to(mag) - mag))


def margin_pixels(survey: Survey, size: int) -> int:
    """Pixels rendered around a cutout, and half-side of the PSF kernels.

    At least 8 and 2.5 FWHM of the widest PSF, and such that the frame's side has no factor above 5: a frame of
    86 = 2 · 43 pixels takes the FFT four times as long as one of 90.
    """
    margin = max(8, math.ceil(2.5 * max(survey.psf_fwhm_arcsec) / survey.pixel_scale_arcsec))
    while scipy.fft.next_fast_len(size + 2 * margin, real=True) != size + 2 * margin:
        margin += 1
    return margin


def lensed_images(grid: Grid, deflector: Deflectors, source: SersicLight) -> Tensor:
    """Images (N, H, W) of lensed sources whose flux without lensing is 1; their sum is the magnification.

    Each pixel is the mean of `OVERSAMPLING`² points: surface brightness is conserved, so a point of the image
    has the source's brightness at ``beta = theta - alpha(theta)``.
    """
    u = OVERSAMPLING
    fine = Grid(height=grid.height * u, width=grid.width * u, pixel_scale=grid.pixel_scale / u)
    columns, rows = fine.axes(deflector.x)
    x = (columns[None, :] - deflector.x[:, None])[:, None, :]
    y = (rows[None, :] - deflector.y[:, None])[:, :, None]
    ax, ay = sie_deflection(x, y, deflector.einstein_radius, deflector.axis_ratio, deflector.angle)
    sx, sy = shear_deflection(x, y, deflector.gamma1, deflector.gamma2)
    centre = (source.shapes.x - deflector.x)[:, None, None], (source.shapes.y - deflector.y)[:, None, None]
    r2 = _squared_radius(x - ax - sx - centre[0], y - ay - sy - centre[1], source.shapes)
    light = sersic_profile(r2, source.effective_radius, source.index)
    return torch.nn.functional.avg_pool2d(light, u) * grid.pixel_scale**2


def _squared_radius(dx: Tensor, dy: Tensor, shapes: Ellipses) -> Tensor:
    cos, sin = torch.cos(shapes.angle)[:, None, None], torch.sin(shapes.angle)[:, None, None]
    q = shapes.axis_ratio[:, None, None]
    return q * (cos * dx + sin * dy) ** 2 + (cos * dy - sin * dx) ** 2 / q


def render_lenses(
    parameters: LensParameters, survey: Survey, *, size: int = 64, generator: torch.Generator | None = None
) -> Tensor:
    """Images (N, bands, size, size) of lens systems, in the survey's image units.

    Parameters
    ----------
    parameters : LensParameters
        The systems, on one device; the images are made there. Keep N at some hundreds.
    survey : Survey
        Bands, pixel scale, zero points, PSF and noise.
    size : int
        Side of a cutout in pixels.
    generator : torch.Generator, optional
        Adds shot and background noise drawn from it; without one the images are free of noise.
    """
    margin = margin_pixels(survey, size)
    frame = Grid(height=size + 2 * margin, width=size + 2 * margin, pixel_scale=survey.pixel_scale_arcsec)
    foreground = parameters.foreground
    fg = sersic_images(frame, foreground.shapes, foreground.effective_radius, foreground.index)
    maps = torch.stack([fg, lensed_images(frame, parameters.deflector, parameters.source)], 1)
    flux = torch.stack([fluxes(survey, parameters.foreground_mag), fluxes(survey, parameters.source_mag)], 2)
    light = torch.einsum("nchw,nbc->nbhw", maps, flux)
    fwhm = parameters.psf_fwhm_arcsec
    fwhm = torch.tensor([survey.psf_fwhm_arcsec]).to(light) if fwhm is None else fwhm
    kernels = moffat_kernels(fwhm, survey.psf_moffat_beta, survey.pixel_scale_arcsec, margin)
    images = convolve_valid(light, kernels)
    if generator is None:
        return images
    sigma = noise_sigma(
        images, torch.tensor(survey.sky_sigma).to(images), torch.tensor(survey.gain).to(images)
    )
    noise = torch.randn(images.shape, generator=generator, dtype=images.dtype, device=generator.device)
    return images + sigma * noise.to(images.device)
