"""Lenses of given parameters: they have them, and nothing else depends on them."""

import numpy as np
import pytest
import torch

from lensray.cutouts import images_of, read_format
from lensray.metrics.selection import design
from lensray.selection import space
from lensray.simulation import designed
from lensray.simulation.designed import designed_lenses, designed_table, rendered_widths
from lensray.survey import DES, HSC_WIDE

SIZE = 64
USUAL = {
    "foreground_mag": 20.0,
    "arc_mag": 21.0,
    "effective_radius": 1.0,
    "sersic_index": 4.0,
    "einstein_radius": 1.5,
    "ellipticity": 0.2,
}


def columns(count=4, **changed):
    return {name: np.full(count, value, float) for name, value in {**USUAL, **changed}.items()}


def lenses(survey=HSC_WIDE, count=4, first=0, seed=1, **changed):
    return designed_lenses(
        survey, np.arange(first, first + count), columns(count, **changed), seed=seed, size=SIZE
    )


@pytest.fixture
def quiet(monkeypatch):
    """Images without noise."""
    monkeypatch.setattr(designed, "observe", lambda clean, *_, **__: clean)


@pytest.fixture
def alone(monkeypatch):
    """Lenses without field galaxies."""
    monkeypatch.setattr(designed, "neighbours", lambda *_: None)


def flux(survey, images):
    """Sum of the first band in units of magnitude 0."""
    return images[:, 0].sum((1, 2)).double().numpy() / survey.flux(0, 0.0)


@pytest.mark.parametrize("survey", [HSC_WIDE, DES])
def test_an_arc_has_its_magnitude_with_its_magnification(survey, quiet, alone):
    """The difference of two lenses that differ in the arc alone is the arc."""
    bright, faint = (lenses(survey, arc_mag=mag, einstein_radius=1.0) for mag in (20.0, 23.0))
    arcs = flux(survey, bright.images) - flux(survey, faint.images)
    np.testing.assert_allclose(arcs, 10 ** (-0.4 * 20.0) - 10 ** (-0.4 * 23.0), rtol=0.03)
    magnification = bright.parameters["magnification"]
    assert (magnification > 1.5).all()
    np.testing.assert_allclose(
        bright.parameters["source_mag"], 20.0 + 2.5 * np.log10(magnification), rtol=1e-5
    )


def test_a_foreground_has_its_magnitude(quiet, alone):
    bright, faint = (
        lenses(foreground_mag=mag, effective_radius=0.3, sersic_index=1.0) for mag in (19.0, 22.0)
    )
    light = flux(HSC_WIDE, bright.images) - flux(HSC_WIDE, faint.images)
    np.testing.assert_allclose(light, 10 ** (-0.4 * 19.0) - 10 ** (-0.4 * 22.0), rtol=0.03)


def test_arcs_lie_on_the_einstein_radius(quiet, alone):
    y, x = np.indices((SIZE, SIZE)) - (SIZE - 1) / 2
    radius = np.hypot(x, y) * HSC_WIDE.pixel_scale_arcsec
    for einstein_radius in (1.2, 1.8, 2.6):
        with_arc, without = (
            lenses(count=16, arc_mag=mag, einstein_radius=einstein_radius) for mag in (19.0, 30.0)
        )
        arcs = (with_arc.images - without.images)[:, 0].numpy()
        mean = (arcs * radius).sum((1, 2)) / arcs.sum((1, 2))
        # Of the two images of an isothermal sphere, weighted by their magnifications.
        offset = with_arc.parameters["source_offset_arcsec"]
        assert np.median(mean / (einstein_radius + offset**2 / einstein_radius)) == pytest.approx(1, abs=0.15)


def test_a_lens_depends_on_its_number_and_parameters_alone():
    alone, among = lenses(count=1, first=2), lenses(count=4)
    torch.testing.assert_close(alone.images[0], among.images[2], rtol=0, atol=1e-4)
    other = lenses(count=1, first=2, seed=2)
    assert not torch.allclose(alone.images, other.images)
    for name in ("source_offset_arcsec", "shear"):
        assert (
            lenses(arc_mag=25.0).parameters[name].tolist() == lenses(arc_mag=20.0).parameters[name].tolist()
        )


def test_the_noise_of_the_sky_is_a_multiple_of_the_surveys(alone):
    for factor in (0.5, 1.0, 2.0):
        made = lenses(foreground_mag=29.0, arc_mag=31.0, count=8, noise_factor=factor)
        found = made.images.std((0, 2, 3)).numpy()
        np.testing.assert_allclose(found, factor * np.array(HSC_WIDE.sky_sigma), rtol=0.03)


def test_the_psf_is_a_multiple_of_the_surveys(quiet, alone):
    sharp, blurred = (
        lenses(count=1, arc_mag=31.0, effective_radius=0.05, sersic_index=1.0, psf_factor=factor)
        for factor in (0.84, 1.2)
    )
    peaks = [float(made.images[0, 2].max() / made.images[0, 2].sum()) for made in (sharp, blurred)]
    assert peaks[0] / peaks[1] == pytest.approx((1.2 / 0.84) ** 2, rel=0.25)


def test_widths_of_the_psf_stay_within_their_range():
    asked = np.linspace(0.95, 1.05, 50)
    found = rendered_widths(asked, 0.95, 1.05)
    assert ((found >= 0.95) & (found <= 1.05)).all()
    assert len(set(found)) == 5
    assert np.abs(np.log(found / asked)).max() < 0.04


def test_a_table_has_the_parameters_and_survives_all_of_the_space():
    box = space([], SIZE * HSC_WIDE.pixel_scale_arcsec, HSC_WIDE.pixel_scale_arcsec)
    made = design(box.ranges, 64, seed=1)
    table = designed_table(HSC_WIDE, np.arange(64), made, seed=1, size=SIZE)
    assert table["object_id"].to_pylist() == list(range(64))
    for name in made:
        assert table[name].to_numpy().tolist() == made[name].tolist()
    images, _ = images_of(table, read_format(table.schema))
    assert images.dtype == np.float16
    assert np.isfinite(images).all()
