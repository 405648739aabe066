"""The recipes at their smallest, without a cluster: from nothing to a bundle and a report, and not a step twice."""

from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lensray import bundle as bundles
from lensray import recipes
from lensray.errors import InputError
from lensray.io import storage
from lensray.models.eznet import THESIS_BLOCKS
from lensray.normalization import Arcsinh
from lensray.recipes import eznet_hsc
from lensray.recipes.outcome import run_recipe
from lensray.training import plain
from lensray.training.plain import PlainWorkbench
from lensray.training.schedules import OneCycle
from lensray.training.sets import rows_of

SMALLER = {"euclid_efficientnet": {"objects": 40, "members": 1}}
"""Words that make the largest of the smoke runs shorter."""
SLOW = ("lensflow_cosmos", "deeplens_lsst", "euclid_efficientnet")


class Bench(PlainWorkbench):
    """A plain workbench that remembers which phases it trained."""

    trained: tuple[str, ...] = ()

    def run(self, job):
        """Train, and remember."""
        self.trained = (*self.trained, job.phase.name)
        super().run(job)


def config_of(name, folder, **words):
    return recipes.load(name).Config(output=str(folder), scale="smoke", **words)


def work_through(name, config, kind=Bench):
    """Result and workbench of a run."""
    bench = kind(config.output, name, config.settings())
    return run_recipe(recipes.load(name), config, bench), bench


@pytest.fixture
def scanned(monkeypatch):
    """The folders that were scanned, as long as the test goes."""
    folders = []
    scan = plain.scan
    monkeypatch.setattr(
        plain,
        "scan",
        lambda survey, bundle, url, **words: folders.append(url) or scan(survey, bundle, url, **words),
    )
    return folders


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in recipes.NAMES]
)
def test_a_recipe_ends_with_bundle_and_report_and_takes_no_step_twice(name, tmp_path, scanned):
    config = config_of(name, tmp_path / "run", **SMALLER.get(name, {}))
    result, bench = work_through(name, config)
    assert bench.trained == tuple(result.outcome.phases)
    made = {
        phase: bundles.read_header(f"{bench.folder(phase)}/bundle.safetensors") for phase in bench.trained
    }
    assert all(header.provenance["recipe"] == name for header in made.values())
    final = bundles.load(result.outcome.bundle)
    assert final.sha256 in {header.sha256 for header in made.values()}
    assert final.model() is not None
    report = storage.read_bytes(result.report).decode()
    assert result.report == str(tmp_path / "run" / "report.html")
    for phase, scan in result.outcome.phases.items():
        assert phase in report
        assert scan is None or scan in scanned
    assert result.summary().splitlines()[-2:] == [
        f"bundle: {result.outcome.bundle}",
        f"report: {result.report}",
    ]

    scanned.clear()
    again, bench = work_through(name, config)
    assert (bench.trained, scanned) == ((), [])
    assert {
        phase: bundles.read_header(f"{bench.folder(phase)}/bundle.safetensors").sha256 for phase in made
    } == {phase: header.sha256 for phase, header in made.items()}
    assert again.lines == result.lines


def test_a_folder_with_a_run_of_other_words_is_refused_and_left_as_it_is(tmp_path):
    config = config_of("eznet_hsc", tmp_path / "run")
    work_through("eznet_hsc", config)
    before = sorted(path for path in (tmp_path / "run").rglob("*"))
    with pytest.raises(InputError, match="other seed"):
        work_through("eznet_hsc", replace(config, seed=2))
    with pytest.raises(InputError, match="a run of eznet_hsc, not of lsst_cnn"):
        work_through("lsst_cnn", config_of("lsst_cnn", tmp_path / "run"))
    assert sorted(path for path in (tmp_path / "run").rglob("*")) == before


def survey(folder, count, lenses, seed=9):
    """A simulated HSC survey of the user's own."""
    bench = PlainWorkbench(str(folder))
    return bench.simulate("survey", survey="hsc_wide", count=count, lenses=lenses, seed=seed, size=64)


def test_negatives_join_the_training_set_as_non_lenses_and_real_images_are_reported(tmp_path):
    negatives, real = survey(tmp_path / "n", 12, 3), survey(tmp_path / "r", 30, 10, seed=8)
    config = config_of("eznet_hsc", tmp_path / "run", negatives=(negatives,), real=real)
    result, bench = work_through("eznet_hsc", config)
    data = bundles.read_header(result.outcome.bundle).provenance["data"]["training"]
    assert [part["rows"] for part in data] == [8, 24, 12]
    assert not any(pq.read_table(bench.folder("negatives_0"))["label"].to_pylist())
    (line,) = [line for line in result.lines if "AUROC error" in line]
    assert "auroc" in line
    assert "real" in storage.read_bytes(result.report).decode()


def test_real_images_without_labels_are_refused_before_anything_is_made(tmp_path):
    unlabelled = survey(tmp_path / "n", 6, 2)
    (path,) = (tmp_path / "n" / "survey").glob("*.parquet")
    pq.write_table(pq.read_table(path).drop_columns(["label"]), path)
    config = config_of("eznet_hsc", tmp_path / "run", real=unlabelled)
    with pytest.raises(InputError, match="no bool column 'label'"):
        work_through("eznet_hsc", config)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("words", [{"real": None}, {"negatives": ()}, {"cutouts": None}])
def test_surveys_without_the_networks_bands_are_refused_before_anything_is_made(tmp_path, words):
    own = survey(tmp_path / "own", 6, 2)
    given = {name: own if value is None else (own,) for name, value in words.items()}
    config = config_of("lensflow_cosmos", tmp_path / "run", **given)
    with pytest.raises(InputError, match="has the bands g, r, i, but the recipe's network takes F814W"):
        work_through("lensflow_cosmos", config)
    assert not (tmp_path / "run").exists()


def test_an_output_within_the_users_survey_is_refused(tmp_path):
    own = survey(tmp_path / "own", 6, 2)
    with pytest.raises(InputError, match="lies in the survey"):
        work_through("eznet_hsc", config_of("eznet_hsc", f"{own}/run", cutouts=own))
    assert not (tmp_path / "own" / "survey" / "run").exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("eznet_hsc", {"lenses": 0}),
        ("eznet_hsc", {"learning_rate": -1.0}),
        ("lensflow_cosmos", {"lenses": -3}),
        ("lsst_cnn", {"epochs": 0}),
    ],
)
def test_sizes_that_are_not_positive_are_refused(tmp_path, name, words):
    with pytest.raises(InputError, match=r"must be positive|at least one"):
        config_of(name, tmp_path, **words)


def test_the_users_own_survey_gives_hosts_and_negatives_and_is_ranked(tmp_path):
    own = survey(tmp_path / "own", 150, 0)
    config = config_of("eznet_hsc", tmp_path / "run", cutouts=own)
    result, bench = work_through("eznet_hsc", config)
    assert all(pq.read_table(bench.folder("lenses"))["label"].to_pylist())
    assert not any(pq.read_table(bench.folder("non_lenses"))["label"].to_pylist())
    assert 0 < sum(pq.read_table(bench.folder("validation"))["label"].to_pylist()) < 40
    ranked = pq.read_table(f"{result.outcome.phases['mine']}/candidates.parquet")
    assert set(ranked["object_id"].to_pylist()) == set(range(150))


def pictures(folder, count=16):
    """A folder of airplanes (dark) and automobiles (bright), as CIFAR-10's pictures come."""
    generator = np.random.default_rng(0)
    for split in ("train", "test"):
        for name, level in (("airplane", 60), ("automobile", 180)):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = generator.normal(level, 30, (32, 32, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{number:04d}.png")
    return str(folder)


@pytest.mark.slow
def test_lensflow_begins_with_airplanes_and_automobiles_where_they_are_given(tmp_path):
    config = config_of("lensflow_cosmos", tmp_path / "run", cifar=pictures(tmp_path / "cifar"))
    result, bench = work_through("lensflow_cosmos", config)
    assert bench.trained == ("phase_0", "phase_1", "phase_2", "bootstrap", "phase_3")
    zeroth, first = (bundles.load(f"{bench.folder(name)}/bundle.safetensors") for name in bench.trained[:2])
    assert zeroth.classes == ("airplane", "automobile")
    assert first.classes == ("non-lens", "lens")
    assert first.provenance["description"]["start"] == zeroth.sha256
    assert bench.history("phase_0")[-1]["auroc"] is not None
    assert list(result.outcome.phases) == list(bench.trained)


class NothingSurvives(Bench):
    """A workbench whose rankings are empty."""

    def scan(self, name, *, cutouts, bundle, top=2000, resample=False):
        """Rank, and lose all candidates."""
        url = super().scan(name, cutouts=cutouts, bundle=bundle, top=top, resample=resample)
        candidates = storage.join(url, "candidates.parquet")
        pq.write_table(pq.read_table(candidates).slice(0, 0), candidates)
        return url


def test_a_phase_that_gets_no_survivors_says_so(tmp_path):
    with pytest.raises(InputError, match=r"ranking_1 has no candidate: nothing survives"):
        work_through("lensflow_cosmos", config_of("lensflow_cosmos", tmp_path / "run"), NothingSurvives)
    assert rows_of(str(tmp_path / "run" / "survey")) == 60
    assert (tmp_path / "run" / "phase_1" / "bundle.safetensors").exists()


def test_fewer_lenses_than_half_a_batch_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"3 images with label true are fewer than the 4 of one batch"):
        work_through("eznet_hsc", config_of("eznet_hsc", tmp_path / "run", lenses=3))


def test_eznets_tuned_settings_are_those_of_the_search(tmp_path):
    """The values that trial had, by the phase's own fields."""
    thesis, tuned = (
        eznet_hsc.phase(eznet_hsc.Config(output=str(tmp_path), tuned=tuned)) for tuned in (False, True)
    )
    assert (thesis.batch_size, tuned.batch_size) == (64, 128)
    assert isinstance(tuned.normalization, Arcsinh)
    assert isinstance(tuned.schedule, OneCycle)
    assert tuned.arguments["branching_rate"] == 3
    assert len(tuned.arguments["blocks"]) <= len(THESIS_BLOCKS)
    assert (tuned.augmentation.max_zoom, tuned.augmentation.max_shift, tuned.smoothing) == (1.69, 6, 0.0715)
    assert (tuned.epochs, tuned.repeats, tuned.averaging) == (thesis.epochs, thesis.repeats, thesis.averaging)
    work_through("eznet_hsc", config_of("eznet_hsc", tmp_path / "run", tuned=True))
    with pytest.raises(InputError, match="leave --learning-rate out"):
        eznet_hsc.Config(output="x", tuned=True, learning_rate=0.1)
    with pytest.raises(InputError, match="leave --optimizer out"):
        eznet_hsc.Config(output="x", tuned=True, optimizer="adamw")
