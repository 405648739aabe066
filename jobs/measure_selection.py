"""Measure a selection function: how probable it is that a search finds a lens of given parameters.

    python jobs/measure_selection.py --bundle eznet_hsc --output runs/selection
    python jobs/measure_selection.py --scan s3://bucket/scan --inspected 2000 --onto s3://bucket/survey --output s3://bucket/selection

A measurement that was stopped goes on with the same words.
"""

from lensray.command_line import run_job
from lensray.distributed.selection_plan import SelectionConfig, plan_selection


def main(config: SelectionConfig) -> None:
    """Check everything first, then import ray and torch, and measure."""
    plan = plan_selection(config)
    from lensray.distributed.selection import measure_selection

    print(measure_selection(plan).summary())


if __name__ == "__main__":
    run_job(main, SelectionConfig)
