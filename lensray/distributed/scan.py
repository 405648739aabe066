"""The scan: a survey of cutouts through a network, on Ray.

The chain in `score_fragments` is the whole scan: fragments of the plan are read by CPU tasks, scored
by a pool of actors that hold the network, and written with a done-marker each. Whatever dies costs
the fragments in flight and nothing else; `scan` called again goes on where it stopped.
"""

import sys
import time
import warnings
from typing import cast

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, TaskPoolStrategy
from ray.exceptions import RayTaskError

import lensray.bundle
from lensray.distributed import duplicates, finish
from lensray.distributed.bookkeeping import RayAttempts, ScanMetrics
from lensray.distributed.ledger import Ledger
from lensray.distributed.planning import MAX_FRAGMENT_BYTES, ScanPlan
from lensray.distributed.resources import Pool, connect, scoring_pool
from lensray.distributed.stages import ReadFragment, ScoreFragment, WriteFragment
from lensray.errors import LensRayError
from lensray.progress import Progress

# One CPU reads some 18,000 cutouts of 3×64×64 bytes a second; a GPU wants several times that.
READERS_PER_GPU = 8


def scan(plan: ScanPlan) -> finish.ScanResult:
    """Score what is still to be scored of a survey, then rank, measure and report it.

    Parameters
    ----------
    plan : ScanPlan
        From `lensray.distributed.planning.plan_scan`.

    Returns
    -------
    ScanResult
        What ``run.json`` and ``metrics.json`` hold, and where the report is.

    Raises
    ------
    InputError
        If the output folder holds another scan, or the bundle cannot be loaded.
    LensRayError
        If not a single cutout could be scored though some were fit to be.
    """
    started = time.time()
    bundle = lensray.bundle.load(plan.config.bundle)
    ledger = Ledger(plan.config.output)
    ledger.check(plan)
    connect()
    pool = scoring_pool(plan.config.workers, plan.config.gpus_per_worker)
    ledger.open(plan)
    if ledger.duplicates() is None:
        ledger.write_duplicates(duplicates.find(plan))
    pending = ledger.pending()
    done_before = plan.fragments.num_rows - pending.num_rows
    with Progress(
        "scan", total=plan.rows, done=plan.rows - sum(pending["rows"].to_pylist()), unit="cutouts"
    ) as bar:
        if done_before:
            bar.note(f"{done_before} of {plan.fragments.num_rows} fragments were done before")
        try:
            scored = score_fragments(plan, bundle, pending, ledger.duplicates(), pool, bar)
        except RayTaskError as error:
            raise _reason(error) from error
    if pending.num_rows:
        rows = sum(pending["rows"].to_pylist())
        ledger.add_session(
            {
                "started": started,
                "scoring_s": bar.elapsed,
                "rows": rows,
                "actors": pool.size,
                "gpus": pool.num_gpus,
            }
        )
    result = finish.finish(plan, bundle, ledger, started=started, command=sys.argv)
    if scored == 0 and result.run["rows_scored"] == 0 and result.run["invalid"].get("failed"):
        raise LensRayError(f"no cutout could be scored; the reason is in Ray's log ({ray_log_folder()})")
    return result


def score_fragments(
    plan: ScanPlan,
    bundle: lensray.bundle.Bundle,
    pending: pa.Table,
    repeated: pa.Table | None,
    pool: Pool,
    bar: Progress,
) -> int:
    """Read, score and write the pending fragments; returns how many cutouts got a score."""
    if pending.num_rows == 0:
        return 0
    configure_ray_data()
    attempts = RayAttempts.start()
    reader = ReadFragment(
        survey=plan.survey,
        images=plan.images,
        inputs=plan.header.inputs,
        columns=plan.columns,
        schema=plan.column_schema,
        attempts=attempts,
    )
    plan_rows = duplicates.with_duplicates(pending, repeated).to_pylist()
    written = (
        ray.data.from_items(plan_rows, override_num_blocks=len(plan_rows))
        .map_batches(
            reader,
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=0.5,
            compute=TaskPoolStrategy(size=max(2, pool.size * (READERS_PER_GPU if pool.num_gpus else 1))),
        )
        .map_batches(
            ScoreFragment,
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=pool.num_cpus,
            num_gpus=pool.num_gpus,
            compute=ActorPoolStrategy(size=pool.size, max_tasks_in_flight_per_actor=2),
            fn_constructor_kwargs={
                "bundle": bundle,
                "attempts": attempts,
                "count": ScanMetrics(),
                "threads": pool.threads,
                "device": "cuda" if pool.num_gpus else "cpu",
                "classes": plan.config.classes,
            },
            runtime_env={"env_vars": {"OMP_NUM_THREADS": str(pool.threads), "OMP_WAIT_POLICY": "passive"}},
        )
        .map_batches(
            WriteFragment(output=plan.config.output, columns=plan.columns),
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=0.25,
        )
    )
    scored = 0
    for batch in written.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        written_rows = cast(pa.Table, batch)
        scored += sum(written_rows["scored"].to_pylist())
        bar.advance(sum(written_rows["rows"].to_pylist()))
    return scored


def configure_ray_data() -> None:
    """Ray Data without its own progress bars, which count blocks, and without splitting a fragment's block."""
    # Said of each small survey; the plan knows how many blocks there are.
    warnings.filterwarnings("ignore", r"The m(ax|in)imum number of concurrent", UserWarning)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = 8 * MAX_FRAGMENT_BYTES


def _reason(error: RayTaskError) -> Exception:
    """The `LensRayError` that a stage raised, of which Ray keeps the text alone; else the error itself."""
    mark = f"{LensRayError.__module__}.{LensRayError.__name__}: "
    lines = [line for line in str(error).splitlines() if line.startswith(mark)]
    return LensRayError(lines[-1].removeprefix(mark)) if lines else error


def ray_log_folder() -> str:
    """Where Ray keeps the logs of this session."""
    return f"{ray.get_runtime_context().get_session_name()}/logs in Ray's temporary folder"
