"""How much of the machine the scan keeps: its whole-run rate over that of the same loop in one process.

    python benchmarks/scan_efficiency.py [--count 200000] [--bundle eznet_hsc]

Claim: scanning 200,000 cutouts of 3×64×64 uint8, from the start of the process to its end (imports, Ray,
ranking and report included), keeps at least 0.90 of the rate of the bare read-normalize-infer loop with
as many threads; and the driver's memory does not grow with the survey. The loop runs half before and half
after the scan, so that a machine that slows down or speeds up counts for both.
"""

import json
import platform
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import torch
import tyro

from lensray import cutouts
from lensray.distributed.planning import ScanConfig, ScanPlan, plan_scan
from lensray.distributed.stages import read_slice
from lensray.normalization import PercentileClip
from lensray.scoring import Scorer
from lensray.simulation import simulate
from lensray.survey import HSC_WIDE

SIMULATED = 2048


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Compare the scan with the bare loop."""

    count: int = 200_000
    """Cutouts."""
    bundle: str = "eznet_hsc"
    """Network that scores them."""
    threads: int = 2
    """Threads of the loop; the scan uses as many cores."""


def main(config: Config) -> None:
    with tempfile.TemporaryDirectory() as folder:
        survey = f"{folder}/survey"
        write_survey(survey, config.count)
        plan = plan_scan(ScanConfig(cutouts=survey, output=f"{folder}/out", bundle=config.bundle))
        fragments = plan.fragments.to_pylist()
        torch.set_num_threads(config.threads)
        scorer = Scorer(config.bundle, threads=config.threads)
        loop_s = loop(plan, scorer, fragments[::2])
        scan_s, memory = scan(plan)
        loop_s += loop(plan, scorer, fragments[1::2])
        run = json.loads(Path(f"{folder}/out/run.json").read_text())
    loop_rate, scan_rate = config.count / loop_s, config.count / scan_s
    first, last = (
        np.median(memory[len(memory) // 5 : 2 * len(memory) // 5]),
        np.median(memory[-len(memory) // 5 :]),
    )
    print(
        f"{platform.processor() or platform.machine()}, {psutil.cpu_count()} cores, torch {torch.__version__}"
    )
    print(f"{config.count:,} cutouts of 3×64×64 uint8, bundle {config.bundle}, {len(fragments)} fragments")
    print(f"bare loop, one process, {config.threads} threads: {loop_rate:,.0f} cutouts/s")
    print(f"scan, whole run: {scan_rate:,.0f} cutouts/s (while scoring {run['cutouts_per_s']:,.0f})")
    print(f"efficiency {scan_rate / loop_rate:.3f}  (claim: at least 0.90)")
    print(
        f"driver memory in its second fifth {first:,.0f} MB, in its last {last:,.0f} MB, peak {max(memory):,.0f} MB"
    )


def write_survey(url: str, count: int) -> None:
    """Simulated cutouts as uint8, repeated under the 8 symmetries to make up the number."""
    drawn = simulate(HSC_WIDE, np.arange(SIMULATED), np.arange(SIMULATED) % 100 == 0, seed=7)
    images = PercentileClip().to_uint8(drawn.images).numpy()
    fmt = cutouts.CutoutFormat(
        survey="hsc_wide",
        bands=HSC_WIDE.bands,
        pixel_scale_arcsec=HSC_WIDE.pixel_scale_arcsec,
        shape=images.shape[1:],
        dtype=images.dtype,
    )
    parts = (
        cutouts.make_table(
            fmt,
            np.arange(first, min(first + SIMULATED, count)),
            np.ascontiguousarray(np.rot90(images, first // SIMULATED, axes=(2, 3)))[: count - first],
        )
        for first in range(0, count, SIMULATED)
    )
    cutouts.write_survey(parts, url, fmt)


def loop(plan: ScanPlan, scorer: Scorer, fragments: list[dict]) -> float:
    """Seconds of reading, checking, normalizing and scoring the fragments, one after the other."""
    started = time.monotonic()
    for fragment in fragments:
        table = read_slice(plan.config.cutouts, fragment, (*plan.columns, plan.format.column))
        images, status = cutouts.images_of(table, plan.format)
        images, status = cutouts.check_pixels(images, status)
        table = table.drop_columns([plan.format.column]).append_column("status", [status.tolist()])
        scorer(table.append_column("image", cutouts.tensor_column(images)))
    return time.monotonic() - started


def scan(plan: ScanPlan) -> tuple[float, list[float]]:
    """Seconds of the whole job as a process of its own, and its memory (MB) sampled twice a second."""
    job = Path(__file__).parent.parent / "jobs" / "scan_survey.py"
    words = ["--cutouts", plan.config.cutouts, "--output", plan.config.output, "--bundle", plan.config.bundle]
    memory: list[float] = []
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, str(job), *words])
    sampler = threading.Thread(target=sample, args=(psutil.Process(process.pid), memory))
    sampler.start()
    if process.wait() != 0:
        raise SystemExit("the scan failed")
    seconds = time.monotonic() - started
    sampler.join()
    return seconds, memory


def sample(process: psutil.Process, memory: list[float]) -> None:
    """Append the resident memory until the process ends."""
    try:
        while process.status() != psutil.STATUS_ZOMBIE:
            memory.append(process.memory_info().rss / 1e6)
            time.sleep(0.5)
    except psutil.NoSuchProcess:
        return


if __name__ == "__main__":
    main(tyro.cli(Config))
