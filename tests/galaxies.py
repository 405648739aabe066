"""Cutouts of single galaxies whose light is known, for tests of what is measured on images."""

import numpy as np
import torch

from lensray import cutouts
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


def ellipticals(count: int) -> np.ndarray:
    """Galaxies of many magnitudes, half of them with too little light in the middle for a lens."""
    magnitudes = np.random.default_rng(0).uniform(18.5, 20.5, count)
    return np.concatenate(
        [
            galaxy(seed=k, mag=(i + 2.1, i + 0.6, i), index=4.0 if k % 2 else 0.5, radius=1.2)
            for k, i in enumerate(magnitudes)
        ]
    )


def write(folder, images, survey="hsc_wide", files=1, **columns):
    """A survey of these images; returns its address."""
    format = cutouts.CutoutFormat(
        survey=survey,
        bands=HSC_WIDE.bands,
        pixel_scale_arcsec=HSC_WIDE.pixel_scale_arcsec,
        shape=images.shape[1:],
        dtype=images.dtype,
    )
    table = cutouts.make_table(format, [f"g{k}" for k in range(len(images))], images, **columns)
    cutouts.write_survey([table], str(folder), format, rows_per_file=-(-len(images) // files))
    return str(folder)
