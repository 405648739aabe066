"""Positions on the sky, with astropy and the HATS package as independent oracles."""

import csv
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from astropy.coordinates import Angle
from hats.pixel_math.spatial_index import compute_spatial_index
from hypothesis import given, settings
from hypothesis import strategies as st

from lensray.errors import InputError
from lensray.sky import cross_match, healpix_29, parse_positions, sexagesimal

RA = st.floats(0, 360, exclude_max=True)
DEC = st.floats(-90, 90)
FORMS = [
    {"sep": ":", "pad": True},
    {"sep": " ", "pad": True},
    {"sep": "hms"},
    {"sep": ("h ", "m ", "s")},
    {"fields": 2, "sep": ":", "pad": True},
]


def test_sexagesimal_of_a_known_position():
    # The lens "Cosmic Horseshoe", SDSS J114833.14+193003.2 (Belokurov et al. 2007).
    ra, dec = sexagesimal([177.138083], [19.500889])
    assert (ra[0], dec[0]) == ("11:48:33.14", "+19:30:03.2")


@settings(max_examples=50, deadline=None)
@given(RA, DEC)
def test_sexagesimal_and_back_is_the_position_to_its_digits(ra, dec):
    ra_back, dec_back = parse_positions(*sexagesimal([ra], [dec]))
    assert abs((ra_back[0] - ra + 180) % 360 - 180) * 3600 <= 0.0751
    assert abs(dec_back[0] - dec) * 3600 <= 0.0501


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(RA, DEC), min_size=1, max_size=5), st.booleans())
def test_numbers_and_their_texts_are_the_position_itself(positions, signed):
    ra, dec = (np.array(values) for values in zip(*positions, strict=True))
    for columns in (
        (ra, dec),
        ([repr(float(v)) for v in ra], [f"{v:{'+' if signed else ''}.17g}" for v in dec]),
        (pa.chunked_array([ra]), pa.array([f" {float(v)!r} " for v in dec]).dictionary_encode()),
    ):
        for parsed, expected in zip(parse_positions(*columns), (ra, dec), strict=True):
            np.testing.assert_array_equal(parsed, expected)


@settings(max_examples=50, deadline=None)
@given(st.floats(0, 359.99), DEC, st.sampled_from(FORMS))
def test_sexagesimal_texts_mean_what_astropy_says_that_they_mean(ra, dec, form):
    hms = Angle(ra / 15, "hourangle").to_string(unit="hour", precision=4, **form)
    signed = {"sep": "dms"} if form["sep"] == "hms" else form
    if isinstance(form["sep"], tuple):
        signed = {"sep": ("° ", "′ ", "″")}
    dms = Angle(dec, "deg").to_string(unit="deg", precision=4, alwayssign=True, **signed)
    parsed = parse_positions([hms], [dms.replace("-", "−")])
    plain = dms.replace("° ", "d").replace("′ ", "m").replace("″", "s")
    np.testing.assert_allclose(parsed[0], Angle(hms, "hourangle").deg % 360, atol=1e-12)
    np.testing.assert_allclose(parsed[1], Angle(plain, "deg").deg, atol=1e-12)


def test_right_ascension_in_degrees_and_minutes_is_not_taken_for_hours():
    ra, dec = parse_positions(["150d06m59s", "10h00m"], ["-0d30m", "−00 30.5"])
    np.testing.assert_allclose(ra, [150 + 6 / 60 + 59 / 3600, 150])
    np.testing.assert_allclose(dec, [-0.5, -30.5 / 60])


def test_positions_off_the_sky_and_unknown_ones_are_nan_in_both():
    ra = ["10.0", "-1", "361", "360", "-99", "", "nan", "10:75:00", None, "12"]
    dec = ["90.1", "1", "1", "-90", "-99", "1", "1", "1", "1", "who knows"]
    parsed = parse_positions(pa.array(ra), pa.array(dec))
    for values, expected in zip(parsed, (0.0, -90.0), strict=True):
        assert np.flatnonzero(np.isfinite(values)).tolist() == [3]
        assert values[3] == expected
    ra, dec = parse_positions(pa.array([1.0, None]), np.array([np.nan, 2.0]))
    assert np.isnan([ra, dec]).all()


@pytest.mark.parametrize(
    ("ra", "dec", "message"),
    [
        (
            ["J1000+02", "J1001+02"],
            ["1", "2"],
            "'J1000\\+02' is no right ascension; write degrees, or sexagesimal",
        ),
        (["1", "2"], ["", "north"], "'north' is no declination"),
        (pa.array([[1.0]]), ["2"], "right ascension is list<item: double>, which is no angle"),
    ],
)
def test_columns_without_any_angle_are_refused(ra, dec, message):
    with pytest.raises(InputError, match=message):
        parse_positions(ra, dec)


def test_right_ascension_that_rounds_to_a_full_circle_is_zero_hours():
    ra, dec = sexagesimal([359.99999999], [-0.00001])
    assert (ra[0], dec[0]) == ("00:00:00.00", "-00:00:00.0")


def test_cross_match_finds_the_nearest_within_the_radius_across_the_origin():
    ra, dec = np.array([0.0, 180.0, np.nan, 45.0]), np.array([0.0, 89.9999, 1.0, 10.0])
    ra_known = np.array([359.9999, 0.0, np.nan, 45.001])
    dec_known = np.array([0.0, 89.9999, 1.0, 10.0])
    index, separation = cross_match(ra, dec, ra_known, dec_known, radius_arcsec=1.0)
    assert index.tolist() == [0, 1, -1, -1]
    np.testing.assert_allclose(separation[:2], [0.36, 0.72], rtol=1e-6)
    assert np.isnan(separation[2:]).all()


def test_cross_match_with_an_empty_catalogue_matches_nothing():
    index, separation = cross_match([1.0], [1.0], [], [], radius_arcsec=10)
    assert index.tolist() == [-1]
    assert np.isnan(separation).all()


def test_healpix_index_is_that_of_the_hats_package():
    rng = np.random.default_rng(29)
    ra, dec = rng.uniform(0, 360, 5000), np.degrees(np.arcsin(rng.uniform(-1, 1, 5000)))
    ra[:4], dec[:4] = [0, 360, 17, 200], [0, 0, 90, -90]
    np.testing.assert_array_equal(healpix_29(ra, dec), compute_spatial_index(ra, dec))


def test_healpix_index_of_an_unknown_position_is_minus_one():
    assert healpix_29([np.nan, 1.0], [1.0, np.nan]).tolist() == [-1, -1]
    assert healpix_29([], []).tolist() == []


@pytest.mark.skipif("LENSRAY_REAL_DATA" not in os.environ, reason="LENSRAY_REAL_DATA is not set")
def test_every_position_of_lenscat_is_read_as_astropy_reads_it():
    with open(Path(os.environ["LENSRAY_REAL_DATA"]) / "lens_catalogs/lenscat.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    columns = [[row[name] for row in rows] for name in ("RA [deg]", "DEC [deg]")]
    parsed = parse_positions(*columns)
    assert len(rows) == 32_838
    for values, texts in zip(parsed, columns, strict=True):
        np.testing.assert_allclose(values, Angle([float(text) for text in texts], "deg").deg, rtol=0)
