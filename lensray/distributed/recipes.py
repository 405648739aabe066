"""A recipe on the cluster: what `jobs/train_phases.py` does."""

from lensray import recipes
from lensray.errors import InputError
from lensray.recipes.config import RecipeConfig
from lensray.recipes.outcome import Result, check_surveys, run_recipe


def train(name: str, config: RecipeConfig) -> Result:
    """Work through a recipe with Ray (errors as of `lensray.recipes.outcome.run_recipe`)."""
    from lensray.distributed.train import RayWorkbench
    from lensray.training.workbench import claim, disclaim

    # Before Ray starts: wrong words are answered at once.
    check_surveys(recipes.load(name), config)
    claim(config.output, name, config.settings())
    try:
        bench = RayWorkbench(
            config.output,
            name,
            config.settings(),
            workers=config.workers,
            gpus_per_worker=config.gpus_per_worker,
        )
    except InputError:
        disclaim(config.output)
        raise
    return run_recipe(recipes.load(name), config, bench)
