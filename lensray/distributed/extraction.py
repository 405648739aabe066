"""From mosaics to a table of sources, on Ray: a catalogue's rows placed in the tiles, or sources found in them.

Each stage writes a file a part, by its place alone, so that an extraction that was stopped goes on with the same words. The
pixels of the sources are not written: a scan cuts them out while it reads (`lensray.extraction.mosaic_images`).
"""

import json
import logging
import sys
from collections import Counter

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from lensray.distributed.extraction_plan import ExtractionPlan
from lensray.distributed.resources import connect
from lensray.distributed.simulate import make_parts
from lensray.errors import LensRayError
from lensray.extraction.mosaic_images import pixel_columns
from lensray.extraction.pieces import (
    Found,
    Piece,
    find_sources,
    overlapping,
    own_sources,
    pieces_of,
    stored_cover,
    with_cover,
)
from lensray.extraction.sources import CatalogPart, catalog_parts, placed, read_part, write_sources
from lensray.extraction.tile_table import write_tiles
from lensray.extraction.tiles import SurveyedTile
from lensray.io import parquet, storage
from lensray.io.explain import first_line
from lensray.io.mosaics import check_reachable
from lensray.pixels import Status
from lensray.progress import Progress
from lensray.survey import SURVEYS

log = logging.getLogger(__name__)


def make_sources(plan: ExtractionPlan) -> None:
    """Write the sources that are still missing, and ``tiles.csv`` with what became of each tile.

    Raises
    ------
    InputError
        If the folder holds another extraction.
    LensRayError
        If there is not a single source.
    """
    connect()
    if not plan.begun():
        write_tiles(plan.tiles, plan.tile_table)
        record = {"fingerprint": plan.fingerprint, **plan.identity}
        storage.write_bytes(storage.join(plan.folder, "plan.json"), json.dumps(record, indent=1).encode())
    if plan.catalog is None:
        pieces = pieces_of(plan.tiles)
        _run_stage("detect", [_row(piece) for piece in pieces], FindSources(plan), "pieces")
        near = overlapping(pieces, plan.tiles)
        rows = [{**_row(piece), "near": near[piece.number]} for piece in pieces]
        _run_stage("resolve", rows, OwnSources(plan, pieces), "pieces")
    else:
        parts = catalog_parts(str(plan.options.catalog))
        rows = [{"number": n, "path": p.path, "row_groups": p.row_groups} for n, p in enumerate(parts)]
        _run_stage("place", rows, PlaceSources(plan), "parts")
    _write_tile_summary(plan)


def _row(piece: Piece) -> dict:
    return {name: getattr(piece, name) for name in ("number", "tile", "part", "start", "stop")}


def _run_stage(name: str, rows: list[dict], stage: "_Stage", unit: str) -> None:
    """Call a stage for each part whose file is not there."""
    filesystem, path = storage.resolve(stage.folder)
    there = set(storage.list_names(filesystem, path))
    missing = [row for row in rows if _file_name(row["number"]) not in there]
    with Progress(name, total=len(rows), done=len(rows) - len(missing), unit=unit) as bar:
        make_parts(missing, stage, "cpu", bar)


def _file_name(number: int) -> str:
    return f"part-{number:08d}.parquet"


class _Stage:
    """Writes a part, which is named by the one row that it is called with."""

    def __init__(self, plan: ExtractionPlan, folder: str) -> None:
        self.plan = plan
        self.folder = folder

    def __call__(self, rows: pa.Table) -> pa.Table:
        (row,) = rows.to_pylist()
        self.make(row, storage.join(self.folder, _file_name(row["number"])))
        return pa.table({"part": [row["number"]], "rows": [1]})

    def make(self, row: dict, url: str) -> None:
        raise NotImplementedError


class PlaceSources(_Stage):
    """Places a part of a catalogue in the tiles."""

    def __init__(self, plan: ExtractionPlan) -> None:
        super().__init__(plan, plan.sources)

    def make(self, row: dict, url: str) -> None:
        """Read rows of the catalogue and write them with their places."""
        plan = self.plan
        assert plan.catalog is not None
        groups = row["row_groups"]
        part = CatalogPart(path=row["path"], row_groups=None if groups is None else tuple(groups))
        catalog = read_part(str(plan.options.catalog), part, plan.catalog)
        write_sources(placed(catalog, plan.tiles, plan.formats), url)


class FindSources(_Stage):
    """Finds the sources of a piece of a tile."""

    def __init__(self, plan: ExtractionPlan) -> None:
        super().__init__(plan, storage.join(plan.folder, "found"))

    def make(self, row: dict, url: str) -> None:
        """Write the sources of a piece; one that cannot be read has none, and says so."""
        piece = Piece(**row)
        tile = self.plan.tiles[piece.tile]
        table = self._found(piece, tile)
        if PROBLEM in (table.schema.metadata or {}):  # damage counts when it comes twice
            table = self._found(piece, tile)
        with storage.atomic_output(url) as file:
            pq.write_table(table, file, compression="zstd")

    def _found(self, piece: Piece, tile: SurveyedTile) -> pa.Table:
        """The sources of a piece, or none and why it cannot be read."""
        plan, bands = self.plan, tuple(self.plan.zero_points)
        try:
            found = find_sources(
                piece,
                tile,
                bands,
                plan.detection_band,
                plan.options.detection,
                zero_points=_zero_points(plan, tile),
                survey=SURVEYS.get(next(iter(plan.formats.values())).survey),
            )
        except (OSError, ValueError) as error:
            for band in bands:
                check_reachable(tile.tile.files[band])
            log.error("tile %s cannot be read: %s", tile.tile.name, error)
            return pa.table({}).replace_schema_metadata({PROBLEM: first_line(error).encode()})
        return with_cover(found)


PROBLEM = b"lensray.problem"


def _zero_points(plan: ExtractionPlan, tile: SurveyedTile) -> dict[str, float | None]:
    """Of each band: the user's word, else the header's, else the layout's or survey's."""
    if plan.options.zero_point:
        return plan.zero_points
    return {band: tile.zero_points.get(band, known) for band, known in plan.zero_points.items()}


def _magnitude_bands(plan: ExtractionPlan) -> list[str]:
    """Bands in which some tile has a zero point."""
    return [
        band
        for band, known in plan.zero_points.items()
        if known is not None or any(band in tile.zero_points for tile in plan.tiles)
    ]


class OwnSources(_Stage):
    """Keeps the sources of a piece that are its own, and places them."""

    def __init__(self, plan: ExtractionPlan, pieces: list[Piece]) -> None:
        super().__init__(plan, plan.sources)
        self.pieces = pieces

    def make(self, row: dict, url: str) -> None:
        """Compare with the pieces that overlap, and write what is left."""
        found = self._found(row["number"])
        if found is None:
            return
        others = [other for other in map(self._found, row["near"]) if other is not None]
        write_sources(_as_sources(own_sources(found, others), self.plan, found.piece), url)

    def _found(self, number: int) -> Found | None:
        piece = self.pieces[number]
        table = parquet.read_table(storage.join(self.plan.folder, "found", _file_name(number)))
        if PROBLEM in (table.schema.metadata or {}):
            return None
        grid = self.plan.tiles[piece.tile].grid
        assert grid is not None
        return Found(piece, grid, table, stored_cover(table))


def _as_sources(found: pa.Table, plan: ExtractionPlan, piece: Piece) -> pa.Table:
    """Detections as a table of sources (see `lensray.extraction.sources`)."""
    tile = plan.tiles[piece.tile]
    table = found.drop_columns(["x", "y"]).replace_schema_metadata(None)
    for band in _magnitude_bands(plan):
        if f"mag_{band}" not in table.column_names:  # a tile whose header lacks the zero point
            for name in (f"mag_{band}", f"magerr_{band}"):
                table = table.append_column(name, pa.nulls(found.num_rows, pa.float32()))
    table = table.append_column("tile", pa.array([tile.tile.name] * found.num_rows, pa.string()))
    table = table.append_column("cut_status", pa.array([Status.OK] * found.num_rows, pa.string()))
    for place, column in enumerate(plan.formats):
        x, y = found["x"], found["y"]
        if place and found.num_rows:
            ra, dec = (found[name].to_numpy() for name in ("ra", "dec"))
            x, y = map(pa.array, tile.grids[column].to_pixels(ra, dec))
        for name, values in zip(pixel_columns(column), (x, y), strict=True):
            table = table.append_column(name, values)
    return table


def _write_tile_summary(plan: ExtractionPlan) -> None:
    """``tiles.csv``: each tile with the sources that can be cut out of it, and what is wrong with it; said on stderr, too."""
    (rows, sources), problems = _sources_by_tile(plan), _reading_problems(plan)
    if not rows:
        raise LensRayError(f"there is no source in {len(plan.tiles)} tiles; {_first_problem(plan, problems)}")
    names = [tile.tile.name for tile in plan.tiles]
    table = pa.table(
        {
            "tile": names,
            "status": [
                Status.UNREADABLE if n in problems else t.status
                for n, t in zip(names, plan.tiles, strict=True)
            ],
            "problem": [problems.get(n) or t.problem for n, t in zip(names, plan.tiles, strict=True)],
            "sources": [sources[name] for name in names],
        }
    )
    url = storage.join(plan.folder, "tiles.csv")
    with storage.atomic_output(url) as file:
        pacsv.write_csv(table, file)
    if bad := [text for text in table["problem"].to_pylist() if text]:
        print(
            f"{len(bad)} of {len(names)} tiles cannot be used ({bad[0]}); see {url}",
            file=sys.stderr,
            flush=True,
        )


def _sources_by_tile(plan: ExtractionPlan) -> tuple[int, Counter[str]]:
    """Number of sources, and of those that can be cut out of each tile."""
    rows = 0
    counts: Counter[str] = Counter()
    filesystem, _ = storage.resolve(plan.sources)
    for entry in storage.find_files(plan.sources) if storage.exists(plan.sources) else []:
        table = pq.read_table(entry.path, columns=["tile", "cut_status"], filesystem=filesystem)
        rows += table.num_rows
        fit = table.filter(
            pa.array([status == Status.OK for status in table["cut_status"].to_pylist()], pa.bool_())
        )
        for pair in fit["tile"].value_counts().to_pylist():
            counts[pair["values"]] += pair["counts"]
    return rows, counts


def _reading_problems(plan: ExtractionPlan) -> dict[str, str]:
    """Tiles with a piece that could not be read, and why."""
    if plan.catalog is not None:
        return {}
    problems = {}
    for piece in pieces_of(plan.tiles):
        with storage.open_input(storage.join(plan.folder, "found", _file_name(piece.number))) as file:
            metadata = pq.read_schema(file).metadata or {}
        if PROBLEM in metadata:
            problems[plan.tiles[piece.tile].tile.name] = metadata[PROBLEM].decode()
    return problems


def _first_problem(plan: ExtractionPlan, problems: dict[str, str]) -> str:
    first = next(iter([*problems.values(), *(tile.problem for tile in plan.problems)]), "")
    return first or "is the threshold too high, or the catalogue of another part of the sky?"
