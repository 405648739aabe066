"""Scan a survey of cutouts for lenses: score every cutout, rank them, measure, report.

    python jobs/scan_survey.py        # demo: simulates a survey and scans it into runs/demo
    python jobs/scan_survey.py --cutouts URL --bundle eznet_hsc --output URL
    python jobs/scan_survey.py --images 'URL/{tile}/{band}.fits' --catalog sources.fits --bundle eznet_hsc --output URL

A scan that was stopped goes on with the same words.
"""

import sys
from dataclasses import dataclass

from lensray.command_line import run_job
from lensray.distributed.planning import ScanConfig, plan_mosaics, plan_scan


def main(config: ScanConfig) -> None:
    """Check everything first, then import ray and torch, and scan."""
    mosaics = plan_mosaics(config)
    if mosaics:
        from lensray.distributed.extraction import make_sources

        make_sources(mosaics)
    plan = plan_scan(config, mosaics)
    from lensray.distributed.scan import scan

    print(scan(plan).summary())


@dataclass(frozen=True, kw_only=True, slots=True)
class Demo:
    """Simulate 20,000 HSC cutouts with 100 lenses, scan them with the shipped bundle."""


def demo(_: Demo) -> None:
    """Simulate a small survey with a seed that no training used, and scan it."""
    from lensray.distributed.simulate import SimulateConfig, simulate_survey

    survey = simulate_survey(SimulateConfig(output="runs/demo/survey", seed=2026, dtype="float16"))
    main(ScanConfig(cutouts=survey, output="runs/demo"))


if __name__ == "__main__":
    if len(sys.argv) == 1:
        run_job(demo, Demo)
    run_job(main, ScanConfig)
