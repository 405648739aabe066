"""Recipes in this process, without a cluster: for notebooks, tests and small sets."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from lensray import bundle as bundles
from lensray.io import storage
from lensray.progress import Progress as Bar
from lensray.simulation.table import simulated_table, spread_evenly
from lensray.survey import get_survey
from lensray.training.adversarial import AdversarialTrainer
from lensray.training.curves import write_tensorboard
from lensray.training.examples import Examples, read_examples
from lensray.training.parallel import ALONE, Team
from lensray.training.phases import AdversarialPhase
from lensray.training.plain_scan import scan
from lensray.training.trainer import Progress, Trainer
from lensray.training.workbench import BUNDLE, HISTORY, TrainingJob, Workbench, identity

SIMULATED_AT_ONCE = 256
SCAN = "scan.json"


class PlainWorkbench(Workbench):
    """A workbench that does everything in this process."""

    def simulate(self, name: str, *, survey: str, count: int, lenses: int, seed: int, size: int) -> str:
        """A simulated survey (see `Workbench.simulate`); its lenses are spread evenly."""
        words = {"survey": survey, "count": count, "lenses": lenses, "seed": seed, "size": size}

        def tables() -> Iterator[pa.Table]:
            is_lens = spread_evenly(count, lenses)
            for start in range(0, count, SIMULATED_AT_ONCE):
                rows = np.arange(start, min(start + SIMULATED_AT_ONCE, count), dtype=np.int64)
                yield simulated_table(
                    get_survey(survey), rows, is_lens[rows], seed=seed, size=size, dtype="float16"
                )

        return self.dataset(name, tables, words)

    def scan(self, name: str, *, cutouts: str, bundle: str, top: int = 2000, resample: bool = False) -> str:
        """Rank a survey (see `Workbench.scan`) in one loop, without a report; a scan is done whole or anew."""
        url, marker = self.folder(name), storage.join(self.folder(name), SCAN)
        words = {
            "survey": identity(cutouts),
            "bundle": bundles.read_header(bundle).sha256,
            "top": top,
            "resample": resample,
        }
        if storage.exists(marker) and json.loads(storage.read_bytes(marker)) == words:
            return url
        storage.delete_folder(url)
        scan(cutouts, bundle, url, top=top, resample=resample)
        storage.write_bytes(marker, json.dumps(words).encode())
        return url

    def run(self, job: TrainingJob) -> None:
        """Train a phase to its bundle."""
        training = read_examples(job.training, job.phase)
        validation = read_examples(job.validation, job.phase) if job.validation else None
        with told(job) as on_progress:
            train_phase(job, training, validation, on_progress=on_progress)


def write_curves(job: TrainingJob, progress: Progress) -> None:
    """Write the curves of a phase for TensorBoard, after an epoch."""
    if progress.history is not None:
        write_tensorboard(progress.history, job.tensorboard, job.phase.name)


class told:
    """Shows the progress of a phase as a bar, and its curves in TensorBoard."""

    def __init__(self, job: TrainingJob) -> None:
        self.job = job
        self.bar = Bar(job.phase.name, total=0, unit="images")

    def __enter__(self) -> Callable[[Progress], None]:
        self.bar.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.bar.__exit__(*error)

    def __call__(self, progress: Progress) -> None:
        """Move the bar; after an epoch say what was measured, and write the curves."""
        self.bar.move_to(progress.images, progress.total)
        if progress.history is not None:
            self.bar.note(in_words(progress.history[-1]))
        write_curves(self.job, progress)


def in_words(row: dict[str, Any]) -> str:
    """An epoch in one line."""
    shown = {key: value for key, value in row.items() if isinstance(value, float) and key != "seconds"}
    return f"epoch {row['epoch']}: " + ", ".join(f"{key} {value:.4g}" for key, value in shown.items())


def train_phase(
    job: TrainingJob,
    training: Examples,
    validation: Examples | None,
    *,
    device: torch.device | str = "cpu",
    team: Team = ALONE,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> list[dict[str, Any]]:
    """Train a phase in this process, and write history and bundle (as the first of its team)."""
    kind = AdversarialTrainer if isinstance(job.phase, AdversarialPhase) else Trainer
    trainer = kind(
        job.phase,
        training,
        validation,
        checkpoint=job.checkpoint,
        fingerprint=job.fingerprint,
        device=device,
        team=team,
        on_progress=on_progress,
    )
    history = trainer.run()
    calibration = trainer.calibration()
    if team.rank == 0:
        best = history[trainer.best_epoch]
        left_out = {
            "training": dict(training.left_out),
            "validation": dict(validation.left_out if validation else {}),
        }
        measured = {
            "metrics": best,
            "left_out": left_out,
            "device": str(trainer.device),
            "workers": team.size,
        }
        if calibration is not None:
            measured["calibration"] = calibration
        storage.write_bytes(storage.join(job.folder, HISTORY), json.dumps(history, indent=1).encode())
        bundles.save(trainer.bundle({**job.provenance, **measured}), storage.join(job.folder, BUNDLE))
    return history
