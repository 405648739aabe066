"""The scan on a real local Ray: every row once, and nothing lost, whatever dies."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
import surveys
from ray.cluster_utils import Cluster

from lensray.distributed import passes, planning, scan, stages
from lensray.distributed.ledger import Ledger
from lensray.distributed.planning import ScanConfig, plan_scan
from lensray.errors import LensRayError
from lensray.scoring import Scorer

JOB = Path(__file__).parent.parent / "jobs" / "scan_survey.py"


@pytest.fixture
def toy_bundle(tmp_path):
    return surveys.toy_bundle(tmp_path / "toy.safetensors")


@pytest.fixture(autouse=True)
def small_fragments(monkeypatch):
    """Toy surveys are small; cut them into many fragments, and these into many chunks, all the same."""
    monkeypatch.setattr(planning, "MIN_FRAGMENT_BYTES", 1 << 18)
    monkeypatch.setattr(passes, "CHUNK", 4)


def run_scan(**words):
    return scan.scan(plan_scan(ScanConfig(**words)))


def oracle(survey, bundle):
    """The obvious way: read everything, score it in one go."""
    scorer = Scorer(bundle)
    table = pa.concat_tables(pq.read_table(path) for path in sorted(Path(survey).glob("*.parquet")))
    table = table.combine_chunks().append_column("status", pa.array(["ok"] * table.num_rows))
    return scorer(table.select(["object_id", "ra", "dec", "image", "status"]))


def test_every_row_is_scored_once_as_by_the_bare_scorer(local_ray, tmp_path, toy_bundle):
    survey = surveys.toy_survey(tmp_path / "survey", 200)
    result = run_scan(
        cutouts=survey, bundle=toy_bundle, output=str(tmp_path / "out"), keep=("mag_i",), top=20
    )
    scores = surveys.scores_of(tmp_path / "out")
    assert scores.column_names[:5] == ["object_id", "ra", "dec", "score", "status"]
    assert "mag_i" in scores.column_names
    assert scores["score"].type == pa.float32()
    assert scores["object_id"].to_pylist() == list(range(200))
    np.testing.assert_allclose(
        scores["score"].to_numpy(), oracle(survey, toy_bundle)["score"].to_numpy(), rtol=0, atol=1e-6
    )
    assert result.run["rows"] == result.run["rows_scored"] == 200


def test_outputs_of_a_scan_agree_with_its_scores(local_ray, tmp_path, toy_bundle):
    survey = surveys.toy_survey(tmp_path / "survey", 200)
    run_scan(cutouts=survey, bundle=toy_bundle, output=str(tmp_path / "out"), keep=("mag_i",), top=20)
    scores = surveys.scores_of(tmp_path / "out").to_pandas()
    best = scores.sort_values("score", ascending=False, kind="stable").head(20)
    candidates = pq.read_table(tmp_path / "out" / "candidates.parquet")
    assert candidates["rank"].to_pylist() == list(range(1, 21))
    assert candidates["object_id"].to_pylist() == best["object_id"].tolist()
    assert candidates["ordinality"][0].as_py() == 1.0
    stored = pa.concat_tables(pq.read_table(path) for path in sorted(Path(survey).glob("*.parquet")))
    images = stored["image"].combine_chunks().to_numpy_ndarray()
    np.testing.assert_array_equal(
        candidates["image"].combine_chunks().to_numpy_ndarray(), images[best["object_id"].to_numpy()]
    )
    lines = (tmp_path / "out" / "candidates.csv").read_text().splitlines()
    assert lines[0].startswith("rank,ordinality,object_id,ra,dec,score")
    assert len(lines) == 21
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["n_tracers"] == 5
    assert metrics["n_scored"] == 200
    ranks = scores["score"].rank(ascending=False)[:5]
    assert metrics["efficiency"] == pytest.approx(2 * np.mean(1 - ranks / 200) - 1, abs=0.02)
    report = (tmp_path / "out" / "report.html").read_text()
    assert "data:image/png;base64" in report
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert run["rows"] == 200
    assert run["bundle"]["sha256"]
    assert "torch" in run["versions"]


def test_rows_that_cannot_be_scored_get_a_status_and_the_scan_goes_on(local_ray, tmp_path, toy_bundle):
    images = surveys.toy_images(12)
    images[1] = np.nan
    images[2, 0, :3] = np.nan
    images[3, 1, 5, 5] = np.inf
    images[4] = 7.0
    images[5, :, :8] = 100.0
    images[6, 2] = images[6, 1]
    fmt = surveys.cutout_format()
    ids = np.arange(12)
    ids[9] = 0
    table = surveys.cutouts.make_table(fmt, ids, images)
    null = pa.array([i != 7 for i in range(12)])
    tensors = table["image"].combine_chunks()
    with_null = pa.ExtensionArray.from_storage(tensors.type, pa.compute.if_else(null, tensors.storage, None))
    table = table.set_column(3, table.field("image"), with_null)
    (tmp_path / "survey").mkdir()
    pq.write_table(table, tmp_path / "survey" / "a.parquet")
    result = run_scan(cutouts=str(tmp_path / "survey"), bundle=toy_bundle, output=str(tmp_path / "out"))
    scores = surveys.scores_of(tmp_path / "out")
    assert scores["status"].to_pylist() == [
        *("ok", "nan", "nan", "infinite", "constant", "masked", "duplicate_bands", "null_image", "ok"),
        *("duplicate_object_id", "ok", "ok"),
    ]
    for score, status in zip(scores["score"].to_pylist(), scores["status"].to_pylist(), strict=True):
        assert (score is None) == (status != "ok")
    assert result.run["rows_scored"] == 4
    assert sum(result.run["invalid"].values()) == 8


def test_partly_nan_images_are_filled_where_the_bundle_allows_it(local_ray, tmp_path):
    bundle = surveys.toy_bundle(tmp_path / "b.safetensors", max_nan_fraction=0.05)
    images = surveys.toy_images(3)
    images[1, 0, :2] = np.nan
    images[2, 0] = np.nan
    (tmp_path / "survey").mkdir()
    table = surveys.cutouts.make_table(surveys.cutout_format(), np.arange(3), images)
    pq.write_table(table, tmp_path / "survey" / "a.parquet")
    run_scan(cutouts=str(tmp_path / "survey"), bundle=bundle, output=str(tmp_path / "out"))
    scores = surveys.scores_of(tmp_path / "out")
    assert scores["status"].to_pylist() == ["ok", "filled_nan", "nan"]
    assert scores["score"].null_count == 1


def test_damaged_file_costs_its_own_rows_alone(local_ray, tmp_path, toy_bundle):
    survey = surveys.toy_survey(tmp_path / "survey", 150)
    path = Path(survey, "part-00001.parquet")
    data = bytearray(path.read_bytes())
    column = pq.read_metadata(path).row_group(0).column(3)
    start = column.data_page_offset
    data[start : start + 2000] = b"\xff" * 2000
    path.write_bytes(data)
    result = run_scan(cutouts=survey, bundle=toy_bundle, output=str(tmp_path / "out"))
    scores = surveys.scores_of(tmp_path / "out")
    assert scores["object_id"].to_pylist() == list(range(150))
    assert 0 < result.run["invalid"]["unreadable"] <= 50
    assert result.run["rows_scored"] == 150 - result.run["invalid"]["unreadable"]


def test_other_words_into_the_same_folder_are_refused(local_ray, tmp_path, toy_bundle):
    survey = surveys.toy_survey(tmp_path / "survey", 60)
    run_scan(cutouts=survey, bundle=toy_bundle, output=str(tmp_path / "out"))
    other = surveys.toy_bundle(tmp_path / "other.safetensors", seed=1)
    with pytest.raises(ValueError, match=r"another scan.*bundle differ"):
        run_scan(cutouts=survey, bundle=other, output=str(tmp_path / "out"))
    surveys.toy_survey(tmp_path / "survey", 61)
    with pytest.raises(ValueError, match=r"another scan.*input differ"):
        run_scan(cutouts=survey, bundle=toy_bundle, output=str(tmp_path / "out"))


def test_a_finished_scan_is_not_scored_again_but_ranked_again(local_ray, tmp_path, toy_bundle):
    survey = surveys.toy_survey(tmp_path / "survey", 100)
    words = {"cutouts": survey, "bundle": toy_bundle, "output": str(tmp_path / "out")}
    run_scan(**words, top=5)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out" / "scores").iterdir()}
    run_scan(**words, top=7)
    assert before == {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out" / "scores").iterdir()}
    assert pq.read_table(tmp_path / "out" / "candidates.parquet").num_rows == 7


def test_a_fragment_without_marker_is_scored_again_to_the_same_bytes(local_ray, tmp_path, toy_bundle):
    survey = surveys.toy_survey(tmp_path / "survey", 200)
    words = {"cutouts": survey, "bundle": toy_bundle, "output": str(tmp_path / "out")}
    run_scan(**words)
    parts = {path.name: path.read_bytes() for path in sorted((tmp_path / "out" / "scores").iterdir())}
    assert len(parts) > 3
    markers = sorted((tmp_path / "out" / "ledger" / "done").iterdir())
    markers[0].unlink()
    markers[2].unlink()
    (tmp_path / "out" / "scores" / "part-00000002.parquet").write_bytes(b"half a file")
    run_scan(**words)
    assert parts == {path.name: path.read_bytes() for path in sorted((tmp_path / "out" / "scores").iterdir())}


class DeadlyScore(stages.ScoreFragment):
    """Dies, with its process, on fragment 2."""

    def __call__(self, table):
        fragment = table[stages.FRAGMENT][0].as_py()
        if fragment == 2:
            self.attempts.begin("score", fragment)
            if self.attempts.begin("deaths", 0) <= stages.MAX_ATTEMPTS:
                os._exit(1)
        return super().__call__(table)


@pytest.mark.slow
def test_fragment_that_kills_its_actor_is_given_up_after_three_deaths(
    local_ray, tmp_path, toy_bundle, monkeypatch
):
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr(scan, "ScoreFragment", DeadlyScore)
    survey = surveys.toy_survey(tmp_path / "survey", 200)
    result = run_scan(cutouts=survey, bundle=toy_bundle, output=str(tmp_path / "out"))
    scores = surveys.scores_of(tmp_path / "out")
    assert scores["object_id"].to_pylist() == list(range(200))
    failed = Ledger(str(tmp_path / "out")).fragments().to_pylist()[2]["rows"]
    assert result.run["invalid"] == {"failed": failed}


class FailingScore(stages.ScoreFragment):
    """Raises on fragment 1, as long as there is something to score in it."""

    def __call__(self, table):
        if table[stages.FRAGMENT][0].as_py() == 1 and "ok" in table["status"].to_pylist():
            score = self.scorer
            self.scorer = lambda cutouts: raise_or(score, cutouts)
        return super().__call__(table)


def raise_or(score, table):
    if "ok" in table["status"].to_pylist():
        raise RuntimeError("the network fails")
    return score(table)


def test_fragment_whose_scoring_raises_gets_a_status_and_another_try_the_next_time(
    local_ray, tmp_path, toy_bundle, monkeypatch
):
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    survey = surveys.toy_survey(tmp_path / "survey", 100, files=1)
    words = {"cutouts": survey, "bundle": toy_bundle, "output": str(tmp_path / "out"), "workers": 1}
    with monkeypatch.context() as patch:
        patch.setattr(scan, "ScoreFragment", FailingScore)
        result = run_scan(**words)
    failed = Ledger(str(tmp_path / "out")).fragments().to_pylist()[1]["rows"]
    assert result.run["invalid"] == {"failed": failed}
    assert "tries the failed and unreadable rows again" in result.summary()
    again = run_scan(**words)
    assert again.run["rows_this_run"] == failed
    assert again.run["invalid"] == {}
    assert not list((tmp_path / "out" / "ledger" / "retry").iterdir())


class HopelessScore(stages.ScoreFragment):
    """Raises on everything."""

    def __call__(self, table):
        score = self.scorer
        self.scorer = lambda cutouts: raise_or(score, cutouts)
        return super().__call__(table)


@pytest.mark.slow
def test_network_that_fails_on_everything_ends_the_scan(local_ray, tmp_path, toy_bundle, monkeypatch):
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr(scan, "ScoreFragment", HopelessScore)
    survey = surveys.toy_survey(tmp_path / "survey", 200)
    with pytest.raises(LensRayError, match="fails on every fragment"):
        run_scan(cutouts=survey, bundle=toy_bundle, output=str(tmp_path / "out"))


def test_wide_kept_columns_do_not_split_a_fragment(local_ray, tmp_path, toy_bundle):
    fmt = surveys.cutout_format()
    spectra = pa.array(np.random.default_rng(0).standard_normal((60, 500_000)).astype(np.float32).tolist())
    table = surveys.cutouts.make_table(fmt, np.arange(60), surveys.toy_images(60), spectrum=spectra)
    (tmp_path / "survey").mkdir()
    pq.write_table(table, tmp_path / "survey" / "a.parquet", row_group_size=10, compression="none")
    words = {"cutouts": str(tmp_path / "survey"), "bundle": toy_bundle, "output": str(tmp_path / "out")}
    result = run_scan(**words, keep=("spectrum",), top=3)
    assert result.run["fragments"] == 60
    assert surveys.scores_of(tmp_path / "out")["object_id"].to_pylist() == list(range(60))


def test_rows_without_an_id_get_a_status_and_do_not_blur_the_other_ids(local_ray, tmp_path, toy_bundle):
    ids = [36_411_117_000_000_000 + i for i in range(50)]
    ids[3] = ids[30] = None
    table = surveys.cutouts.make_table(
        surveys.cutout_format(), pa.array(ids, pa.int64()), surveys.toy_images(50)
    )
    (tmp_path / "survey").mkdir()
    pq.write_table(table, tmp_path / "survey" / "a.parquet")
    result = run_scan(cutouts=str(tmp_path / "survey"), bundle=toy_bundle, output=str(tmp_path / "out"))
    assert result.run["invalid"] == {"null_object_id": 2}
    assert surveys.scores_of(tmp_path / "out")["object_id"].to_pylist() == ids


class FlakyRead:
    """`read_slice` whose first call fails, as storage does now and then."""

    def __init__(self, read):
        self.read, self.calls = read, 0

    def __call__(self, *arguments):
        self.calls += 1
        if self.calls == 1:
            raise OSError("connection reset")
        return self.read(*arguments)


def test_read_that_fails_once_is_no_damage(tmp_path, toy_bundle, monkeypatch):
    survey = surveys.toy_survey(tmp_path / "survey", 40, files=1)
    plan = plan_scan(ScanConfig(cutouts=survey, bundle=toy_bundle, output=str(tmp_path / "out")))
    reader = stages.ReadFragment(
        survey=survey,
        images=plan.images,
        inputs=plan.header.inputs,
        columns=plan.columns,
        schema=plan.column_schema,
        attempts=surveys.NoAttempts(),
    )
    monkeypatch.setattr(stages, "read_slice", FlakyRead(stages.read_slice))
    fragment = {**plan.fragments.to_pylist()[0], "duplicates": []}
    table = reader(
        pa.Table.from_pylist(
            [fragment], plan.fragments.schema.append(pa.field("duplicates", pa.list_(pa.int64())))
        )
    )
    assert set(table["status"].to_pylist()) == {"ok"}


def test_pieces_of_a_fragment_are_never_written(tmp_path):
    table = pa.table({stages.FRAGMENT: [4, 4], stages.ROWS: [3, 3], "score": [0.1, 0.2]})
    with pytest.raises(LensRayError, match="in pieces"):
        stages.WriteFragment(output=str(tmp_path), columns=("object_id", "ra", "dec"))(table)


def test_duplicates_are_found_across_files_and_buckets(local_ray, tmp_path, toy_bundle):
    from lensray.distributed import duplicates
    from lensray.distributed.resources import connect

    generator = np.random.default_rng(3)
    ids = generator.integers(0, 60, 150)
    table = surveys.cutouts.make_table(
        surveys.cutout_format(), [f"id{i}" for i in ids], surveys.toy_images(150)
    )
    (tmp_path / "survey").mkdir()
    for number in range(3):
        pq.write_table(
            table.slice(50 * number, 50), tmp_path / "survey" / f"{number}.parquet", row_group_size=16
        )
    plan = plan_scan(
        ScanConfig(cutouts=str(tmp_path / "survey"), bundle=toy_bundle, output=str(tmp_path / "out"))
    )
    connect()
    seen, expected = set(), []
    for row, identity in enumerate(ids):
        if identity in seen:
            expected.append(row)
        seen.add(identity)
    assert duplicates.find(plan)["row"].to_pylist() == expected
    assert duplicates.find(plan, bucket_rows=20)["row"].to_pylist() == expected


# --- processes that die ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def slow_scan(tmp_path_factory):
    """A survey and a bundle with enough work for something to die in the middle, and their whole scan."""
    from lensray.models.eznet import THESIS_BLOCKS

    folder = tmp_path_factory.mktemp("slow")
    bundle = surveys.toy_bundle(folder / "slow.safetensors", size=64, blocks=THESIS_BLOCKS)
    survey = surveys.toy_survey(folder / "survey", 2400, files=4, row_group=80, size=64)
    subprocess.run(
        command(survey, bundle, folder / "whole"), check=True, env={**os.environ, "RAY_ADDRESS": "local"}
    )
    return survey, bundle, folder / "whole"


def command(survey, bundle, output):
    return [
        sys.executable,
        str(JOB),
        "--cutouts",
        survey,
        "--bundle",
        bundle,
        "--output",
        str(output),
        "--keep",
        "mag_i",
    ]


def wait_for_markers(output, count, seconds=120):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done = Path(output, "ledger", "done")
        if done.exists() and len([p for p in done.iterdir() if p.suffix == ".json"]) >= count:
            return
        time.sleep(0.05)
    raise AssertionError("the scan wrote no markers in time")


def assert_same_content(first, second):
    for name in ("candidates.parquet", "candidates.csv"):
        assert Path(first, name).read_bytes() == Path(second, name).read_bytes(), name
    one, two = (sorted(Path(folder, "scores").glob("part-*.parquet")) for folder in (first, second))
    assert [path.name for path in one] == [path.name for path in two]
    for a, b in zip(one, two, strict=True):
        assert a.read_bytes() == b.read_bytes(), a.name


@pytest.mark.slow
def test_killed_driver_resumes_without_repeating_or_losing_rows(slow_scan, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "local")
    survey, bundle, whole = slow_scan
    victim = subprocess.Popen(command(survey, bundle, tmp_path / "killed"))
    wait_for_markers(tmp_path / "killed", 3)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    assert not (tmp_path / "killed" / "candidates.csv").exists()
    # Not the temporary file that the kill may have left.
    done = set((tmp_path / "killed" / "ledger" / "done").glob("[0-9]*.json"))
    assert 3 <= len(done) < len(list((whole / "scores").iterdir()))
    written = {path: path.stat().st_mtime_ns for path in done}
    subprocess.run(command(survey, bundle, tmp_path / "killed"), check=True)
    assert written == {path: path.stat().st_mtime_ns for path in done}
    assert surveys.scores_of(tmp_path / "killed")["object_id"].to_pylist() == list(range(2400))
    assert_same_content(whole, tmp_path / "killed")


@pytest.mark.slow
def test_killed_actor_costs_no_row(slow_scan, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "local")
    survey, bundle, whole = slow_scan
    driver = subprocess.Popen(command(survey, bundle, tmp_path / "wounded"))
    wait_for_markers(tmp_path / "wounded", 2)
    family = psutil.Process(driver.pid).children(recursive=True)
    actors = [process for process in family if "MapWorker" in " ".join(process.cmdline())]
    assert actors
    actors[0].kill()
    assert driver.wait() == 0
    assert_same_content(whole, tmp_path / "wounded")


@pytest.mark.slow
def test_removed_node_costs_no_row(slow_scan, tmp_path, monkeypatch):
    survey, bundle, whole = slow_scan
    monkeypatch.setenv("RAY_ADDRESS", "local")
    ray.shutdown()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 3})
    try:
        node = cluster.add_node(num_cpus=2)
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        driver = subprocess.Popen([*command(survey, bundle, tmp_path / "shrunk"), "--workers", "2"])
        wait_for_markers(tmp_path / "shrunk", 2)
        cluster.remove_node(node, allow_graceful=False)
        assert driver.wait() == 0
    finally:
        cluster.shutdown()
    assert_same_content(whole, tmp_path / "shrunk")


def test_a_survey_on_s3_has_the_same_scores_as_on_disk(local_ray, tmp_path, toy_bundle, s3_url):
    import pyarrow.fs as pafs

    from lensray.io import storage

    # Ray's processes have the variables that the server is reached by from their start.
    ray.shutdown()
    survey = surveys.toy_survey(tmp_path / "survey", 120)
    filesystem, path = storage.resolve(s3_url)
    pafs.copy_files(survey, f"{path}/survey", destination_filesystem=filesystem)
    pafs.copy_files(toy_bundle, f"{path}/toy.safetensors", destination_filesystem=filesystem)
    run_scan(cutouts=survey, bundle=toy_bundle, output=str(tmp_path / "out"))
    on_s3 = run_scan(cutouts=f"{s3_url}/survey", bundle=f"{s3_url}/toy.safetensors", output=f"{s3_url}/out")
    local = surveys.scores_of(tmp_path / "out")
    paths = sorted(entry.path for entry in storage.find_files(f"{s3_url}/out/scores"))
    remote = pa.concat_tables([pq.read_table(name, filesystem=filesystem) for name in paths])
    assert remote.equals(local)
    assert (
        storage.read_bytes(f"{s3_url}/out/candidates.csv")
        == (tmp_path / "out" / "candidates.csv").read_bytes()
    )
    assert (
        json.loads(storage.read_bytes(f"{s3_url}/out/run.json"))["rows_scored"]
        == on_s3.run["rows_scored"]
        == 120
    )
    again = run_scan(cutouts=f"{s3_url}/survey", bundle=f"{s3_url}/toy.safetensors", output=f"{s3_url}/out")
    assert again.run["rows_this_run"] == 0
