"""Named runs, one file each: its docstring has the command, how long it takes, and what to expect.

A recipe is a dataclass of options and a function ``run(config, bench)`` that works through its phases on a
`lensray.training.workbench.Workbench`.
"""

import sys
from importlib import import_module
from types import ModuleType

from lensray.command_line import refuse

NAMES = ("lensflow_cosmos", "eznet_hsc", "deeplens_lsst", "lsst_cnn", "euclid_efficientnet", "lens_generator")


def load(name: str) -> ModuleType:
    """The module of a recipe."""
    return import_module(f"lensray.recipes.{name}")


def taken_from_command(doc: str | None) -> tuple[str, ModuleType]:
    """The recipe that a command's first word names, which is taken off ``sys.argv``; its name and module.

    Ends the process: with `doc` and the recipes' names for ``--help``, with exit code 2 for another word.
    """
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print(doc, "\nrecipes: ", ", ".join(NAMES), sep="")
        sys.exit(0)
    if name not in NAMES:
        refuse(f"there is no recipe named {name!r}; choose one of {', '.join(NAMES)}")
    return name, load(sys.argv.pop(1))
