"""Light profiles: Sersic against a finely sampled lenstronomy image, the others against their definitions."""

import math

import numpy as np
import pytest
import scipy.special
import torch
from lenstronomy.LightModel.light_model import LightModel
from lenstronomy.LightModel.Profiles.sersic import Sersic
from lenstronomy.Util.param_util import phi_q2_ellipticity

from lensray.simulation.light import (
    Ellipses,
    Grid,
    ring_images,
    sersic_b,
    sersic_images,
    sersic_profile,
    spiral_images,
)

GRID = Grid(height=64, width=64, pixel_scale=0.168)


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def ellipse(x=0.0, y=0.0, q=0.7, angle=0.4):
    return Ellipses(x=tensor(x), y=tensor(y), axis_ratio=tensor(q), angle=tensor(angle))


def lenstronomy_image(grid, radius, index, x, y, q, angle, upsampling, window):
    """Pixels of lenstronomy's Sersic, each the mean of many points, in a window of columns and rows."""
    b = float(sersic_b(tensor(index))[0])
    # lenstronomy approximates b_n: another radius makes its profile the exact one
    radius_theirs = radius * (Sersic().k_bn(index, 1.0)[1] / b) ** index
    step = grid.pixel_scale / upsampling
    axis = np.concatenate(
        [(np.arange(upsampling) + 0.5) * step + (k - 32) * grid.pixel_scale for k in range(*window)]
    )
    e1, e2 = phi_q2_ellipticity(angle, q)
    arguments = {
        "amp": 1.0,
        "R_sersic": radius_theirs,
        "n_sersic": index,
        "e1": e1,
        "e2": e2,
        "center_x": x,
        "center_y": y,
    }
    xx, yy = np.meshgrid(axis, axis)
    surface = LightModel(["SERSIC_ELLIPSE"]).surface_brightness(xx.ravel(), yy.ravel(), [arguments])
    # amp is the brightness at their radius; ours follows from the flux
    r = torch.tensor([[radius_theirs**2]], dtype=torch.float64)
    at_radius = float(sersic_profile(r, tensor(radius), tensor(index))[0, 0])
    n = window[1] - window[0]
    return surface.reshape(n, upsampling, n, upsampling).mean((1, 3)) * at_radius * grid.pixel_scale**2


@pytest.mark.parametrize("index", [0.5, 1.0, 2.0, 3.0, 4.0, 5.0])
@pytest.mark.parametrize(("x", "y"), [(0.0, 0.0), (0.084, 0.084), (0.31, -0.27)])
@pytest.mark.parametrize("q", [1.0, 0.5])
def test_sersic_image_agrees_with_a_supersampled_lenstronomy_image(index, x, y, q):
    ours = sersic_images(GRID, ellipse(x, y, q, 0.4), tensor(0.7), tensor(index))[0].numpy()
    coarse = lenstronomy_image(GRID, 0.7, index, x, y, q, 0.4, 8, (0, 64))
    core = lenstronomy_image(GRID, 0.7, index, x, y, q, 0.4, 150, (29, 36))
    coarse[29:36, 29:36] = core
    assert np.abs(ours - coarse).max() < 1e-3 * coarse.max()


@pytest.mark.parametrize("index", [0.5, 1.0, 2.5, 4.0])
def test_the_whole_flux_of_a_profile_is_one_whatever_its_shape(index):
    grid = Grid(height=400, width=400, pixel_scale=0.168)
    for q in (1.0, 0.5):
        flux = float(sersic_images(grid, ellipse(0.1, 0.05, q), tensor(0.5), tensor(index)).sum())
        b = float(sersic_b(tensor(index))[0])
        inside = scipy.special.gammainc(
            2 * index, b * (33.6 / 0.5) ** (1 / index)
        )  # light of the frame's circle
        assert flux == pytest.approx(inside, abs=1e-3)


def test_half_of_the_light_is_inside_the_effective_radius():
    for index in (0.5, 1.0, 4.0, 8.0):
        b = float(sersic_b(tensor(index))[0])
        assert scipy.special.gammainc(2 * index, b) == pytest.approx(0.5, abs=1e-12)
    assert float(sersic_b(tensor(4.0))[0]) == pytest.approx(7.66925, abs=1e-4)  # Ciotti & Bertin 1999


def test_a_profile_outside_of_the_frame_lends_it_its_wing_alone():
    image = sersic_images(GRID, ellipse(x=6.5), tensor(0.7), tensor(1.0))[0]
    assert torch.isfinite(image).all()
    assert image.argmax() % 64 == 63


def spiral(contrast, arms=2.0):
    grid = Grid(height=200, width=200, pixel_scale=0.168)
    return spiral_images(
        grid, ellipse(0.2, -0.1, 0.6), tensor(1.5), tensor(arms), tensor(0.35), tensor(contrast), tensor(1.0)
    )[0]


def test_a_spiral_keeps_the_flux_and_the_radial_profile_of_its_disc():
    assert float(spiral(3.0).sum()) == pytest.approx(float(spiral(0.0).sum()), rel=5e-3)
    assert float(spiral(0.0).sum()) == pytest.approx(1.0, abs=0.01)


def test_a_spiral_repeats_itself_as_often_as_it_has_arms():
    grid = Grid(height=101, width=101, pixel_scale=0.168)
    shape = ellipse(0.0, 0.0, 1.0, 0.0)
    arguments = (tensor(1.5), tensor(2.0), tensor(0.35), tensor(3.0), tensor(0.3))
    image = spiral_images(grid, shape, *arguments)[0]
    assert torch.allclose(image, image.flip(0, 1), rtol=1e-9)
    assert not torch.allclose(image, image.rot90(), rtol=0.1)


def ring(contrast, lobes=1.0):
    return ring_images(
        GRID, ellipse(0.1, 0.2, 0.8), tensor(2.0), tensor(0.3), tensor(lobes), tensor(contrast), tensor(0.0)
    )[0]


def test_ring_and_arc_hold_the_flux_one_and_the_ring_is_dark_inside():
    for contrast in (0.0, 2.0, 20.0):
        assert float(ring(contrast).sum()) == pytest.approx(1.0, abs=5e-3)
    assert float(ring(0.0)[32, 32]) < 1e-6 * float(ring(0.0).max())


def test_a_sharp_lobe_is_an_arc_at_the_angle_of_its_phase():
    arc = ring(20.0)
    y, x = np.unravel_index(int(arc.argmax()), arc.shape)
    angle = math.atan2((y - 31.5) * 0.168 - 0.2, (x - 31.5) * 0.168 - 0.1)
    assert angle == pytest.approx(0.4, abs=0.1)  # along the major axis
    assert float((arc > 0.1 * arc.max()).sum()) < 0.4 * float((ring(0.0) > 0.1 * ring(0.0).max()).sum())
