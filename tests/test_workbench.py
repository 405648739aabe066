"""A recipe's folder: every step is done once, goes on where it stopped, and never mixes with another's; on disk and S3."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rings

from lensray import bundle as bundles
from lensray.errors import InputError
from lensray.io import storage
from lensray.training import plain, workbench
from lensray.training.plain import PlainWorkbench
from lensray.training.sets import row_groups, rows_of, top_of

SETTINGS = {"scale": "smoke", "seed": 3}


class Bench(PlainWorkbench):
    """A plain workbench that remembers which phases it trained."""

    def __init__(self, output, **settings):
        super().__init__(output, "rings", settings or SETTINGS)
        self.trained = []

    def run(self, job):
        """Train, and remember."""
        self.trained.append(job.phase.name)
        super().run(job)


class Tables:
    """Gives the cutouts of a toy survey as one table; counts how often it was asked."""

    def __init__(self, folder):
        self.folder, self.asked = folder, 0

    def __call__(self, count=64, seed=1):
        self.asked += 1
        yield pq.read_table(rings.survey(self.folder / f"made_{count}_{seed}", count, seed))


@pytest.fixture
def tables(tmp_path):
    return Tables(tmp_path)


def training_set(bench, tables, name="set", seed=1):
    return bench.dataset(name, lambda: tables(seed=seed), {"seed": seed})


def names_in(url):
    return sorted(entry.path.rsplit("/", 1)[-1] for entry in storage.find_files(url, suffix=""))


def test_a_dataset_is_made_once(any_url, tables):
    url = training_set(Bench(any_url), tables)
    assert rows_of(url) == 64
    before = names_in(url)
    assert training_set(Bench(any_url), tables) == url
    assert tables.asked == 1
    assert names_in(url) == before
    (expected,) = tables()
    assert pa.concat_tables(row_groups(url)).equals(expected)


def test_a_dataset_of_other_words_is_refused(any_url, tables):
    training_set(Bench(any_url), tables)
    with pytest.raises(InputError, match="choose another --output"):
        training_set(Bench(any_url), tables, seed=2)


def test_a_half_made_dataset_is_replaced(any_url, tables):
    bench = Bench(any_url)
    storage.write_bytes(storage.join(bench.folder("set"), "part-00099.parquet"), b"half of a file")
    url = training_set(bench, tables)
    assert rows_of(url) == 64
    assert "part-00099.parquet" not in names_in(url)


def test_a_dataset_whose_making_was_stopped_is_made_anew(any_url, tables):
    def stopped():
        yield next(tables())
        raise KeyboardInterrupt

    bench = Bench(any_url)
    with pytest.raises(KeyboardInterrupt):
        bench.dataset("set", stopped, {"seed": 1})
    assert rows_of(training_set(bench, tables)) == 64


def test_a_dataset_without_a_cutout_is_refused(any_url):
    with pytest.raises(InputError, match="no cutout for set"):
        Bench(any_url).dataset("set", lambda: iter([]), {})
    assert not storage.exists(storage.join(any_url, "set"))


def test_a_folder_belongs_to_one_recipe_and_its_words(any_url):
    workbench.claim(any_url, "rings", SETTINGS)
    workbench.claim(any_url, "rings", dict(SETTINGS))
    with pytest.raises(InputError, match=r"a run of rings with other seed; choose another --output"):
        workbench.claim(any_url, "rings", {**SETTINGS, "seed": 4})
    with pytest.raises(InputError, match="a run of rings"):
        workbench.claim(any_url, "blobs", SETTINGS)


def test_a_folder_with_other_files_is_left_alone(any_url, tables):
    url = training_set(Bench(any_url), tables)
    with pytest.raises(InputError, match=r"and no run of this command; choose an empty or a new --output"):
        workbench.claim(any_url, "rings", SETTINGS)
    assert storage.exists(url)


def test_a_folder_is_given_back_as_long_as_nothing_was_made_in_it(any_url, tables):
    workbench.claim(any_url, "rings", SETTINGS)
    workbench.disclaim(any_url)
    workbench.claim(any_url, "blobs", {})
    training_set(Bench(any_url), tables)
    workbench.disclaim(any_url)
    with pytest.raises(InputError, match="a run of blobs"):
        workbench.claim(any_url, "rings", SETTINGS)


def test_a_phase_is_trained_once_and_again_when_its_data_or_its_words_change(any_url, tables):
    bench = Bench(any_url)
    first, other = training_set(bench, tables), training_set(bench, tables, "other", seed=2)
    url = bench.train(rings.phase(epochs=1), training=[first])
    found = bundles.read_header(url).sha256
    again = Bench(any_url)
    assert again.train(rings.phase(epochs=1), training=[first]) == url
    assert again.trained == []
    assert bundles.read_header(url).sha256 == found
    again.train(rings.phase(epochs=1), training=[first, other])
    assert again.trained == ["rings"]
    assert bundles.read_header(url).sha256 != found
    again.train(rings.phase(epochs=2), training=[first, other])
    assert again.trained == ["rings", "rings"]
    assert [row["epoch"] for row in again.history("rings")] == [1, 2]


def test_a_phase_is_trained_again_when_the_bundle_that_it_starts_from_changed(any_url, tables):
    bench = Bench(any_url)
    data = training_set(bench, tables)
    second = rings.phase(name="second", epochs=1, start=bench.folder("rings") + "/bundle.safetensors")
    for seed in (1, 2):
        bench.train(rings.phase(epochs=1, seed=seed), training=[data])
        bench.train(second, training=[data])
        bench.train(second, training=[data])
    assert bench.trained == ["rings", "second"] * 2


def test_a_stopped_phase_goes_on_after_its_last_epoch(any_url, tables, monkeypatch):
    class Stopped(plain.told):
        def __call__(self, progress):
            if progress.history is not None and len(progress.history) == 2:
                raise KeyboardInterrupt

    phase = rings.phase(epochs=3)
    with monkeypatch.context() as stopping:
        stopping.setattr(plain, "told", Stopped)
        with pytest.raises(KeyboardInterrupt):
            Bench(any_url).train(phase, training=[training_set(Bench(any_url), tables)])
    shown = []
    watched = plain.told.__call__
    monkeypatch.setattr(plain.told, "__call__", lambda self, told: shown.append(told) or watched(self, told))
    bench = Bench(any_url)
    bench.train(phase, training=[training_set(bench, tables)])
    assert [len(told.history) for told in shown if told.history] == [3]
    assert sum(row["steps"] for row in bench.history("rings")) == 3 * bench.history("rings")[0]["steps"]


def test_a_bundle_says_where_it_comes_from(any_url, tables):
    bench = Bench(any_url)
    training, validation = training_set(bench, tables), training_set(bench, tables, "other", seed=2)
    phase = rings.phase(epochs=2)
    said = bundles.read_header(bench.train(phase, training=[training], validation=[validation])).provenance
    assert (said["recipe"], said["phase"], said["settings"]) == ("rings", "rings", SETTINGS)
    assert said["data"]["training"] == [workbench.identity(training)]
    assert said["data"]["validation"] == [workbench.identity(validation)]
    assert said["data"]["training"][0]["rows"] == 64
    assert len(said["data"]["training"][0]["sha256"]) == 64
    assert said["description"]["optimizer"]["learning_rate"] == phase.optimizer.learning_rate
    assert said["metrics"] == max(bench.history("rings"), key=lambda row: row["ranking_performance"])
    assert said["left_out"] == {"training": {}, "validation": {}}
    assert (said["device"], said["workers"]) == ("cpu", 1)
    assert {"lensray", "python", "torch", "numpy", "ray"} <= set(said["versions"])
    assert said["command"] == bench.command
    assert said["calibration"]["method"] == "platt"
    assert said["calibration"]["n_lenses"] + said["calibration"]["n_non_lenses"] == 64
    assert "after" in said["calibration"]["brier_score"]


def test_a_surveys_identity_is_its_content(any_url, tables, tmp_path):
    bench = Bench(any_url)
    one, other = training_set(bench, tables), training_set(bench, tables, "other", seed=2)
    assert workbench.identity(one) == workbench.identity(one)
    assert workbench.identity(one) != workbench.identity(other)
    copied = bench.dataset("copied", lambda: tables(), {})
    assert workbench.identity(one) == workbench.identity(copied)


def test_training_curves_are_written_for_tensorboard(any_url, tables):
    bench = Bench(any_url)
    bench.train(rings.phase(epochs=1), training=[training_set(bench, tables)])
    assert any("tfevents" in name for name in names_in(storage.join(any_url, "tensorboard")))


def test_a_training_set_without_both_classes_is_refused_before_anything_is_written(any_url, tables):
    bench = Bench(any_url)

    def lenses():
        (table,) = tables()
        yield table.filter(table["label"])

    data = bench.dataset("lenses", lenses, {})
    with pytest.raises(InputError, match="label true and false"):
        bench.train(rings.phase(), training=[data])
    assert not storage.exists(bench.folder("rings"))


def test_a_start_of_another_architecture_is_refused_and_leaves_no_bundle(any_url, tables):
    bench = Bench(any_url)
    other = rings.phase(architecture="lensflow", arguments={"in_channels": 1}, start="eznet_hsc")
    with pytest.raises(InputError, match="phase rings trains 'lensflow' but eznet_hsc holds 'eznet'"):
        bench.train(other, training=[training_set(bench, tables)])
    assert not storage.exists(bench.folder("rings") + "/bundle.safetensors")


def test_a_survey_is_ranked_once_and_again_by_another_bundle(any_url, tables):
    bench = Bench(any_url)
    survey = training_set(bench, tables)
    first = bench.train(rings.phase(epochs=1), training=[survey])
    run = bench.scan("ranking", cutouts=survey, bundle=first, top=10)
    assert top_of(run, 100).num_rows == 10
    assert json.loads(storage.read_bytes(storage.join(run, "metrics.json")))["n_scored"] == 64
    storage.write_bytes(storage.join(run, "metrics.json"), b"{}")
    bench.scan("ranking", cutouts=survey, bundle=first, top=10)
    assert storage.read_bytes(storage.join(run, "metrics.json")) == b"{}"
    other = bench.train(rings.phase(name="other", epochs=1, seed=5), training=[survey])
    bench.scan("ranking", cutouts=survey, bundle=other, top=10)
    assert json.loads(storage.read_bytes(storage.join(run, "metrics.json")))["n_scored"] == 64
