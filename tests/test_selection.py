"""Selection functions: known completenesses are found again, with errors and intervals of the right size."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.stats import binom_conf_interval
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import qmc

from lensray.errors import InputError
from lensray.metrics.intervals import ONE_SIGMA, binomial_interval
from lensray.metrics.selection import SelectionFunction, cells, design, difference
from lensray.selection import PARAMETERS, Selection, open_selection, read_selection, space, write_selection

BOX = {"arc_mag": (19.0, 26.0), "einstein_radius": (0.3, 3.0), "ellipticity": (0.0, 0.6)}


def measured(truth, count=8_000, box=BOX, seed=1):
    """A selection function from lenses that are found with the probabilities `truth`."""
    made = design(box, count, seed=seed)
    found = np.random.default_rng(seed).random(count) < truth(made)
    middle = {name: (low + high) / 2 for name, (low, high) in box.items()}
    return SelectionFunction(parameters=made, found=found, ranges=box, reference=middle)


def smooth(p):
    """Rises with brightness and Einstein radius, and falls where arcs leave the cutout."""
    log_odds = 2 * (23 - p["arc_mag"]) + 4 * np.log(p["einstein_radius"])
    return 0.95 / (1 + np.exp(-log_odds)) * np.where(p["einstein_radius"] > 2.5, 0.6, 1.0)


def large_rings(p):
    """A network that sees an Einstein radius above 1 arcsec, and nothing else."""
    return p["einstein_radius"] > 1.0


@given(st.integers(0, 200), st.integers(1, 200), st.sampled_from([0.5, ONE_SIGMA, 0.95]))
def test_binomial_intervals_are_those_of_astropy(found, total, level):
    found = min(found, total)
    low, high = binomial_interval(found, total, level)
    expected = binom_conf_interval(found, total, confidence_level=level, interval="jeffreys")
    np.testing.assert_allclose([low, high], expected, atol=1e-9)


@pytest.mark.parametrize("level", [ONE_SIGMA, 0.95])
def test_binomial_intervals_hold_the_truth_as_often_as_they_say(level):
    shares = np.random.default_rng(0).uniform(0, 1, 50_000)
    for total in (20, 200):
        low, high = binomial_interval(np.random.default_rng(1).binomial(total, shares), total, level)
        assert np.mean((low <= shares) & (shares <= high)) == pytest.approx(level, abs=0.01)


def test_more_found_than_there_were_is_refused():
    with pytest.raises(ValueError, match="share"):
        binomial_interval(3, 2)


def test_a_design_fills_its_box_more_evenly_than_chance():
    made = np.column_stack(list(design(BOX, 2_000, seed=3).values()))
    low, high = np.array(list(BOX.values())).T
    assert (made >= low).all()
    assert (made <= high).all()
    unit = (made - low) / (high - low)
    chance = np.random.default_rng(3).random(unit.shape)
    assert qmc.discrepancy(unit) < 0.1 * qmc.discrepancy(chance)


def test_a_point_of_a_design_is_the_same_whatever_is_made_with_it():
    whole, part = design(BOX, 50, seed=3), design(BOX, 7, seed=3, first=20)
    for name in BOX:
        assert part[name].tolist() == whole[name][20:27].tolist()
    assert design(BOX, 50, seed=4)["arc_mag"].tolist() != whole["arc_mag"].tolist()


def test_cells_count_as_a_loop_does():
    made = design(BOX, 500, seed=1)
    found = made["arc_mag"] < 23
    edges = {"arc_mag": np.linspace(19, 26, 4), "einstein_radius": np.linspace(0.3, 3, 3)}
    counted = cells(made, found, edges)
    for i, j in np.ndindex(3, 2):
        inside = (
            (made["arc_mag"] >= edges["arc_mag"][i])
            & (made["arc_mag"] < edges["arc_mag"][i + 1])
            & (made["einstein_radius"] >= edges["einstein_radius"][j])
            & (made["einstein_radius"] < edges["einstein_radius"][j + 1])
        )
        assert (counted.total[i, j], counted.found[i, j]) == (inside.sum(), found[inside].sum())
    assert counted.completeness[0, 0] == 1
    assert counted.interval()[0][0, 0] < 1


def test_cells_without_a_lens_have_no_completeness():
    counted = cells({"arc_mag": [20.0]}, [True], {"arc_mag": [19.0, 21.0, 23.0]})
    assert counted.completeness.tolist()[0] == 1
    assert np.isnan(counted.completeness[1])
    assert [end[1] for end in counted.interval()] == [0, 1]


def test_a_network_that_sees_large_rings_alone_is_recovered():
    selection = measured(large_rings)
    radii = np.array([0.4, 0.7, 0.9, 0.97, 1.03, 1.1, 1.5, 2.9])
    share, error = selection.completeness({"einstein_radius": radii})
    assert (np.abs(share - (radii > 1)) <= 2 * error).all()
    assert error[np.abs(radii - 1) > 0.05].max() < 0.02
    edges = np.linspace(0.3, 3.0, 28)
    counted = cells(selection.parameters, selection.found, {"einstein_radius": edges})
    low, high = counted.interval(0.95)
    above, below = edges[:-1] >= 1.0, edges[1:] <= 1.0
    assert (high[above] == 1).all()
    assert (low[below] == 0).all()
    assert (low[above] > 0.95).all()
    assert (high[below] < 0.05).all()


def test_a_smooth_completeness_is_recovered_with_an_error_of_the_right_size():
    selection = measured(smooth, 20_000)
    random = np.random.default_rng(5)
    points = {name: random.uniform(low, high, 2_000) for name, (low, high) in BOX.items()}
    share, error = selection.completeness(points)
    off = share - smooth(points)
    assert np.sqrt(np.mean(off**2)) < 0.05
    assert np.mean(off) == pytest.approx(0, abs=0.01)
    assert 0.6 < np.mean(np.abs(off) <= error) < 0.95
    assert np.mean(np.abs(off) <= 2 * error) > 0.88


def test_the_function_agrees_with_lenses_it_was_not_fitted_to():
    selection = measured(smooth)
    predicted = selection.left_out()
    known = np.isfinite(predicted)
    assert known.mean() > 0.99
    for low, high in ((0.0, 0.1), (0.3, 0.7), (0.9, 1.0)):
        rows = known & (predicted >= low) & (predicted <= high)
        assert selection.found[rows].mean() == pytest.approx(predicted[rows].mean(), abs=0.05)


def test_outside_of_the_space_nothing_is_known_and_unknown_names_are_refused():
    selection = measured(smooth, 500)
    share, error = selection.completeness({"arc_mag": [18.9, 19.0, 26.1]})
    assert np.isnan(share).tolist() == np.isnan(error).tolist() == [True, False, True]
    share, _ = selection.completeness({"arc_mag": [[20.0], [21.0]], "einstein_radius": [1.0, 2.0, 2.5]})
    assert share.shape == (2, 3)
    with pytest.raises(ValueError, match="arc_magnitude"):
        selection.completeness({"arc_magnitude": 20.0})


@pytest.mark.parametrize(("all_found", "share"), [(True, 1.0), (False, 0.0)])
def test_all_or_no_lenses_found(all_found, share):
    selection = measured(lambda p: np.full(len(p["arc_mag"]), float(all_found)), 200)
    value, error = selection.completeness({})
    assert float(value) == share
    assert float(error) == pytest.approx(0.005)


def test_what_lenses_of_one_galaxy_have_in_common_is_in_the_error():
    random = np.random.default_rng(0)
    hosts = np.repeat(np.arange(100), 50)
    good = random.random(100) < 0.5
    values, expected = random.uniform(0, 1, 5_000), np.full(5_000, 0.5)
    by_host = difference(values, good[hosts], expected, hosts.tolist(), [0, 0.5, 1])
    independent = difference(values, random.random(5_000) < 0.5, expected, list(range(5_000)), [0, 0.5, 1])
    assert by_host.error == pytest.approx(0.05, abs=0.01)
    assert independent.error == pytest.approx(0.01, abs=0.003)
    assert by_host.total.sum() == 5_000
    assert by_host.expected == pytest.approx(0.5)


def test_lenses_that_nothing_is_expected_of_are_left_out_of_the_difference():
    found = difference([0.1, 0.2, 0.9], [1, 0, 1], [0.5, np.nan, 0.2], ["a", "a", "b"], [0, 0.5, 1])
    assert found.total.tolist() == [1, 1]
    assert found.counted.tolist() == [1, 1]
    assert found.expected.tolist() == [0.5, 0.2]


# --- the space, and the table ---------------------------------------------------------------------------


def test_the_space_is_the_six_parameters_unless_others_are_asked_for():
    usual = space([], 10.0, 0.168)
    assert list(usual.ranges) == list(PARAMETERS)[:6]
    assert usual.ranges["einstein_radius"] == (0.3, 3.0)
    asked = space(["noise_factor=0.5..2", "sersic_index=4", "arc_mag=20..24"], 10.0, 0.168)
    assert asked.fixed == {"sersic_index": 4.0}
    assert asked.ranges["arc_mag"] == (20.0, 24.0)
    assert list(asked.ranges)[-1] == "noise_factor"
    assert "sersic_index" not in asked.ranges
    assert asked.reference["arc_mag"] == 22.0


def test_a_reference_outside_of_the_space_is_its_nearest_value():
    assert space(["arc_mag=23..24"], 10.0, 0.168).reference["arc_mag"] == 23.0


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("redshift=0.1..1", "there is no parameter 'redshift'"),
        ("arc_mag", "write arc_mag=LOW..HIGH"),
        ("arc_mag=faint", "write arc_mag=LOW..HIGH"),
        ("arc_mag=20..", "write arc_mag=LOW..HIGH"),
        ("arc_mag=24..20", "give the lower one first"),
        ("arc_mag=nan..20", "give the lower one first"),
        ("einstein_radius=0.5..4", "0.084 to 3"),
        ("psf_factor=1..1.02", "give 5% at least"),
        ("ellipticity=0.9", "0 to 0.8"),
        ("sersic_index=0.1..4", "0.3 to 8"),
        ("psf_factor=0.5..1", "0.832 to 1.2"),
    ],
)
def test_parameters_that_cannot_be_simulated_are_refused(word, said):
    with pytest.raises(InputError, match=said.replace("..", r"\.\.")):
        space([word], 10.0, 0.168)


def test_a_parameter_is_named_once():
    with pytest.raises(InputError, match="arc_mag is given twice"):
        space(["arc_mag=21", "arc_mag=20..22"], 10.0, 0.168)


def test_one_parameter_is_no_selection_function():
    fixed = [f"{name}={one.reference}" for name, one in PARAMETERS.items() if name != "arc_mag"]
    with pytest.raises(InputError, match="two parameters"):
        space(fixed, 10.0, 0.168)


def test_a_table_says_by_itself_what_it_is(any_url):
    box = space(["foreground_mag=20", "effective_radius=1", "sersic_index=4", "ellipticity=0.2"], 10.0, 0.168)
    made = design(box.ranges, 300, seed=1)
    table = pa.table({"object_id": np.arange(300), **made, "found": made["arc_mag"] < 23})
    selection = Selection(space=box, threshold=0.9, lenses=table, provenance={"seed": 1})
    write_selection(selection, any_url)
    again = open_selection(any_url)
    assert (again.space, again.threshold, again.provenance) == (box, 0.9, {"seed": 1})
    point = {"arc_mag": [20.0, 25.0], "einstein_radius": 1.0}
    assert np.array_equal(
        read_selection(any_url).completeness(point), selection.function().completeness(point)
    )


def test_folders_and_tables_of_something_else_are_refused(tmp_path):
    with pytest.raises(InputError, match="measure_selection"):
        read_selection(str(tmp_path))
    pq.write_table(pa.table({"a": [1]}), tmp_path / "selection.parquet")
    with pytest.raises(InputError, match="no table of a selection function"):
        read_selection(str(tmp_path))
