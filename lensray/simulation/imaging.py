"""From light to what a detector records: point spread function, photon noise, background noise.

The order is that of the light: the profiles are convolved with the PSF first, then photons are counted
(shot noise), then the background's and the instrument's noise is added. The thesis' pseudocode
(Pourrahmani 2019, figure 4.2) counts photons *before* it convolves, which smooths the shot noise away
and correlates what is left; we depart from it.

Images have shape (N, bands, H, W) and the survey's image units.
"""

import torch
from torch import Tensor

from lensray.simulation.light import Grid
from lensray.survey import moffat_alpha


def moffat_kernels(fwhm_arcsec: Tensor, beta: float, pixel_scale_arcsec: float, radius: int) -> Tensor:
    """Moffat PSF kernels of side ``2 radius + 1``, each of sum 1.

    Parameters
    ----------
    fwhm_arcsec : Tensor, shape (...)
        Full width at half maximum.
    beta : float
        Exponent of ``(1 + r²/α²)^-β``.
    pixel_scale_arcsec : float
        Side of a pixel.
    radius : int
        Half-side in pixels; the light outside of it is put back inside by the normalization.

    Returns
    -------
    Tensor, shape (..., 2 radius + 1, 2 radius + 1)

    Notes
    -----
    Pixels are averaged over 3 × 3 points where the FWHM is under 4 pixels anywhere, else taken at their centres.
    """
    step = 3 if float(fwhm_arcsec.min()) < 4 * pixel_scale_arcsec else 1
    side = (2 * radius + 1) * step
    axis = (torch.arange(side).to(fwhm_arcsec) - (side - 1) / 2) * (pixel_scale_arcsec / step)
    alpha = fwhm_arcsec * moffat_alpha(1.0, beta)
    r2 = axis[:, None] ** 2 + axis[None, :] ** 2
    kernels = torch.exp(-beta * torch.log1p(r2 / (alpha**2)[..., None, None]))
    if step > 1:
        shape = (*kernels.shape[:-2], 2 * radius + 1, step, 2 * radius + 1, step)
        kernels = kernels.reshape(shape).mean((-3, -1))
    return kernels / kernels.sum((-2, -1), keepdim=True)


def gaussian_kernels(fwhm_arcsec: Tensor, pixel_scale_arcsec: float, radius: int) -> Tensor:
    """Gaussian PSF kernels (..., 2 radius + 1, 2 radius + 1), each of sum 1; parameters as `moffat_kernels`."""
    sigma = fwhm_arcsec / 2.3548200450309493
    axis = torch.arange(-radius, radius + 1).to(fwhm_arcsec) * pixel_scale_arcsec
    line = torch.exp(-((axis / sigma[..., None]) ** 2) / 2)
    line = line / line.sum(-1, keepdim=True)
    return line[..., :, None] * line[..., None, :]


def kernel_transform(kernels: Tensor, height: int, width: int) -> Tensor:
    """Fourier transform of kernels (..., k, k), centred on the first pixel, for frames of H × W."""
    radius = kernels.shape[-1] // 2
    padded = torch.nn.functional.pad(kernels, (0, width - kernels.shape[-1], 0, height - kernels.shape[-2]))
    return torch.fft.rfft2(padded.roll((-radius, -radius), (-2, -1)))


def convolve_valid(images: Tensor, kernels: Tensor) -> Tensor:
    """Convolve frames with PSF kernels and keep what no edge has touched.

    Parameters
    ----------
    images : Tensor, shape (..., H + 2 m, W + 2 m)
        Frames with a margin of ``m`` pixels around.
    kernels : Tensor, shape (..., 2 m + 1, 2 m + 1)
        Kernels that broadcast against the frames.

    Returns
    -------
    Tensor, shape (..., H, W)
        Exact linear convolution: the FFT's wrap-around reaches the margin alone.
    """
    height, width = images.shape[-2:]
    return apply_transform(images, kernel_transform(kernels, height, width), kernels.shape[-1] // 2)


def apply_transform(images: Tensor, transform: Tensor, margin: int) -> Tensor:
    """`convolve_valid` with kernels of half-side `margin` that are already transformed by `kernel_transform`."""
    height, width = images.shape[-2:]
    product = torch.fft.rfft2(images) * transform
    smooth = torch.fft.irfft2(product, s=(height, width))
    return smooth[..., margin : height - margin, margin : width - margin]


def star_images(
    grid: Grid,
    x: Tensor,
    y: Tensor,
    fwhm_arcsec: Tensor,
    beta: float,
    spike_length: Tensor,
    spike_angle: Tensor,
) -> Tensor:
    """Images (M, bands, H, W) of point sources of total flux 1 with four diffraction spikes.

    The Moffat PSF is drawn at the star's place (its wings matter, so it isn't cut off as kernels are). The
    spikes, 2% of the light, fall as ``exp(-d / spike_length)`` along two crossed lines a third of the FWHM thick.
    """
    columns, rows = grid.axes(x)
    dx, dy = (columns[None, :] - x[:, None])[:, None, :], (rows[None, :] - y[:, None])[:, :, None]
    r2 = (dx**2 + dy**2)[:, None]
    alpha2 = (fwhm_arcsec * moffat_alpha(1.0, beta))[:, :, None, None] ** 2
    core = torch.exp(-beta * torch.log1p(r2 / alpha2)) * ((beta - 1) / (torch.pi * alpha2))
    cos, sin = torch.cos(spike_angle)[:, None, None], torch.sin(spike_angle)[:, None, None]
    along, across = cos * dx + sin * dy, cos * dy - sin * dx
    thickness, length = fwhm_arcsec.mean(1)[:, None, None] / 3, spike_length[:, None, None]
    spikes = torch.zeros_like(along)
    for a, b in ((along, across), (across, along)):
        spikes = spikes + torch.exp(-a.abs() / length - (b / thickness) ** 2 / 2)
    spikes = spikes / (4 * length * thickness * (2 * torch.pi) ** 0.5)
    return (0.98 * core + 0.02 * spikes[:, None]) * grid.pixel_scale**2


def photon_noise(images: Tensor, gain: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Count photons exactly: Poisson draws of ``images · gain`` electrons, back in image units.

    Negative pixels count no photon. `gain` has shape (bands,). Many times slower than the Gaussian
    approximation, which `noise_sigma` makes and the simulator uses: there the sky's own electrons
    (hundreds to tens of thousands a pixel in every survey of `lensray.survey`) make the counts large.
    """
    scale = gain.reshape(-1, 1, 1)
    return torch.poisson((images * scale).clamp(min=0.0), generator=generator) / scale


def noise_sigma(images: Tensor, sky_sigma: Tensor, gain: Tensor) -> Tensor:
    """Standard deviation of each pixel: ``sqrt(sky_sigma² + flux / gain)``, shot and background noise together.

    Two independent Gaussian draws are one draw of the summed variance, so one normal deviate a pixel is enough.
    `sky_sigma` and `gain` have shape (bands,) or (N, bands).
    """
    variance = (sky_sigma**2)[..., None, None] + images.clamp(min=0.0) / gain[..., None, None]
    return variance.sqrt_()
