"""Lens systems from explicit parameters, against lenstronomy and against what figure 4.2 of the thesis says."""

import dataclasses

import numpy as np
import pytest
import torch
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LightModel.light_model import LightModel
from lenstronomy.Util.param_util import phi_q2_ellipticity

from lensray.simulation.lenses import (
    Deflectors,
    LensParameters,
    SersicLight,
    lensed_images,
    magnitudes_from_g,
    margin_pixels,
    render_lenses,
)
from lensray.simulation.light import Ellipses, Grid
from lensray.survey import HSC_WIDE, SURVEYS


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def sersic(x, y, q, angle, radius, index):
    shapes = Ellipses(x=tensor(x), y=tensor(y), axis_ratio=tensor(q), angle=tensor(angle))
    return SersicLight(shapes=shapes, effective_radius=tensor(radius), index=tensor(index))


def deflector(radius=1.5, q=0.7, angle=0.3, g1=0.0, g2=0.0, x=0.0, y=0.0):
    values = {
        "x": x,
        "y": y,
        "einstein_radius": radius,
        "axis_ratio": q,
        "angle": angle,
        "gamma1": g1,
        "gamma2": g2,
    }
    return Deflectors(**{name: tensor(value) for name, value in values.items()})


def parameters(foreground_g=21.0, source_g=23.5, radius=1.5):
    return LensParameters(
        foreground=sersic(0.0, 0.0, 0.9, 0.1, 1.0, 4.0),
        foreground_mag=magnitudes_from_g(tensor(foreground_g), [1.0, 5.5, 20.5]),
        deflector=deflector(radius),
        source=sersic(0.17, 0.1, 0.65, 0.2, 0.3, 1.0),
        source_mag=magnitudes_from_g(tensor(source_g), [1.0, 1.6, 2.6]),
    )


def test_flux_ratios_become_magnitudes():
    mag = magnitudes_from_g(tensor(20.0, 21.0), [1.0, 5.5, 20.5])
    expected = np.array([[20.0], [21.0]]) - 2.5 * np.log10([1.0, 5.5, 20.5])
    np.testing.assert_allclose(mag.numpy(), expected)


def test_a_lensed_source_agrees_with_lenstronomy():
    grid = Grid(height=65, width=65, pixel_scale=0.1)
    source = sersic(0.25, -0.05, 0.6, 0.5, 0.4, 1.0)
    lens = deflector(1.3, 0.7, 0.4, 0.04, -0.03, x=0.1, y=0.05)
    ours = lensed_images(grid, lens, source)[0].numpy()

    upsampling = 8
    axis = (np.arange(65 * upsampling) - (65 * upsampling - 1) / 2) * 0.1 / upsampling
    x, y = (values.ravel() for values in np.meshgrid(axis, axis))
    e1, e2 = phi_q2_ellipticity(0.4, 0.7)
    sie = {"theta_E": 1.3, "e1": e1, "e2": e2, "center_x": 0.1, "center_y": 0.05}
    shear = {"gamma1": 0.04, "gamma2": -0.03, "ra_0": 0.1, "dec_0": 0.05}
    beta = LensModel(["SIE", "SHEAR"]).ray_shooting(x, y, [sie, shear])
    e1, e2 = phi_q2_ellipticity(0.5, 0.6)
    light = {
        "amp": 1.0,
        "R_sersic": 0.4,
        "n_sersic": 1.0,
        "e1": e1,
        "e2": e2,
        "center_x": 0.25,
        "center_y": -0.05,
    }
    theirs = LightModel(["SERSIC_ELLIPSE"]).surface_brightness(*beta, [light])
    theirs = theirs.reshape(65, upsampling, 65, upsampling).mean((1, 3))
    theirs *= ours.sum() / theirs.sum()
    assert np.abs(ours - theirs).max() < 0.02 * theirs.max()  # two points a pixel against eight
    assert np.abs(ours - theirs).mean() < 1e-3 * theirs.max()


def test_the_magnification_of_a_small_source_behind_a_sphere_is_two_over_its_offset():
    grid = Grid(height=256, width=256, pixel_scale=0.02)
    lens = deflector(1.2, 1.0 - 1e-6)
    for beta in (0.3, 0.5, 0.7):
        flux = float(lensed_images(grid, lens, sersic(beta, 0.0, 1.0, 0.0, 0.03, 1.0)).sum())
        assert flux == pytest.approx(2 * 1.2 / beta, rel=0.03)


def test_a_centred_source_behind_a_sphere_is_a_ring_of_the_einstein_radius():
    grid = Grid(height=101, width=101, pixel_scale=0.05)
    image = lensed_images(grid, deflector(1.5, 1.0 - 1e-6), sersic(0.0, 0.0, 1.0, 0.0, 0.1, 1.0))[0].numpy()
    y, x = (np.mgrid[:101, :101] - 50) * 0.05
    assert np.average(np.hypot(x, y), weights=image) == pytest.approx(1.5, rel=0.02)
    assert image[50, 50] < 1e-3 * image.max()


def test_without_mass_the_flux_in_every_band_is_that_of_the_magnitudes():
    wide = dataclasses.replace(HSC_WIDE, psf_moffat_beta=5.0)
    p = parameters(radius=1e-6)
    p = dataclasses.replace(p, foreground=sersic(0.0, 0.0, 0.9, 0.1, 0.6, 1.0))
    images = render_lenses(p, wide, size=128)
    expected = sum(10 ** (0.4 * (27.0 - mag[0])) for mag in (p.foreground_mag, p.source_mag))
    assert images.sum((2, 3))[0].tolist() == pytest.approx(expected.tolist(), rel=5e-3)


def test_lensing_adds_light_and_only_to_the_bands_of_the_source():
    faint = render_lenses(parameters(source_g=40.0), HSC_WIDE)
    bright = render_lenses(parameters(), HSC_WIDE)
    arc = (bright - faint)[0].sum((1, 2))
    assert (arc / arc[0]).tolist() == pytest.approx([1.0, 1.6, 2.6], rel=0.02)


def test_a_psf_of_ones_own_blurs_more_when_wider():
    p = parameters()
    narrow, wide = (
        render_lenses(dataclasses.replace(p, psf_fwhm_arcsec=torch.full((1, 3), w).double()), HSC_WIDE)
        for w in (0.5, 1.2)
    )
    assert narrow.amax() > 1.5 * wide.amax()
    torch.testing.assert_close(narrow.sum((2, 3)), wide.sum((2, 3)), rtol=0.02, atol=0)


def test_noise_comes_from_the_generator_and_has_the_survey_sigma():
    p = parameters(foreground_g=35.0, source_g=35.0)
    first, again = (render_lenses(p, HSC_WIDE, generator=torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(first, again)
    assert first.std((2, 3))[0].tolist() == pytest.approx(list(HSC_WIDE.sky_sigma), rel=0.05)


@pytest.mark.parametrize("survey", SURVEYS.values(), ids=SURVEYS)
@pytest.mark.parametrize("size", [45, 64, 100])
def test_the_margin_holds_the_psf(survey, size):
    margin = margin_pixels(survey, size)
    assert margin * survey.pixel_scale_arcsec >= 2.5 * max(survey.psf_fwhm_arcsec)
    assert margin < 40
