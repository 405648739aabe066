"""``simulate_survey.py --onto``: on a real local Ray, stopped and taken up again; and wrong words, answered in one line."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import surveys
from galaxies import ellipticals, galaxy, write

from lensray import cutouts
from lensray.distributed import simulate
from lensray.distributed.simulation_plan import SimulateConfig
from lensray.errors import InputError
from lensray.simulation.onto_survey import injected_survey
from lensray.survey_imaging import open_hosts

JOB = Path(__file__).parent.parent / "jobs" / "simulate_survey.py"


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    """Elliptical galaxies of many magnitudes, half of them with too little light in the middle for a lens."""
    return write(tmp_path_factory.mktemp("hosts") / "s", ellipticals(40), files=4)


def parts_of(folder):
    return {path.name: path.read_bytes() for path in sorted(Path(folder).glob("part-*.parquet"))}


@pytest.mark.slow
def test_arcs_are_painted_on_ray_and_a_stopped_run_goes_on(local_ray, tmp_path, survey, monkeypatch):
    monkeypatch.setattr(simulate, "PART_BYTES", 8 * 3 * 64 * 64 * 4)
    words = {"onto": survey, "count": 24, "lenses": 8, "seed": 2, "output": str(tmp_path / "out")}
    config = SimulateConfig(**words)
    assert simulate.simulate_survey(config) == config.output
    written = parts_of(config.output)
    assert len(written) >= 3
    table = pa.concat_tables([pq.read_table(Path(config.output) / name) for name in written])
    assert table.num_rows == 24
    expected = pa.concat_tables(injected_survey(open_hosts(survey), count=24, lenses=8, seed=2))
    assert table["object_id"].to_pylist() == expected["object_id"].to_pylist()
    images, _ = cutouts.images_of(table, cutouts.read_format(table.schema))
    assert images == pytest.approx(
        cutouts.images_of(expected, cutouts.read_format(expected.schema))[0], abs=1e-3
    )
    said = simulate.describe_injection(config)
    assert said.startswith("8 arcs on ")
    assert "AUROC of at most" in said

    kept, lost, *_ = written
    before = (Path(config.output) / kept).stat().st_mtime_ns
    (Path(config.output) / lost).unlink()
    simulate.simulate_survey(config)
    assert parts_of(config.output) == written
    assert (Path(config.output) / kept).stat().st_mtime_ns == before
    with pytest.raises(InputError, match="holds another simulation"):
        simulate.simulate_survey(SimulateConfig(**{**words, "lenses": 9}))


@pytest.fixture
def run(run_job, tmp_path):
    """Run the job in this process with an --output; it must be refused in one line, and write nothing."""

    def run(*words):
        output = tmp_path / "out"
        code, lines = run_job(JOB.name, "--output", output, *words)
        assert code == 2, lines
        assert not output.exists()
        return lines

    return run


def test_wrong_words_are_refused(run, survey, tmp_path):
    for words, said in (
        (("--onto", tmp_path / "none"), "does not exist"),
        (("--onto", survey, "--count", 10, "--lenses", 11), "--lenses 11"),
        (("--onto", survey, "--zero-point", 27.0, 27.0), "--zero-point must be a number for each"),
        (("--onto", survey, "--psf-fwhm", 0.7, 0.0, 0.7), "--psf-fwhm is 0.0"),
        (("--onto", survey, "--survey", "cosmos_acs"), "of cosmos_acs only F814W are known"),
        (("--onto", survey, "--survey", "sdss"), "no survey named 'sdss'"),
        (("--zero-point", 27.0, "--count", 10, "--lenses", 1), "give --onto"),
        (("--onto", survey, "--output", Path(survey) / "inside"), "choose another folder"),
    ):
        (line,) = run(*words)
        assert said in line, line


def test_images_that_nothing_can_be_painted_onto_are_refused(run, tmp_path):
    stretched = surveys.toy_survey(tmp_path / "bytes", 10, files=1, dtype="uint8")
    (line,) = run("--onto", stretched, "--survey", "hsc_wide")
    assert "the pixels are uint8: they have been stretched" in line
    unknown = surveys.toy_survey(tmp_path / "toy", 10, files=1)
    (line,) = run("--onto", unknown)
    assert "'toy', which is not known; say with --survey" in line
    assert "hsc_wide" in line


def test_surveys_without_enough_cutouts_are_refused(run, tmp_path, survey):
    empty = write(
        tmp_path / "sky", np.random.default_rng(0).normal(0, 0.02, (6, 3, 64, 64)).astype(np.float32)
    )
    *_, line = run("--onto", empty, "--count", 6, "--lenses", 2)
    assert "has no plausible deflector (" in line
    assert "no_object" in line
    *_, line = run("--onto", survey, "--count", 100, "--lenses", 10)
    assert "90 are wanted as non-lenses; lower --count" in line
    known = write(tmp_path / "known", galaxy(), label=pa.array([True]))
    *_, line = run("--onto", known, "--count", 1, "--lenses", 1)
    assert "no plausible deflector" in line
