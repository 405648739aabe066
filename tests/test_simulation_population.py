"""What is drawn: shares, ranges, and that an object depends on its own row of uniforms alone."""

import dataclasses

import numpy as np
import pytest
import scipy.stats

from lensray.errors import InputError
from lensray.simulation.draws import Draws
from lensray.simulation.photometry import band_magnitudes
from lensray.simulation.population import MIXTURE, SEEING, UNIFORMS, draw_scene
from lensray.simulation.scene import reach
from lensray.survey import HSC_WIDE, SURVEYS

COUNT = 4000


def scene(survey=HSC_WIDE, lenses=0.0, count=COUNT, seed=1):
    rng = np.random.default_rng(seed)
    return draw_scene(survey, 64, rng.random(count) < lenses, rng.random((count, UNIFORMS)))


def draws(count=50_000):
    return Draws(np.random.default_rng(2).random((count, 3)))


def test_truncated_normal_has_the_quantiles_of_scipys():
    u = np.random.default_rng(2).random((1000, 1))
    got = Draws(u).normal(19.6, 1.1, 17.0, 20.5)
    expected = scipy.stats.truncnorm((17.0 - 19.6) / 1.1, (20.5 - 19.6) / 1.1, loc=19.6, scale=1.1)
    np.testing.assert_allclose(got, expected.ppf(u[:, 0]), atol=1e-9)


def test_number_counts_rise_by_their_slope():
    m = draws().counts(0.3, 20.0, 25.0)
    assert m.min() >= 20.0
    assert m.max() <= 25.0
    brighter = [(m < limit).mean() for limit in (23.0, 24.0)]
    assert brighter[1] / brighter[0] == pytest.approx((10**1.2 - 1) / (10**0.9 - 1), rel=0.05)


def test_every_draw_takes_the_next_column():
    d = Draws(np.array([[0.25, 0.5, 0.75]]))
    assert [float(d.uniform(0, 4)[0]), float(d.unit()[0]), int(d.choice([0.5, 0.5])[0])] == [1.0, 0.5, 1]


def test_non_lenses_come_in_the_documented_shares():
    kind = scene().kind
    assert sum(MIXTURE.values()) == pytest.approx(1.0)
    for name, share in MIXTURE.items():
        assert (kind == name).mean() == pytest.approx(share, abs=4 * np.sqrt(share / COUNT)), name


def test_lenses_are_where_they_are_asked_for_and_have_lens_parameters_there_alone():
    s = scene(lenses=0.3)
    is_lens = s.kind == "lens"
    assert 0.25 < is_lens.mean() < 0.35
    assert np.array_equal(np.isfinite(s.parameters["einstein_radius_arcsec"]), is_lens)
    assert np.array_equal(s.systems.owner, np.flatnonzero(is_lens))
    assert all(np.isfinite(s.parameters[f"mag_{band}"]).all() for band in "gri")


def test_lens_galaxies_and_ellipticals_differ_in_nothing_but_the_light_of_the_arc():
    lenses, others = scene(lenses=1.0), scene(seed=7)
    ellipticals = others.kind == "elliptical"
    for name in ("axis_ratio", "sersic_index"):
        a, b = lenses.parameters[name], others.parameters[name][ellipticals]
        assert scipy.stats.ks_2samp(a, b).pvalue > 0.001, name
    means = lenses.parameters["mag_i"].mean(), others.parameters["mag_i"][ellipticals].mean()
    assert means[0] - means[1] == pytest.approx(0.25, abs=0.1)


def test_neighbours_do_not_depend_on_the_class():
    uniforms = np.random.default_rng(3).random((500, UNIFORMS))
    a, b = (draw_scene(HSC_WIDE, 64, np.full(500, lens), uniforms) for lens in (True, False))
    assert np.array_equal(a.seeing, b.seeing)
    lens_table, other_table = (next(t for t in s.components if t.profile == "sersic") for s in (a, b))
    count = len(lens_table.owner) - 500  # the lens galaxies; neighbours come first in a table
    assert count > 500
    assert np.array_equal(lens_table.mag[:count], other_table.mag[:count])


@pytest.mark.parametrize("survey", SURVEYS.values(), ids=SURVEYS)
def test_arcs_are_resolved_inside_the_frame_and_multiply_imaged(survey):
    s = scene(survey, lenses=1.0)
    radius, limits = s.parameters["einstein_radius_arcsec"], reach(survey, 64)
    assert limits.einstein_low - 1e-9 <= radius.min()
    assert radius.max() <= limits.einstein_high + 1e-9
    assert limits.einstein_high <= 0.3 * limits.frame + 1e-9
    assert (s.parameters["source_offset_arcsec"] <= 0.55 * radius).all()
    assert ((s.systems.deflector["axis_ratio"] >= 0.5) & (s.systems.deflector["axis_ratio"] < 1)).all()


def test_ground_based_einstein_radii_exceed_the_seeing_and_follow_the_brightness():
    p = scene(lenses=1.0).parameters
    assert p["einstein_radius_arcsec"].min() > 0.58
    assert -0.9 < np.corrcoef(p["mag_i"], np.log(p["einstein_radius_arcsec"]))[0, 1] < -0.2


def test_foregrounds_are_redder_than_sources():
    s = scene(lenses=1.0)
    foreground = s.parameters["mag_g"] - s.parameters["mag_i"]
    source = -s.systems.colour[:, 2]
    assert np.percentile(foreground, 10) > np.percentile(source, 90)


def test_seeing_scatters_about_the_median_by_less_than_a_fifth():
    factors = np.asarray(SEEING)[scene().seeing]
    assert np.median(factors) == pytest.approx(1.0)
    assert 0.05 < factors.std() < 0.1
    assert abs(np.log10(factors)).max() < 0.09


def test_an_object_depends_on_its_own_row_alone():
    uniforms = np.random.default_rng(4).random((300, UNIFORMS))
    is_lens = np.arange(300) % 3 == 0
    together = draw_scene(HSC_WIDE, 64, is_lens, uniforms)
    for k in (0, 1, 299):
        alone = draw_scene(HSC_WIDE, 64, is_lens[[k]], uniforms[[k]])
        assert alone.kind[0] == together.kind[k]
        for name, values in alone.parameters.items():
            np.testing.assert_array_equal(values[0], together.parameters[name][k])


def test_no_kind_draws_more_uniforms_than_there_are():
    rng = np.random.default_rng(5)
    short = rng.random((400, UNIFORMS - 20))
    draw_scene(HSC_WIDE, 64, np.arange(400) % 2 == 0, short)


def test_a_band_without_colours_is_an_input_error():
    with pytest.raises(InputError, match="'K'"):
        band_magnitudes(("K",), *np.zeros((3, 1)))
    odd = dataclasses.replace(HSC_WIDE, bands=("g", "r", "u"))
    with pytest.raises(InputError, match="'u'"):
        scene(odd, count=4)
