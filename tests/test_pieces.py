"""Pieces of tiles: every source that several of them find is kept once, whatever the scatter of its positions."""

import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from synthetic_mosaics import SCALE, tan_wcs

from lensray.extraction import pieces
from lensray.extraction.grid import Grid
from lensray.extraction.pieces import (
    CELL,
    Found,
    Piece,
    cover,
    overlapping,
    own_sources,
    pieces_of,
    stored_cover,
    with_cover,
)
from lensray.extraction.tiles import SurveyedTile, Tile

SHAPE = (300, 320)


def grid_at(dx: float, dy: float, rotation: float = 0.0, shape: tuple[int, int] = SHAPE) -> Grid:
    """A tile whose middle lies `dx`, `dy` pixels from the first one's."""
    ra, dec = 150 - dx * SCALE / 3600 / np.cos(np.deg2rad(2)), 2 + dy * SCALE / 3600
    return Grid(shape=shape, wcs=tan_wcs(shape, ra, dec, rotation_deg=rotation).to_header_string())


def whole(number: int, grid: Grid) -> Piece:
    return Piece(number=number, tile=number, part=0, start=0, stop=grid.shape[0])


def found_in(piece: Piece, grid: Grid, ra, dec, truth, *, jitter: float, seed: int, pixels=None) -> Found:
    """What a piece finds of true sources: those on it, with scattered positions, on pixels that are there."""
    x, y = grid.to_pixels(ra, dec)
    generator = np.random.default_rng([seed, piece.number])
    x, y = x + generator.uniform(-jitter, jitter, len(x)), y + generator.uniform(-jitter, jitter, len(y))
    if pixels is None:
        pixels = np.ones((piece.stop - piece.start, grid.shape[1]), np.float32)
    empty = Found(piece, grid, pa.table({}), cover(pixels))
    on = piece.depth(grid, x, y) > 0
    row, column = np.round(y[on] - piece.start).astype(int), np.round(x[on]).astype(int)
    on[on] = np.isfinite(pixels[row.clip(0, len(pixels) - 1), column.clip(0, grid.shape[1] - 1)])
    sky_ra, sky_dec = grid.to_sky(x[on], y[on])
    return empty._replace(
        sources=pa.table({"x": x[on], "y": y[on], "ra": sky_ra, "dec": sky_dec, "truth": truth[on]})
    )


def kept(found: list[Found]) -> np.ndarray:
    """The true sources that are kept, all pieces together."""
    tables = [own_sources(one, [other for other in found if other is not one]) for one in found]
    return np.sort(pa.concat_tables(tables)["truth"].to_numpy())


def sky_sources(seed: int, count: int = 400) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True sources at least 6 pixels apart, over all tiles."""
    generator = np.random.default_rng(seed)
    wide = grid_at(0, 0, shape=(900, 900))
    cells = generator.choice(70 * 70, count, replace=False)
    x, y = (
        12.0 * (cells % 70) + generator.uniform(0, 6, count),
        12.0 * (cells // 70) + generator.uniform(0, 6, count),
    )
    return *wide.to_sky(x + 20, y + 20), np.arange(count)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    jitter=st.sampled_from([0.0, 0.1, 0.5]),
    rotation=st.sampled_from([0.0, 7.0, 90.0]),
)
def test_a_source_of_four_overlapping_tiles_is_kept_once(seed, jitter, rotation):
    grids = [
        grid_at(-130, -130),
        grid_at(130, -130, rotation),
        grid_at(-130, 130, -rotation),
        grid_at(130, 130),
    ]
    ra, dec, truth = sky_sources(seed)
    found = [found_in(whole(i, g), g, ra, dec, truth, jitter=jitter, seed=seed) for i, g in enumerate(grids)]
    seen = np.unique(np.concatenate([one.sources["truth"].to_numpy() for one in found]))
    assert_array_equal(kept(found), seen)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    border=st.integers(100, 300),
    jitter=st.sampled_from([0.0, 0.3]),
    bad_pixel=st.booleans(),
)
def test_sources_near_missing_pixels_are_kept_once(seed, border, jitter, bad_pixel):
    """The first tile has no data right of a column, though sources lie deeper in it than in the second; one pixel is bad."""
    first, second = grid_at(0, 0), grid_at(150, 0)
    ra, dec, truth = sky_sources(seed)
    pixels = np.ones(SHAPE, np.float32)
    pixels[:, border:] = np.nan
    whole_second = np.ones(SHAPE, np.float32)
    if bad_pixel:
        whole_second[100, 40] = np.nan
    found = [
        found_in(whole(0, first), first, ra, dec, truth, jitter=jitter, seed=seed, pixels=pixels),
        found_in(whole(1, second), second, ra, dec, truth, jitter=jitter, seed=seed, pixels=whole_second),
    ]
    seen = np.unique(np.concatenate([one.sources["truth"].to_numpy() for one in found]))
    assert_array_equal(kept(found), seen)
    careless = [one._replace(covered=np.ones_like(one.covered)) for one in found]
    if border < 180:
        assert len(kept(careless)) < len(seen)


def test_sources_of_the_bands_of_rows_of_one_tile_are_kept_once(monkeypatch):
    monkeypatch.setattr(pieces, "PIECE_BYTES", 4 * 320 * 260)
    monkeypatch.setattr(pieces, "MARGIN_ROWS", 40)
    grid = grid_at(0, 0, shape=(700, 320))
    tile = SurveyedTile(tile=Tile(name="t", files={}), grids={"image": grid}, circle=grid.circle())
    bands = pieces_of([tile])
    assert len(bands) == 4
    assert (bands[0].start, bands[-1].stop) == (0, 700)
    assert all(later.start == earlier.stop - 80 for earlier, later in itertools.pairwise(bands))
    assert max(band.stop - band.start for band in bands) <= 260
    assert overlapping(bands, [tile]) == [[1], [0, 2], [1, 3], [2]]
    ra, dec, truth = sky_sources(5)
    found = [found_in(band, grid, ra, dec, truth, jitter=0.3, seed=2) for band in bands]
    seen = np.unique(np.concatenate([one.sources["truth"].to_numpy() for one in found]))
    assert_array_equal(kept(found), seen)


def test_tiles_far_apart_are_not_compared():
    grids = [grid_at(0, 0), grid_at(250, 0), grid_at(5000, 0)]
    tiles = [
        SurveyedTile(tile=Tile(name=f"t{i}", files={}), grids={"image": grid}, circle=grid.circle())
        for i, grid in enumerate(grids)
    ]
    assert overlapping(pieces_of(tiles), tiles) == [[1], [0], []]


@pytest.mark.parametrize("shape", [(64, 64), (65, 130), (10, 3), (200, 199)])
def test_cells_with_data_in_all_of_their_pixels_are_covered(shape):
    generator = np.random.default_rng(1)
    pixels = np.where(generator.random(shape) < 2e-4, np.nan, 1.0)
    pixels[:2, :2] = np.nan
    found = cover(pixels)
    for row in range(found.shape[0]):
        for column in range(found.shape[1]):
            cell = pixels[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL]
            assert found[row, column] == np.isfinite(cell).all()
    one = Found(whole(0, grid_at(0, 0)), grid_at(0, 0), pa.table({"x": [1.0]}), found)
    assert_array_equal(stored_cover(with_cover(one)), found)
