"""A search on a real local Ray: the command as a user types it, killed and going on; trials that stop and fail."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import ray
import ray.tune
import rings
from ray.tune import RunConfig, Tuner
from ray.tune.search import Searcher
from test_train_phases import PATIENCE_S, history_in, wait_for

from lensray import bundle as bundles
from lensray import recipes
from lensray.distributed import tune
from lensray.distributed.train import RayWorkbench
from lensray.inspection.tuning_report import Candidate, TuningReport, write_tuning_report
from lensray.recipes import tuning
from lensray.recipes.tuning import Trial
from lensray.training.search import Choice, Range, SearchSets

JOB = Path(__file__).parent.parent / "jobs" / "tune_trc.py"
RATE, SIZE = "optimizer.learning_rate", "batch_size"
SPACE = {RATE: Range(low=1e-3, high=1e-1, log=True), SIZE: Choice({"16": 16, "32": 32})}


@pytest.fixture
def run(run_job):
    """Run the command in this process; returns its exit code and the lines on stderr."""
    return partial(run_job, JOB.name)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["resnet"], "there is no recipe named 'resnet'"),
        (["eznet_hsc", "--trials", "0"], "--trials is 0"),
        (["eznet_hsc", "--objective", "accuracy"], "--objective"),
        (["eznet_hsc", "--space", "speed=1..2"], "--space speed: the recipe searches"),
        (["eznet_hsc", "--space", f"{RATE}=1..0.1"], "1..0.1 is no range"),
        (["eznet_hsc", "--space", f"{RATE}=fast"], "give numbers as LOW..HIGH"),
        (["lens_generator"], "reports no ranking performance"),
        (["eznet_hsc", "--objective", "cifar"], "needs --cifar"),
    ],
)
def test_wrong_words_are_refused_before_any_work(run, tmp_path, words, said):
    code, lines = run(*words, "--output", tmp_path / "out")
    assert code == 2
    assert len(lines) == 1
    assert said in lines[0]
    assert not (tmp_path / "out").exists()


def test_an_output_that_cannot_be_written_is_refused_before_any_work(run, tmp_path):
    (tmp_path / "file").write_text("in the way")
    code, lines = run("eznet_hsc", "--output", tmp_path / "file" / "out")
    assert (code, len(lines)) == (2, 1)
    assert "lies below something that is a file" in lines[0]


def trials():
    values = [(0.01, "16"), (0.05, "32"), (0.002, "16")]
    states = [("done", 0.4), ("stopped", 0.7), ("failed", None)]
    return [
        Trial(number=n, values={RATE: rate, SIZE: size}, state=state, score=score, epochs=3, reason="")
        for n, ((rate, size), (state, score)) in enumerate(zip(values, states, strict=True))
    ]


def test_the_report_has_all_trials_best_first_and_both_figures(tmp_path):
    made = trials()
    report = TuningReport(
        recipe="toy<script>",
        objective="ranking_performance",
        metric="ranking_performance",
        space=SPACE,
        trials=made,
        best=made[1],
        candidates=[Candidate(name="best trial", bundle="b", epochs=3, validated=0.7, test=None)],
        run={"scale": "smoke", "started": "now", "duration_s": 3.0, "command": ["x"]},
    )
    page = Path(write_tuning_report(report, str(tmp_path))).read_text()
    assert "toy<script>" not in page
    for name in ("scores", "parallel"):
        assert (tmp_path / "figures" / f"{name}.png").stat().st_size > 5_000
    lines = (tmp_path / "trials.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["trial", "1", "0", "2"]
    assert json.loads((tmp_path / "search.json").read_text())["best"] == 1
    assert report.lines()[0] == "3 trials: 1 done, 1 stopped, 1 failed; best is trial 1"


def test_no_point_is_proposed_twice_and_a_used_up_space_ends_the_search(tmp_path):
    space = {RATE: Choice({"0.01": 0.01, "0.05": 0.05}), SIZE: Choice({"16": 16, "32": 32})}
    wanted = replace(searched(tmp_path), space=space)
    config = tuning.config_for(recipes.load("eznet_hsc"))(output="x", seed=3)
    known = Trial(number=0, values={RATE: "0.05", SIZE: "16"}, state="done", score=0.4)
    proposer = tune._proposer(wanted, config, [known])
    proposed = [proposer.suggest(f"trial{number}") for number in range(5)]
    found = [value for value in proposed if isinstance(value, dict)]
    assert len(found) == 3
    assert len({tuning.key_of(value) for value in [*found, known.values]}) == 4
    assert proposed[3:] == [Searcher.FINISHED] * 2


def test_an_interrupted_trial_is_proposed_first(tmp_path):
    config = tuning.config_for(recipes.load("eznet_hsc"))(output="x", seed=3)
    values = {RATE: 0.013, SIZE: "32"}
    proposer = tune._proposer(searched(tmp_path), config, [Trial(number=0, values=values, state="running")])
    assert proposer.suggest("again") == values


def test_the_recipes_own_settings_are_the_first_trial(tmp_path):
    config = tuning.config_for(recipes.load("eznet_hsc"))(output="x", seed=3)
    first = tune._proposer(searched(tmp_path), config, []).suggest("first")
    assert first == {RATE: 0.05, SIZE: "32"}


def searched(folder, **changed):
    """A search on rings and blobs."""
    return tune.Searched(
        recipe="toy",
        output=str(folder / "search"),
        settings={},
        phase=replace(rings.phase(), validate_every=1, **changed),
        space=SPACE,
        sets=SearchSets(
            training=[rings.survey(folder / "training", 200, 1)],
            validation=[rings.survey(folder / "validation", 60, 2)],
        ),
        workers=1,
        gpus_per_worker=None,
        threads=1,
        command=["tune_trc.py"],
    )


def free_cpus():
    return ray.available_resources().get("CPU", 0.0)


def workers_alive():
    """Worker processes of Ray Train on this machine."""
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return sum("RayTrainWorker" in line or "TrainController" in line for line in listed.splitlines())


@pytest.mark.slow
def test_a_stopped_trial_frees_its_workers(local_ray, tmp_path):
    wanted = searched(tmp_path, epochs=10_000)
    RayWorkbench(wanted.output)
    before = workers_alive()
    values = {RATE: 0.05, SIZE: "16"}

    def trial(config):
        tune.train_trial(config, wanted)

    found = Tuner(
        ray.tune.with_resources(trial, {"CPU": 0.0001}),
        param_space=values,
        run_config=RunConfig(stop={tune.EPOCH: 2}, storage_path=str(tmp_path / "ray"), verbose=0),
    ).fit()
    tune.free_workers(found[0].metrics)
    wait_for(lambda: free_cpus() >= ray.cluster_resources()["CPU"] - 0.01)

    wait_for(lambda: workers_alive() <= before)
    checkpoint = f"{wanted.output}/trials/{tuning.key_of(values)}/checkpoint.safetensors"
    shown = len(history_in(checkpoint))
    time.sleep(3)
    assert 2 <= len(history_in(checkpoint)) == shown < 10_000


@pytest.mark.slow
def test_a_killed_search_goes_on_and_a_failed_trial_does_not_end_it(tmp_path):
    output = tmp_path / "search"
    words = ["eznet_hsc", "--scale", "smoke", "--trials", "4", "--output", "search", "--seed", "3"]
    # With the first of the rates the loss is not finite.
    words += ["--space", f"{RATE}=1e30,0.05", "smoothing", "--concurrency", "1"]

    def start(log):
        return subprocess.Popen(
            [sys.executable, str(JOB), *words],
            stdout=subprocess.PIPE,
            stderr=log.open("w"),
            text=True,
            cwd=tmp_path,
            env={**os.environ, "RAY_ADDRESS": "local"},
        )

    def ended():
        return [trial for trial in tuning.read_trials(str(output)) if trial.state != "running"]

    killed = start(tmp_path / "killed.log")
    wait_for(lambda: ended() or killed.poll() is not None)
    killed.kill()
    killed.wait()
    first = ended()
    assert first, (tmp_path / "killed.log").read_text()

    done = start(tmp_path / "done.log")
    said, _ = done.communicate(timeout=PATIENCE_S)
    assert done.returncode == 0, (tmp_path / "done.log").read_text()
    found = tuning.read_trials(str(output))
    assert len(found) == 4
    assert all(trial.state != "running" for trial in found)
    # Those that had ended were not run again.
    assert [trial for trial in found if trial.key in {one.key for one in first}] == first

    failed = [trial for trial in found if trial.state == "failed"]
    assert failed
    assert all(trial.values[RATE] == "1e30" and "diverged" in trial.reason for trial in failed)
    assert not any(trial.state == "done" and trial.values[RATE] == "1e30" for trial in found)
    lines = said.splitlines()
    assert lines[-2:] == ["bundle: search/bundle.safetensors", "report: search/report.html"]
    made = bundles.load(str(output / "bundle.safetensors"))
    assert made.architecture == "eznet"
    # The user's command, not that of a worker's process.
    assert made.provenance["command"][0].endswith("tune_trc.py")
    assert not (output / "_search").exists()
    best = tuning.ranked(found)[0]
    history = json.loads((output / "trials" / best.key / "history.json").read_text())
    assert max(row["ranking_performance"] for row in history if "auroc" in row) >= best.score - 1e-6
