"""Several trained bundles as one: a committee whose fusion is learned on labelled cutouts (`lensray.training.fusion`)."""

from dataclasses import dataclass

from lensray.errors import InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class FuseConfig:
    """Fuse trained bundles into a committee."""

    bundles: tuple[str, ...]
    """Two or more bundles of the same bands and pixel scale: names of shipped ones, or addresses."""
    cutouts: str
    """Labelled survey on which no member was trained: the fusion is learned from it."""
    output: str
    """File of the committee's bundle, local or s3://."""
    label: str = "label"
    """Bool column that says which cutouts are lenses."""
    seed: int = 0
    """Seed of the folds and of the bootstrap."""

    def __post_init__(self) -> None:
        if len(self.bundles) < 2:
            raise InputError("--bundles names fewer than two; a committee needs several")
        if not self.output.endswith(".safetensors"):
            raise InputError(f"--output {self.output} is no .safetensors file")


def fuse(config: FuseConfig) -> str:
    """Learn the fusion, write the bundle; returns what it gains over the plain mean.

    Raises
    ------
    InputError
        If the members do not fit each other or the survey, or there are too few of a class.
    """
    from lensray.training.fusion import fuse_surveys
    from lensray.training.workbench import versions

    report = fuse_surveys(
        config.bundles,
        [config.cutouts],
        config.output,
        label=config.label,
        seed=config.seed,
        provenance={"recipe": "committee", "versions": versions()},
    )
    gains = [
        f"{name}: fused {report.fused[name]:.4g}, plain mean {report.mean[name]:.4g} (difference {gain:+.2g} ± {error:.2g})"
        for name, (gain, error) in report.gain.items()
    ]
    return "\n".join([*gains, f"bundle: {config.output}"])
