"""From tiles to scores on a real local Ray: the same scores as by way of cutouts, and every source once."""

import json
import shutil
from pathlib import Path

import fields
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
import surveys
from astropy.coordinates import SkyCoord
from astropy.io import fits
from numpy.testing import assert_array_equal
from scipy.spatial import KDTree
from synthetic_mosaics import tan_wcs, write_mosaic

from lensray.distributed import planning
from lensray.distributed.cut_sources import cut_sources
from lensray.distributed.extraction import make_sources
from lensray.distributed.extraction_plan import plan_cutouts
from lensray.distributed.planning import ScanConfig, plan_mosaics, plan_scan
from lensray.distributed.scan import scan
from lensray.errors import InputError
from lensray.extraction.config import MakeCutoutsConfig
from lensray.extraction.detection_settings import DetectionSettings
from lensray.io import storage

pytestmark = pytest.mark.usefixtures("local_ray")
SIDE, OVERLAP, GALAXIES = 900, 140, 150
LIMIT = 23.5
"""The magnitude to which every galaxy is found; they have a signal-to-noise of some 30 there."""


@pytest.fixture(autouse=True)
def small_fragments(monkeypatch):
    monkeypatch.setattr(planning, "MIN_FRAGMENT_BYTES", 1 << 18)


@pytest.fixture(scope="module")
def tiles(tmp_path_factory) -> fields.Tiles:
    folder = tmp_path_factory.mktemp("field")
    return fields.make_tiles(folder, SIDE, OVERLAP, galaxies=GALAXIES, lenses=8)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> str:
    return surveys.toy_bundle(tmp_path_factory.mktemp("bundle") / "toy.safetensors")


def scan_mosaics(**words) -> dict:
    config = ScanConfig(**words)
    mosaics = plan_mosaics(config)
    if mosaics:
        make_sources(mosaics)
    return scan(plan_scan(config, mosaics)).run


def cut_mosaics(**words):
    config = MakeCutoutsConfig(**words)
    return cut_sources(config, plan_cutouts(config))


def scores(output) -> dict:
    table = surveys.scores_of(output)
    return {row["object_id"]: row for row in table.to_pylist()}


def survey_rows(folder) -> pa.Table:
    return pa.concat_tables([pq.read_table(path) for path in sorted(Path(folder).glob("*.parquet"))])


def assert_same_rows(one: pa.Table, other: pa.Table) -> None:
    """Equal tables, NaN pixels being equal."""
    assert one.drop_columns(["image"]).equals(other.drop_columns(["image"]))
    for image, expected in zip(one["image"].to_pylist(), other["image"].to_pylist(), strict=True):
        assert (image is None) == (expected is None)
        assert image is None or np.array_equal(image, expected, equal_nan=True)


def test_scores_from_tiles_are_those_by_way_of_cutouts(tiles, bundle, tmp_path):
    catalog = tiles.catalog(
        tmp_path / "truth.csv", mag_i=tiles.field.mag[:, -1], is_tracer=tiles.field.is_lens
    )
    known = tmp_path / "known.csv"
    pd.DataFrame(
        {"name": ["L0", "far"], "RA [deg]": [tiles.ra[0], 10.0], "DEC [deg]": [tiles.dec[0], -60.0]}
    ).to_csv(known)
    run = scan_mosaics(
        images=tiles.pattern,
        catalog=catalog,
        bundle=bundle,
        output=str(tmp_path / "run"),
        keep=("mag_i",),
        known_lenses=str(known),
    )
    assert run["rows"] == GALAXIES
    assert run["known_lenses"]["candidates_known"] == 1
    made = cut_mosaics(
        images=tiles.pattern,
        catalog=catalog,
        bands=("g", "r", "i"),
        size=32,
        output=str(tmp_path / "cut"),
        keep=("mag_i",),
    )
    assert made.statuses.total() == GALAXIES
    scan_mosaics(
        cutouts=str(tmp_path / "cut"), bundle=bundle, output=str(tmp_path / "by_cutouts"), keep=("mag_i",)
    )
    direct, by_cutouts = scores(tmp_path / "run"), scores(tmp_path / "by_cutouts")
    assert set(direct) == set(range(GALAXIES))
    for name, row in direct.items():
        other = by_cutouts[name]
        # The last bits depend on the other images of a micro-batch.
        assert row["score"] == pytest.approx(other["score"], abs=2e-6)
        assert row["status"] == other["status"]
        assert (row["ra"], row["dec"]) == (other["ra"], other["dec"])
        assert row["is_tracer"] == bool(tiles.field.is_lens[name])
    candidates = pq.read_table(tmp_path / "run" / "candidates.parquet")
    stored = {row["object_id"]: row["image"] for row in survey_rows(tmp_path / "cut").to_pylist()}
    for row in candidates.slice(0, 20).to_pylist():
        assert_array_equal(row["image"], stored[row["object_id"]])
    assert {row["object_id"]: row["known_lens"] for row in candidates.to_pylist() if row["known_lens"]} == {
        0: "L0"
    }
    assert (tmp_path / "run" / "candidates_hats" / "hats.properties").exists()


def test_a_cutout_holds_the_pixels_of_the_field(tiles, tmp_path):
    catalog = tiles.catalog(tmp_path / "truth.csv")
    cut_mosaics(
        images=tiles.pattern, catalog=catalog, bands=("g", "r", "i"), size=24, output=str(tmp_path / "cut")
    )
    field = np.stack([np.pad(image, 40, constant_values=np.nan) for image in tiles.field.images.values()])
    for row in survey_rows(tmp_path / "cut").to_pylist():
        x, y = tiles.field.x[row["object_id"]], tiles.field.y[row["object_id"]]
        left, bottom = int(np.floor(x + 0.5)) - 12 + 40, int(np.floor(y + 0.5)) - 12 + 40
        expected = field[:, bottom : bottom + 24, left : left + 24]
        assert_array_equal(np.reshape(row["image"], (3, 24, 24)), expected)
        assert row["padded"] == bool(np.isnan(expected).any())


def test_every_bright_source_is_found_once_within_half_a_pixel(tiles, bundle, tmp_path):
    run = scan_mosaics(images=tiles.pattern, detect=True, bundle=bundle, output=str(tmp_path / "run"))
    found = surveys.scores_of(tmp_path / "run")
    assert run["rows"] == found.num_rows == len(set(found["object_id"].to_pylist()))
    check_found(tiles, found, LIMIT)


def check_found(tiles: fields.Tiles, found: pa.Table, limit: float) -> None:
    """All galaxies brighter than `limit` within half a pixel, and no two detections in one place."""
    sky = tan_wcs((len(tiles.field.images["i"]),) * 2, scale=fields.SCALE)
    x, y = sky.world_to_pixel_values(found["ra"].to_numpy(), found["dec"].to_numpy())
    here = np.column_stack([x, y])
    bright = tiles.field.mag[:, -1] < limit
    truth = np.column_stack([tiles.field.x, tiles.field.y])[bright]
    distance, _ = KDTree(here).query(truth)
    missed = truth[distance > 0.5]
    assert len(missed) == 0, (
        f"{len(missed)} of {len(truth)} are missed: {missed[:5]}, {distance[distance > 0.5][:5]}"
    )
    assert len(KDTree(here).query_pairs(1.5)) == 0


@pytest.mark.parametrize("ending", [".fits.fz", ".fits.gz"])
def test_packed_mosaics_give_the_same_scores(tiles, bundle, tmp_path, ending):
    packed = fields.make_tiles(tmp_path / "packed", SIDE, OVERLAP, galaxies=GALAXIES, lenses=8, ending=ending)
    catalog = tiles.catalog(tmp_path / "truth.csv")
    for name, pattern in (("plain", tiles.pattern), ("packed_run", packed.pattern)):
        scan_mosaics(images=pattern, catalog=catalog, bundle=bundle, output=str(tmp_path / name))
    plain, other = scores(tmp_path / "plain"), scores(tmp_path / "packed_run")
    assert {name: row["score"] for name, row in plain.items()} == pytest.approx(
        {name: row["score"] for name, row in other.items()}, abs=2e-6
    )


def test_what_cannot_be_cut_is_said_on_its_row(tiles, bundle, tmp_path):
    """One tile lacks a band, one is cut off, one has a region without data; some positions are off the sky or off the tiles."""
    folder = tmp_path / "broken"
    for name in "abcd":
        for band in "gri":
            path = folder / name / f"{band}.fits.fz"
            with fits.open(tiles.folder / name / f"{band}.fits") as hdus:
                pixels = np.array(hdus[0].data, np.float32)
                if name == "c":
                    pixels[:200] = np.nan
                header = hdus[0].header
                header.strip()
                from astropy.wcs import WCS

                with fits.open(tiles.folder / name / f"{band}.fits") as again:
                    write_mosaic(path, pixels, WCS(again[0].header))
    (folder / "a" / "r.fits.fz").unlink()
    broken = folder / "d" / "i.fits.fz"
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
    ra, dec = tiles.ra.copy(), tiles.dec.copy()
    ra[0], dec[1], dec[2] = np.nan, 95.0, -30.0
    catalog = tmp_path / "truth.csv"
    pd.DataFrame({"id": np.arange(GALAXIES), "ra": ra, "dec": dec}).to_csv(catalog, index=False)
    run = scan_mosaics(
        images=f"{folder}/{{tile}}/{{band}}.fits.fz",
        catalog=str(catalog),
        bundle=bundle,
        output=str(tmp_path / "run"),
    )
    assert run["rows"] == GALAXIES
    found = scores(tmp_path / "run")
    assert [found[name]["status"] for name in (0, 1, 2)] == ["no_position", "no_position", "off_image"]
    length = (SIDE + OVERLAP) // 2
    for name in range(3, GALAXIES):
        x, y = tiles.field.x[name], tiles.field.y[name]
        status = found[name]["status"]
        if x < SIDE - length - 1 and y < SIDE - length - 1:
            assert status == "missing_band"
        elif x > length + 1 and y > length + 1:
            assert status == "unreadable"
        elif x < SIDE - length - 1 and y > length + 20 and y > SIDE - length + 220:
            assert status == "ok"
        elif x < SIDE - length - 20 and SIDE - length + 20 < y < SIDE - length + 180 and y > length + 20:
            assert status == "nan"
    counts = {row["status"] for row in found.values()}
    assert {"ok", "missing_band", "unreadable", "nan", "off_image", "no_position"} <= counts
    summary = pd.read_csv(tmp_path / "run" / "_extraction" / "tiles.csv").set_index("tile")
    assert summary.loc["a", "status"] == "missing_band"


def test_an_extraction_that_was_stopped_goes_on(tiles, tmp_path):
    words = {
        "images": tiles.pattern,
        "detect": True,
        "bands": ("g", "r", "i"),
        "output": str(tmp_path / "cut"),
        "size": 32,
    }
    first = cut_mosaics(**words)
    whole = survey_rows(tmp_path / "cut")
    parts = sorted((tmp_path / "cut").glob("part-*.parquet"))
    kept = parts[0].stat().st_mtime_ns
    parts[-1].unlink()
    sorted((tmp_path / "cut" / "_extraction" / "sources").iterdir())[1].unlink()
    again = cut_mosaics(**words)
    assert again.statuses == first.statuses
    assert_same_rows(survey_rows(tmp_path / "cut"), whole)
    assert parts[0].stat().st_mtime_ns == kept
    with pytest.raises(Exception, match="another extraction"):
        cut_mosaics(**{**words, "size": 48})
    with pytest.raises(Exception, match="another extraction"):
        cut_mosaics(**{**words, "detection": DetectionSettings(threshold=3.0)})


def test_other_words_or_another_survey_in_the_folder_are_refused(tiles, tmp_path):
    catalog = tiles.catalog(tmp_path / "truth.csv")
    words = {
        "images": tiles.pattern,
        "catalog": catalog,
        "bands": ("g", "r", "i"),
        "size": 32,
        "output": str(tmp_path / "cut"),
    }
    cut_mosaics(**words)
    for other in ({"label": "lens"}, {"id_prefix": "q"}, {"survey": "des"}, {"pixel_scale": 0.25}):
        with pytest.raises(InputError, match="another extraction"):
            cut_mosaics(**words, **other)
    shutil.rmtree(tmp_path / "cut" / "_extraction")
    with pytest.raises(InputError, match="holds Parquet files already"):
        cut_mosaics(**words)


def test_texts_of_parquet_stay_texts_in_every_part(tiles, bundle, tmp_path):
    """One part's names could be numbers, the other's not."""
    folder = tmp_path / "catalog"
    folder.mkdir()
    rows = np.arange(GALAXIES)
    for number, names in enumerate(([f"{i}" for i in rows[:75]], [f"A{i}" for i in rows[75:]])):
        part = slice(number * 75, (number + 1) * 75)
        table = {"id": pa.array(names), "RA": tiles.ra[part], "DEC": tiles.dec[part]}
        pq.write_table(pa.table(table), folder / f"part-{number}.parquet")
    run = scan_mosaics(images=tiles.pattern, catalog=str(folder), bundle=bundle, output=str(tmp_path / "run"))
    assert run["rows_scored"] > 0.9 * GALAXIES
    assert {"3", "A100"} <= set(surveys.scores_of(tmp_path / "run")["object_id"].to_pylist())


def test_bands_of_another_resolution_have_their_own_column(tiles, tmp_path):
    """Mosaics of three times larger pixels beside the others."""
    for name in "abcd":
        with fits.open(tiles.folder / name / "i.fits") as hdus:
            pixels, header = np.array(hdus[0].data, np.float32), hdus[0].header
            side = len(pixels) // 3 * 3
            mean = pixels[:side, :side].reshape(side // 3, 3, side // 3, 3).mean((1, 3))
            crpix = [(header["CRPIX1"] + 1) / 3, (header["CRPIX2"] + 1) / 3]
        wcs = tan_wcs(mean.shape, scale=3 * fields.SCALE)
        wcs.wcs.crpix = crpix
        for band in "gri":
            target = tmp_path / "both" / name / f"{band}.fits"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((tiles.folder / name / f"{band}.fits").read_bytes())
        write_mosaic(tmp_path / "both" / name / "H.fits", mean, wcs)
    catalog = tiles.catalog(tmp_path / "truth.csv")
    cut_mosaics(
        images=f"{tmp_path}/both/{{tile}}/{{band}}.fits",
        catalog=catalog,
        bands=("g", "r", "i", "H"),
        further_images=("image_nisp=H",),
        size=33,
        output=str(tmp_path / "cut"),
    )
    rows = survey_rows(tmp_path / "cut")
    described = json.loads(rows.schema.metadata[b"lensray.survey"])
    assert described["bands"] == ["g", "r", "i"]
    assert described["images"]["image_nisp"]["bands"] == ["H"]
    assert described["images"]["image_nisp"]["pixel_scale_arcsec"] == pytest.approx(
        3 * fields.SCALE, rel=1e-6
    )
    assert rows.schema.field("image_nisp").type.shape == [1, 11, 11]
    bright = np.flatnonzero(tiles.field.mag[:, -1] < 20)
    by_id = {row["object_id"]: row for row in rows.to_pylist()}
    for name in bright:
        small = np.reshape(by_id[name]["image_nisp"], (11, 11))
        if not by_id[name]["padded"] and not np.isnan(small).any() and not tiles.field.is_lens[name]:
            peak = np.unravel_index(small.argmax(), small.shape)
            assert np.abs(np.array(peak) - 5).max() <= 1


def test_mosaics_on_s3_give_the_same_survey(tiles, tmp_path, s3_url):
    # Ray's processes have the variables that the server is reached by from their start.
    ray.shutdown()
    for name in "ab":
        for band in "gri":
            data = (tiles.folder / name / f"{band}.fits").read_bytes()
            storage.write_bytes(f"{s3_url}/field/{name}/{band}.fits", data)
            target = tmp_path / "two" / name / f"{band}.fits"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
    catalog = tiles.catalog(tmp_path / "truth.csv")
    words = {"catalog": catalog, "bands": ("g", "r", "i"), "size": 32}
    cut_mosaics(images=f"{s3_url}/field/{{tile}}/{{band}}.fits", output=f"{s3_url}/cut", **words)
    cut_mosaics(images=f"{tmp_path}/two/{{tile}}/{{band}}.fits", output=str(tmp_path / "cut"), **words)
    on_s3 = [entry.path for entry in storage.find_files(f"{s3_url}/cut")]
    filesystem, _ = storage.resolve(s3_url)
    assert_same_rows(
        pa.concat_tables([pq.read_table(p, filesystem=filesystem) for p in on_s3]),
        survey_rows(tmp_path / "cut"),
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"catalog": "truth.csv", "detect": True}, "both --catalog and --detect"),
        ({}, "neither --catalog nor --detect"),
        ({"catalog": "missing.csv"}, "does not exist"),
        ({"catalog": "truth.csv", "ra_column": "alpha"}, "--ra-column alpha"),
        ({"catalog": "truth.csv", "keep": ["redshift"]}, "--keep redshift"),
        ({"catalog": "truth.csv", "keep": ["tile"]}, "--keep tile"),
        ({"catalog": "empty.parquet"}, "holds no rows"),
        ({"detect": True, "detection_band": "z"}, "--detection-band z"),
        ({"detect": True, "zero_point": [27.0]}, "--zero-point has 1"),
        ({"detect": True, "detection.magnitudes": ["y=1..2"]}, "names the band 'y'"),
        ({"detect": True, "layout": "sdss"}, "euclid_q1"),
        ({"detect": True, "hdu": "SCI"}, "no HDU SCI"),
        ({"detect": True, "bands": ["u=U"]}, "--bands names u"),
    ],
)
def test_wrong_words_are_one_line_and_exit_code_2(tiles, bundle, tmp_path, run_job, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    tiles.catalog(tmp_path / "truth.csv")
    with pq.ParquetWriter(
        tmp_path / "empty.parquet", pa.schema({"id": pa.int64(), "ra": pa.float64(), "dec": pa.float64()})
    ):
        pass
    options = ["--images", tiles.pattern, "--bundle", bundle, "--output", "run"]
    for name, value in words.items():
        options.append("--" + name.replace("_", "-"))
        options += [] if value is True else value if isinstance(value, list) else [value]
    code, lines = run_job("scan_survey.py", *options)
    assert code == 2
    assert len(lines) == 1 or lines[:-1] == [line for line in lines[:-1] if line.startswith("headers:")]
    assert said in lines[-1]
    assert not (tmp_path / "run").exists()


def test_pixels_of_another_size_need_resample(tiles, tmp_path, run_job):
    coarse = surveys.toy_bundle(tmp_path / "coarse.safetensors", pixel_scale_arcsec=0.25)
    words = ["--images", tiles.pattern, "--detect", "--bundle", coarse, "--output", str(tmp_path / "run")]
    code, lines = run_job("scan_survey.py", *words)
    assert code == 2
    assert "--resample" in lines[-1]
    run = scan_mosaics(
        images=tiles.pattern, detect=True, bundle=coarse, output=str(tmp_path / "run"), resample=True
    )
    assert run["rows_scored"] > 0.8 * run["rows"]


def test_more_missing_pixels_are_filled_where_that_is_asked_for(tiles, tmp_path):
    wide = surveys.toy_bundle(tmp_path / "wide.safetensors", size=64)
    words = {"images": tiles.pattern, "detect": True, "bundle": wide}
    strict = scan_mosaics(**words, output=str(tmp_path / "strict"), max_nan_fraction=0.0)
    filled = scan_mosaics(**words, output=str(tmp_path / "filled"), max_nan_fraction=0.9)
    assert strict["rows_filled_nan"] == 0
    assert strict["invalid"]["nan"] == filled["rows_filled_nan"] > 0
    with pytest.raises(Exception, match="its settings differ"):
        scan_mosaics(**words, output=str(tmp_path / "filled"), max_nan_fraction=0.5)


def test_real_cluster_fields_go_from_mosaics_to_scores(real_data, tmp_path):
    """Three parts of Abell 2744 in F105W through the network for F814W: the galaxies of the cluster are found and scored."""
    run = scan_mosaics(
        images=f"{real_data}/fields/abell_2744_{{tile}}_{{band}}.fits.gz",
        bands=("F814W=f105w",),
        detect=True,
        resample=True,
        bundle="lensflow_cosmos",
        max_nan_fraction=0.5,
        output=str(tmp_path / "run"),
    )
    summary = pd.read_csv(tmp_path / "run" / "_extraction" / "tiles.csv").set_index("tile")
    assert list(summary["status"]) == ["ok"] * 3
    assert summary["sources"].sum() == run["rows"]
    assert summary.loc["cd_galaxy", "sources"] > 40
    assert run["rows_scored"] > 0.7 * run["rows"]
    found = surveys.scores_of(tmp_path / "run")
    # The cluster (00h14m19.5s -30d23m19s), whose fields are two arcmin wide.
    ra, dec = found["ra"].to_numpy(), found["dec"].to_numpy()
    centre = SkyCoord(3.58125, -30.38872, unit="deg")
    assert SkyCoord(ra, dec, unit="deg").separation(centre).arcmin.max() < 2


@pytest.mark.slow
def test_a_large_field_of_four_tiles_loses_and_doubles_nothing(tmp_path):
    """8,000 × 8,000 pixels in three bands, 4,000 galaxies of which 40 are lenses, through the shipped EZnet."""
    tiles = fields.make_tiles(tmp_path / "field", 8000, 400, galaxies=4000, lenses=40)
    scan_mosaics(images=tiles.pattern, detect=True, bundle="eznet_hsc", output=str(tmp_path / "run"))
    found = surveys.scores_of(tmp_path / "run")
    check_found(tiles, found, LIMIT)
    sky = SkyCoord(found["ra"].to_numpy(), found["dec"].to_numpy(), unit="deg")
    lenses = SkyCoord(tiles.ra, tiles.dec, unit="deg")[tiles.field.is_lens]
    nearest, _, _ = lenses.match_to_catalog_sky(sky)
    candidates = pq.read_table(tmp_path / "run" / "candidates.parquet", columns=["object_id"])[
        "object_id"
    ].to_pylist()
    ids = [found["object_id"][int(row)].as_py() for row in nearest]
    # A bright arc beside its lens may be a source of its own, which sees the lens as well.
    assert sum(name in candidates[:60] for name in ids) >= 36
    cut_mosaics(images=tiles.pattern, detect=True, bands=("g", "r", "i"), output=str(tmp_path / "cut"))
    scan_mosaics(cutouts=str(tmp_path / "cut"), bundle="eznet_hsc", output=str(tmp_path / "by_cutouts"))
    direct, by_cutouts = scores(tmp_path / "run"), scores(tmp_path / "by_cutouts")
    assert direct.keys() == by_cutouts.keys()
    for name, row in direct.items():
        assert row["status"] == by_cutouts[name]["status"]
        assert row["score"] == pytest.approx(by_cutouts[name]["score"], abs=2e-6)
