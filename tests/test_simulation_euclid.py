"""The same simulated objects as Euclid's two instruments see them."""

import numpy as np
import pytest
import torch

from lensray import cutouts
from lensray.reading import read_formats, read_images
from lensray.simulation import simulate
from lensray.simulation.euclid import INPUTS, NISP_SIZE, VIS_SIZE, euclid_table, simulate_euclid
from lensray.simulation.population import draw_scene
from lensray.simulation.rendering import render
from lensray.simulation.simulator import random_numbers
from lensray.survey import EUCLID, EUCLID_NISP, noise_area, sky_sigma_from_depth

INDICES = np.arange(12)
IS_LENS = INDICES % 2 == 0


@pytest.fixture(scope="module")
def drawn():
    return simulate_euclid(INDICES, IS_LENS, seed=3)


def test_frames_have_the_sizes_of_the_challenge(drawn):
    assert drawn.vis.shape == (12, 1, 200, 200)
    assert drawn.nisp.shape == (12, 3, 60, 60)
    assert bool(drawn.vis.isfinite().all())
    assert bool(drawn.nisp.isfinite().all())
    assert (drawn.kind[IS_LENS] == "lens").all()


def test_an_object_depends_on_seed_index_and_class_alone(drawn):
    again = simulate_euclid(INDICES[[7, 4]], IS_LENS[[7, 4]], seed=3)
    for made, expected in ((again.vis, drawn.vis[[7, 4]]), (again.nisp, drawn.nisp[[7, 4]])):
        np.testing.assert_allclose(made.numpy(), expected.numpy(), atol=1e-5 * float(expected.abs().max()))
    other = simulate_euclid(INDICES[:2], IS_LENS[:2], seed=4)
    assert not np.allclose(other.vis.numpy(), drawn.vis[:2].numpy())


def binned(vis, nisp):
    """Central 6 arcsec of both instruments on the pixels of NISP, each over its noise."""
    fine = vis[0, 70:130, 70:130].reshape(20, 3, 20, 3).sum((1, 3)) / (3 * EUCLID.sky_sigma[0])
    return fine, nisp[1, 20:40, 20:40] / EUCLID_NISP.sky_sigma[1]


def test_both_instruments_see_the_same_object_at_the_same_place(drawn):
    for row in np.flatnonzero(IS_LENS):
        fine, coarse = binned(drawn.vis[row].numpy(), drawn.nisp[row].numpy())
        grid = np.arange(20) - 9.5
        centres = [
            np.array([(part * grid[:, None]).sum(), (part * grid).sum()]) / part.sum()
            for part in (np.clip(fine, 3, None) - 3, np.clip(coarse, 3, None) - 3)
        ]
        assert np.abs(centres[0] - centres[1]).max() < 1.0  # NISP pixels; colours differ across the object
        assert np.corrcoef(np.arcsinh(fine).ravel(), np.arcsinh(coarse).ravel())[0, 1] > 0.5


def test_main_objects_have_the_magnitudes_that_are_noted(drawn):
    parameters = drawn.parameters
    assert {"mag_VIS", "mag_Y", "mag_J", "mag_H"} <= parameters.keys()
    single = drawn.kind == "elliptical"
    assert single.any()
    for row in np.flatnonzero(single):
        axis = np.arange(200) - 99.5
        near = axis[:, None] ** 2 + axis**2 < 40**2
        flux = drawn.vis[row, 0].numpy()[near].sum()
        assert flux == pytest.approx(EUCLID.flux(0, parameters["mag_VIS"][row]), rel=0.5)
    colour = parameters["mag_VIS"] - parameters["mag_H"]
    assert np.nanmin(colour) > -0.5
    assert np.nanmedian(colour) > 0.5


def test_arcs_are_as_bright_as_vis_needs_them(drawn):
    parameters = drawn.parameters
    assert (parameters["arc_snr"][IS_LENS] > 79).all()
    assert np.isnan(parameters["source_mag"][~IS_LENS]).all()


def test_another_instrument_is_given_the_sources_that_the_first_one_has():
    uniforms, _ = random_numbers(INDICES, 3, (1, 64, 64))
    scene = draw_scene(EUCLID, 64, IS_LENS, uniforms)
    images, lensing = render(scene, EUCLID, 64, torch.device("cpu"))
    fainter, again = render(scene, EUCLID, 64, torch.device("cpu"), source_mag=lensing["source_mag"] + 2.5)
    np.testing.assert_allclose(again["source_mag"], lensing["source_mag"] + 2.5)
    arcs = (images - fainter)[IS_LENS].sum((1, 2, 3)).numpy()
    expected = 0.9 * 10 ** (0.4 * (EUCLID.zero_point_mag[0] - lensing["arc_mag"][IS_LENS]))
    np.testing.assert_allclose(arcs, expected, rtol=0.05)
    assert not (images - fainter)[~IS_LENS].any()


def test_vis_alone_is_as_noisy_as_the_survey_of_one_instrument(drawn):
    alone = simulate(EUCLID, INDICES, IS_LENS, seed=3, size=VIS_SIZE).images
    corner = (slice(None), slice(None), slice(0, 30), slice(0, 30))
    ratio = np.median(np.abs(drawn.vis[corner].numpy())) / np.median(np.abs(alone[corner].numpy()))
    assert ratio == pytest.approx(1.0, abs=0.15)


def test_nisp_has_the_published_depth():
    area = noise_area(0.49, EUCLID_NISP.psf_moffat_beta)
    for band in range(3):
        expected = sky_sigma_from_depth(24.5, 30.0, snr=5, area_arcsec2=area, pixel_scale_arcsec=0.3)
        assert EUCLID_NISP.sky_sigma[band] == pytest.approx(expected)
    assert all(
        np.isfinite(v) and v > 0 for name in ("gain", "saturation") for v in getattr(EUCLID_NISP, name)
    )


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_table_is_a_survey_of_two_columns_that_can_be_scored(dtype):
    table = euclid_table(INDICES[:6], IS_LENS[:6], seed=3, dtype=dtype)
    assert table["label"].to_pylist() == IS_LENS[:6].tolist()
    formats = read_formats(table.schema, INPUTS)
    assert formats["image_nisp"].shape == (3, NISP_SIZE, NISP_SIZE)
    assert formats["image"].dtype == np.dtype(dtype)
    images, status = read_images(table, formats, INPUTS)
    assert images.shape == (6, 4, VIS_SIZE, VIS_SIZE)
    assert set(status.tolist()) == {cutouts.Status.OK}
