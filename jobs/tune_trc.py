"""Search for the settings of a recipe that rank known lenses best, with Ray Tune and Optuna.

    python jobs/tune_trc.py eznet_hsc --trials 20 --output runs/search
    python jobs/tune_trc.py eznet_hsc --cutouts s3://bucket/survey --trials 100 --output s3://bucket/search

A search that was stopped goes on with the same words. ``tune_trc.py RECIPE --help`` explains the options.
"""

from lensray import recipes
from lensray.command_line import run_job
from lensray.recipes.tuning import config_for

if __name__ == "__main__":
    name, recipe = recipes.taken_from_command(__doc__)

    def main(config) -> None:
        """Check the words, then import ray and torch, and search."""
        from lensray.distributed.tune import tune

        print(tune(name, recipe, config))

    run_job(main, config_for(recipe))
