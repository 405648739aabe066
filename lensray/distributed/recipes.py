"""A recipe on the cluster: what `jobs/train_phases.py` does."""

from lensray import recipes
from lensray.recipes.config import RecipeConfig
from lensray.recipes.outcome import Result, claimed, work_through


def train(name: str, config: RecipeConfig) -> Result:
    """Work through a recipe with Ray (errors as of `lensray.recipes.outcome.run_recipe`)."""
    from lensray.distributed.train import RayWorkbench

    recipe = recipes.load(name)
    with claimed(name, recipe, config):
        bench = RayWorkbench(
            config.output,
            name,
            config.settings(),
            workers=config.workers,
            gpus_per_worker=config.gpus_per_worker,
        )
        return work_through(recipe, config, bench)
