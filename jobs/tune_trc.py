"""Search for the settings of a recipe that rank known lenses best, with Ray Tune and Optuna.

    python jobs/tune_trc.py eznet_hsc --trials 20 --output runs/search
    python jobs/tune_trc.py eznet_hsc --cutouts s3://bucket/survey --trials 100 --output s3://bucket/search

A search that was stopped goes on with the same words. ``tune_trc.py RECIPE --help`` explains the options.
"""

import sys

from lensray import recipes
from lensray.command_line import refuse, run_job
from lensray.recipes.tuning import config_for

if __name__ == "__main__":
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print(__doc__, "\nrecipes: ", ", ".join(recipes.NAMES), sep="")
        sys.exit(0)
    if name not in recipes.NAMES:
        refuse(f"there is no recipe named {name!r}; choose one of {', '.join(recipes.NAMES)}")
    recipe = recipes.load(sys.argv.pop(1))

    def main(config) -> None:
        """Check the words, then import ray and torch, and search."""
        from lensray.distributed.tune import tune

        print(tune(name, recipe, config))

    run_job(main, config_for(recipe))
