"""Simulated cutouts as a cutout table: images, truth and the parameters that were drawn."""

from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from torch import Tensor

from lensray import cutouts
from lensray.simulation import simulate
from lensray.survey import Survey

# Added to the seed of a simulated survey, so that none repeats the images that a recipe trains on
# (recipes call `simulate` with their own small seeds).
SURVEY_SEEDS = 1 << 40


def spread_evenly(count: int, lenses: int) -> NDArray[np.bool_]:
    """Which of `count` objects are lenses, as far from each other as can be.

    >>> spread_evenly(5, 2).tolist()
    [False, False, True, False, True]
    """
    return np.diff(np.arange(count + 1) * lenses // count) > 0


def simulated_table(
    survey: Survey,
    indices: np.ndarray,
    is_lens: np.ndarray,
    *,
    seed: int,
    size: int = 64,
    dtype: Literal["float32", "float16"] = "float32",
    device: str = "cpu",
) -> pa.Table:
    """Simulate the objects `indices` of a survey.

    Parameters
    ----------
    survey : Survey
    indices : numpy.ndarray of int64, shape (N,)
        Places in the survey; an object depends on its place and the seed alone.
    is_lens : numpy.ndarray of bool, shape (N,)
    seed, size, device
        As for `lensray.simulation.simulate`.
    dtype : {"float32", "float16"}
        Type of the pixels; values beyond the type's range are clipped to it.

    Returns
    -------
    pyarrow.Table
        A cutout table with ``label``, ``is_tracer``, ``kind`` and the drawn parameters.
    """
    drawn = simulate(survey, indices, is_lens, seed=SURVEY_SEEDS + seed, size=size, device=device)
    images = as_stored(drawn.images, dtype)
    return cutouts.make_table(
        format_of(survey, images),
        indices,
        images,
        label=pa.array(is_lens),
        is_tracer=pa.array(is_lens),
        kind=pa.array(list(drawn.kind), pa.string()),
        **{
            name: pa.array(values, pa.float32(), from_pandas=True)
            for name, values in drawn.parameters.items()
        },
    )


def as_stored(images: Tensor, dtype: Literal["float32", "float16"]) -> NDArray:
    """Images in the type that they are stored in; values beyond the type's range are clipped to it."""
    limit = np.finfo(dtype).max
    return np.clip(images.cpu().numpy(), -limit, limit).astype(dtype)


def format_of(survey: Survey, images: NDArray) -> cutouts.CutoutFormat:
    """Format of a survey's images (N, bands, height, width)."""
    return cutouts.CutoutFormat(
        survey=survey.name,
        bands=survey.bands,
        pixel_scale_arcsec=survey.pixel_scale_arcsec,
        shape=images.shape[1:],
        dtype=images.dtype,
    )
