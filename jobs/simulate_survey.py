"""Simulate a survey of cutouts: lenses, and the objects that are mistaken for them.

python jobs/simulate_survey.py --survey hsc_wide --count 20000 --lenses 100 --seed 1 --output runs/simulated
"""

from lensray.command_line import run_job
from lensray.distributed.simulation_plan import SimulateConfig, is_claimed


def main(config: SimulateConfig) -> None:
    """Simulate, and say where the survey is."""
    is_claimed(config)
    from lensray.distributed.simulate import simulate_survey  # ray and torch, after the words are checked

    url = simulate_survey(config)
    print(f"{config.count:,} cutouts of {config.survey}, {config.lenses:,} of them lenses: {url}")


if __name__ == "__main__":
    run_job(main, SimulateConfig)
