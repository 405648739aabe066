"""A simulated field of sky as a survey's tiles: four mosaics a band that overlap, and the table of what is in them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from synthetic_mosaics import tan_wcs, write_mosaic

from lensray.simulation.field import Field, simulate_field
from lensray.survey import HSC_WIDE

SCALE = HSC_WIDE.pixel_scale_arcsec


@dataclass(frozen=True)
class Tiles:
    """A field on disk."""

    pattern: str
    field: Field
    ra: np.ndarray
    dec: np.ndarray
    folder: Path

    def catalog(self, path: Path, **columns: object) -> str:
        """A table of the true sources."""
        table = pd.DataFrame({"ID": np.arange(len(self.ra)), "RA": self.ra, "DEC": self.dec, **columns})
        table.to_csv(path, index=False)
        return str(path)


def make_tiles(
    folder: Path, side: int, overlap: int, *, galaxies: int, lenses: int, seed: int = 7, ending: str = ".fits"
) -> Tiles:
    """Write a field of `side` × `side` pixels as four tiles that share `overlap` rows and columns."""
    shape = (side, side)
    field = simulate_field(HSC_WIDE, shape, galaxies=galaxies, lenses=lenses, seed=seed)
    length = (side + overlap) // 2
    for name, left, bottom in (
        ("a", 0, 0),
        ("b", side - length, 0),
        ("c", 0, side - length),
        ("d", side - length, side - length),
    ):
        for band, image in field.images.items():
            part = np.ascontiguousarray(image[bottom : bottom + length, left : left + length])
            wcs = tan_wcs(shape, scale=SCALE, corner=(left, bottom))
            write_mosaic(folder / name / f"{band}{ending}", part, wcs)
    sky = tan_wcs(shape, scale=SCALE).pixel_to_world(field.x, field.y)
    return Tiles(
        pattern=f"{folder}/{{tile}}/{{band}}{ending}",
        field=field,
        ra=np.asarray(sky.ra.deg),
        dec=np.asarray(sky.dec.deg),
        folder=folder,
    )
