"""Whole cutouts: determinism, noise, every kind, and that brightness does not tell lenses from ellipticals."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from lensray.simulation import Simulated, simulate
from lensray.simulation.contaminants import edge_side, saturate
from lensray.simulation.population import MIXTURE
from lensray.simulation.rendering import ARC_SNR
from lensray.survey import DES, HSC_WIDE, SURVEYS


@pytest.fixture(scope="module")
def cutouts() -> Simulated:
    return simulate(HSC_WIDE, np.arange(1200), np.arange(1200) % 3 == 0, seed=21)


def assert_same(a: torch.Tensor, b: torch.Tensor) -> None:
    peak = b.abs().amax((1, 2, 3), keepdim=True)
    assert float(((a - b).abs() / peak).max()) < 1e-6


def test_a_cutout_is_the_same_alone_in_any_batch_and_in_any_order(cutouts):
    rng = np.random.default_rng(1)
    for indices in (np.array([700]), np.array([3, 4, 500]), rng.permutation(1200)[:150]):
        part = simulate(HSC_WIDE, indices, indices % 3 == 0, seed=21)
        assert np.array_equal(part.kind, cutouts.kind[indices])
        assert_same(part.images, cutouts.images[indices])
        for name, values in part.parameters.items():
            np.testing.assert_allclose(values, cutouts.parameters[name][indices], rtol=1e-5)


def test_a_repeated_call_gives_the_same_bits(cutouts):
    again = simulate(HSC_WIDE, np.arange(1200), np.arange(1200) % 3 == 0, seed=21)
    assert torch.equal(again.images, cutouts.images)


def test_other_seeds_and_indices_give_other_cutouts(cutouts):
    other = simulate(HSC_WIDE, np.arange(10), np.zeros(10, bool), seed=22)
    assert not torch.isclose(other.images, cutouts.images[:10]).flatten(1).all(1).any()
    pixels = cutouts.images.flatten(1)
    assert len(torch.unique(pixels, dim=0)) == len(pixels)


def test_noise_is_independent_between_cutouts_bands_and_pixels(cutouts):
    blank = simulate(DES, np.arange(64), np.zeros(64, bool), seed=3).images[:, :, :6, :6].flatten(1)
    correlation = torch.corrcoef(blank)
    off = correlation[~torch.eye(len(blank), dtype=torch.bool)]
    assert float(off.abs().median()) < 0.15


def test_images_are_float32_finite_and_of_the_shape_asked_for(cutouts):
    assert cutouts.images.shape == (1200, 3, 64, 64)
    assert cutouts.images.dtype == torch.float32
    assert torch.isfinite(cutouts.images).all()
    assert simulate(HSC_WIDE, np.arange(2), np.array([True, False]), seed=1, size=45).images.shape == (
        2,
        3,
        45,
        45,
    )


def test_nothing_is_simulated_for_no_indices():
    empty = simulate(HSC_WIDE, np.arange(0), np.zeros(0, bool), seed=1)
    assert empty.images.shape == (0, 3, 64, 64)
    assert len(empty.kind) == 0


def test_indices_and_classes_of_different_length_are_refused():
    with pytest.raises(ValueError, match="one length"):
        simulate(HSC_WIDE, np.arange(3), np.zeros(2, bool), seed=1)


def test_parameters_have_the_same_names_with_and_without_lenses(cutouts):
    none = simulate(HSC_WIDE, np.arange(4), np.zeros(4, bool), seed=1)
    assert sorted(none.parameters) == sorted(cutouts.parameters)
    assert np.isnan(none.parameters["magnification"]).all()


def test_every_kind_renders_an_object_in_the_middle(cutouts):
    noise = torch.tensor(HSC_WIDE.sky_sigma)[:, None, None]
    middle = (cutouts.images / noise)[:, :, 26:38, 26:38].amax((1, 2, 3))
    for kind in (*MIXTURE, "lens"):
        rows = cutouts.kind == kind
        assert rows.sum() >= 10, kind
        assert float(middle[rows].median()) > 5, kind


@pytest.mark.parametrize("survey", SURVEYS.values(), ids=SURVEYS)
def test_each_survey_has_its_sky_noise_in_the_empty_parts_of_its_cutouts(survey):
    size = 200 if survey.pixel_scale_arcsec < 0.1 else 64
    count = 24 if size > 64 else 96
    images = simulate(survey, np.arange(count), np.arange(count) % 4 == 0, seed=5, size=size).images
    assert torch.isfinite(images).all()
    steps = (images[..., 1:] - images[..., :-1]).flatten(2)  # the light is smooth, the noise is not
    sigma = steps.abs().median(2).values.median(0).values / (0.6745 * 2**0.5)
    for band, expected in enumerate(survey.sky_sigma):
        assert 0.95 * expected < float(sigma[band]) < 1.3 * expected, survey.bands[band]


def test_every_arc_is_visible_and_magnified(cutouts):
    lens = cutouts.kind == "lens"
    assert cutouts.parameters["arc_snr"][lens].min() >= 0.999 * ARC_SNR
    assert cutouts.parameters["magnification"][lens].min() > 2
    assert np.median(cutouts.parameters["magnification"][lens]) > 4
    source = cutouts.parameters["source_mag"][lens]
    assert source.min() > 19
    assert source.max() <= 25.5
    brighter = source - cutouts.parameters["arc_mag"][lens]
    np.testing.assert_allclose(brighter, 2.5 * np.log10(cutouts.parameters["magnification"][lens]), atol=1e-4)


def test_total_central_and_peak_brightness_do_not_leak_the_label(cutouts):
    """LSST mocks of others leak it with an AUROC of 0.87 by their central pixels' mean."""
    images = cutouts.images
    chosen = (cutouts.kind == "lens") | (cutouts.kind == "elliptical")
    statistics = {
        "total": images.sum((1, 2, 3)),
        "central 7x7": images[:, :, 28:35, 28:35].mean((1, 2, 3)),
        "peak": images.amax((1, 2, 3)),
        "spread": images.std((1, 2, 3)),
    }
    for name, values in statistics.items():
        auroc = roc_auc_score(cutouts.kind[chosen] == "lens", values[chosen])
        assert 0.35 < auroc < 0.65, (name, auroc)


def test_bright_stars_saturate_and_bleed_along_the_column():
    star = np.zeros((1, 21, 21), np.float32)
    star[0, 10, 10], star[0, 10, 11] = 90.0, 15.0
    out = saturate(star, (10.0,))
    assert out.max() == 10.0
    assert (out[0, :, 10] == 10.0).sum() == 9  # eight full wells spill over, half to each side
    assert (out[0, :, 11] == 10.0).sum() == 1
    assert star[0, 10, 10] == 90.0


def test_no_cutout_exceeds_the_saturation_by_more_than_an_artefact(cutouts):
    clean = cutouts.images[cutouts.kind != "artefact"]
    assert (clean <= torch.tensor(HSC_WIDE.saturation)[:, None, None]).all()
    stars = cutouts.images[cutouts.kind == "star"]
    assert (stars == torch.tensor(HSC_WIDE.saturation)[:, None, None]).flatten(1).any(1).any()


def test_detector_edges_leave_the_middle_of_the_cutout():
    for angle in np.linspace(0, 6, 13):
        for offset in (-0.35, -0.01, 0.01, 0.35):
            side = edge_side(64, angle, offset)
            assert 0 < side.mean() < 0.5
            assert not side[30:34, 30:34].any()


def test_some_artefacts_have_an_empty_edge_and_no_other_cutout_has(cutouts):
    empty = (cutouts.images == 0).flatten(2).float().mean(2).amax(1) > 0.02
    kinds = cutouts.kind[empty.numpy()]
    assert len(kinds) > 5
    assert set(kinds) == {"artefact"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_renders_the_same_survey(cutouts):
    gpu = simulate(HSC_WIDE, np.arange(200), np.arange(200) % 3 == 0, seed=21, device="cuda")
    peak = cutouts.images[:200].abs().amax((1, 2, 3), keepdim=True)
    assert float(((gpu.images.cpu() - cutouts.images[:200]).abs() / peak).max()) < 1e-4
