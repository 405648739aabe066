"""What every recipe can be told; light, so that a wrong word is answered at once."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from lensray.errors import InputError

Scale = Literal["paper", "small", "smoke"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RecipeConfig:
    """Options of every recipe."""

    output: str
    """Folder for surveys, checkpoints, bundles, scans and the report, local or s3://; the same words go on with it."""
    scale: Scale = "small"
    """Sizes: ``paper`` as published, ``small`` for minutes on a laptop, ``smoke`` for a test that takes seconds."""
    cutouts: str = ""
    """Survey of real cutouts: arcs are painted on its galaxies, its random cutouts are the negatives, it is ranked."""
    positives: tuple[str, ...] = ()
    """Surveys of more lenses, such as generated ones or candidates that people confirmed; all of their cutouts count as lenses."""
    negatives: tuple[str, ...] = ()
    """Surveys of more non-lenses, such as mined false positives; all of their cutouts count as negatives."""
    real: str = ""
    """Survey of real images with the bool column label: what the network is worth on them is reported."""
    workers: int = 1
    """Workers that train together; each has a GPU, or a share of the CPU cores."""
    gpus_per_worker: float | None = None
    """GPUs a worker (default: 1 where the cluster has GPUs, else 0)."""
    seed: int = 1
    """Seed of data, weights and draws."""

    def __post_init__(self) -> None:
        if not self.output:
            raise InputError("--output is empty; give an address")
        if self.workers < 1:
            raise InputError(f"--workers is {self.workers}; it must be at least 1")
        if self.gpus_per_worker is not None and self.gpus_per_worker < 0:
            raise InputError(f"--gpus-per-worker is {self.gpus_per_worker}; it must not be negative")
        if self.seed < 0:
            raise InputError(f"--seed is {self.seed}; it must not be negative")

    def settings(self) -> dict[str, Any]:
        """The words that the results depend on."""
        free = ("output", "workers", "gpus_per_worker", "real")
        return {name: value for name, value in asdict(self).items() if name not in free}


def check_lenses(config: Any) -> None:
    """Raise InputError unless a recipe's own `lenses` is a number of lenses; 0 only beside those of --positives."""
    if config.lenses is not None and config.lenses < (0 if config.positives else 1):
        raise InputError(
            f"--lenses is {config.lenses}; give at least one, or lenses of your own as --positives"
        )


def check_positive(config: RecipeConfig, *names: str) -> None:
    """Raise InputError unless these options, where they are given, are greater than zero."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not value > 0:
            raise InputError(f"--{name.replace('_', '-')} is {value}; it must be positive")
