"""Contact sheet of what ``simulate_survey.py --onto`` made: real galaxies, and the same with a simulated arc.

python jobs/simulate_survey.py --onto SURVEY --count 16 --lenses 8 --seed 1 --output INJECTED
python examples/injected_arcs.py --surveys SURVEY --injected INJECTED --output arcs.png
"""

from dataclasses import dataclass

import pyarrow as pa

from lensray.command_line import run_job


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Draw pairs of real galaxies and the same with an arc."""

    surveys: tuple[str, ...]
    """Surveys of real cutouts; small ones, they are read whole."""
    injected: tuple[str, ...]
    """For each of them, the folder of simulate_survey.py --onto."""
    widths_arcsec: tuple[float, ...] = ()
    """For each of them, how much of a cutout is shown (default: all)."""
    columns: int = 4
    """Pairs side by side."""
    output: str = "injected.png"
    """The picture, a PNG file."""


def main(config: Config) -> None:
    """Draw."""
    from lensray.inspection.figures import png
    from lensray.inspection.injection_figure import injection_figure, pairs_of
    from lensray.io import storage
    from lensray.training.sets import row_groups

    def read(url: str) -> pa.Table:
        return pa.concat_tables(row_groups(url))

    widths = config.widths_arcsec or (None,) * len(config.surveys)
    pairs = [
        pair
        for survey, injected, width in zip(config.surveys, config.injected, widths, strict=True)
        for pair in pairs_of(read(survey), read(injected), width_arcsec=width)
    ]
    storage.write_bytes(config.output, png(injection_figure(pairs, config.columns)))
    print(f"{len(pairs)} pairs: {config.output}")


if __name__ == "__main__":
    run_job(main, Config)
