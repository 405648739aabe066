import math
import os
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lensray.io import storage
from lensray.training.curves import FILE, write_tensorboard


def history(epochs: int) -> list[dict]:
    return [
        {
            "epoch": epoch,
            "training_loss": 1 / epoch,
            "validation_loss": None if epoch == 2 else 2 / epoch,
            "auroc": 1 - 0.5 / epoch,
            "learning_rate": 1e-3,
            "seconds": 10.0 + epoch,
            "best": epoch == 1,
        }
        for epoch in range(1, epochs + 1)
    ]


def curves(folder: str | Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard itself reads."""
    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_reads_the_numbers_of_every_epoch(tmp_path):
    write_tensorboard(history(3), str(tmp_path), "phase1")
    read = curves(tmp_path / "phase1")
    assert sorted(read) == [
        "loss/training",
        "loss/validation",
        "metrics/auroc",
        "training/learning_rate",
        "training/seconds",
    ]
    assert dict(read["loss/training"]) == pytest.approx({1: 1.0, 2: 0.5, 3: 1 / 3})
    assert dict(read["loss/validation"]) == pytest.approx({1: 2.0, 3: 2 / 3})


def test_elapsed_time_is_that_of_the_epochs(tmp_path):
    write_tensorboard(history(3), str(tmp_path), "phase1")
    events = EventAccumulator(str(tmp_path / "phase1"))
    events.Reload()
    assert [e.wall_time for e in events.Scalars("loss/training")] == [11.0, 23.0, 36.0]


def test_further_epochs_are_appended_to_the_open_file(tmp_path):
    url = write_tensorboard(history(1), str(tmp_path), "phase1")
    watching = EventAccumulator(str(tmp_path / "phase1"))
    watching.Reload()
    number = os.stat(url).st_ino
    for epochs in (2, 2, 3):
        write_tensorboard(history(epochs), str(tmp_path), "phase1")
    watching.Reload()
    assert os.stat(url).st_ino == number
    assert [e.step for e in watching.Scalars("loss/training")] == [1, 2, 3]


@pytest.mark.parametrize("damage", ["cut", "foreign"])
def test_half_written_and_foreign_files_are_made_whole(tmp_path, damage):
    url = write_tensorboard(history(4), str(tmp_path), "phase1")
    data = Path(url).read_bytes()
    Path(url).write_bytes(data[:-7] if damage == "cut" else b"no events" + data)
    write_tensorboard(history(4), str(tmp_path), "phase1")
    assert Path(url).read_bytes() == data


def test_a_training_that_goes_back_forgets_what_came_after(tmp_path):
    write_tensorboard(history(5), str(tmp_path), "phase1")
    write_tensorboard(history(2), str(tmp_path), "phase1")
    assert [step for step, _ in curves(tmp_path / "phase1")["loss/training"]] == [1, 2]


def test_curves_on_s3_are_those_on_disk(s3_url, tmp_path):
    for epochs in (1, 3):
        url = write_tensorboard(history(epochs), s3_url, "phase1")
    local = write_tensorboard(history(3), str(tmp_path), "phase1")
    assert url.endswith(FILE)
    assert storage.read_bytes(url) == Path(local).read_bytes()


def test_numbers_that_are_not_finite_are_shown_as_such(tmp_path):
    write_tensorboard([{"epoch": 1, "training_loss": float("nan")}], str(tmp_path), "phase1")
    [(step, value)] = curves(tmp_path / "phase1")["loss/training"]
    assert step == 1
    assert math.isnan(value)
