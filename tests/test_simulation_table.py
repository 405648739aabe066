"""Simulated tables: their columns, and that they hold no image that a recipe trains on."""

import numpy as np
import pytest

from lensray.simulation import simulate
from lensray.simulation.table import simulated_table
from lensray.survey import HSC_WIDE


def test_a_survey_has_truth_and_parameters_and_no_training_image():
    indices = np.arange(4)
    is_lens = np.array([True, False, True, False])
    table = simulated_table(HSC_WIDE, indices, is_lens, seed=1, size=32)
    assert table["label"].to_pylist() == table["is_tracer"].to_pylist() == is_lens.tolist()
    radii = table["einstein_radius_arcsec"].to_pylist()
    assert [radius is not None for radius in radii] == is_lens.tolist()
    images = table["image"].combine_chunks().to_numpy_ndarray()
    trained = simulate(HSC_WIDE, indices, is_lens, seed=1, size=32).images.numpy()
    assert (np.abs(images - trained).max((1, 2, 3)) > 0).all()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_pixels_are_finite_in_either_type(dtype):
    table = simulated_table(HSC_WIDE, np.arange(64), np.zeros(64, bool), seed=3, size=32, dtype=dtype)
    images = table["image"].combine_chunks().to_numpy_ndarray()
    assert images.dtype == dtype
    assert np.isfinite(images).all()
