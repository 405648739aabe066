"""A simulated survey, made on Ray: parts of cutouts, each drawn from the seed and its place alone.

An object is the same whatever the parts, the batches or the number of workers, so that a stopped
simulation is taken up by the same words, and two surveys of one seed are one survey.
"""

from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray

from lensray.distributed.progress import Progress
from lensray.distributed.resources import connect, cores
from lensray.distributed.scan import configure_ray_data
from lensray.distributed.simulation_plan import SimulateConfig, claim_folder, part_url, plan_parts
from lensray.errors import InputError
from lensray.io import parquet, storage
from lensray.simulation.table import simulated_table
from lensray.survey import get_survey

ROW_GROUP_BYTES = 16 << 20


def simulate_survey(config: SimulateConfig) -> str:
    """Write the survey that is still missing in ``config.output``; returns its address.

    Raises
    ------
    InputError
        If the folder holds something else than this simulation.
    """
    parts = plan_parts(config)
    connect()
    if config.device == "cuda" and not ray.cluster_resources().get("GPU"):
        raise InputError("--device cuda, but the cluster has no GPU; leave --device away to render on CPUs")
    claim_folder(config)
    missing = [part for part in parts if not storage.exists(part_url(config, part["part"]))]
    done = config.count - sum(part["rows"] for part in missing)
    with Progress("simulate", total=config.count, done=done, unit="cutouts") as bar:
        if missing:
            configure_ray_data()
            written = ray.data.from_items(missing, override_num_blocks=len(missing)).map_batches(
                SimulatePart(config),
                batch_size=1,
                batch_format="pyarrow",
                num_cpus=1,
                num_gpus=1 if config.device == "cuda" else 0,
                runtime_env={"env_vars": {"OMP_NUM_THREADS": "1"}},
                compute=ray.data.TaskPoolStrategy(size=None if config.device == "cuda" else _workers()),
            )
            for batch in written.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                bar.advance(sum(cast(pa.Table, batch)["rows"].to_pylist()))
    return config.output


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
            get_survey(self.config.survey),
            indices,
            np.isin(indices, part["lenses"]),
            seed=self.config.seed,
            size=self.config.size,
            dtype=self.config.dtype,
            device=self.config.device,
        )
        row_bytes = table.nbytes // table.num_rows
        with storage.atomic_output(part_url(self.config, part["part"])) as file:
            pq.write_table(
                table,
                file,
                row_group_size=max(1, ROW_GROUP_BYTES // row_bytes),
                **parquet.options(table.schema),
            )
        return pa.table({"part": [part["part"]], "rows": [part["rows"]]})
