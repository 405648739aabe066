"""Detection over tiles of any size: in pieces that overlap, so that a source lies whole in at least one of them.

A tile is searched in bands of rows that fit into memory. Where pieces overlap, be they of one tile or of several, a source is
found in each; `own_sources` keeps it once: in the piece in which it lies farther from the edges, as the primary sources
of SDSS and HSC are those of a tile's inner part, unless there that piece has no data. Near the line where the two distances are
equal, where the scatter of a position decides, sources that match are compared and one of them is kept.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.spatial import KDTree

from lensray.extraction.detection import detect_sources
from lensray.extraction.detection_settings import DetectionSettings
from lensray.extraction.grid import Grid
from lensray.extraction.placing import chord, unit_vectors
from lensray.extraction.tiles import SurveyedTile
from lensray.io.mosaics import open_mosaic, read_rows
from lensray.survey import Survey

# Of one band; detection holds some five copies of the band that it searches.
PIECE_BYTES = 160 << 20
# Larger than the galaxies that are searched for, so that each lies whole in a piece.
MARGIN_ROWS = 256
# Positions of one source in two pieces differ by less.
MATCH_PIXELS = 1.5
# Side of the cells in which a piece remembers where it has data.
CELL = 64
NUMBERS_A_PIECE = 10_000_000
COVER_KEY = b"lensray.cover"


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """A band of rows of a tile."""

    number: int
    """Place among all pieces of the survey."""
    tile: int
    """Number of the tile."""
    part: int
    """Place among the pieces of the tile."""
    start: int
    """First row."""
    stop: int
    """Row after the last."""

    def depth(self, grid: Grid, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        """Distance of pixel coordinates of the tile to the nearest edge of the piece, in arcsec; negative or NaN outside."""
        rows = Grid(shape=(self.stop - self.start, grid.shape[1]), wcs=grid.wcs)
        return rows.depth(x, y - self.start) * grid.pixel_scale_arcsec


class Found(NamedTuple):
    """The sources that a piece found."""

    piece: Piece
    grid: Grid
    sources: pa.Table
    """With ``x`` and ``y`` in the tile, ``ra`` and ``dec``."""
    covered: NDArray[np.bool_]
    """Which cells of the piece have data in all of their pixels, shape (rows / `CELL`, columns / `CELL`), rounded up."""

    def has_data(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether the piece has data all around pixel coordinates of its tile, as far as its cells tell."""
        found = np.ones(len(x), bool)
        for dx, dy in product((-2 * MATCH_PIXELS, 2 * MATCH_PIXELS), repeat=2):
            found &= self._covers(x + dx, y + dy - self.piece.start)
        return found

    def _covers(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
        row, column = (np.floor(np.nan_to_num(v, nan=-1) / CELL).astype(int) for v in (y, x))
        inside = (row >= 0) & (column >= 0) & (row < self.covered.shape[0]) & (column < self.covered.shape[1])
        return inside & self.covered[np.where(inside, row, 0), np.where(inside, column, 0)]


def pieces_of(tiles: Sequence[SurveyedTile]) -> list[Piece]:
    """The pieces of all tiles that have a grid and can be used."""
    found: list[Piece] = []
    for number, tile in enumerate(tiles):
        grid = tile.grid
        if grid is None or tile.problem:
            continue
        spans = _spans(grid.shape[0], max(4 * MARGIN_ROWS, PIECE_BYTES // (4 * grid.shape[1])))
        for part, (start, stop) in enumerate(spans):
            found.append(Piece(number=len(found), tile=number, part=part, start=start, stop=stop))
    return found


def _spans(height: int, most: int) -> list[tuple[int, int]]:
    """Equal bands of at most `most` rows that overlap by two margins."""
    if height <= most:
        return [(0, height)]
    count = -(-(height - 2 * MARGIN_ROWS) // (most - 2 * MARGIN_ROWS))
    edges = np.linspace(0, height - 2 * MARGIN_ROWS, count + 1).round().astype(int)
    return [(int(first), int(last) + 2 * MARGIN_ROWS) for first, last in pairwise(edges)]


def overlapping(pieces: Sequence[Piece], tiles: Sequence[SurveyedTile]) -> list[list[int]]:
    """For each piece the numbers of the other pieces that may overlap with it."""
    if not pieces:
        return []
    circles = np.array([tiles[piece.tile].circle for piece in pieces])
    points = unit_vectors(circles[:, 0], circles[:, 1])
    tree = KDTree(points)
    widest = circles[:, 2].max()
    near = tree.query_ball_point(points, [chord(radius + widest) for radius in circles[:, 2]])
    return [
        [other for other in sorted(found) if other != place and _may_touch(pieces[place], pieces[other])]
        for place, found in enumerate(near)
    ]


def _may_touch(one: Piece, other: Piece) -> bool:
    return one.tile != other.tile or (one.start < other.stop and other.start < one.stop)


def find_sources(
    piece: Piece,
    tile: SurveyedTile,
    bands: Sequence[str],
    detection_band: str,
    settings: DetectionSettings,
    *,
    zero_points: dict[str, float | None],
    survey: Survey | None,
) -> Found:
    """Read a piece and find its sources; PSF widths and gains are those of the survey.

    Pixels of exactly zero in mosaics of floating-point numbers count as missing: so surveys fill what lies beyond the sky that
    they saw.

    Raises
    ------
    OSError, ValueError
        If a mosaic is damaged or cannot be read.
    """
    grid = tile.grid
    assert grid is not None
    planes = {}
    for band in bands:
        with open_mosaic(tile.tile.files[band]) as hdu:
            planes[band] = np.array(read_rows(hdu, piece.start, piece.stop), np.float32)
            if hdu.header["BITPIX"] < 0:
                planes[band][planes[band] == 0] = np.nan
    scale = grid.pixel_scale_arcsec
    table = detect_sources(
        planes,
        detection_band,
        settings,
        pixel_scale_arcsec=scale,
        zero_points=zero_points,
        psf_fwhm_arcsec=_by_band(survey, "psf_fwhm_arcsec", bands),
        gain=_by_band(survey, "gain", bands),
    )
    covered = cover(planes[detection_band])
    y = table["y"].to_numpy() + piece.start
    ra, dec = grid.to_sky(table["x"].to_numpy(), y)
    numbers = piece.part * NUMBERS_A_PIECE + np.arange(table.num_rows)
    ids = [f"{tile.tile.name}-{number}" for number in numbers]
    table = table.set_column(table.column_names.index("y"), "y", pa.array(y))
    for place, (name, values) in enumerate((("object_id", ids), ("ra", ra), ("dec", dec))):
        table = table.add_column(
            place, name, pa.array(values, pa.string() if name == "object_id" else pa.float64())
        )
    return Found(piece, grid, table, covered)


def _by_band(survey: Survey | None, figure: str, bands: Sequence[str]) -> dict[str, float | None]:
    known = dict(zip(survey.bands, getattr(survey, figure), strict=True)) if survey else {}
    return {band: known.get(band) for band in bands}


def cover(pixels: NDArray) -> NDArray[np.bool_]:
    """Which cells of `CELL` × `CELL` pixels have data in all of them."""
    height, width = pixels.shape
    rows, columns = -(-height // CELL), -(-width // CELL)
    counts = np.add.reduceat(np.isfinite(pixels).astype(np.int32), np.arange(0, height, CELL), axis=0)
    counts = np.add.reduceat(counts, np.arange(0, width, CELL), axis=1)
    areas = np.outer(_lengths(height, rows), _lengths(width, columns))
    return counts == areas


def _lengths(length: int, cells: int) -> NDArray[np.int64]:
    return np.minimum(CELL, length - CELL * np.arange(cells))


def with_cover(found: Found) -> pa.Table:
    """The sources with what is covered in the metadata of their table, to be written."""
    packed = np.packbits(found.covered).tobytes().hex()
    text = json.dumps({"shape": found.covered.shape, "bits": packed})
    return found.sources.replace_schema_metadata({COVER_KEY: text.encode()})


def stored_cover(table: pa.Table) -> NDArray[np.bool_]:
    """What `with_cover` put into a table."""
    stored = json.loads(table.schema.metadata[COVER_KEY])
    shape = tuple(stored["shape"])
    bits = np.frombuffer(bytes.fromhex(stored["bits"]), np.uint8)
    return np.unpackbits(bits, count=shape[0] * shape[1]).astype(bool).reshape(shape)


def own_sources(found: Found, others: Sequence[Found]) -> pa.Table:
    """The sources of a piece without those that another piece has.

    Parameters
    ----------
    found : Found
    others : sequence of Found
        Of all pieces that may overlap with it.

    Notes
    -----
    Where both pieces have data all around, a source belongs to the one in which it lies deeper. Elsewhere (near the line where both
    depths are equal, and near missing pixels) it is kept unless the other piece found it as well, and deeper in itself; of equal
    depths that of the first piece stays. Called for each of two pieces, it keeps a source that both found once.
    """
    sources = found.sources
    ra, dec, x, y = (sources[name].to_numpy() for name in ("ra", "dec", "x", "y"))
    own_depth = found.piece.depth(found.grid, x, y)
    keep = np.ones(len(x), bool)
    for other in others:
        there_x, there_y = other.grid.to_pixels(ra, dec)
        depth = other.piece.depth(other.grid, there_x, there_y)
        shared = depth >= 0
        tolerance = 2 * MATCH_PIXELS * other.grid.pixel_scale_arcsec
        clear = shared & found.has_data(x, y) & other.has_data(there_x, there_y)
        clear &= np.abs(depth - own_depth) > tolerance
        keep &= ~(clear & (depth > own_depth))
        close = np.flatnonzero(shared & ~clear)
        keep[close] &= ~_is_matched_by_deeper(found, own_depth[close], other, there_x[close], there_y[close])
    return sources.filter(pa.array(keep))


def _is_matched_by_deeper(
    found: Found,
    own_depth: NDArray[np.float64],
    other: Found,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """Whether another piece found the same source, and keeps it; `x` and `y` are pixel coordinates there."""
    theirs = np.column_stack([other.sources["x"].to_numpy(), other.sources["y"].to_numpy()])
    if not len(theirs) or not len(x):
        return np.zeros(len(x), bool)
    distance, nearest = KDTree(theirs).query(np.column_stack([x, y]), distance_upper_bound=MATCH_PIXELS)
    matched = np.isfinite(distance)
    their_depth = np.full(len(x), -np.inf)
    there = theirs[np.asarray(nearest)[matched]]
    their_depth[matched] = other.piece.depth(other.grid, there[:, 0], there[:, 1])
    first = other.piece.number < found.piece.number
    return matched & ((their_depth > own_depth) | ((their_depth == own_depth) & first))
