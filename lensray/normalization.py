"""Pixels to a network's input: clipping, stretching and histogram transforms of batches of images.

Astronomical images span orders of magnitude and are mostly noise, so each survey's network was trained
behind a normalization of its own, and has to be scanned behind the same one. Each is a frozen dataclass,
called with a batch of shape (batch, bands, height, width) of uint8, float16 or float32; it treats every band of
every image by itself and gives float32 on the device of its input.

What holds for all of them: NaN pixels take no part in the statistics and come out as zero; a constant
image comes out constant and finite; equal pixels stay equal. Statistics are exact, not sampled or binned.

Legend of the shapes in names: B batch, C bands, H height, W width, N = H·W pixels.
"""

import math
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Protocol, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from lensray.errors import InputError

_LEVELS = 255


class Normalization(Protocol):
    """What every normalization is: a name for its configuration, and a call on a batch of images."""

    name: ClassVar[str]

    def __call__(self, images_BCHW: Tensor) -> Tensor:
        """Normalized images, float32, of the same shape and on the same device."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class PercentileClip:
    """Clip the faintest and brightest pixels, then scale what is left to [0, 1] (Pourrahmani 2019, section 4.1).

    The limits are the linearly interpolated percentiles, as `numpy.percentile` has them. The thesis stores
    the result as integers from 0 to 255; so do we when `quantize` is true, and divide by 255 afterwards.

    Notes
    -----
    An image from 0 to 255, of whatever type, whose share `percent` of pixels is 0 at the faint end and 255 at
    the bright end has been stored after this clip, and is not clipped a second time. (Interpolated
    percentiles are not idempotent: the second clip would move the limits inwards.)
    """

    name: ClassVar[str] = "percentile_clip"

    percent: float = 0.5
    """Share of the pixels that is clipped at each end, in percent, from 0 to less than 50."""
    quantize: bool = True
    """Round to the 256 levels of a uint8 image."""

    def __post_init__(self) -> None:
        if not 0 <= self.percent < 50:
            raise ValueError(f"percent must lie in [0, 50); got {self.percent}")

    def __call__(self, images_BCHW: Tensor) -> Tensor:
        """Images in [0, 1], float32."""
        pixels_BCN = images_BCHW.flatten(2).float()
        low, high = percentile_limits(pixels_BCN, self.percent)
        stored = self._is_stored(pixels_BCN)
        low, high = torch.where(stored, 0.0, low), torch.where(stored, float(_LEVELS), high)
        width = torch.where(high > low, high - low, 1.0)
        scaled = pixels_BCN.sub(low).div_(width).clamp_(0, 1).nan_to_num_(nan=0.0)
        if self.quantize:
            scaled = scaled.mul_(_LEVELS).round_().div_(_LEVELS)
        return scaled.view(images_BCHW.shape)

    def to_uint8(self, images_BCHW: Tensor) -> Tensor:
        """Images as the thesis stores them: uint8, 0 to 255, a quarter of float32's size."""
        return (self(images_BCHW) * _LEVELS).round_().to(torch.uint8)

    def _is_stored(self, pixels_BCN: Tensor) -> Tensor:
        clipped = math.floor(self.percent / 100 * (pixels_BCN.shape[-1] - 1)) + 1
        faint = (pixels_BCN == 0).sum(-1, keepdim=True) >= clipped
        bright = (pixels_BCN == _LEVELS).sum(-1, keepdim=True) >= clipped
        low, high = pixels_BCN.aminmax(dim=-1, keepdim=True)
        return faint & bright & (low == 0) & (high == _LEVELS)


def percentile_limits(pixels_BCN: Tensor, percent: float) -> tuple[Tensor, Tensor]:
    """Linearly interpolated percentiles ``percent`` and ``100 - percent`` of the pixels that are not NaN.

    Both have the shape (B, C, 1), and are NaN where every pixel is. Only as many pixels are sorted as are
    needed (`torch.topk`): twenty times as fast as sorting 64×64 pixels for 0.5%.
    """
    pixels = pixels_BCN.shape[-1]
    count = min(math.floor((pixels - 1) * (percent / 100)) + 2, pixels)
    missing = torch.isnan(pixels_BCN)
    if not missing.any():
        last = torch.full((*pixels_BCN.shape[:-1], 1), pixels - 1, device=pixels_BCN.device)
        smallest, largest = pixels_BCN.topk(count, largest=False).values, pixels_BCN.topk(count).values
        return _interpolate(smallest, last, percent), _interpolate(largest, last, percent)
    last = pixels - 1 - missing.sum(-1, keepdim=True)
    smallest = pixels_BCN.masked_fill(missing, torch.inf).topk(count, largest=False).values
    largest = pixels_BCN.masked_fill(missing, -torch.inf).topk(count).values
    nothing = last < 0
    low, high = (_interpolate(ordered, last.clamp(min=0), percent) for ordered in (smallest, largest))
    return low.masked_fill_(nothing, torch.nan), high.masked_fill_(nothing, torch.nan)


def _interpolate(ordered_BCK: Tensor, last_BC1: Tensor, percent: float) -> Tensor:
    """Value at the fraction ``percent / 100`` of the way from the first pixel in order to the last."""
    position = last_BC1.double() * (percent / 100)
    before = position.floor().long()
    after = torch.minimum(before + 1, last_BC1)
    a, b = ordered_BCK.gather(-1, before), ordered_BCK.gather(-1, after)
    return torch.lerp(a, b, (position - before).to(a.dtype))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Template:
    """The distribution of pixel values that a histogram transform aims at."""

    quantiles: NDArray[np.float64]
    """Fraction of the template's pixels that are not brighter, ascending to 1; shape (Q,)."""
    values: NDArray[np.float64]
    """Pixel values at these quantiles, ascending; shape (Q,)."""

    def __post_init__(self) -> None:
        quantiles, values = np.asarray(self.quantiles, np.float64), np.asarray(self.values, np.float64)
        ascending = np.all(np.diff(quantiles) > 0) and np.all(np.diff(values) >= 0)
        if quantiles.ndim != 1 or quantiles.shape != values.shape or not len(values) or not ascending:
            raise ValueError("a template needs as many ascending quantiles as ascending values")
        if not np.isfinite(values).all() or not 0 < quantiles[0] <= quantiles[-1] == 1:
            raise ValueError("a template's values must be finite and its quantiles end at 1")
        object.__setattr__(self, "quantiles", quantiles)
        object.__setattr__(self, "values", values)


def image_adjust(image: ArrayLike, contrast: float, brightness: float, gamma: float) -> NDArray[np.float64]:
    """Mathematica's ``ImageAdjust[image, {contrast, brightness, gamma}]`` of pixels in [0, 1].

    Its documentation gives ``Clip[(1 + brightness)(1 + contrast) x^gamma - contrast / 2]`` to [0, 1].

    >>> image_adjust([0.0, 0.17979, 0.510059], contrast=1.0, brightness=0.5, gamma=1.0).round(6).tolist()
    [0.0, 0.03937, 1.0]
    """
    pixels = np.asarray(image, np.float64)
    if pixels.size == 0 or not (pixels.min() >= 0 and pixels.max() <= 1):
        raise ValueError("ImageAdjust takes pixels from 0 to 1; scale the image first")
    return np.clip((1 + brightness) * (1 + contrast) * pixels**gamma - contrast / 2, 0, 1)


def template_from_image(
    image: ArrayLike, contrast: float = 1.0, brightness: float = 0.5, gamma: float = 0.3
) -> Template:
    """LensFlow's template: the pixel values of one dim lens, adjusted so that its arcs show.

    Parameters
    ----------
    image : array_like
        Pixels from 0 to 1, of any shape.
    contrast, brightness, gamma : float
        As in `image_adjust`; the defaults are those of LensFlow's notebook.

    Notes
    -----
    The template is the image's exact distribution. Mathematica's ``HistogramDistribution`` bins it first.
    """
    values, counts = np.unique(image_adjust(image, contrast, brightness, gamma), return_counts=True)
    return Template(quantiles=np.cumsum(counts) / counts.sum(), values=values)


def dim_galaxy_template(size: int = 100, seed: int = 0) -> Template:
    """A stand-in for LensFlow's template, whose image was not published.

    The image is a dim exponential galaxy of peak 0.3 and scale length ``size / 20`` pixels on a sky of mean 0.02 and
    standard deviation 0.01; its adjusted values fill [0, 1], and half of them lie between 0.35 and 0.55. A network
    must be scanned with the template that it was trained with, so a bundle stores its own.
    """
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    galaxy = 0.3 * np.exp(-np.hypot(x, y) / (size / 20))
    sky = np.random.default_rng(seed).normal(0.02, 0.01, (size, size))
    return template_from_image(np.clip(galaxy + sky, 0, 1))


@dataclass(frozen=True, slots=True)
class HistogramTransform:
    """Give every image the distribution of pixel values of a template (Pourrahmani 2019, section 2.1).

    A pixel becomes the template's value at the same quantile, where a pixel's quantile is the fraction of
    the image's pixels that are not brighter; equal pixels share the highest of their ranks. These are the numbers of
    `skimage.exposure.match_histograms`, band by band.
    """

    name: ClassVar[str] = "histogram_transform"

    template: Template
    """The distribution aimed at."""

    def __call__(self, images_BCHW: Tensor) -> Tensor:
        """Images with the template's values, float32."""
        rows_RN = images_BCHW.flatten(2).flatten(0, 1)
        if images_BCHW.dtype == torch.uint8:
            ranks_RN, missing = _ranks_of_bytes(rows_RN), None
        else:
            missing = torch.isnan(rows_RN)
            ranks_RN = _ranks(rows_RN.float().masked_fill(missing, torch.inf))
        values_RN = self._values(ranks_RN, missing)
        return values_RN.view(images_BCHW.shape)

    def _values(self, ranks_RN: Tensor, missing: Tensor | None) -> Tensor:
        pixels = ranks_RN.shape[1]
        if missing is None or not missing.any():
            return self._table(pixels, ranks_RN.device)[ranks_RN]
        counts = pixels - missing.sum(1)
        values = torch.zeros(ranks_RN.shape, device=ranks_RN.device)
        for count in counts[counts > 0].unique().tolist():
            rows = counts == count
            values[rows] = self._table(count, ranks_RN.device)[ranks_RN[rows].clamp(max=count)]
        return values.masked_fill_(missing, 0.0)

    def _table(self, pixels: int, device: torch.device) -> Tensor:
        """The template's value for every rank from 0 to `pixels`."""
        ranks = np.arange(pixels + 1) / pixels
        table = np.interp(ranks, self.template.quantiles, self.template.values)
        return torch.from_numpy(table.astype(np.float32)).to(device)


def _ranks_of_bytes(rows_RN: Tensor) -> Tensor:
    """Rank of each uint8 pixel in its row, counted: how many pixels are not brighter."""
    levels = rows_RN.long()
    counts = torch.zeros(len(rows_RN), _LEVELS + 1, dtype=torch.int64, device=rows_RN.device)
    counts.scatter_add_(
        1, levels, torch.ones(1, dtype=torch.int64, device=rows_RN.device).expand(levels.shape)
    )
    return counts.cumsum(1).gather(1, levels)


def _ranks(rows_RN: Tensor) -> Tensor:
    """Rank of each pixel in its row: how many pixels are not brighter. Equal pixels have equal ranks.

    Pixels are sorted by their bits, in which float32 is ordered as integers once negative numbers have theirs
    inverted: torch sorts integers nearly twice as fast. Adding zero turns -0 into 0.
    """
    bits = (rows_RN + 0.0).view(torch.int32)
    keys, order = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).sort(dim=1)
    pixels = rows_RN.shape[1]
    ends = torch.arange(1, pixels + 1, device=rows_RN.device).repeat(len(rows_RN), 1)
    ends[:, :-1].masked_fill_(keys[:, 1:] == keys[:, :-1], pixels)
    ends = ends.flip(1).cummin(1).values.flip(1)
    return torch.empty_like(order).scatter_(1, order, ends)


@dataclass(frozen=True, kw_only=True, slots=True)
class SigmaClip:
    """Subtract the mean, divide by the standard deviation, clip, and scale (after Lanusse et al. 2017).

    Notes
    -----
    DeepLens takes mean and standard deviation from the whole training set: give them with `mean` and `sigma`.
    Its public code clips at ±1e-9 image units and scales to ±100: ``mean=(0,) * bands``,
    ``sigma=(1e-9,) * bands``, ``low=-1``, ``high=1``, ``scale=100``.
    """

    name: ClassVar[str] = "sigma_clip"

    low: float = -5.0
    """Lower limit, in standard deviations from the mean."""
    high: float = 100.0
    """Upper limit, in standard deviations from the mean."""
    scale: float = 1.0
    """The clipped numbers of standard deviations are multiplied by this."""
    mean: tuple[float, ...] | None = None
    """Mean of each band; None takes that of each image's band."""
    sigma: tuple[float, ...] | None = None
    """Standard deviation of each band; None takes that of each image's band."""

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"low must be less than high; got {self.low} and {self.high}")
        for field in ("mean", "sigma"):
            value = getattr(self, field)
            object.__setattr__(self, field, None if value is None else tuple(float(v) for v in value))
        if self.sigma is not None and min(self.sigma) <= 0:
            raise ValueError(f"standard deviations must be positive; got {self.sigma}")

    def __call__(self, images_BCHW: Tensor) -> Tensor:
        """Images in ``[scale · low, scale · high]``, float32."""
        # float64: the square of a float32 overflows at 2e19.
        pixels_BCN = images_BCHW.flatten(2).double()
        mean = _of_bands(self.mean, pixels_BCN)
        if mean is None:
            mean = pixels_BCN.nanmean(-1, keepdim=True)
        sigma = _of_bands(self.sigma, pixels_BCN)
        if sigma is None:
            sigma = (pixels_BCN - mean).square().nanmean(-1, keepdim=True).sqrt()
        return (
            _clipped(pixels_BCN - mean, sigma, self.low, self.high).mul_(self.scale).view(images_BCHW.shape)
        )


def _of_bands(values: tuple[float, ...] | None, pixels_BCN: Tensor) -> Tensor | None:
    if values is None:
        return None
    if len(values) != pixels_BCN.shape[1]:
        raise ValueError(f"{len(values)} values for images of {pixels_BCN.shape[1]} bands; give one a band")
    return torch.tensor(values, dtype=pixels_BCN.dtype, device=pixels_BCN.device)[:, None]


def _clipped(deviation: Tensor, sigma: Tensor, low: float, high: float) -> Tensor:
    """``deviation / sigma`` within limits, float32; zero where it is NaN or sigma is zero."""
    sigma = torch.where(sigma > 0, sigma, torch.inf)
    return (deviation / sigma).clamp_(low, high).nan_to_num_(nan=0.0).float()


@dataclass(frozen=True, kw_only=True, slots=True)
class Arcsinh:
    """Inverse hyperbolic sine of the pixels over the sky: linear in the noise, logarithmic above (Lupton et al. 1999).

    ``arcsinh((x - median) / (softening · σ))``, where median and σ are those of each image's band. σ is the
    sky noise as 1.4826 median absolute deviations, or the standard deviation where more than half of the pixels are
    equal. Medians are the lower of the two middle pixels when their number is even.
    """

    name: ClassVar[str] = "arcsinh"

    softening: float = 1.0
    """Sky noises within which the stretch is linear."""
    scale: float = 1.0
    """The result is multiplied by this."""

    def __post_init__(self) -> None:
        if not self.softening > 0:
            raise ValueError(f"softening must be positive; got {self.softening}")

    def __call__(self, images_BCHW: Tensor) -> Tensor:
        """Stretched images, float32; the sky is at zero."""
        pixels_BCN = images_BCHW.flatten(2).double()
        deviation = pixels_BCN - pixels_BCN.nanmedian(-1, keepdim=True).values
        sigma = 1.4826 * deviation.abs().nanmedian(-1, keepdim=True).values
        spread = deviation.square().nanmean(-1, keepdim=True).sqrt()
        sigma = torch.where(sigma > 0, sigma, spread) * self.softening
        ratio = deviation / torch.where(sigma > 0, sigma, torch.inf)
        return ratio.asinh_().mul_(self.scale).nan_to_num_(nan=0.0).float().view(images_BCHW.shape)


@dataclass(frozen=True, kw_only=True, slots=True)
class BandScale:
    """Pixels times a constant a band, and the inverse hyperbolic sine of the product.

    The constants are the same for every image, so zero stays zero: planes that lie in frames of zeros
    (`lensray.reading.pack_planes`) are treated as if they were alone, which statistics of the frame would not do.

    Notes
    -----
    `BOLOGNA_FACTORS` are those of Saied, Syvis & Crettenand for the fluxes of the second lens finding challenge. The
    report does not stretch (``stretch=False``); galaxy centres a thousand times brighter than the noise then set the
    scale of what the first layer sees.
    """

    name: ClassVar[str] = "band_scale"

    factors: tuple[float, ...]
    """What the pixels of each band are multiplied by, in the order of the planes."""
    stretch: bool = True
    """Whether to take the inverse hyperbolic sine: linear below 1, logarithmic above."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "factors", tuple(float(factor) for factor in self.factors))
        if not self.factors or not all(math.isfinite(f) and f > 0 for f in self.factors):
            raise ValueError(f"the factors must be positive numbers, one a band; got {self.factors}")

    def __call__(self, images_BCHW: Tensor) -> Tensor:
        """Scaled images, float32."""
        pixels_BCN = images_BCHW.flatten(2).float()
        scaled = pixels_BCN * cast(Tensor, _of_bands(self.factors, pixels_BCN))
        stretched = scaled.asinh_() if self.stretch else scaled
        return stretched.nan_to_num_(nan=0.0).view(images_BCHW.shape)


BOLOGNA_FACTORS = {"VIS": 3.5239e10, "J": 1.5327e9, "Y": 1.8903e9, "H": 1.2963e9}
"""Constants that bring the fluxes of the second lens finding challenge to about one."""


@dataclass(frozen=True, slots=True)
class Unchanged:
    """Pixels as they are, as float32: for networks that normalize their images themselves (`lensray.models.committee`).

    Unlike the others it leaves NaN as NaN, so that the normalizations behind it can leave them out of their statistics.
    """

    name: ClassVar[str] = "unchanged"

    def __call__(self, images_BCHW: Tensor) -> Tensor:
        """The same images, float32."""
        return images_BCHW.float()


_KINDS = (PercentileClip, HistogramTransform, SigmaClip, Arcsinh, BandScale, Unchanged)
_NORMALIZATIONS = {kind.name: kind for kind in _KINDS}


def to_config(normalization: Normalization) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """A normalization as what JSON can hold, and its arrays by name."""
    if isinstance(normalization, HistogramTransform):
        template = normalization.template
        return {"name": normalization.name}, {"quantiles": template.quantiles, "values": template.values}
    if type(normalization) not in _NORMALIZATIONS.values():
        raise ValueError(
            f"{normalization!r} is no normalization that can be stored; use {', '.join(_NORMALIZATIONS)}"
        )
    settings = {f.name: getattr(normalization, f.name) for f in fields(normalization)}  # type: ignore[arg-type]
    return {"name": normalization.name, **settings}, {}


def from_config(config: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Normalization:
    """The normalization that `to_config` described.

    Raises
    ------
    InputError
        If its name is unknown, or settings or arrays are missing or wrong.
    """
    settings = {key: value for key, value in config.items() if key != "name"}
    name = config.get("name")
    if name not in _NORMALIZATIONS:
        raise InputError(f"unknown normalization {name!r}; known are {', '.join(_NORMALIZATIONS)}")
    try:
        if name == HistogramTransform.name:
            return HistogramTransform(template=Template(**arrays), **settings)
        return _NORMALIZATIONS[name](**settings)
    except (TypeError, ValueError) as error:
        raise InputError(f"the normalization {name!r} cannot be made of its settings ({error})") from error
