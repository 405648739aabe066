"""Light profiles, batched: Sersic ellipses, spiral discs and rings, by total flux.

All radii are circularised, ``r = sqrt(q x² + y²/q)`` in the frame of the major axis (lenstronomy's
convention), so that the flux and the area inside a radius do not change with the axis ratio ``q``. Images
hold the flux of each pixel (surface brightness × pixel area). Parameters have shape (M,), images (M, H, W).

A pixel is worth the mean over its area: the value at its centre corrected by the curvature, and in the 7×7
pixels about the profile's centre an integral, for there the cusp of a steep profile makes the value at a
pixel's centre wrong by 10% of the peak, and sampling the whole frame more finely mends that slowly.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.special
import torch
from torch import Tensor

REFINED = 7
"""Side, in pixels, of the block about the centre that is integrated."""
NODES = 7
"""Nodes of the integration in an interval and each direction."""
GRADING = 2.5
"""How strongly the nodes crowd towards the cusp: 1 would be not at all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """Pixels of a frame whose centre is the origin; x grows with the column, y with the row."""

    height: int
    """Rows."""
    width: int
    """Columns."""
    pixel_scale: float
    """Side of a pixel, arcsec."""

    def axes(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Coordinates of the pixels' centres, arcsec, shapes (W,) and (H,)."""
        column = torch.arange(self.width, dtype=like.dtype, device=like.device)
        row = torch.arange(self.height, dtype=like.dtype, device=like.device)
        return (
            (column - (self.width - 1) / 2) * self.pixel_scale,
            (row - (self.height - 1) / 2) * self.pixel_scale,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Ellipses:
    """Centres and shapes of M profiles."""

    x: Tensor
    """Centre, arcsec, shape (M,)."""
    y: Tensor
    """Centre, arcsec, shape (M,)."""
    axis_ratio: Tensor
    """Minor over major axis, in (0, 1]."""
    angle: Tensor
    """Angle of the major axis, radians from +x counter-clockwise."""


def sersic_b(index: Tensor) -> Tensor:
    """Return ``b_n`` such that the effective radius holds half of the light: ``P(2n, b_n) = 1/2``, exactly."""
    n = index.detach().cpu().double().numpy()
    return torch.from_numpy(np.asarray(scipy.special.gammaincinv(2.0 * n, 0.5))).to(index)


def sersic_profile(radius_squared: Tensor, effective_radius: Tensor, index: Tensor) -> Tensor:
    """Surface brightness of Sersic profiles of total flux 1, of squared circularised radii (M, ...).

    ``I = b^2n / (2π n r_e² Γ(2n)) · exp(-b (r / r_e)^(1/n))``.
    """
    shape = (-1,) + (1,) * (radius_squared.ndim - 1)
    b = sersic_b(index)
    log_peak = (
        2 * index * torch.log(b)
        - torch.log(2 * math.pi * index * effective_radius**2)
        - torch.lgamma(2 * index)
    )
    exponent, offset = 0.5 / index, -torch.log(effective_radius) / index
    log_radius = radius_squared.clamp(min=1e-30).log_()
    power = log_radius.mul_(exponent.reshape(shape)).add_(offset.reshape(shape)).exp_()
    return power.mul_(-b.reshape(shape)).add_(log_peak.reshape(shape)).exp_()


def squared_radius(x: Tensor, y: Tensor, shapes: Ellipses) -> Tensor:
    """Squared circularised radius on the lattice of the columns `x` (M, W) and the rows `y` (M, H)."""
    q, cos, sin = (
        shapes.axis_ratio[:, None],
        torch.cos(shapes.angle)[:, None],
        torch.sin(shapes.angle)[:, None],
    )
    dx, dy = x - shapes.x[:, None], y - shapes.y[:, None]
    xx, yy = dx * dx * (q * cos**2 + sin**2 / q), dy * dy * (q * sin**2 + cos**2 / q)
    cross = dx * (2 * cos * sin * (q - 1 / q))
    return (dy[:, :, None] * cross[:, None, :]).add_(xx[:, None, :]).add_(yy[:, :, None])


def sersic_images(grid: Grid, shapes: Ellipses, effective_radius: Tensor, index: Tensor) -> Tensor:
    """Images (M, H, W) of Sersic profiles of total flux 1 (over the infinite plane).

    Parameters
    ----------
    grid : Grid
        The frame.
    shapes : Ellipses
        Centres, axis ratios and angles.
    effective_radius, index : Tensor, shape (M,)
        Circularised half-light radius, arcsec, and Sersic index, in 0.3 to 8.

    Notes
    -----
    Agrees with a finely supersampled lenstronomy image to 1e-3 of its peak for indices from 0.5 to 5.
    """
    x, y = grid.axes(shapes.x)
    count = shapes.x.shape[0]
    r2 = squared_radius(x.expand(count, -1), y.expand(count, -1), shapes)
    images = sersic_profile(r2, effective_radius, index).mul_(grid.pixel_scale**2)
    return _refine(_pixel_means(images), grid, shapes, effective_radius, index)


@lru_cache
def _unit_nodes() -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Nodes and weights on [0, 1] that crowd towards 0: Gauss-Legendre's to the power of `GRADING`."""
    node, weight = np.polynomial.legendre.leggauss(NODES)
    t = (node + 1) / 2
    return tuple((t**GRADING).tolist()), tuple((weight / 2 * GRADING * t ** (GRADING - 1)).tolist())


def _block_nodes(first: Tensor, centre: Tensor, origin: float, step: float) -> tuple[Tensor, Tensor]:
    """Nodes (M, K) along one axis of the block that starts at pixel `first`, and weights (M, REFINED, K).

    The pixels' edges and the centre cut the axis into intervals, each with nodes that crowd towards the centre,
    which tames the cusp of ``exp(-b r^(1/n))``. The weights' rows sum the nodes of each pixel to its mean.
    """
    t, weight = (torch.tensor(values).to(centre) for values in _unit_nodes())
    edges = origin + (first[:, None] + torch.arange(REFINED + 1).to(first)).to(centre) * step
    cut = centre[:, None].clamp(edges[:, :1], edges[:, -1:])
    cuts = torch.cat([edges, cut], 1).sort(1).values
    low, high = cuts[:, :-1], cuts[:, 1:]
    near = torch.where(low >= cut, low, high)
    far = torch.where(low >= cut, high, low)
    nodes = near[..., None] + (far - near)[..., None] * t
    owner = (((low + high) / 2 - edges[:, :1]) / step).floor().clamp(0, REFINED - 1)
    belongs = owner[:, None, :] == torch.arange(REFINED).to(centre)[None, :, None]
    share = (belongs * ((high - low) / step)[:, None, :])[..., None] * weight
    return nodes.flatten(1), share.flatten(2)


def _refine(images: Tensor, grid: Grid, shapes: Ellipses, radius: Tensor, index: Tensor) -> Tensor:
    """Replace the block about each centre by its integral over the pixels (in place)."""
    step, blocks = grid.pixel_scale, []
    for centre, size in ((shapes.x, grid.width), (shapes.y, grid.height)):
        origin = -size / 2 * step  # the outer edge of the first pixel
        first = ((centre - origin) / step).floor().long() - REFINED // 2
        first = first.clamp(0, size - REFINED)
        pixels = first[:, None] + torch.arange(REFINED, device=images.device)
        blocks.append((pixels, *_block_nodes(first, centre, origin, step)))
    (columns, x, weight_x), (rows, y, weight_y) = blocks
    values = sersic_profile(squared_radius(x, y, shapes), radius, index)
    values = weight_y @ values @ weight_x.transpose(1, 2) * step**2
    owner = torch.arange(len(images), device=images.device)[:, None, None]
    images[owner, rows[:, :, None], columns[:, None, :]] = values
    return images


def _pixel_means(images: Tensor) -> Tensor:
    """Means over the pixels from the values at their centres: ``f + ∇²f / 24``, exact to the third order.

    Not for the frame's outermost pixels, which keep their values.
    """
    inner = images[:, 1:-1, 1:-1]
    around = images[:, :-2, 1:-1] + images[:, 2:, 1:-1]
    around.add_(images[:, 1:-1, :-2]).add_(images[:, 1:-1, 2:])
    means = images.clone()
    means[:, 1:-1, 1:-1] = torch.lerp(inner, around.mul_(0.25), 1 / 6)
    return means


def polar(grid: Grid, shapes: Ellipses) -> tuple[Tensor, Tensor]:
    """Circularised radius and azimuth (M, H, W) in the plane of the (inclined, circular) disc."""
    x, y = grid.axes(shapes.x)
    dx = (x[None, :] - shapes.x[:, None])[:, None, :]
    dy = (y[None, :] - shapes.y[:, None])[:, :, None]
    cos, sin = torch.cos(shapes.angle)[:, None, None], torch.sin(shapes.angle)[:, None, None]
    root = torch.sqrt(shapes.axis_ratio)[:, None, None]
    along, across = (cos * dx + sin * dy) * root, (cos * dy - sin * dx) / root
    return torch.sqrt(along**2 + across**2).clamp_(min=1e-6), torch.atan2(across, along)


def azimuthal_modulation(phase: Tensor, contrast: Tensor) -> Tensor:
    """von Mises modulation ``exp(κ cos ψ) / I0(κ)``, whose mean over a circle is 1."""
    return torch.exp(contrast * (torch.cos(phase) - 1.0)) / torch.special.i0e(contrast)


def spiral_images(
    grid: Grid,
    shapes: Ellipses,
    effective_radius: Tensor,
    arms: Tensor,
    pitch: Tensor,
    contrast: Tensor,
    phase: Tensor,
) -> Tensor:
    """Images (M, H, W) of exponential discs of total flux 1 with logarithmic spiral arms.

    The disc's light is multiplied by the von Mises modulation of ``arms · (azimuth - ln(r / r_e) / tan(pitch))``;
    the arms fade inside half of the effective radius, where a bulge would hide them. `pitch` in radians, its
    sign the sense of winding; `contrast` is the modulation's κ.
    """
    r, azimuth = polar(grid, shapes)
    scaled = r / effective_radius[:, None, None]
    fading = scaled**2 / (scaled**2 + 0.25)
    winding = torch.log(scaled) / torch.tan(pitch)[:, None, None]
    wave = arms[:, None, None] * (azimuth - winding) - phase[:, None, None]
    disc = sersic_profile(r**2, effective_radius, torch.ones_like(effective_radius))
    return disc * azimuthal_modulation(wave, contrast[:, None, None] * fading) * grid.pixel_scale**2


def ring_images(
    grid: Grid,
    shapes: Ellipses,
    ring_radius: Tensor,
    width: Tensor,
    lobes: Tensor,
    contrast: Tensor,
    phase: Tensor,
) -> Tensor:
    """Images (M, H, W) of annuli of total flux 1: rings, and with one sharp lobe, arcs.

    Gaussian in radius (`ring_radius`, standard deviation `width`, arcsec), times a von Mises modulation of
    ``lobes · azimuth - phase``: κ = `contrast` of 0 is a smooth ring, one lobe with κ of 5 or more an arc.
    """
    r, azimuth = polar(grid, shapes)
    ratio = ring_radius / width
    area = width**2 * torch.exp(-(ratio**2) / 2)
    area = area + ring_radius * width * math.sqrt(math.pi / 2) * (1 + torch.erf(ratio / math.sqrt(2)))
    profile = torch.exp(-(((r - ring_radius[:, None, None]) / width[:, None, None]) ** 2) / 2)
    wave = lobes[:, None, None] * azimuth - phase[:, None, None]
    modulation = azimuthal_modulation(wave, contrast[:, None, None])
    return profile * modulation * (grid.pixel_scale**2 / (2 * math.pi * area))[:, None, None]
