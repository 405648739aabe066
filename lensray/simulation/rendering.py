"""Render a scene: light and arcs through the PSF, in the survey's image units, without noise."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lensray.simulation.imaging import (
    apply_transform,
    kernel_transform,
    moffat_kernels,
    noise_sigma,
    star_images,
)
from lensray.simulation.lenses import Deflectors, SersicLight, fluxes, lensed_images, margin_pixels
from lensray.simulation.light import Ellipses, Grid, ring_images, sersic_images, spiral_images
from lensray.simulation.population import SEEING
from lensray.simulation.scene import Components, Scene, Systems
from lensray.survey import Survey

MICRO_BATCH = 128
"""Objects rendered at once: larger batches spend their time in page faults of the allocator."""
FFT_BATCH = 8
"""Objects transformed at once: 24 planes of 90 × 90 take 42 µs each there and back, 192 planes 53 µs."""
ARC_SNR = 80.0
"""Least signal-to-noise ratio of an arc, in the band where it is best."""
FOREGROUND_RESIDUAL = 0.1
"""Share of the foreground's light that counts as noise under an arc: what no eye or model can subtract."""
SOURCE_MAG = (21.5, 25.5)
"""Brightest and faintest source, in the survey's first band, without lensing."""
SOURCE_SLOPE = 0.3
"""Slope of the sources' number counts, ``dN/dm ∝ 10^(0.3 m)``."""


def as_tensor(values: NDArray, device: torch.device) -> Tensor:
    """Float32 tensor of an array, on a device."""
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).to(device)


def render(
    scene: Scene,
    survey: Survey,
    size: int,
    device: torch.device,
    *,
    source_mag: NDArray[np.float64] | None = None,
    arc_mag: NDArray[np.float64] | None = None,
) -> tuple[Tensor, dict[str, NDArray[np.float64]]]:
    """Images without noise (N, bands, size, size), and what was measured on the arcs.

    Sources have the magnitudes `source_mag`, shape (N,), NaN where there is none, if they are given (another
    instrument sees the same sources), or those that give their arcs `arc_mag`; else each is bright enough for its arc to
    be seen.
    """
    margin, pixel = margin_pixels(survey, size), survey.pixel_scale_arcsec
    frame = Grid(height=size + 2 * margin, width=size + 2 * margin, pixel_scale=pixel)
    light = torch.zeros((len(scene.kind), len(survey.bands), frame.height, frame.width), device=device)
    for table in scene.components:
        _add_light(light, table, frame, survey)
    transforms = _psf_transforms(survey, size, device)[torch.from_numpy(scene.seeing).to(device)]
    images = _blur(light, transforms, margin)
    lensing = _add_arcs(images, scene.systems, transforms, survey, source_mag, arc_mag)
    _add_stars(images, scene, survey)
    return images, lensing


@lru_cache(maxsize=4)
def _psf_transforms(survey: Survey, size: int, device: torch.device) -> Tensor:
    """Transformed PSF kernels of every seeing and band, for the frames of cutouts of that size."""
    margin = margin_pixels(survey, size)
    fwhm = torch.tensor(SEEING, device=device)[:, None] * torch.tensor(survey.psf_fwhm_arcsec, device=device)
    kernels = moffat_kernels(fwhm, survey.psf_moffat_beta, survey.pixel_scale_arcsec, margin)
    return kernel_transform(kernels, size + 2 * margin, size + 2 * margin)


def _blur(light: Tensor, transforms: Tensor, margin: int) -> Tensor:
    chunks = zip(light.split(FFT_BATCH), transforms.split(FFT_BATCH), strict=True)
    return torch.cat([apply_transform(planes, transform, margin) for planes, transform in chunks])


def _ellipses(columns: dict[str, Tensor]) -> Ellipses:
    return Ellipses(x=columns["x"], y=columns["y"], axis_ratio=columns["axis_ratio"], angle=columns["angle"])


def _profiles(profile: str, frame: Grid, c: dict[str, Tensor]) -> Tensor:
    if profile == "sersic":
        return sersic_images(frame, _ellipses(c), c["radius"], c["index"])
    if profile == "spiral":
        return spiral_images(
            frame, _ellipses(c), c["radius"], c["arms"], c["pitch"], c["contrast"], c["phase"]
        )
    return ring_images(frame, _ellipses(c), c["radius"], c["width"], c["lobes"], c["contrast"], c["phase"])


def _add_light(light: Tensor, table: Components, frame: Grid, survey: Survey) -> None:
    """Add the profiles of a table to their owners' frames."""
    for start in range(0, len(table.owner), MICRO_BATCH):
        rows = slice(start, start + MICRO_BATCH)
        columns = {name: as_tensor(values[rows], light.device) for name, values in table.columns.items()}
        maps = _profiles(table.profile, frame, columns)
        flux = fluxes(survey, as_tensor(table.mag[rows], light.device))
        for k, owner in enumerate(table.owner[rows].tolist()):
            light[owner].addcmul_(maps[k, None], flux[k, :, None, None])


def _add_arcs(
    images: Tensor,
    systems: Systems,
    transforms: Tensor,
    survey: Survey,
    source_mag: NDArray[np.float64] | None,
    arc_mag: NDArray[np.float64] | None,
) -> dict[str, NDArray[np.float64]]:
    """Add the lensed sources to the images of everything else, each bright enough to be seen there."""
    names = ("source_mag", "magnification", "arc_mag", "arc_snr")
    found = {name: np.full(len(images), np.nan) for name in names}
    if len(systems.owner) == 0:
        return found
    owner = torch.from_numpy(systems.owner).to(images.device)
    arcs, magnification = arc_images(systems, transforms[owner], images.shape[-2:], survey)
    unit_snr = _signal_to_noise(arcs, images[owner], survey)
    if source_mag is not None:
        mag = source_mag[systems.owner]
    elif arc_mag is not None:
        mag = arc_mag[systems.owner] + 2.5 * np.log10(magnification)
    else:
        mag = source_magnitudes(unit_snr, systems.mag_rank)
    images[owner] += arcs * as_tensor(10 ** (-0.4 * mag), images.device)[:, None, None, None]
    measured = (mag, magnification, mag - 2.5 * np.log10(magnification), unit_snr * 10 ** (-0.4 * mag))
    for name, values in zip(names, measured, strict=True):
        found[name][systems.owner] = values
    return found


def arc_images(
    systems: Systems, transforms: Tensor, shape: Sequence[int], survey: Survey
) -> tuple[Tensor, NDArray[np.float64]]:
    """Images (M, bands, H, W) of lensed sources of magnitude 0 in the first band, and magnifications (M,).

    `transforms` are those of the PSFs, for frames with `margin_pixels` of the longer side around.
    """
    device = transforms.device
    columns = {name: as_tensor(values, device) for name, values in systems.deflector.items()}
    c = {name: as_tensor(values, device) for name, values in systems.source.items()}
    source = SersicLight(shapes=_ellipses(c), effective_radius=c["radius"], index=c["index"])
    grid = Grid(height=shape[0], width=shape[1], pixel_scale=survey.pixel_scale_arcsec)
    maps = lensed_images(grid, Deflectors(**columns), source)
    margin = margin_pixels(survey, max(shape))
    arcs = _blur(torch.nn.functional.pad(maps, (margin,) * 4)[:, None], transforms, margin)
    flux = fluxes(survey, as_tensor(systems.colour, device))
    return arcs * flux[:, :, None, None], maps.sum((1, 2)).double().cpu().numpy()


def _signal_to_noise(arcs: Tensor, others: Tensor, survey: Survey) -> NDArray[np.float64]:
    """Signal-to-noise of the best linear filter for each arc, in its best band, above all other light."""
    sky, gain = (torch.tensor(values).to(others) for values in (survey.sky_sigma, survey.gain))
    variance = noise_sigma(others, sky, gain) ** 2 + (FOREGROUND_RESIDUAL * others) ** 2
    return (arcs**2 / variance).sum((2, 3)).amax(1).sqrt().double().cpu().numpy()


def source_magnitudes(
    unit_snr: NDArray[np.float64], rank: NDArray[np.float64], least_snr: float = ARC_SNR
) -> NDArray[np.float64]:
    """Magnitudes from number counts, no fainter than what reaches `least_snr`.

    Where even the brightest source of `SOURCE_MAG` would not reach it, the source is as bright as it must be.
    """
    bright, faint = SOURCE_MAG
    limit = np.minimum(faint, 2.5 * np.log10(unit_snr / least_snr))
    width = np.maximum(limit - bright, 0.0)
    return limit - width + np.log10(1 + rank * (10 ** (SOURCE_SLOPE * width) - 1)) / SOURCE_SLOPE


def _add_stars(images: Tensor, scene: Scene, survey: Survey) -> None:
    stars = scene.stars
    if len(stars.owner) == 0:
        return
    owner = torch.from_numpy(stars.owner).to(images.device)
    c = {name: as_tensor(values, images.device) for name, values in stars.columns.items()}
    grid = Grid(height=images.shape[-2], width=images.shape[-1], pixel_scale=survey.pixel_scale_arcsec)
    seeing = np.asarray(SEEING)[scene.seeing[stars.owner], None]
    fwhm = as_tensor(seeing * np.asarray(survey.psf_fwhm_arcsec), images.device)
    shapes = star_images(
        grid, c["x"], c["y"], fwhm, survey.psf_moffat_beta, c["spike_length"], c["spike_angle"]
    )
    images[owner] += shapes * fluxes(survey, as_tensor(stars.mag, images.device))[:, :, None, None]
