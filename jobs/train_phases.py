"""Train a recipe in phases, on Ray Train, and rank a survey with it.

    python jobs/train_phases.py eznet_hsc --output runs/eznet_hsc --scale small
    python jobs/train_phases.py lensflow_cosmos --cutouts s3://bucket/survey --output s3://bucket/run --workers 8

A training that was stopped goes on with the same words. ``train_phases.py RECIPE --help`` explains a recipe's options.
"""

from lensray import recipes
from lensray.command_line import run_job

if __name__ == "__main__":
    name, recipe = recipes.taken_from_command(__doc__)

    def main(config) -> None:
        """Check the words, then import ray and torch, and train."""
        from lensray.distributed.recipes import train

        print(train(name, config).summary())

    run_job(main, recipe.Config)
