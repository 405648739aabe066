"""Simulate a survey of cutouts: lenses, and the objects that are mistaken for them; or put lenses into a real survey.

python jobs/simulate_survey.py --survey hsc_wide --count 20000 --lenses 100 --seed 1 --output runs/simulated
python jobs/simulate_survey.py --onto SURVEY --count 5000 --lenses 1000 --seed 1 --output runs/injected
"""

from lensray.command_line import run_job
from lensray.distributed.simulation_plan import SimulateConfig, is_claimed


def main(config: SimulateConfig) -> None:
    """Simulate, and say where the survey is."""
    is_claimed(config)
    if config.onto is not None:
        config.hosts()
    # ray and torch, after the words are checked
    from lensray.distributed.simulate import describe_injection, simulate_survey

    url = simulate_survey(config)
    if config.onto is not None:
        print(describe_injection(config))
    what = config.survey_name if config.onto is None else config.onto
    print(f"{config.count:,} cutouts of {what}, {config.lenses:,} of them lenses: {url}")


if __name__ == "__main__":
    run_job(main, SimulateConfig)
