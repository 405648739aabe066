"""Named runs, one file each: its docstring has the command, how long it takes, and what to expect.

A recipe is a dataclass of options and a function ``run(config, bench)`` that works through its phases on a
`lensray.training.workbench.Workbench`.
"""

from importlib import import_module
from types import ModuleType

NAMES = ("lensflow_cosmos", "eznet_hsc", "deeplens_lsst", "lsst_cnn", "euclid_efficientnet", "lens_generator")


def load(name: str) -> ModuleType:
    """The module of a recipe."""
    return import_module(f"lensray.recipes.{name}")
