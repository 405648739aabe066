"""Recipes on a cluster: phases on Ray Train, surveys simulated and ranked by Ray Data.

A phase is one `ray.train.torch.TorchTrainer`. Ray Data's tasks read, check and normalize the training set, row group by row
group; every worker takes all of it into its memory and trains `lensray.training.trainer` on its part of each
batch. Checkpoints are the trainer's own, one an epoch, on the run's storage: whichever worker dies, or the driver,
the training goes on after the last one.
"""

import math
import os
import threading
import uuid
from collections.abc import Iterable, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import pyarrow as pa
import ray
import ray.data
import ray.train
import ray.util
import torch
from ray.train import (
    DataConfig,
    FailureConfig,
    LoggingConfig,
    RunConfig,
    ScalingConfig,
    TrainingFailedError,
)
from ray.train.torch import TorchTrainer, get_device
from ray.train.v2.api.callback import UserCallback

from lensray.distributed.planning import ScanConfig, plan_scan
from lensray.distributed.resources import connect, cores, is_local
from lensray.distributed.scan import configure_ray_data, scan
from lensray.distributed.simulate import simulate_survey
from lensray.distributed.simulation_plan import SimulateConfig
from lensray.errors import InputError, LensRayError
from lensray.io import storage
from lensray.training.examples import gather, parts_of, read_part
from lensray.training.parallel import Team
from lensray.training.phases import Phase
from lensray.training.plain import told, train_phase, write_curves
from lensray.training.trainer import Progress, monitored
from lensray.training.workbench import TrainingJob, Workbench

MAX_FAILURES = 3
POLL_S = 0.5
PLACEMENT = "placement_group"
"""Among what a worker reports: the placement group that its run has taken."""
BEST = "best"
"""Among what a worker reports: the best value of what the phase monitors, of all epochs so far."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Workers:
    """The workers of a phase."""

    count: int
    """How many."""
    gpus: float
    """GPUs of each."""
    threads: int
    """CPU threads of each."""


class RayWorkbench(Workbench):
    """A workbench on the Ray cluster that this job was submitted to, or on a local Ray.

    Parameters
    ----------
    output, recipe, settings
        As of `Workbench`.
    workers : int
        Workers that train together.
    gpus_per_worker : float, optional
        By default one where the cluster has GPUs.
    """

    def __init__(
        self,
        output: str,
        recipe: str = "",
        settings: dict[str, Any] | None = None,
        *,
        workers: int = 1,
        gpus_per_worker: float | None = None,
    ) -> None:
        super().__init__(output, recipe, settings)
        # Workers stay in the directory in which relative addresses were given.
        os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"
        connect()
        configure_ray_data()
        self.workers = _workers(workers, gpus_per_worker)
        self.callbacks: list[UserCallback] = []
        self.quiet = False

    def simulate(self, name: str, *, survey: str, count: int, lenses: int, seed: int, size: int) -> str:
        """A simulated survey (see `Workbench.simulate`)."""
        return simulate_survey(
            SimulateConfig(
                output=self.folder(name),
                survey=survey,
                count=count,
                lenses=lenses,
                seed=seed,
                size=size,
                dtype="float16",
            )
        )

    def scan(self, name: str, *, cutouts: str, bundle: str, top: int = 2000, resample: bool = False) -> str:
        """Rank a survey by the project's scan (see `Workbench.scan`)."""
        config = ScanConfig(
            cutouts=cutouts, bundle=bundle, output=self.folder(name), top=top, resample=resample
        )
        self.note(scan(plan_scan(config)).summary())
        return self.folder(name)

    def run(self, job: TrainingJob) -> None:
        """Train a phase on Ray Train."""
        board: Any = cast(Any, _Board).remote()
        run_folder = storage.join(job.folder, "ray")
        filesystem, path = storage.resolve(run_folder)
        trainer = _Trainer(
            _train,
            train_loop_config={"job": job, "threads": self.workers.threads, "board": board},
            scaling_config=ScalingConfig(
                num_workers=self.workers.count,
                use_gpu=self.workers.gpus > 0,
                resources_per_worker={"CPU": 1, "GPU": self.workers.gpus}
                if self.workers.gpus
                else {"CPU": 1},
            ),
            run_config=RunConfig(
                name=f"{job.phase.name}-{uuid.uuid4().hex[:8]}",
                storage_path=path,
                storage_filesystem=filesystem,
                failure_config=FailureConfig(max_failures=MAX_FAILURES),
                logging_config=LoggingConfig(log_level="WARNING"),
                worker_runtime_env={"env_vars": _thread_variables(self.workers.threads)},
                callbacks=self.callbacks,
            ),
            datasets=_datasets(job),
            dataset_config=DataConfig(datasets_to_split=[]),
        )
        quietly = nullcontext(partial(write_curves, job))
        with quietly if self.quiet else told(job) as show, _watched(board, show):
            try:
                trainer.fit()
            except TrainingFailedError as error:
                raise LensRayError(f"phase {job.phase.name} failed: {_reason(error)}") from error
        problem = cast(Exception | None, ray.get(board.problem.remote()))
        if problem is not None:
            raise problem
        storage.delete_folder(run_folder)


class _Trainer(TorchTrainer):
    """Ray's trainer without its cleaner of placement groups, and without its handler of Ctrl-C.

    The cleaner asks once a second, of whichever Ray it finds on the machine, whether the training still lives: without a
    dashboard it fails for ever, and beside a second Ray it asks the wrong one. Nothing is lost without it: the
    placement groups of a job end with the job. The handler would stay after the phase, and end the command with exit
    code 0 in whatever comes then.
    """

    def _create_default_callbacks(self) -> list[Any]:
        made = super()._create_default_callbacks()
        return [one for one in made if type(one).__name__ != "PlacementGroupCleanerCallback"]

    def _register_sigint_handler(self, controller: Any) -> None:
        pass


def _workers(count: int, gpus_per_worker: float | None) -> Workers:
    """Workers that this machine has, or that the cluster may grow to have."""
    available = ray.cluster_resources().get("GPU", 0.0)
    gpus = gpus_per_worker if gpus_per_worker is not None else (1.0 if available else 0.0)
    if is_local() and count * gpus > available:
        raise InputError(
            f"{count} workers with {gpus:g} GPUs each, but this machine has {available:g} GPUs; "
            "pass --workers or --gpus-per-worker to say what it has"
        )
    if is_local() and not gpus and count > cores():
        raise InputError(f"--workers {count}, but this machine has {cores()} CPU cores; give no more workers")
    return Workers(count=count, gpus=gpus, threads=max(1, cores() // count) if not gpus else 1)


def _thread_variables(threads: int) -> dict[str, str]:
    """Variables of a worker's process: threads that wait leave the cores to others.

    Two scorers of two threads each on two cores gave 56 images/s with spinning threads, 545 with passive ones.
    """
    return {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}


class _ReadParts:
    """Reads the row groups of a training set, one a call."""

    def __init__(self, phase: Phase) -> None:
        self.phase = phase

    def __call__(self, parts: pa.Table) -> pa.Table:
        torch.set_num_threads(1)
        (part,) = parts.to_pylist()
        return read_part(part, self.phase)


def _datasets(job: TrainingJob) -> dict[str, Any]:
    """Training and validation set, read, checked and normalized."""
    made = {}
    for name, urls in (("training", job.training), ("validation", job.validation)):
        if urls:
            made[name] = _read(urls, job.phase)
    return made


def _read(urls: Sequence[str], phase: Phase) -> ray.data.Dataset:
    parts = cast(list[dict[str, Any]], parts_of(urls))
    return (
        ray.data.from_items(parts, override_num_blocks=len(parts))
        .map_batches(_ReadParts(phase), batch_size=1, batch_format="pyarrow", num_cpus=1)
        .materialize()
    )


def _train(config: dict[str, Any]) -> None:
    """A worker of Ray Train."""
    job, board = cast(TrainingJob, config["job"]), config["board"]
    torch.set_num_threads(config["threads"])
    team = Team.here()
    group = ray.util.get_current_placement_group()
    place = group.id.hex() if group else ""

    def tell(progress: Progress) -> None:
        if team.rank == 0:
            board.tell.remote(progress)
        if progress.history is not None:
            numbers = {k: v for k, v in progress.history[-1].items() if isinstance(v, int | float)}
            values = (monitored(row, job.phase) for row in progress.history)
            best = max((value for value in values if value is not None), default=-math.inf)
            ray.train.report(numbers | {PLACEMENT: place, BEST: best})

    # At once: whoever started the run must be able to end it.
    ray.train.report({"epoch": 0, PLACEMENT: place, BEST: -math.inf})
    try:
        training, validation = _examples("training", job), _examples("validation", job)
        train_phase(job, training, validation, device=get_device(), team=team, on_progress=tell)
    except (InputError, LensRayError) as error:
        # It would come again: Ray must not try anew.
        ray.get(board.fail.remote(error))


def _examples(name: str, job: TrainingJob) -> Any:
    if name == "validation" and not job.validation:
        return None
    shard = cast(Any, ray.train.get_dataset_shard(name))
    batches = cast(Iterable[pa.Table], shard.iter_batches(batch_size=None, batch_format="pyarrow"))
    return gather(batches, job.phase)


@ray.remote(num_cpus=0)
class _Board:
    """What the first worker has told, for the driver to show."""

    def __init__(self) -> None:
        self.told: list[Progress] = []
        self.error: Exception | None = None

    def tell(self, progress: Progress) -> None:
        self.told.append(progress)

    def fail(self, error: Exception) -> None:
        self.error = self.error or error

    def take(self) -> list[Progress]:
        taken, self.told = self.told, []
        return taken

    def problem(self) -> Exception | None:
        return self.error


@contextmanager
def _watched(board: Any, show: Any):
    """Shows what the board is told, in a thread, until the block ends."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(POLL_S):
            for progress in ray.get(board.take.remote()):
                show(progress)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        for progress in ray.get(board.take.remote()):
            show(progress)


def _reason(error: TrainingFailedError) -> str:
    failures = getattr(error, "worker_failures", {}) or {error: error}
    return " ".join(str(next(iter(failures.values()))).split())[-300:]
