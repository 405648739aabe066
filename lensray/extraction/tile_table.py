"""The tiles of a survey as a Parquet file, with what their headers say, so that they are read once."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache

import pyarrow as pa
import pyarrow.parquet as pq

from lensray.extraction.grid import Grid
from lensray.extraction.tiles import SurveyedTile, Tile
from lensray.io import parquet, storage
from lensray.io.mosaics import MosaicFile

SCHEMA = pa.schema(
    [
        ("tile", pa.string()),
        ("status", pa.string()),
        ("problem", pa.string()),
        ("ra", pa.float64()),
        ("dec", pa.float64()),
        ("radius_deg", pa.float64()),
        ("files", pa.string()),
        ("grids", pa.string()),
        ("zero_points", pa.string()),
        ("headers", pa.string()),
    ]
)


def write_tiles(tiles: Sequence[SurveyedTile], url: str) -> None:
    """Write the tiles; files, grids and zero points are JSON."""
    with storage.atomic_output(url) as file:
        pq.write_table(pa.Table.from_pylist([_row(tile) for tile in tiles], SCHEMA), file, compression="zstd")


def _row(tile: SurveyedTile) -> dict:
    ra, dec, radius = tile.circle or (None, None, None)
    return {
        "tile": tile.tile.name,
        "status": tile.status,
        "problem": tile.problem,
        "ra": ra,
        "dec": dec,
        "radius_deg": radius,
        "files": json.dumps({band: asdict(file) for band, file in tile.tile.files.items()}),
        "grids": json.dumps({column: asdict(grid) for column, grid in tile.grids.items()}),
        "zero_points": json.dumps(dict(tile.zero_points)),
        "headers": tile.headers,
    }


@lru_cache(maxsize=2)
def read_tiles(url: str) -> dict[str, SurveyedTile]:
    """The tiles of `write_tiles` by name; kept by the process, which asks for them again and again."""
    return {row["tile"]: _tile(row) for row in parquet.read_table(url).to_pylist()}


def _tile(row: dict) -> SurveyedTile:
    grids = {
        column: Grid(shape=tuple(grid["shape"]), wcs=grid["wcs"])
        for column, grid in json.loads(row["grids"]).items()
    }
    files = {band: MosaicFile(**file) for band, file in json.loads(row["files"]).items()}
    return SurveyedTile(
        tile=Tile(name=row["tile"], files=files),
        grids=grids,
        circle=None if row["ra"] is None else (row["ra"], row["dec"], row["radius_deg"]),
        zero_points=json.loads(row["zero_points"]),
        headers=row["headers"],
        status=row["status"],
        problem=row["problem"],
    )
