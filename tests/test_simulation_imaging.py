"""PSF, photon noise and background noise."""

import numpy as np
import pytest
import scipy.signal
import torch

from lensray.simulation.imaging import (
    convolve_valid,
    gaussian_kernels,
    moffat_kernels,
    noise_sigma,
    photon_noise,
    star_images,
)
from lensray.simulation.light import Grid

RNG = np.random.default_rng(5)


def kernels(fwhm=(0.77, 0.58), radius=13):
    return moffat_kernels(torch.tensor(fwhm, dtype=torch.float64), 3.0, 0.168, radius)


def test_convolution_equals_scipy_on_every_pixel_that_no_edge_touches():
    images = torch.tensor(RNG.random((2, 90, 80)))
    got = convolve_valid(images, kernels())
    for image, kernel, ours in zip(images.numpy(), kernels().numpy(), got.numpy(), strict=True):
        np.testing.assert_allclose(ours, scipy.signal.fftconvolve(image, kernel, mode="valid"), atol=1e-12)


def test_an_asymmetric_kernel_is_convolved_and_not_correlated():
    kernel = torch.zeros((1, 5, 5), dtype=torch.float64)
    kernel[0, 3, 4] = 1.0  # one row down, two columns right
    image = torch.zeros((1, 20, 20), dtype=torch.float64)
    image[0, 9, 8] = 1.0
    got = convolve_valid(image, kernel)[0]
    assert np.unravel_index(int(got.argmax()), got.shape) == (9 + 1 - 2, 8 + 2 - 2)


def test_convolution_conserves_flux():
    image = torch.zeros((2, 90, 90), dtype=torch.float64)
    image[:, 40:50, 40:50] = torch.tensor(RNG.random((2, 10, 10)))
    torch.testing.assert_close(convolve_valid(image, kernels()).sum((1, 2)), image.sum((1, 2)))


@pytest.mark.parametrize(
    "make",
    [lambda w: kernels((w,), 40)[0], lambda w: gaussian_kernels(torch.tensor([w]).double(), 0.168, 40)[0]],
)
def test_a_kernel_falls_to_half_of_its_peak_at_half_its_fwhm(make):
    width = 1.68  # ten pixels, so that pixels hardly smooth it
    row = make(width)[40].numpy()
    assert row.sum() < 1
    assert make(width).sum() == pytest.approx(1.0)
    assert np.interp(5.0, np.arange(41), row[40:] / row[40]) == pytest.approx(0.5, abs=0.01)


def test_the_narrow_kernel_of_a_space_telescope_is_averaged_over_its_pixels():
    narrow = moffat_kernels(torch.tensor([0.16]).double(), 3.0, 0.1, 8)[0].numpy()
    step, side = 0.1 / 21, 17 * 21
    axis = (np.arange(side) - (side - 1) / 2) * step
    alpha = 0.16 / (2 * np.sqrt(2 ** (1 / 3) - 1))
    fine = (1 + (axis[:, None] ** 2 + axis[None, :] ** 2) / alpha**2) ** -3
    fine = fine.reshape(17, 21, 17, 21).sum((1, 3))
    np.testing.assert_allclose(narrow, fine / fine.sum(), atol=0.02 * narrow.max())


def test_variance_of_the_photon_noise_is_the_flux_over_the_gain():
    flux = torch.full((200_000, 2, 1, 1), 3.0)
    gain = torch.tensor([20.0, 2000.0])
    counted = photon_noise(flux, gain, torch.Generator().manual_seed(1))
    assert counted.mean((0, 2, 3)).tolist() == pytest.approx([3.0, 3.0], rel=2e-3)
    assert counted.var((0, 2, 3)).tolist() == pytest.approx([3.0 / 20, 3.0 / 2000], rel=0.02)
    electrons = counted * gain.reshape(-1, 1, 1)
    assert torch.allclose(electrons, electrons.round(), atol=1e-2)


def test_noise_sigma_adds_the_variances_of_sky_and_photons():
    images = torch.tensor([-5.0, 0.0, 8.0]).reshape(3, 1, 1, 1)
    sigma = noise_sigma(images, torch.tensor([0.3]), torch.tensor([100.0]))
    assert sigma.flatten().tolist() == pytest.approx([0.3, 0.3, (0.09 + 0.08) ** 0.5])


def test_the_gaussian_noise_has_the_moments_of_counted_photons_plus_sky():
    flux, gain, sky = torch.full((100_000, 1, 1, 1), 0.5), torch.tensor([2500.0]), 0.04
    generator = torch.Generator().manual_seed(2)
    exact = photon_noise(flux, gain, generator) + sky * torch.randn(flux.shape, generator=generator)
    ours = flux + noise_sigma(flux, torch.tensor([sky]), gain) * torch.randn(flux.shape, generator=generator)
    assert ours.std() == pytest.approx(float(exact.std()), rel=0.01)
    quantiles = torch.tensor([0.001, 0.1, 0.9, 0.999])
    torch.testing.assert_close(
        ours.flatten().quantile(quantiles), exact.flatten().quantile(quantiles), atol=6e-3, rtol=0
    )


def test_a_star_has_its_flux_a_moffat_core_and_four_spikes():
    grid = Grid(height=401, width=401, pixel_scale=0.168)
    one, zero = torch.ones(1).double(), torch.zeros(1).double()
    image = star_images(grid, zero, zero, torch.tensor([[0.7]]).double(), 3.0, one * 2.0, zero)[0, 0]
    assert float(image.sum()) == pytest.approx(1.0, abs=0.02)
    assert image.argmax() == 200 * 401 + 200
    ahead, aside = image[200, 240], image[200 + 28, 200 + 28]  # as far from the star, on and off a spike
    assert ahead > 3 * aside
    torch.testing.assert_close(image, image.T)
