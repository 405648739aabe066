"""Cutouts of single galaxies whose light is known, for tests of what is measured on images."""

import numpy as np
import torch

from lensray.simulation.imaging import convolve_valid, moffat_kernels
from lensray.simulation.lenses import fluxes, margin_pixels
from lensray.simulation.light import Ellipses, Grid, sersic_images
from lensray.survey import HSC_WIDE, Survey

EARLY_MAG = (21.6, 20.1, 19.5)
"""g, r and i of a red galaxy."""


def galaxy(
    survey: Survey = HSC_WIDE,
    size: int = 64,
    *,
    mag=EARLY_MAG,
    x=0.0,
    y=0.0,
    axis_ratio=0.8,
    angle=0.5,
    radius=0.8,
    index=4.0,
    seed=0,
    noise=1.0,
) -> np.ndarray:
    """One Sersic galaxy through the survey's PSF with the survey's noise, shape (1, bands, size, size)."""
    margin = margin_pixels(survey, size)
    frame = Grid(height=size + 2 * margin, width=size + 2 * margin, pixel_scale=survey.pixel_scale_arcsec)
    one = {
        name: torch.tensor([float(v)])
        for name, v in {"x": x, "y": y, "axis_ratio": axis_ratio, "angle": angle}.items()
    }
    light = sersic_images(frame, Ellipses(**one), torch.tensor([float(radius)]), torch.tensor([float(index)]))
    flux = fluxes(survey, torch.tensor([mag], dtype=torch.float32))
    kernels = moffat_kernels(
        torch.tensor([survey.psf_fwhm_arcsec]), survey.psf_moffat_beta, survey.pixel_scale_arcsec, margin
    )
    clean = convolve_valid(light[:, None] * flux[:, :, None, None], kernels).numpy()
    sky = np.array(survey.sky_sigma)[:, None, None]
    gain = np.array(survey.gain)[:, None, None]
    sigma = np.sqrt(sky**2 + np.clip(clean, 0, None) / gain)
    drawn = np.random.default_rng(seed).standard_normal(clean.shape)
    return (clean + noise * sigma * drawn).astype(np.float32)
