"""A search for a recipe's settings on Ray Tune: what `jobs/tune_trc.py` does.

Each trial is a phase on Ray Train with settings that Optuna proposes; successive halving (ASHA) stops those that do
not promise. Ray Tune decides what runs when and where; what a trial came to is written as a small JSON file beside its
bundle, by which a search that was killed goes on: finished trials are told to Optuna again and interrupted ones go on from their
checkpoints. (Ray Tune's own way unpickles what lies in the output folder, which LensRay does nowhere. What is lost is
the memory of successive halving: trials after a restart are compared with each other alone.)

In the end the best trial and the recipe's own settings are trained to their last epoch and compared on images that the
search never saw.
"""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import optuna
import ray
import ray.tune
from ray import PlacementGroupID
from ray.tune import Callback, PlacementGroupFactory, RunConfig, TuneConfig, Tuner
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search import ConcurrencyLimiter, Searcher
from ray.tune.search.optuna import OptunaSearch
from ray.util.placement_group import PlacementGroup, remove_placement_group

from lensray.distributed.resources import cores, is_local
from lensray.distributed.train import BEST, PLACEMENT, RayWorkbench
from lensray.errors import InputError, LensRayError
from lensray.inspection.tuning_report import Candidate, TuningReport, write_tuning_report
from lensray.io import storage
from lensray.progress import Progress
from lensray.recipes import tuning
from lensray.recipes.outcome import claimed, run_facts
from lensray.recipes.tuning import TRIALS, Trial, TuneOptions
from lensray.training.phases import Phase
from lensray.training.search import Choice, Dimension, SearchSets, Space, Tunable, Value, changed, own_values

SCORE, EPOCH, FINISHED, REASON = "score", "epoch", "finished", "reason"
REPEATS = 100
"""Known points that may be proposed in a row before the space counts as used up."""
WORST = -1.0
"""Score of a trial that cannot be trained: no metric is lower."""
FIRST_RUNG = 1 / 3
"""Part of the epochs after which successive halving first compares. EZnet stays on a plateau for the first tenth."""
SEARCH = "_search"


@dataclass(frozen=True, kw_only=True, slots=True)
class Searched:
    """What a search needs in the process of a trial."""

    recipe: str
    output: str
    settings: dict[str, Any]
    phase: Phase
    space: Space
    sets: SearchSets
    workers: int
    gpus_per_worker: float | None
    threads: int
    command: list[str]


def tune(name: str, recipe: ModuleType, config: TuneOptions) -> str:
    """Search, compare the best trial with the recipe's own settings, and write the report; returns a summary.

    Raises
    ------
    InputError
        If a setting, a range or an image set cannot be used; before any trial starts.
    LensRayError
        If no trial came to an end.
    """
    found = tuning.prepared(recipe, config)
    with claimed(f"search of {name}", recipe, config):
        return _tune(name, config, found)


def _tune(name: str, config: TuneOptions, found: Tunable) -> str:
    started = time.time()
    bench = RayWorkbench(
        config.output,
        name,
        config.settings(),
        workers=config.workers,
        gpus_per_worker=config.gpus_per_worker,
    )
    sets = found.sets(bench)
    concurrency = config.concurrency or _room(bench)
    searched = Searched(
        recipe=name,
        output=config.output,
        settings=config.settings(),
        phase=replace(found.phase, start=sets.start),
        space=found.space,
        sets=sets,
        workers=config.workers,
        gpus_per_worker=config.gpus_per_worker,
        threads=max(1, cores() // (concurrency * config.workers)),
        command=bench.command,
    )
    _search(searched, config, concurrency)
    trials = tuning.read_trials(config.output)
    if not tuning.ranked(trials):
        reasons = {trial.reason for trial in trials if trial.reason}
        raise LensRayError(
            f"no trial came to a result: {'; '.join(sorted(reasons))[:300]}; give more --trials or another --space"
        )
    best, bundle, candidates = _compared(searched, bench, trials)
    report = TuningReport(
        recipe=name,
        objective=config.objective,
        metric=searched.phase.monitor,
        space=found.space,
        trials=trials,
        best=best,
        candidates=candidates,
        run=run_facts(config, bench, started) | {"concurrency": concurrency},
    )
    address = write_tuning_report(report, config.output)
    return "\n".join([*report.lines(), f"bundle: {bundle}", f"report: {address}"])


def _room(bench: RayWorkbench) -> int:
    """Trials for which the cluster has room at a time."""
    if is_local() and not bench.workers.gpus:
        return max(1, cores() // bench.workers.count)
    if bench.workers.gpus:
        free, each = ray.cluster_resources().get("GPU", 0.0), bench.workers.gpus
    else:
        # One core in eight reads.
        free, each = ray.cluster_resources().get("CPU", 0.0) * 7 / 8, 1.0
    return max(1, int(free // (each * bench.workers.count)))


def _search(searched: Searched, config: TuneOptions, concurrency: int) -> None:
    """Run the trials that are still to be run."""
    before = tuning.read_trials(config.output)
    ended = [trial for trial in before if trial.state != "running"]
    wanted = config.trials - len(ended)
    if wanted <= 0:
        _tidy(config.output)
        return
    os.environ |= {
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        # The newer output draws its tables whatever the verbosity.
        "RAY_AIR_NEW_OUTPUT": "0",
        # Ctrl-C ends the command, which goes on with the same words.
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
        "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    }
    filesystem, path = storage.resolve(storage.join(config.output, SEARCH))
    epochs = tuning.largest_epochs(searched.phase.epochs, searched.space)
    first = max(1, round(FIRST_RUNG * epochs), searched.phase.validate_every)

    def trial(values: dict[str, Value]) -> None:
        train_trial(values, searched)

    with Progress("search", total=config.trials, done=len(ended), unit="trials") as bar:
        Tuner(
            ray.tune.with_resources(
                # What a trial needs is asked for by its Ray Train run.
                trial,
                PlacementGroupFactory([{"CPU": 0.0001}]),
            ),
            tune_config=TuneConfig(
                num_samples=wanted,
                search_alg=ConcurrencyLimiter(_proposer(searched, config, before), concurrency),
                scheduler=ASHAScheduler(
                    time_attr=EPOCH,
                    metric=SCORE,
                    mode="max",
                    # Above the last epoch, after which a trial still has its bundle to write.
                    max_t=epochs + 1,
                    grace_period=min(first, epochs),
                    reduction_factor=config.reduction,
                ),
            ),
            run_config=RunConfig(
                name="trials",
                storage_path=path,
                storage_filesystem=filesystem,
                verbose=0,
                callbacks=[_Records(config.output, searched.phase.monitor, before, bar)],
            ),
        ).fit()
    _tidy(config.output)


def _tidy(output: str) -> None:
    """Delete what Ray leaves of a search: its own state, and that of trials that were stopped."""
    storage.delete_folder(storage.join(output, SEARCH))
    for trial in tuning.read_trials(output):
        storage.delete_folder(storage.join(output, TRIALS, trial.key, "ray"))


def _proposer(searched: Searched, config: TuneOptions, before: list[Trial]) -> OptunaSearch:
    """Optuna, told of the trials that have ended; interrupted ones come first."""
    space, phase = searched.space, searched.phase
    interrupted = [dict(trial.values) for trial in before if trial.state == "running"]
    own = own_values(phase, space)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if not before and len(own) == len(space):
        interrupted.append(dict(own))
    proposer = _Proposer(
        {name: _domain(dimension) for name, dimension in space.items()},
        metric=SCORE,
        mode="max",
        points_to_evaluate=interrupted or None,
        # Another seed after a restart: the same would propose what was proposed before.
        seed=config.seed + len(before),
    )
    for trial in before:
        if trial.state == "running":
            continue
        proposer.proposed.add(trial.key)
        if trial.score is not None or trial.state == "failed":
            proposer.add_evaluated_point(dict(trial.values), WORST if trial.score is None else trial.score)
    return proposer


class _Proposer(OptunaSearch):
    """Optuna's proposals, each point once: a trial has its folder by its settings."""

    def __init__(self, *words: Any, **more: Any) -> None:
        super().__init__(*words, **more)
        self.proposed: set[str] = set()

    def suggest(self, trial_id: str) -> Any:
        """The next point; none when so many proposals in a row are known that the space must be used up."""
        for _ in range(REPEATS):
            values = super().suggest(trial_id)
            if values is None:
                return None
            if tuning.key_of(values) not in self.proposed:
                self.proposed.add(tuning.key_of(values))
                return values
            self.on_trial_complete(trial_id, error=True)
            # Forgotten, so that the next proposal is a new one.
            self._completed_trials.discard(trial_id)
            self._ot_trials.pop(trial_id)
        return Searcher.FINISHED


def _domain(dimension: Dimension) -> Any:
    """A dimension as Ray Tune has it."""
    if isinstance(dimension, Choice):
        return ray.tune.choice(list(dimension.of))
    if dimension.whole:
        # Ray's upper ends are not among the values.
        low, high = round(dimension.low), round(dimension.high) + 1
        return ray.tune.lograndint(low, high) if dimension.log else ray.tune.randint(low, high)
    if dimension.log:
        return ray.tune.loguniform(dimension.low, dimension.high)
    return ray.tune.uniform(dimension.low, dimension.high)


def train_trial(values: Mapping[str, Value], searched: Searched) -> None:
    """Train with these settings, in the process of a trial."""
    bench = _bench(searched, quiet=True)
    is_own = dict(values) == own_values(searched.phase, searched.space)
    bench.callbacks = [_Told(searched.phase.monitor, compared=not is_own)]
    try:
        phase = trial_phase(searched, values)
        _train(bench, phase, searched.sets)
    except (InputError, LensRayError) as error:
        # Optuna is to stay away from settings with which nothing can be trained.
        ray.tune.report({SCORE: WORST, EPOCH: 0, REASON: str(error)})
        return
    # A trial whose bundle was there has reported nothing yet.
    score, epoch = _came_to(bench, phase)
    ray.tune.report({SCORE: score, EPOCH: epoch, FINISHED: True})


def _came_to(bench: RayWorkbench, phase: Phase) -> tuple[float, int]:
    """Best score of a phase, and the last epoch that was validated."""
    validated = [row for row in bench.history(phase.name) if row.get(phase.monitor) is not None]
    score = max((row[phase.monitor] for row in validated), default=WORST)
    return score, validated[-1]["epoch"] if validated else 0


def _bench(searched: Searched, *, quiet: bool) -> RayWorkbench:
    bench = RayWorkbench(
        storage.join(searched.output, TRIALS),
        searched.recipe,
        searched.settings,
        workers=searched.workers,
        gpus_per_worker=searched.gpus_per_worker,
    )
    if quiet:
        bench.workers = replace(bench.workers, threads=searched.threads)
    bench.quiet = quiet
    bench.command = searched.command
    return bench


def trial_phase(searched: Searched, values: Mapping[str, Value]) -> Phase:
    """The phase of a trial, named after its settings."""
    return replace(changed(searched.phase, values, searched.space), name=tuning.key_of(values))


def _train(bench: RayWorkbench, phase: Phase, sets: SearchSets) -> str:
    return bench.train(phase, training=sets.training, validation=sets.validation)


class _Told(TuneReportCallback):
    """Tells Ray Tune the best score so far: at the start, and after each epoch that was validated.

    Of a trial that is not to be compared before its end nothing but the start is told, so that it is not stopped: the recipe's
    own settings, which are trained to the last epoch in any case.
    """

    def __init__(self, metric: str, *, compared: bool) -> None:
        super().__init__()
        self.metric, self.compared = metric, compared

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        """Pass on what the first worker reported."""
        row = metrics[0]
        if row["epoch"] == 0 or (self.compared and row.get(self.metric) is not None):
            told = {EPOCH: row["epoch"], PLACEMENT: row[PLACEMENT], SCORE: max(row[BEST], WORST)}
            super().after_report(run_context, [told], checkpoint)


class _Records(Callback):
    """Writes what becomes of each trial."""

    def __init__(self, output: str, metric: str, before: list[Trial], bar: Progress) -> None:
        self.output, self.metric, self.bar = output, metric, bar
        self.numbers = {trial.key: trial.number for trial in before}
        self.since: dict[str, float] = {}
        self.ended = sum(trial.state != "running" for trial in before)

    def __getstate__(self) -> dict[str, Any]:
        # Ray Tune stores its callbacks, for a way of going on that is not used here; a bar cannot be stored.
        return {name: value for name, value in vars(self).items() if name != "bar"}

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Note that a trial runs."""
        self.since.setdefault(trial.trial_id, time.monotonic())
        self._write(trial, "running")

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Note what a trial came to."""
        last = trial.last_result or {}
        reason = last.get(REASON, "")
        self._end(trial, "failed" if reason else "done" if last.get(FINISHED) else "stopped", reason)

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Note why a trial failed."""
        self._end(trial, "failed", "its process died; see Ray's logs")

    def _end(self, trial: Any, state: tuning.State, reason: str = "") -> None:
        free_workers(trial.last_result or {})
        record = self._write(trial, state, reason)
        self.ended += 1
        self.bar.move_to(self.ended, self.bar.total)
        found = "" if record.score is None else f", {self.metric} {record.score:.4g}"
        settings = ", ".join(f"{name} {_short(value)}" for name, value in record.values.items())
        self.bar.note(
            f"trial {record.number} {state} after {record.epochs} epochs{found} ({settings}){': ' + reason if reason else ''}"
        )

    def _write(self, trial: Any, state: tuning.State, reason: str = "") -> Trial:
        last, values = trial.last_result or {}, dict(trial.config)
        number = self.numbers.setdefault(tuning.key_of(values), len(self.numbers))
        record = Trial(
            number=number,
            values=values,
            state=state,
            score=None if state == "failed" else last.get(SCORE),
            epochs=int(last.get(EPOCH, 0)),
            seconds=time.monotonic() - self.since.get(trial.trial_id, time.monotonic()),
            reason=reason,
        )
        tuning.write_trial(self.output, record)
        return record


def free_workers(result: Mapping[str, Any]) -> None:
    """Give back what the Ray Train run of a trial that was stopped had taken.

    The run's processes end with the trial's, but its placement group would hold their cores and GPUs as long as the job
    lives: Ray frees it when both the actor that made it and the job are dead.
    """
    if group := result.get(PLACEMENT):
        remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(group))))


def _short(value: Value) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _compared(
    searched: Searched, bench: RayWorkbench, trials: list[Trial]
) -> tuple[Trial, str, list[Candidate]]:
    """The best trial and the recipe's own settings, trained to their ends, on images that the search never saw.

    A trial that diverges on the way to its last epoch gives its place to the next. Returns the best trial and the address of its
    bundle, a copy of which lies in the output folder.
    """
    own = own_values(searched.phase, searched.space)
    for best in tuning.ranked(trials):
        found = _to_its_end(searched, bench, "best trial", trial_phase(searched, best.values))
        if found is not None:
            candidates = [found]
            if dict(best.values) != own:
                # The recipe's own settings have a folder of their own where the space does not contain them.
                complete = len(own) == len(searched.space)
                phase = (
                    trial_phase(searched, own) if complete else replace(searched.phase, name="own_settings")
                )
                candidates += filter(None, [_to_its_end(searched, bench, "recipe's own settings", phase)])
            copy = storage.join(searched.output, "bundle.safetensors")
            storage.write_bytes(copy, storage.read_bytes(found.bundle))
            return best, copy, candidates
    raise LensRayError("every trial diverged before its last epoch; search lower learning rates")


def _to_its_end(searched: Searched, bench: RayWorkbench, name: str, phase: Phase) -> Candidate | None:
    """Settings trained to the last epoch and tested; None if they cannot be."""
    from lensray.training.evaluation import evaluate_bundle

    bench.note(f"{name}: training to the last epoch")
    trainer = _bench(searched, quiet=False)
    try:
        bundle = _train(trainer, phase, searched.sets)
    except LensRayError as error:
        bench.note(f"{name}: {error}")
        return None
    unseen = searched.sets.test
    tested = evaluate_bundle(bundle, unseen, model=name, data="test") if unseen else None
    score, _ = _came_to(trainer, phase)
    epochs = len(trainer.history(phase.name))
    return Candidate(name=name, bundle=bundle, validated=score, epochs=epochs, test=tested)
