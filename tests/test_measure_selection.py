"""``measure_selection.py``: on a real local Ray, stopped and taken up again; and wrong words, answered in one line."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import surveys
from galaxies import ellipticals, galaxy, write

from lensray import bundle as bundles
from lensray.distributed import selection as measuring
from lensray.distributed.selection_plan import SelectionConfig, plan_selection
from lensray.errors import InputError
from lensray.selection import open_selection
from lensray.simulation.deflectors import measure_hosts
from lensray.simulation.designed import designed_onto_table, measured_foreground, true_foreground
from lensray.simulation.onto_survey import find_hosts
from lensray.survey import HSC_WIDE
from lensray.survey_imaging import open_hosts
from lensray.survey_rows import read_places

JOB = "measure_selection.py"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return surveys.toy_bundle(tmp_path_factory.mktemp("bundle") / "toy.safetensors", size=64)


@pytest.fixture(scope="module")
def hosts(tmp_path_factory):
    """A survey of ellipticals, and of things that are no hosts."""
    return write(tmp_path_factory.mktemp("hosts") / "s", ellipticals(24), files=3)


def scores_of(folder):
    parts = sorted((Path(folder) / "scan" / "scores").glob("*.parquet"))
    return pa.concat_tables([pq.read_table(path) for path in parts]).sort_by("object_id")


def measure(**words):
    return measuring.measure_selection(plan_selection(SelectionConfig(**words)))


@pytest.mark.slow
def test_lenses_are_made_scanned_and_counted_and_a_stopped_run_goes_on(
    local_ray, tmp_path, bundle, hosts, monkeypatch
):
    monkeypatch.setattr("lensray.distributed.selection_plan.PART", 64)
    words = {"bundle": bundle, "output": str(tmp_path / "out"), "count": 150, "seed": 3, "onto": hosts}
    said = measure(**words, threshold=0.3).summary()
    found = open_selection(words["output"])
    scores = scores_of(words["output"])
    assert found.lenses.num_rows == scores.num_rows == 150
    assert found.column("found").tolist() == (scores["score"].to_numpy() >= np.float32(0.3)).tolist()
    assert f"{found.column('found').sum()} of 150 simulated lenses are found by a score of 0.3" in said
    assert set(found.space.ranges) <= set(found.lenses.column_names)
    onto = open_selection(f"{words['output']}/selection_onto.parquet")
    assert onto.lenses.num_rows == 150
    assert set(onto.lenses["host_id"].to_pylist()) == {f"g{k}" for k in range(1, 24, 2)}
    assert onto.column("arc_mag").tolist() == found.column("arc_mag").tolist()
    assert "on 12 real galaxies" in said
    for name in ("report.html", "run.json", "cells.parquet", "figures/cuts.png", "figures/onto.png"):
        assert (tmp_path / "out" / name).stat().st_size > 100
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert run["bundle"]["sha256"] == bundles.read_header(bundle).sha256
    cells = pq.read_table(tmp_path / "out" / "cells.parquet")
    pairs = {(row["parameter_1"], row["parameter_2"]) for row in cells.to_pylist()}
    assert len(pairs) == 15
    assert sum(cells["lenses"].to_pylist()) == 15 * 150

    part, other = (tmp_path / "out" / "lenses" / f"part-0000{k}.parquet" for k in (0, 1))
    before, kept = part.read_bytes(), other.stat().st_mtime_ns
    part.unlink()
    marker = next((tmp_path / "out" / "scan" / "ledger" / "done").iterdir())
    marker.unlink()
    measure(**words, threshold=0.35)
    assert part.read_bytes() == before
    assert other.stat().st_mtime_ns == kept
    again = open_selection(words["output"])
    assert again.threshold == 0.35
    np.testing.assert_allclose(again.column("score"), found.column("score"), atol=1e-6)

    with pytest.raises(InputError, match="highest score is 0"):
        measure(**words, threshold=1.0)
    with pytest.raises(InputError, match="with other count"):
        measure(**{**words, "count": 151})


@pytest.mark.slow
def test_the_depth_of_a_scan_is_the_score_of_its_last_candidate(tmp_path, bundle):
    """A scan's folder with 20 candidates, of which 5 are looked at."""
    scan = tmp_path / "scan"
    scan.mkdir()
    run = {"bundle": {"sha256": bundles.read_header(bundle).sha256}}
    (scan / "run.json").write_text(json.dumps(run))
    scores = np.linspace(0.9, 0.5, 20).astype(np.float32)
    tracers = [k < 3 for k in range(20)]
    table = pa.table({"rank": range(1, 21), "score": scores, "is_tracer": tracers})
    pq.write_table(table, scan / "candidates.parquet")
    words = {"bundle": bundle, "output": str(tmp_path / "out"), "scan": str(scan)}
    plan = plan_selection(SelectionConfig(**words, inspected=5))
    assert plan.threshold == scores[7]
    assert (scores[3:] >= plan.threshold).sum() == 5
    assert "candidate 5 of" in plan.meaning
    with pytest.raises(InputError, match="lists 17 candidates"):
        plan_selection(SelectionConfig(**words, inspected=18))
    with pytest.raises(InputError, match="another bundle"):
        plan_selection(SelectionConfig(**{**words, "bundle": "eznet_hsc"}, inspected=5))


def test_arcs_on_galaxies_have_the_parameters_they_were_given(hosts):
    survey = open_hosts(hosts)
    places, statuses = find_hosts(survey, 100, seed=1)
    assert statuses["plausible"] == 12
    assert sum(len(place.rows) for place in places) == 12
    (table, *_) = read_places(survey.url, places[:1])
    rows = np.zeros(4, np.int64)
    given = {"arc_mag": np.array([20.0, 20.0, 23.0, 25.0]), "einstein_radius": np.array([1.0, 2.0, 1.0, 2.0])}
    made = designed_onto_table(table, survey, rows, np.arange(4), given, seed=1, faintest_i=23.0)
    assert made["object_id"].to_pylist() == [0, 1, 2, 3]
    assert {name: made[name].to_pylist() for name in given} == {k: v.tolist() for k, v in given.items()}
    assert len(set(made["host_id"].to_pylist())) == 1
    galaxy_images = np.stack(
        [np.asarray(image) for image in table["image"].combine_chunks().to_numpy_ndarray()]
    )
    arcs = made["image"].combine_chunks().to_numpy_ndarray() - galaxy_images[rows]
    light = arcs[:, 0].sum((1, 2)) / survey.imaging.flux(0, 0.0)
    asked = 10 ** (-0.4 * given["arc_mag"])
    assert light[:2] == pytest.approx(asked[:2], rel=0.1)
    assert light[2] == pytest.approx(asked[2], rel=0.2)
    assert set(made.column_names) >= {"measured_mag", "measured_radius", "measured_ellipticity"}


def test_what_is_measured_of_a_galaxy_is_turned_into_what_it_is():
    """Magnitude, radius and axis ratio of ellipticals whose parameters are known; isophotes lose much of their light."""
    true = [(20.5 + 0.2 * k, 0.6 + 0.1 * k, 0.7 + 0.02 * k) for k in range(10)]
    images = np.concatenate(
        [
            galaxy(seed=k, mag=(g, g - 1.5, g - 2.1), radius=radius, axis_ratio=q, index=4.0)
            for k, (g, radius, q) in enumerate(true)
        ]
    )
    measured = measured_foreground(images, measure_hosts(images, HSC_WIDE), HSC_WIDE)
    found = true_foreground(measured, HSC_WIDE, size=64, faintest_i=23.0, seed=1)
    g, radius, q = np.array(true).T
    assert np.abs(found["foreground_mag"] - g).mean() < 0.25
    assert np.abs(np.log(found["effective_radius"] / radius)).mean() < 0.35
    assert np.abs(1 - found["ellipticity"] - q).mean() < 0.08
    assert np.mean(measured["measured_mag"] - g) > 0.15


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--bundle", "nothing"], "nothing"),
        (["--ranges", "einstein_radius=0.5..9"], "0.084 to 3.23"),
        (["--ranges", "redshift=1..2"], "there is no parameter"),
        (["--threshold", "0"], "--threshold is 0"),
        (["--threshold", "1.5"], "--threshold is 1.5"),
        (["--threshold", "0.5", "--scan", "somewhere"], "give one of them"),
        (["--scan", "nowhere"], "no finished scan"),
        (["--count", "10"], "at least 100"),
        (["--seed", "-1"], "--seed is -1"),
        (["--inspected", "10"], "give --scan"),
        (["--faintest-host", "22"], "give --onto"),
        (["--survey", "sdss"], "there is no survey named"),
        (["--survey", "euclid"], "of euclid only VIS"),
        (["--zero-point", "27"], "give --onto"),
        (["--onto", "nowhere"], "nowhere"),
        (["--bundle", "euclid_efficientnet"], "two instruments"),
        (["--bundle", "deeplens_lsst"], "cannot be simulated"),
    ],
)
def test_wrong_words_are_refused(run_job, tmp_path, words, said):
    code, lines = run_job(JOB, "--output", tmp_path / "out", *words)
    assert code == 2, lines
    assert len(lines) == 1
    assert said in lines[0]
    assert not (tmp_path / "out").exists()


def test_galaxies_that_are_no_hosts_and_stretched_pixels_are_refused(run_job, tmp_path, bundle):
    toy = surveys.toy_survey(tmp_path / "toy", 8, files=1, size=64)
    code, lines = run_job(JOB, "--output", tmp_path / "out", "--bundle", bundle, "--onto", toy)
    assert (code, len(lines)) == (2, 1)
    assert "not known" in lines[0]
