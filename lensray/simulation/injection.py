"""Simulated arcs on real galaxies.

A network that was trained on simulated images alone meets, in a survey, galaxies, neighbours, PSFs and noise that
it never saw. Here all of these are real and only the arc is simulated: a plausible deflector of the survey
(`lensray.simulation.deflectors`) gets a lensed source whose Einstein radius follows the galaxy's brightness
and whose mass follows the shape of its light, with the draws and the lensing of `lensray.simulation`.

The arc is convolved with the PSF and added in the image's units with the shot noise of its own photons; the galaxy's
and the sky's noise are in the image already and are not added again. How bright the source must be for its arc
to be seen is measured in that image: the signal-to-noise of the best linear filter above sky, galaxy photons and a
tenth of the galaxy's light reaches `INJECTED_SNR`.

Known weaknesses: the arc is not dimmed by dust, sources are single smooth profiles, the PSF is a Moffat profile
of the survey's median seeing unless widths are given and ends at 2.5 of the survey's FWHM, and the arc's shot
noise is white where a resampled image's noise is correlated.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lensray.errors import InputError
from lensray.simulation.deflectors import Hosts, measure_hosts
from lensray.simulation.draws import Draws
from lensray.simulation.imaging import kernel_transform, moffat_kernels
from lensray.simulation.lenses import margin_pixels
from lensray.simulation.population import UNIFORMS, lensing
from lensray.simulation.rendering import (
    FOREGROUND_RESIDUAL,
    MICRO_BATCH,
    arc_images,
    as_tensor,
    source_magnitudes,
)
from lensray.simulation.scene import SceneBuilder
from lensray.survey import Survey

INJECTED_SNR = 50.0
"""Least signal-to-noise ratio of an arc, in the band where it is best. Less than in `lensray.simulation.simulate` (80), whose
arcs would outshine many of the hosts in DES; at 30 the eye does not find a part of them any more."""
INJECTION_SEEDS = 1 << 41
"""Added to a seed, so that no arc repeats one of a simulated survey of that seed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Injected:
    """Cutouts with arcs on those of them that can be lenses."""

    images: NDArray
    """Pixels in the image's units and of its type, shape (N, bands, height, width)."""
    hosts: Hosts
    """What the galaxies are; only those that are plausible have an arc."""
    parameters: dict[str, NDArray[np.float32]]
    """Parameters of the lenses by name, shape (N,), NaN where there is no arc."""


def inject(
    images: NDArray,
    survey: Survey,
    *,
    seed: int,
    indices: NDArray[np.int64],
    hosts: Hosts | None = None,
    psf_fwhm_arcsec: NDArray | None = None,
    einstein_radius: NDArray[np.float64] | None = None,
    arc_mag: NDArray[np.float64] | None = None,
    device: str | torch.device = "cpu",
) -> Injected:
    """Paint a simulated arc on each galaxy that could be a lens.

    Parameters
    ----------
    images : ndarray of float16 or float32, shape (N, bands, height, width)
        Real cutouts, linear and in the survey's image units, as the survey ships them. Never changed.
    survey : Survey
        Bands, pixel scale, zero points, gain and PSF of the images (`lensray.survey_imaging.imaging_of`).
    seed : int
        Not negative.
    indices : ndarray of int64, shape (N,)
        Not negative; arc ``index`` of a seed is the same whatever else is in the batch, as far as it
        depends on the galaxy alone. A galaxy that comes twice gets another arc under another index.
    hosts : Hosts, optional
        What `measure_hosts` says of the images, which is measured if not given.
    psf_fwhm_arcsec : ndarray, shape (N, bands), optional
        Width of each image's PSF; by default the survey's.
    einstein_radius : ndarray, shape (N,), optional
        Arcsec; by default drawn to suit the galaxy's brightness.
    arc_mag : ndarray, shape (N,), optional
        AB magnitude of the arc in the first band; by default the arc is bright enough to be seen.
    device : str or torch.device
        Where to render.

    Returns
    -------
    Injected
        Cutouts that are no plausible deflectors come back as they are, with the reason in ``hosts.status``.
        NaN pixels stay NaN.

    Raises
    ------
    InputError
        If the images are bytes, which have been stretched for display.
    """
    if images.dtype.kind != "f":
        raise InputError(
            f"arcs can only be added to linear pixels, but these are {images.dtype}; give floats"
        )
    if images.shape[1] != len(survey.bands) or len(indices) != len(images):
        raise ValueError(
            f"{images.shape} images, {len(survey.bands)} bands and {len(indices)} indices differ"
        )
    hosts = measure_hosts(images, survey) if hosts is None else hosts
    if psf_fwhm_arcsec is None:
        psf_fwhm_arcsec = np.broadcast_to(survey.psf_fwhm_arcsec, images.shape[:2])
    wanted = {"einstein_radius": einstein_radius, "arc_mag": arc_mag}
    painted, parameters = images.copy(), {}
    rows = np.flatnonzero(hosts.plausible)
    for start in range(0, len(rows), MICRO_BATCH):
        part = rows[start : start + MICRO_BATCH]
        arcs, drawn = _arcs(
            images[part],
            survey,
            _random_numbers(indices[part], seed, images.shape[1:]),
            _of(hosts, part),
            psf_fwhm_arcsec[part],
            {name: values[part] for name, values in wanted.items() if values is not None},
            device,
        )
        limit = np.finfo(images.dtype).max
        painted[part] = np.clip(images[part] + arcs, -limit, limit).astype(images.dtype)
        for name, values in drawn.items():
            parameters.setdefault(name, np.full(len(images), np.nan, np.float32))[part] = values
    return Injected(images=painted, hosts=hosts, parameters=parameters)


def _of(hosts: Hosts, rows: NDArray[np.int64]) -> dict[str, NDArray]:
    """The measurements of some of the galaxies."""
    names = ("x", "y", "i_mag", "axis_ratio", "angle", "sky_level", "sky_sigma")
    return {name: getattr(hosts, name)[rows] for name in names}


def _arcs(
    images: NDArray,
    survey: Survey,
    random_numbers: tuple[NDArray[np.float64], Tensor],
    hosts: dict[str, NDArray],
    fwhm: NDArray,
    wanted: dict[str, NDArray[np.float64]],
    device: str | torch.device,
) -> tuple[NDArray[np.float32], dict[str, NDArray]]:
    """Arcs (N, bands, H, W) with their photon noise, and their parameters; those in `wanted` are given."""
    shape = images.shape[2:]
    uniforms, noise = random_numbers
    builder = SceneBuilder(survey, min(shape), len(images))
    main = {"i": hosts["i_mag"], "axis_ratio": hosts["axis_ratio"], "angle": hosts["angle"]}
    systems = lensing(
        builder,
        np.arange(len(images)),
        Draws(uniforms),
        main,
        hosts["x"],
        hosts["y"],
        wanted.get("einstein_radius"),
    )
    unit, magnification = arc_images(systems, _psf_transforms(survey, fwhm, shape, device), shape, survey)
    unit_snr = _signal_to_noise(unit, images, survey, hosts)
    if "arc_mag" in wanted:
        mag = wanted["arc_mag"] + 2.5 * np.log10(magnification)
    else:
        mag = source_magnitudes(unit_snr, systems.mag_rank, INJECTED_SNR)
    arcs = unit * as_tensor(10 ** (-0.4 * mag), unit.device)[:, None, None, None]
    gain = torch.tensor(survey.gain).to(arcs)[:, None, None]
    arcs += (arcs.clamp(min=0) / gain).sqrt() * noise.to(arcs.device)
    measured = {
        "source_mag": mag,
        "magnification": magnification,
        "arc_mag": mag - 2.5 * np.log10(magnification),
        "arc_snr": unit_snr * 10 ** (-0.4 * mag),
        "host_mag_i": hosts["i_mag"],
        "host_axis_ratio": hosts["axis_ratio"],
    }
    return arcs.cpu().numpy(), {**builder.parameters, **measured}


def _random_numbers(
    indices: NDArray[np.int64], seed: int, shape: tuple[int, ...]
) -> tuple[NDArray[np.float64], Tensor]:
    """Uniforms (N, UNIFORMS) and standard normal noise (N, *shape), each row from its index alone."""
    uniforms, noise = np.empty((len(indices), UNIFORMS)), torch.empty((len(indices), *shape))
    for row, index in enumerate(np.asarray(indices).tolist()):
        generator = np.random.default_rng(np.random.SeedSequence([INJECTION_SEEDS + seed, index]))
        uniforms[row] = generator.random(UNIFORMS)
        noise[row] = torch.from_numpy(generator.standard_normal(shape, dtype=np.float32))
    return uniforms, noise


def _psf_transforms(
    survey: Survey, fwhm: NDArray, shape: tuple[int, ...], device: str | torch.device
) -> Tensor:
    """Transformed PSF kernels (N, bands, …) of these widths (N, bands); equal widths are transformed once."""
    margin = margin_pixels(survey, max(shape))
    widths, which = np.unique(fwhm, axis=0, return_inverse=True)
    # One at a time: how finely kernels are sampled follows from the narrowest of a call.
    transforms = torch.stack([_psf_transform(survey, width, margin, shape, device) for width in widths])
    return transforms[torch.from_numpy(which.reshape(-1)).to(transforms.device)]


def _psf_transform(
    survey: Survey, fwhm: NDArray, margin: int, shape: tuple[int, ...], device: str | torch.device
) -> Tensor:
    width = as_tensor(fwhm, torch.device(device))
    kernels = moffat_kernels(width, survey.psf_moffat_beta, survey.pixel_scale_arcsec, margin)
    return kernel_transform(kernels, shape[0] + 2 * margin, shape[1] + 2 * margin)


def _signal_to_noise(
    arcs: Tensor, images: NDArray, survey: Survey, hosts: dict[str, NDArray]
) -> NDArray[np.float64]:
    """Signal-to-noise of the best linear filter for each arc, in its best band, above what is in the image.

    The sky's noise is that of the image, but no less than the survey's: that is derived from the published depth, and
    the pixels of resampled images, whose noise is correlated, scatter less than it is worth.
    """
    light = as_tensor(images - hosts["sky_level"][:, :, None, None], arcs.device)
    seen = torch.isfinite(light)
    light = torch.where(seen, light, 0.0).clamp(min=0)
    sky = as_tensor(np.maximum(hosts["sky_sigma"], survey.sky_sigma), arcs.device)[:, :, None, None]
    gain = torch.tensor(survey.gain).to(arcs)[:, None, None]
    variance = sky**2 + light / gain + (FOREGROUND_RESIDUAL * light) ** 2
    return torch.where(seen, arcs**2 / variance, 0.0).sum((2, 3)).amax(1).sqrt().double().cpu().numpy()
