"""Training on a real local Ray, and the command as a user types it: nothing is lost, whatever dies."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import rings
import surveys

from lensray import bundle as bundles
from lensray.distributed.train import RayWorkbench
from lensray.errors import LensRayError
from lensray.io import storage
from lensray.training.phases import Optimizer
from lensray.training.plain import PlainWorkbench
from lensray.training.workbench import CLAIM

JOB = Path(__file__).parent.parent / "jobs" / "train_phases.py"
PATIENCE_S = 600
"""Seconds until a test stops waiting for a process."""
NOISE = ("PlacementGroup", "TrainController", "State API", "Reporting training result", "execution finished")

pytestmark = pytest.mark.slow


def wait_for(found):
    """The first true answer of a function."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        answer = found()
        if answer:
            return answer
        time.sleep(0.05)
    raise AssertionError("what was waited for did not come")


def history_in(checkpoint):
    """History of a checkpoint of whichever training; empty as long as there is none."""
    if not storage.exists(checkpoint):
        return []
    data = storage.read_bytes(checkpoint)
    size = int.from_bytes(data[:8], "little")
    return json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["history"])


# --- phases on Ray Train ----------------------------------------------------------------------------------


PHASE = rings.phase(epochs=20, batch_size=32)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    return rings.survey(folder / "training", 240, seed=1), rings.survey(folder / "validation", 120, seed=2)


def train(bench, sets, phase=PHASE):
    """The phase's history."""
    bench.train(phase, training=[sets[0]], validation=[sets[1]])
    return bench.history(phase.name)


@pytest.fixture(scope="module")
def alone(sets, tmp_path_factory):
    """History of the phase without a cluster."""
    return train(PlainWorkbench(str(tmp_path_factory.mktemp("alone"))), sets)


def columns(history, *names):
    return np.array([[row[name] for name in names] for row in history])


def kill_worker_after(epochs, checkpoint, killed):
    """Kill the training worker with SIGKILL when the checkpoint has so many epochs."""

    wait_for(lambda: len(history_in(checkpoint)) >= epochs)
    (worker,) = [
        process
        for process in psutil.process_iter(["cmdline"])
        if "RayTrainWorker" in " ".join(process.info["cmdline"] or ()) and own(process)
    ]
    worker.kill()
    killed.append(worker.pid)


def own(process):
    """Whether a process is a descendant of this one."""
    try:
        return os.getpid() in [parent.pid for parent in process.parents()]
    except psutil.NoSuchProcess:
        return False


def test_a_killed_worker_goes_on_and_ends_with_the_same_steps(local_ray, sets, alone, tmp_path):
    before = signal.getsignal(signal.SIGINT)
    bench, killed = RayWorkbench(str(tmp_path / "run")), []
    checkpoint = bench.folder("rings") + "/checkpoint.safetensors"
    killer = threading.Thread(target=kill_worker_after, args=(3, checkpoint, killed), daemon=True)
    killer.start()
    history = train(bench, sets)
    killer.join()
    assert len(killed) == 1
    np.testing.assert_array_equal(
        columns(history, "epoch", "steps", "images"), columns(alone, "epoch", "steps", "images")
    )
    np.testing.assert_allclose(
        columns(history, "training_loss"), columns(alone, "training_loss"), rtol=0, atol=1e-3
    )
    assert not (tmp_path / "run" / "rings" / "ray").exists()
    # Ray's own handler would stay, and end the command with exit code 0.
    assert signal.getsignal(signal.SIGINT) is before


def test_two_workers_have_the_loss_curve_of_one(local_ray, sets, alone, tmp_path):
    bench = RayWorkbench(str(tmp_path / "run"), workers=2)
    history = train(bench, sets)
    np.testing.assert_array_equal(columns(history, "steps", "images"), columns(alone, "steps", "images"))
    # The sums of float32 are taken in another order; the rest is the same.
    np.testing.assert_allclose(
        columns(history, "training_loss", "validation_loss"),
        columns(alone, "training_loss", "validation_loss"),
        rtol=0,
        atol=1e-2,
    )
    said = bundles.read_header(bench.folder("rings") + "/bundle.safetensors").provenance
    assert said["workers"] == 2


def test_a_diverged_loss_ends_the_phase_at_once_and_keeps_the_last_good_epoch(local_ray, sets, tmp_path):
    bench = RayWorkbench(str(tmp_path / "run"))
    wild = rings.phase(epochs=3, optimizer=Optimizer(name="sgd", learning_rate=1e30))
    with pytest.raises(LensRayError, match=r"rings diverged: .* lower the learning rate"):
        train(bench, sets, wild)
    assert not storage.exists(bench.folder("rings") + "/bundle.safetensors")


# --- the command ------------------------------------------------------------------------------------------


@pytest.fixture
def run(run_job):
    """Run the command in this process; returns its exit code and the lines on stderr."""
    return partial(run_job, JOB.name)


def labelled(folder, labels):
    """A survey with the given labels; without the column where they are None."""
    url = surveys.toy_survey(folder, 12, files=1)
    (path,) = Path(url).glob("*.parquet")
    table = pq.read_table(path)
    pq.write_table(table if labels is None else table.append_column("label", [labels]), path)
    return url


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["alexnet"], "there is no recipe named 'alexnet'"),
        (["eznet_hsc", "--scale", "huge"], "--scale"),
        (["eznet_hsc", "--optimizer", "adam"], "--optimizer"),
        (["eznet_hsc", "--cutouts", "nowhere"], "does not exist"),
        (["eznet_hsc", "--workers", "0"], "--workers is 0"),
    ],
)
def test_wrong_words_are_refused_before_ray_starts(run, tmp_path, words, said):
    code, lines = run(*words, "--output", tmp_path / "out")
    assert code == 2
    assert len(lines) == 1
    assert said in lines[0]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (None, "has no bool column 'label'"),
        ([True] * 12, "must be true for some cutouts and false for others"),
    ],
)
def test_real_images_without_labels_of_both_classes_are_refused(run, tmp_path, labels, said):
    real = labelled(tmp_path / "real", labels)
    code, lines = run("eznet_hsc", "--output", tmp_path / "out", "--real", real)
    assert (code, len(lines)) == (2, 1)
    assert said in lines[0]
    assert not (tmp_path / "out").exists()


def test_more_workers_than_cores_are_refused_and_the_folder_is_given_back(local_ray, run, tmp_path):
    code, lines = run("eznet_hsc", "--output", tmp_path / "out", "--scale", "smoke", "--workers", "999")
    assert (code, len(lines)) == (2, 1)
    assert "--workers 999, but this machine has" in lines[0]
    assert not (tmp_path / "out" / CLAIM).exists()


def test_fewer_lenses_than_half_a_batch_are_refused_in_one_line(local_ray, run, tmp_path):
    code, lines = run("eznet_hsc", "--output", tmp_path / "out", "--scale", "smoke", "--lenses", "3")
    assert code == 2
    assert "3 images with label true are fewer than the 4 of one batch" in lines[-1]
    assert not any("Traceback" in line for line in lines)


@pytest.fixture
def start():
    """Start the command in a process of its own, which says what it says into a file; ended with the test."""
    processes = []

    def start(*words, log, cwd=None):
        with open(log, "w") as file:
            processes.append(
                subprocess.Popen(
                    [sys.executable, str(JOB), *map(str, words)],
                    stderr=file,
                    stdout=subprocess.PIPE,
                    text=True,
                    cwd=cwd,
                    env={**os.environ, "RAY_ADDRESS": "local"},
                )
            )
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_a_killed_command_goes_on_with_the_same_words_on_s3(start, tmp_path, s3_url):
    words = ("eznet_hsc", "--output", s3_url, "--scale", "smoke", "--epochs", "15", "--patience", "15")
    checkpoint = f"{s3_url}/mine/checkpoint.safetensors"
    killed = start(*words, log=tmp_path / "killed.log")
    wait_for(lambda: len(history_in(checkpoint)) >= 2)
    killed.kill()
    killed.wait()
    first = history_in(checkpoint)
    assert 2 <= len(first) < 15

    done = start(*words, log=tmp_path / "done.log")
    said, _ = done.communicate(timeout=PATIENCE_S)
    stderr = (tmp_path / "done.log").read_text()
    assert done.returncode == 0, stderr
    history = json.loads(storage.read_bytes(f"{s3_url}/mine/history.json"))
    assert [row["epoch"] for row in history] == list(range(1, 16))
    # Durations too: these epochs were not trained again.
    assert history[: len(first)] == first

    assert said.splitlines()[-2:] == [
        f"bundle: {s3_url}/mine/bundle.safetensors",
        f"report: {s3_url}/report.html",
    ]
    assert bundles.load(f"{s3_url}/mine/bundle.safetensors").classes == ("non-lens", "lens")
    assert b"mine" in storage.read_bytes(f"{s3_url}/report.html")
    names = [entry.path for entry in storage.find_files(s3_url, suffix="")]
    assert any("tensorboard" in name and "tfevents" in name for name in names)
    assert not any("/mine/ray/" in name for name in names)
    assert "mine: epoch 15: learning_rate" in stderr
    assert not [line for line in stderr.splitlines() if any(word in line for word in NOISE)]


def test_addresses_are_relative_to_where_the_command_is_given(start, tmp_path):
    words = ("lensflow_cosmos", "--output", "runs/lensflow", "--scale", "smoke")
    done = start(*words, log=tmp_path / "done.log", cwd=tmp_path)
    said, _ = done.communicate(timeout=PATIENCE_S)
    assert done.returncode == 0, (tmp_path / "done.log").read_text()
    assert said.splitlines()[-1] == "report: runs/lensflow/report.html"
    assert (tmp_path / "runs/lensflow/report.html").exists()
    assert (tmp_path / "runs/lensflow/phase_3/bundle.safetensors").exists()
