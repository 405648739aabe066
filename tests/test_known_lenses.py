"""Known lenses: lists as they are published, and candidates matched with them."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy import units
from astropy.coordinates import SkyCoord
from astropy.table import Table

from lensray.errors import InputError
from lensray.known_lenses import match_known, read_known_lenses

NAMES, RA, DEC = (
    ["Horseshoe", "Jackpot", "J1004"],
    [177.13808, 146.70104, 151.14542],
    [19.50089, 10.11361, 41.21189],
)

real_lists = pytest.mark.skipif("LENSRAY_REAL_DATA" not in os.environ, reason="LENSRAY_REAL_DATA is not set")


def lists() -> Path:
    return Path(os.environ["LENSRAY_REAL_DATA"]) / "lens_catalogs"


@pytest.mark.parametrize("ending", ["csv", "tsv", "ecsv", "fits", "vot", "parquet"])
def test_a_list_is_read_from_every_kind_of_table(tmp_path, ending):
    path = tmp_path / f"lenses.{ending}"
    if ending == "parquet":
        pq.write_table(pa.table({"ID": NAMES, "RAJ2000": RA, "DEJ2000": DEC}), path)
    elif ending in ("csv", "tsv"):
        mark = "," if ending == "csv" else "\t"
        rows = zip(NAMES, RA, DEC, strict=True)
        lines = [mark.join(["name", "RA [deg]", "DEC (deg)"]), *(mark.join(map(str, row)) for row in rows)]
        path.write_text("\n".join(lines))
    else:
        kind = {"ecsv": "ascii.ecsv", "fits": "fits", "vot": "votable"}[ending]
        Table({"Name": NAMES, "ra": RA, "dec": DEC}).write(path, format=kind)
    known = read_known_lenses(str(path))
    assert known.names.to_pylist() == NAMES
    np.testing.assert_array_equal([known.ra, known.dec], [RA, DEC])
    assert (known.left_out, known.sha256) == (0, hashlib.sha256(path.read_bytes()).hexdigest())


def test_rows_without_a_position_are_counted_and_left_out_and_unnamed_ones_get_a_designation(tmp_path):
    path = tmp_path / "lenses.csv"
    path.write_text("system,ra,dec\nA,11:48:33.14,+19:30:03.2\nB,,\n ,146.70104,10.11361\nC,12,95\n")
    known = read_known_lenses(str(path))
    assert known.names.to_pylist() == ["A", "J094648.25+100649.0"]
    np.testing.assert_allclose(
        [known.ra, known.dec], [[177.138083, 146.70104], [19.500889, 10.11361]], atol=1e-6
    )
    assert known.left_out == 2


def test_columns_of_other_names_can_be_named(tmp_path):
    path = tmp_path / "lenses.csv"
    path.write_text("lens,lon,lat,ra,dec\nA,10,20,1,1\n")
    known = read_known_lenses(str(path), name="ra", ra="lon", dec="lat")
    assert (known.names.to_pylist(), known.ra.tolist(), known.dec.tolist()) == (["1"], [10.0], [20.0])


@pytest.mark.parametrize(
    ("text", "words", "message"),
    [
        ("name,lon,lat\nA,1,2\n", {}, "has no column 'ra' but name, lon, lat"),
        ("name,ra,dec\nA,1,2\n", {"dec": "DEC"}, "has no column 'DEC' but name, ra, dec"),
        ("name,ra,dec\nA,1,2\n", {"name": "id"}, "has no column 'id'"),
        ("name,ra,dec\nA,400,2\n", {}, "no row of .* has a position on the sky"),
        ("name,ra,dec\nA,east,north\n", {}, "'east' is no right ascension"),
        ("name,ra,dec\n", {}, "no row"),
        ("", {}, "is empty"),
    ],
)
def test_a_list_without_lenses_on_the_sky_is_refused(tmp_path, text, words, message):
    path = tmp_path / "lenses.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_known_lenses(str(path), **words)


def test_a_list_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_known_lenses(str(tmp_path / "lenses.csv"))


def test_a_scan_with_a_list_that_cannot_be_used_ends_before_it_looks_at_the_survey(tmp_path, run_job):
    path = tmp_path / "lenses.csv"
    path.write_text("name,lon,lat\nA,1,2\n")
    words = ("--cutouts", tmp_path / "survey", "--output", tmp_path / "out", "--known-lenses", path)
    code, [line] = run_job("scan_survey.py", *words)
    assert code == 2
    assert line.startswith(f"error: {path} has no column 'ra' but name, lon, lat")
    assert not (tmp_path / "out").exists()


def test_candidates_get_the_nearest_known_lens_within_the_radius(tmp_path):
    path = tmp_path / "lenses.csv"
    path.write_text(
        "name,ra,dec\n" + "".join(f"{n},{r},{d}\n" for n, r, d in zip(NAMES, RA, DEC, strict=True))
    )
    offsets = [0.0, 2.9, 3.1]  # arcsec to the north
    ra = [*RA, None, float("nan"), RA[0]]
    dec = [d + offset / 3600 for d, offset in zip(DEC, offsets, strict=True)] + [1.0, 1.0, DEC[0] - 1 / 3600]
    candidates = pa.table({"rank": range(1, 7), "ra": pa.array(ra), "dec": pa.array(dec)})
    matched = match_known(candidates, read_known_lenses(str(path)), 3.0)
    assert matched.column_names == [*candidates.column_names, "known_lens", "known_separation_arcsec"]
    assert matched.schema.field("known_separation_arcsec").type == pa.float64()
    assert matched["known_lens"].to_pylist() == ["Horseshoe", "Jackpot", None, None, None, "Horseshoe"]
    separations = matched["known_separation_arcsec"].to_pylist()
    assert [separations[i] for i in (2, 3, 4)] == [None] * 3
    np.testing.assert_allclose([separations[i] for i in (0, 1, 5)], [0, 2.9, 1], atol=1e-6)


def test_no_candidates_match_nothing(tmp_path):
    path = tmp_path / "lenses.csv"
    path.write_text("name,ra,dec\nA,1,2\n")
    empty = pa.table({"ra": pa.array([], pa.float64()), "dec": pa.array([], pa.float64())})
    matched = match_known(empty, read_known_lenses(str(path)), 3.0)
    assert matched.schema.field("known_lens").type == pa.string()


@real_lists
@pytest.mark.parametrize(
    ("name", "count", "known_within_3"), [("training_lenses", 1615, 1599), ("new_lenses", 1192, 1179)]
)
def test_lenses_of_the_legacy_surveys_are_in_lenscat_as_astropy_finds_them(name, count, known_within_3):
    lenscat = read_known_lenses(str(lists() / "lenscat.csv"))
    assert (len(lenscat.ra), lenscat.left_out) == (32_838, 0)
    found = read_known_lenses(str(lists() / f"{name}.tsv"))
    matched = match_known(pa.table({"ra": found.ra, "dec": found.dec}), lenscat, 3.0)
    there = SkyCoord(lenscat.ra, lenscat.dec, unit="deg")
    index, distance, _ = SkyCoord(found.ra, found.dec, unit="deg").match_to_catalog_sky(there)
    near = distance <= 3 * units.arcsec
    assert (len(found.ra), int(near.sum())) == (count, known_within_3)
    expected = [lenscat.names[int(i)].as_py() if ok else None for i, ok in zip(index, near, strict=True)]
    assert matched["known_lens"].to_pylist() == expected
