"""SIE and shear against lenstronomy, which was written from the same papers by others."""

import numpy as np
import pytest
import torch
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LensModel.Solver.lens_equation_solver import LensEquationSolver
from lenstronomy.Util.param_util import phi_q2_ellipticity

from lensray.simulation.mass import shear_deflection, sie_deflection

RNG = np.random.default_rng(3)
POINTS = RNG.uniform(-4, 4, (2, 2000))


def deflect(radius, q, angle, x, y, dtype=torch.float64):
    values = [torch.tensor([v], dtype=dtype) for v in (radius, q, angle)]
    ax, ay = sie_deflection(torch.tensor(x[None], dtype=dtype), torch.tensor(y[None], dtype=dtype), *values)
    return np.stack([ax[0].numpy(), ay[0].numpy()])


def lenstronomy_sie(radius, q, angle):
    e1, e2 = phi_q2_ellipticity(angle, q)
    return LensModel(["SIE"]), [{"theta_E": radius, "e1": e1, "e2": e2, "center_x": 0.0, "center_y": 0.0}]


@pytest.mark.parametrize("q", [0.3, 0.5, 0.8, 0.97])
@pytest.mark.parametrize("angle", [0.0, 0.7, -1.3])
def test_sie_deflection_agrees_with_lenstronomy(q, angle):
    model, arguments = lenstronomy_sie(1.4, q, angle)
    expected = np.stack(model.alpha(*POINTS, arguments))
    np.testing.assert_allclose(deflect(1.4, q, angle, *POINTS), expected, atol=1e-6)


@pytest.mark.parametrize("q", [1.0, 1 - 1e-4, 1 - 1e-7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sie_of_axis_ratio_near_one_is_the_singular_isothermal_sphere(q, dtype):
    x, y = POINTS
    expected = 1.4 * np.stack([x, y]) / np.hypot(x, y)
    np.testing.assert_allclose(
        deflect(1.4, q, 0.3, x, y, dtype), expected, atol=2e-4 if q < 1 - 1e-6 else 2e-6
    )


def test_deflection_at_the_centre_is_zero_and_finite():
    for q in (0.5, 1.0):
        assert np.array_equal(deflect(1.4, q, 0.3, np.zeros(1), np.zeros(1)), np.zeros((2, 1)))


def test_divergence_of_the_deflection_is_twice_the_convergence():
    q, angle, h = 0.6, 0.4, 1e-4
    x, y = POINTS[:, np.hypot(*POINTS) > 0.3]
    dx = (deflect(1.2, q, angle, x + h, y)[0] - deflect(1.2, q, angle, x - h, y)[0]) / (2 * h)
    dy = (deflect(1.2, q, angle, x, y + h)[1] - deflect(1.2, q, angle, x, y - h)[1]) / (2 * h)
    major, minor = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    kappa = 1.2 / (2 * np.sqrt(q * major**2 + minor**2 / q))
    np.testing.assert_allclose((dx + dy) / 2, kappa, rtol=1e-4)


def test_shear_deflection_agrees_with_lenstronomy():
    expected = np.stack(LensModel(["SHEAR"]).alpha(*POINTS, [{"gamma1": 0.05, "gamma2": -0.08}]))
    x, y = (torch.tensor(p[None]) for p in POINTS)
    g1, g2 = torch.tensor([0.05]).double(), torch.tensor([-0.08]).double()
    got = np.stack([a[0].numpy() for a in shear_deflection(x, y, g1, g2)])
    np.testing.assert_allclose(got, expected, atol=1e-7)


def test_images_that_lenstronomy_solves_for_map_back_to_the_source():
    model, arguments = lenstronomy_sie(1.4, 0.7, 0.5)
    source = np.array([0.08, 0.05])
    x, y = LensEquationSolver(model).image_position_from_source(
        *source, arguments, min_distance=0.02, search_window=6
    )
    assert len(x) == 4
    beta = np.stack([x, y]) - deflect(1.4, 0.7, 0.5, x, y)
    np.testing.assert_allclose(beta, np.broadcast_to(source[:, None], beta.shape), atol=1e-6)


def test_each_of_a_batch_is_deflected_by_its_own_parameters():
    radius, q, angle = (torch.tensor(v, dtype=torch.float64) for v in ([1.0, 2.0], [0.5, 0.9], [0.1, 1.0]))
    x, y = (torch.tensor(RNG.uniform(-3, 3, (2, 5, 7))) for _ in range(2))
    together = torch.stack(sie_deflection(x, y, radius, q, angle))
    for k in range(2):
        one = slice(k, k + 1)
        alone = torch.stack(sie_deflection(x[one], y[one], radius[one], q[one], angle[one]))
        torch.testing.assert_close(together[:, one], alone, rtol=1e-12, atol=1e-14)
