"""A simulated survey, or simulated arcs on a real one, made on Ray: parts that depend on the seed and their place alone.

An object is the same whatever the parts, the batches or the number of workers, so that a stopped
simulation is taken up by the same words, and two surveys of one seed are one survey.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray

from lensray.distributed.resources import connect, cores
from lensray.distributed.scan import configure_ray_data
from lensray.distributed.simulation_plan import (
    INJECTION,
    PART_BYTES,
    SimulateConfig,
    claim_folder,
    is_claimed,
    part_url,
    plan_parts,
)
from lensray.errors import InputError
from lensray.io import parquet, storage
from lensray.progress import Progress
from lensray.simulation.onto_survey import PlannedRows, plan_injection, planned_table
from lensray.simulation.table import simulated_table
from lensray.survey import get_survey

ROW_GROUP_BYTES = 16 << 20


def simulate_survey(config: SimulateConfig) -> str:
    """Write the survey that is still missing in ``config.output``; returns its address.

    Raises
    ------
    InputError
        If the folder holds something else than this simulation, or ``config.onto`` is a survey that these
        lenses cannot be put into.
    """
    plan = None if config.onto is None else _injection(config)
    parts = plan_parts(config) if plan is None else _injection_parts(config, plan)
    connect()
    check_device(config.device)
    claim_folder(config)
    if plan is not None:
        storage.write_bytes(storage.join(config.output, INJECTION), json.dumps(plan).encode())
    missing = [part for part in parts if not storage.exists(part_url(config, part["part"]))]
    done = config.count - sum(part["rows"] for part in missing)
    with Progress("simulate", total=config.count, done=done, unit="cutouts") as bar:
        make_parts(missing, SimulatePart(config) if plan is None else InjectPart(config), config.device, bar)
    return config.output


def make_parts(
    missing: list[dict], stage: Callable[[pa.Table], pa.Table], device: str, bar: Progress
) -> None:
    """Call a stage on Ray for each part that is missing; it returns how many ``rows`` it wrote."""
    if not missing:
        return
    configure_ray_data()
    written = ray.data.from_items(missing, override_num_blocks=len(missing)).map_batches(
        cast(Any, stage),
        batch_size=1,
        batch_format="pyarrow",
        num_cpus=1,
        num_gpus=1 if device == "cuda" else 0,
        runtime_env={"env_vars": {"OMP_NUM_THREADS": "1"}},
        compute=ray.data.TaskPoolStrategy(size=None if device == "cuda" else min(_workers(), len(missing))),
    )
    for batch in written.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        bar.advance(sum(cast(pa.Table, batch)["rows"].to_pylist()))


def check_device(device: str) -> None:
    """Raise InputError if there is no such device to render on; Ray must be there."""
    if device == "cuda" and not ray.cluster_resources().get("GPU"):
        raise InputError("--device cuda, but the cluster has no GPU; leave --device away to render on CPUs")


def _injection(config: SimulateConfig) -> dict:
    """The plan of an injection: the one in the folder, or a new one."""
    url = storage.join(config.output, INJECTION)
    if is_claimed(config) and storage.exists(url):
        return json.loads(storage.read_bytes(url))
    made = plan_injection(
        config.hosts(),
        count=config.count,
        lenses=config.lenses,
        seed=config.seed,
        faintest_i=config.faintest_host,
        note=lambda text: print(text, file=sys.stderr, flush=True),
    )
    return json.loads(json.dumps(asdict(made)))


def _injection_parts(config: SimulateConfig, plan: dict) -> list[dict]:
    """The parts of an injection: number, rows, and the row groups that they are made of, as JSON."""
    bands, height, width = (fmt := config.hosts().format).shape
    most = max(1, PART_BYTES // (bands * height * width * fmt.dtype.itemsize))
    groups: list[list[dict]] = [[]]
    for place in plan["places"]:
        if groups[-1] and _count([*groups[-1], place]) > most:
            groups.append([])
        groups[-1].append(place)
    return [
        {"part": number, "rows": _count(places), "places": json.dumps(places)}
        for number, places in enumerate(groups)
    ]


def _count(places: list[dict]) -> int:
    return sum(len(place["others"]) + len(place["hosts"]) for place in places)


def describe_injection(config: SimulateConfig) -> str:
    """What became of the hosts, and whether brightness tells lenses from others, in a line."""
    plan = json.loads(storage.read_bytes(storage.join(config.output, INJECTION)))
    hosts = len({(p["path"], p["row_group"], row) for p in plan["places"] for row in p["hosts"]})
    said = f"{config.lenses:,} arcs on {hosts:,} galaxies of {config.onto}"
    area = plan["brightness_auroc"]
    if area is None:
        return said
    warning = (
        " (it should be between 0.4 and 0.6: give more cutouts, or ask for fewer)"
        if abs(area - 0.5) > 0.1
        else ""
    )
    return f"{said}; brightness alone tells them from the others with an AUROC of at most {max(area, 1 - area):.2f}{warning}"


def _workers() -> int:
    """One task a core on this machine; on a cluster one a CPU that it has."""
    cpus = int(ray.cluster_resources().get("CPU", 1))
    return min(cpus, cores()) if len(ray.nodes()) == 1 else cpus


class SimulatePart:
    """Renders one part of the survey and writes it."""

    def __init__(self, config: SimulateConfig) -> None:
        self.config = config

    def __call__(self, plan_rows: pa.Table) -> pa.Table:
        """Write the part named by the one row of `plan_rows`; returns its number and rows."""
        (part,) = plan_rows.to_pylist()
        indices = np.arange(part["first"], part["first"] + part["rows"], dtype=np.int64)
        table = simulated_table(
            get_survey(self.config.survey_name),
            indices,
            np.isin(indices, part["lenses"]),
            seed=self.config.seed,
            size=self.config.size,
            dtype=self.config.dtype,
            device=self.config.device,
        )
        return write_part(part_url(self.config, part["part"]), part, table)


class InjectPart:
    """Makes one part of a survey with injected arcs, and writes it."""

    def __init__(self, config: SimulateConfig) -> None:
        self.config = config

    def __call__(self, plan_rows: pa.Table) -> pa.Table:
        """Write the part named by the one row of `plan_rows`; returns its number and rows."""
        (part,) = plan_rows.to_pylist()
        hosts = self.config.hosts()
        tables = [
            planned_table(
                hosts,
                PlannedRows(**place),
                seed=self.config.seed,
                faintest_i=self.config.faintest_host,
                device=self.config.device,
            )
            for place in json.loads(part["places"])
        ]
        return write_part(part_url(self.config, part["part"]), part, pa.concat_tables(tables))


def write_part(url: str, part: dict, table: pa.Table) -> pa.Table:
    """Write a part; returns its number and rows."""
    row_bytes = table.nbytes // table.num_rows
    with storage.atomic_output(url) as file:
        pq.write_table(
            table,
            file,
            row_group_size=max(1, ROW_GROUP_BYTES // row_bytes),
            **parquet.options(table.schema),
        )
    return pa.table({"part": [part["part"]], "rows": [part["rows"]]})
