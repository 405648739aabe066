"""The direction of imports: ray only in `distributed`, torch only where pixels are computed with."""

import pkgutil
import subprocess
import sys

import pytest

import lensray

MODULES = sorted(
    name
    for _, name, _ in pkgutil.walk_packages(lensray.__path__, "lensray.")
    if not name.startswith("lensray.distributed")
)
# What a command needs to check its input; the heavy imports come after.
LIGHT = [
    "lensray.bundle",
    "lensray.catalogs",
    "lensray.cutouts",
    "lensray.distributed.ledger",
    "lensray.distributed.planning",
    "lensray.distributed.selection_plan",
    "lensray.distributed.simulation_plan",
    "lensray.extraction.stamps",
    "lensray.survey",
]


def modules_loaded_by(*imported: str) -> set[str]:
    code = f"import {', '.join(imported)}; import sys; print(*sys.modules)"
    return set(
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.split()
    )


def test_nothing_outside_distributed_imports_ray():
    assert len(MODULES) > 20
    assert "ray" not in modules_loaded_by(*MODULES)


@pytest.mark.parametrize("module", LIGHT)
def test_checking_the_input_of_a_command_needs_neither_ray_nor_torch(module):
    assert not {"ray", "torch"} & modules_loaded_by(module)


def test_metrics_need_the_scientific_stack_alone():
    loaded = modules_loaded_by("lensray.metrics.ranking", "lensray.metrics.classification")
    assert not {"ray", "torch", "pyarrow", "matplotlib", "astropy"} & loaded
