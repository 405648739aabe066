"""Finding tiles by patterns, what their headers say, and which tile holds a source, against slow oracles."""

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from synthetic_mosaics import SCALE, noise, tan_wcs, write_mosaic

from lensray.errors import InputError
from lensray.extraction.grid import Grid
from lensray.extraction.placing import NOWHERE, place_sources
from lensray.extraction.tile_table import read_tiles, write_tiles
from lensray.extraction.tiles import SurveyedTile, Tile, find_tiles, survey_tile
from lensray.pixels import Status

SHAPE = (60, 80)
GRI = {band: f"{{tile}}/{band}.fits" for band in "gri"}


def write_tile(folder, name: str, bands: str = "gri", **words) -> None:
    for band in bands:
        write_mosaic(folder / name / f"{band}.fits", noise(SHAPE), tan_wcs(SHAPE, **words))


def surveyed(folder) -> dict[str, SurveyedTile]:
    tiles = find_tiles(str(folder), GRI)
    return {tile.name: survey_tile(tile, {"image": "gri"}) for tile in tiles}


def test_tiles_are_named_by_what_stands_in_braces(tmp_path):
    for name in ("calexp-HSC-G-9813-4,4", "calexp-HSC-G-9813-5,4", "calexp-HSC-R-9813-4,4", "other"):
        write_mosaic(tmp_path / "9813" / f"{name}.fits", noise(SHAPE))
    patterns = {
        band: f"{{tract}}/calexp-{word}-{{tract}}-{{patch}}.fi*"
        for band, word in (("g", "HSC-G"), ("r", "HSC-R"))
    }
    tiles = find_tiles(str(tmp_path), patterns)
    assert [tile.name for tile in tiles] == ["9813-4,4", "9813-5,4"]
    assert [sorted(tile.files) for tile in tiles] == [["g", "r"], ["g"]]


def test_a_pattern_that_says_no_tile_or_finds_no_file_is_refused(tmp_path):
    write_tile(tmp_path, "t1")
    with pytest.raises(InputError, match=r"write \{tile\}"):
        find_tiles(str(tmp_path), {"g": "t1/g.fits"})
    for pattern in ("{}/g.fits", "{tile/g.fits", "{til-e}/g.fits", "{tile:03d}/g.fits", "{tile}/[gr].fits"):
        with pytest.raises(InputError, match="braces hold a name"):
            find_tiles(str(tmp_path), {"g": pattern})
    with pytest.raises(InputError, match="no file matches"):
        find_tiles(str(tmp_path), {"g": "{tile}/z.fits"})
    write_mosaic(tmp_path / "t1" / "gg.fits", noise(SHAPE))
    with pytest.raises(InputError, match="both band g of tile t1"):
        find_tiles(str(tmp_path), {"g": "{tile}/g*.fits"})


def test_what_is_wrong_with_a_tile_is_its_status(tmp_path):
    write_tile(tmp_path, "good")
    write_tile(tmp_path, "lacks_a_band", "gr")
    write_tile(tmp_path, "shifted", "gr")
    write_mosaic(tmp_path / "shifted" / "i.fits", noise(SHAPE), tan_wcs(SHAPE, corner=(0.2, 0)))
    write_tile(tmp_path, "other_shape", "gr")
    write_mosaic(tmp_path / "other_shape" / "i.fits", noise((61, 80)), tan_wcs(SHAPE))
    write_tile(tmp_path, "no_wcs", "gr")
    write_mosaic(tmp_path / "no_wcs" / "i.fits", noise(SHAPE))
    write_tile(tmp_path, "cut_off")
    path = tmp_path / "cut_off" / "r.fits"
    path.write_bytes(path.read_bytes()[:6000])
    write_tile(tmp_path, "no_fits")
    (tmp_path / "no_fits" / "g.fits").write_text("<html>404</html>")
    found = surveyed(tmp_path)
    assert {name: tile.status for name, tile in found.items()} == {
        "good": Status.OK,
        "lacks_a_band": Status.MISSING_BAND,
        "shifted": Status.DIFFERENT_GRIDS,
        "other_shape": Status.DIFFERENT_GRIDS,
        "no_wcs": Status.NO_WCS,
        "cut_off": Status.UNREADABLE,
        "no_fits": Status.UNREADABLE,
    }
    assert all(tile.problem for name, tile in found.items() if name != "good")
    assert found["cut_off"].grid is not None


def test_bands_of_nearly_the_same_grid_are_one_grid(tmp_path):
    write_tile(tmp_path, "t", "gr")
    write_mosaic(tmp_path / "t" / "i.fits", noise(SHAPE), tan_wcs(SHAPE, corner=(0.01, 0.01)))
    assert surveyed(tmp_path)["t"].status == Status.OK


def test_zero_points_of_headers_are_taken(tmp_path):
    for band, cards in (("g", {"MAGZERO": 24.6}), ("r", {"FLUXMAG0": 10**10.8}), ("i", {"MAGZERO": "none"})):
        write_mosaic(tmp_path / "t" / f"{band}.fits", noise(SHAPE), tan_wcs(SHAPE), **cards)
    assert surveyed(tmp_path)["t"].zero_points == pytest.approx({"g": 24.6, "r": 27.0})


def test_tiles_come_back_from_their_table(tmp_path):
    write_tile(tmp_path / "survey", "a")
    write_tile(tmp_path / "survey", "b", "gr")
    tiles = list(surveyed(tmp_path / "survey").values())
    write_tiles(tiles, str(tmp_path / "tiles.parquet"))
    assert list(read_tiles(str(tmp_path / "tiles.parquet")).values()) == tiles


@settings(max_examples=40, deadline=None)
@given(
    ra=st.floats(0, 360),
    dec=st.floats(-89.9, 89.9),
    rotation=st.floats(0, 360),
    seed=st.integers(0, 99),
)
def test_pixels_to_the_sky_and_back(ra, dec, rotation, seed):
    grid = Grid(shape=SHAPE, wcs=tan_wcs(SHAPE, ra, dec, rotation_deg=rotation).to_header_string())
    x, y = np.random.default_rng(seed).uniform(-50, 150, (2, 20))
    sky = grid.to_sky(x, y)
    assert_allclose(grid.to_pixels(*sky), [x, y], atol=1e-6)
    centre, radius = grid.circle()[:2], grid.circle()[2]
    inside = grid.depth(x, y) >= 0
    separation = SkyCoord(*sky, unit="deg").separation(SkyCoord(*centre, unit="deg")).deg
    assert (separation[inside] <= radius).all()


def test_the_other_side_of_the_sky_is_in_no_tile():
    grid = Grid(shape=SHAPE, wcs=tan_wcs(SHAPE, 150, 2).to_header_string())
    x, y = grid.to_pixels([330.0, 150.0], [-2.0, 2.0])
    assert np.isnan(x[0])
    assert_allclose([x[1], y[1]], [39.5, 29.5], atol=1e-6)


def tile_at(name: str, ra: float, dec: float, rotation: float = 0.0, status: str = Status.OK) -> SurveyedTile:
    grid = Grid(shape=SHAPE, wcs=tan_wcs(SHAPE, ra, dec, rotation_deg=rotation).to_header_string())
    return SurveyedTile(
        tile=Tile(name=name, files={}), grids={"image": grid}, circle=grid.circle(), status=status
    )


@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    dec=st.sampled_from([0.0, 60.0, -89.99, 89.9999]),
    ra=st.sampled_from([0.0, 150.0]),
)
def test_a_source_goes_to_the_tile_in_which_it_lies_deepest(seed, dec, ra):
    generator = np.random.default_rng(seed)
    step = 50 * SCALE / 3600
    tiles = [
        tile_at(
            f"t{number}",
            (ra + generator.uniform(-2, 2) * step / max(np.cos(np.deg2rad(dec)), 0.01)) % 360,
            float(np.clip(dec + generator.uniform(-2, 2) * step, -90, 90)),
            generator.uniform(0, 360),
            Status.MISSING_BAND if generator.random() < 0.2 else Status.OK,
        )
        for number in range(6)
    ]
    first = tiles[0].grid
    assert first is not None
    source_ra, source_dec = first.to_sky(*generator.uniform(-100, 180, (2, 40)))
    source_ra[0] = np.nan
    placed = place_sources(source_ra, source_dec, tiles)
    for number in range(40):
        expected = slow_tile(source_ra[number], source_dec[number], tiles)
        assert placed.tile[number] == expected
        if expected != NOWHERE:
            x, y = tiles[expected].grid.to_pixels(
                source_ra[number : number + 1], source_dec[number : number + 1]
            )
            assert_array_equal([placed.x[number], placed.y[number]], [x[0], y[0]])


def slow_tile(ra: float, dec: float, tiles: list[SurveyedTile]) -> int:
    """By asking each tile."""
    if np.isnan(ra):
        return NOWHERE
    depths = []
    for tile in tiles:
        x, y = tile.grid.to_pixels([ra], [dec])
        depth = float(tile.grid.depth(x, y)[0])
        depths.append((tile.status == Status.OK, depth) if depth >= 0 else (False, -1.0))
    best = max(range(len(tiles)), key=lambda number: depths[number])
    return best if depths[best][1] >= 0 else NOWHERE
