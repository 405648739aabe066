"""Deflection by a singular isothermal ellipsoid (SIE) and an external shear, batched.

Positions and deflections are angles in arcsec, angles in radians counter-clockwise from +x. The SIE's
convergence is ``kappa = theta_E / (2 sqrt(q x² + y²/q))`` in the frame of its major axis (lenstronomy's
convention: the mass inside the critical curve does not change with ``q``), and its deflection has the
closed form of Kormann, Schneider & Bartelmann (1994, A&A 284, 285). Every parameter has shape (N,) and
every position shape (N, ...) with a shape that broadcasts.
"""

import torch
from torch import Tensor


def sie_deflection(
    x: Tensor, y: Tensor, einstein_radius: Tensor, axis_ratio: Tensor, angle: Tensor
) -> tuple[Tensor, Tensor]:
    """Deflection of an SIE that is centred on the origin.

    Parameters
    ----------
    x, y : Tensor, shape (N, ...)
        Positions in the lens plane, arcsec.
    einstein_radius, axis_ratio, angle : Tensor, shape (N,)
        Einstein radius (arcsec), minor over major axis in (0, 1], and angle of the major axis (radians).

    Returns
    -------
    tuple of Tensor
        The two components, shape of `x`, such that the source lies at ``position - deflection``.

    Notes
    -----
    With ``f = sqrt(1 - q²)`` and ``psi = sqrt(q² x² + y²)`` in the frame of the major axis,
    ``alpha = theta_E sqrt(q) / f · (atan(f x / psi), atanh(f y / (psi + q² s)))`` without a core (s = 0).
    Both quotients tend to the SIS's as ``f`` goes to 0; ``f`` is held above 1e-4, where the two differ by
    1e-8. At the centre, where the direction is not defined, the deflection is 0.
    """
    shape = (-1,) + (1,) * (x.ndim - 1)
    q, radius = axis_ratio.reshape(shape), einstein_radius.reshape(shape)
    cos, sin = torch.cos(angle).reshape(shape), torch.sin(angle).reshape(shape)
    major, minor = cos * x + sin * y, cos * y - sin * x
    f = torch.sqrt((1.0 - q * q).clamp(min=1e-8))
    psi = torch.sqrt(q * q * major * major + minor * minor).clamp(min=1e-12)
    strength = radius * torch.sqrt(q) / f
    along = strength * torch.atan(f * major / psi)
    across = strength * torch.atanh(f * minor / psi)
    return cos * along - sin * across, sin * along + cos * across


def shear_deflection(x: Tensor, y: Tensor, gamma1: Tensor, gamma2: Tensor) -> tuple[Tensor, Tensor]:
    """Deflection ``(γ1 x + γ2 y, γ2 x - γ1 y)`` of a constant external shear about the origin."""
    shape = (-1,) + (1,) * (x.ndim - 1)
    g1, g2 = gamma1.reshape(shape), gamma2.reshape(shape)
    return g1 * x + g2 * y, g2 * x - g1 * y
