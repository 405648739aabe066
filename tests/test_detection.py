"""Detection and photometry in pieces of mosaics: against SExtractor, and against skies of known sources."""

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sep
import star_fields
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.ndimage import gaussian_filter
from scipy.spatial import KDTree

from lensray.errors import InputError
from lensray.extraction import detection
from lensray.extraction.detection import DetectionSettings, detect_sources, source_schema
from lensray.extraction.point_sources import point_sources, stellar_radius
from lensray.survey import HSC_WIDE

BANDS = HSC_WIDE.bands
PLAIN: dict[str, Any] = {"pixel_scale_arcsec": 1.0, "zero_points": {"r": 27.0}}
"""What is known of images of noise and blobs."""
HSC: dict[str, Any] = {
    "pixel_scale_arcsec": HSC_WIDE.pixel_scale_arcsec,
    "zero_points": dict(zip(BANDS, HSC_WIDE.zero_point_mag, strict=True)),
    "psf_fwhm_arcsec": dict(zip(BANDS, HSC_WIDE.psf_fwhm_arcsec, strict=True)),
    "gain": dict(zip(BANDS, HSC_WIDE.gain, strict=True)),
}


@pytest.fixture(scope="module")
def sky():
    """A field like those of HSC, and what is found in it (brought to the order of the truth)."""
    field = star_fields.survey_field(350, (900, 900))
    table = detect_sources(field.observed(sky=3.0), "i", DetectionSettings(), **HSC)
    return field, table, *nearest(table, field)


@pytest.fixture(scope="module")
def repeated():
    """Magnitudes in g and i, i's errors, of shape (times, N), of isolated sources seen again and again; and the truth."""
    rng = np.random.default_rng(2)
    i = rng.uniform(19, 23.5, 60)
    radius = np.where(rng.random(60) < 0.5, 0, 0.5)
    one_psf = dataclasses.replace(HSC_WIDE, psf_fwhm_arcsec=(0.7, 0.7, 0.7))
    places = star_fields.scattered(60, (720, 720), 35, 3)
    field = star_fields.field(*places, np.stack([i + 1.2, i + 0.4, i], 1), radius, (720, 720), survey=one_psf)
    times = []
    for seed in range(10):
        table = detect_sources(field.observed(seed), "i", DetectionSettings(), **HSC)
        distance, row = nearest(table, field)
        assert (distance < 1).all()
        times.append([table[name].to_numpy()[row] for name in ("mag_g", "mag_i", "magerr_i")])
    return field, *np.moveaxis(np.array(times), 1, 0)


def nearest(table, field):
    """Distance in pixels of each true source to the nearest that was found, and its row."""
    return KDTree(np.stack([table["x"], table["y"]], 1)).query(np.stack([field.x, field.y], 1))


def sextractors_field(real_data):
    """An image of 256 × 256 pixels, and what SExtractor 2.8.6 made of it by its default.sex."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # comments of 1992
        image = fits.getdata(real_data / "fields" / "image.fits")
    return image, np.loadtxt(real_data / "fields" / "image.cat")


def noise(height, width, seed=0):
    return np.random.default_rng(seed).normal(100, 1, (height, width)).astype(np.float32)


def blob(image, x, y, peak=50.0, sigma=2.0):
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    image += (peak * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))).astype(np.float32)


def test_a_field_of_sextractor_gives_its_catalogue(real_data: Path):
    """All 65 sources, to the digits that the catalogue has.

    It was made without deblending, which is random in both programs. SExtractor's half-light radii agree less
    because they are of another subsampling. One source (its number 10) has a first moment of 0 and no aperture.
    """
    image, catalogue = sextractors_field(real_data)
    words = DetectionSettings(
        deblend_contrast=1.0, local_noise=False, mask_neighbours=False, kron_minimum=0.0
    )
    plane = detection.Plane.above_background(image, words.mesh, words.local_noise)
    objects, _ = detection._extract(plane, words, plane.missing, words.threshold)
    order = np.argsort(objects["y"])
    catalogue = catalogue[np.argsort(catalogue[:, 2])]
    assert len(objects) == len(catalogue) == 65
    np.testing.assert_allclose(objects["x"][order], catalogue[:, 1] - 1, atol=1e-4)
    np.testing.assert_allclose(objects["y"][order], catalogue[:, 2] - 1, atol=1e-4)

    table = detect_sources({"r": image}, "r", words, pixel_scale_arcsec=1.0, zero_points={"r": 0.0})
    x, y = table["x"].to_numpy(), table["y"].to_numpy()
    distance, row = KDTree(np.stack([x, y], 1)).query(catalogue[:, 1:3] - 1)
    assert sorted(row) == list(range(65))
    assert np.quantile(distance, 0.9) < 0.5  # ours are windowed
    flux, error = 10 ** (-0.4 * table["mag_r"].to_numpy()[row]), table["magerr_r"].to_numpy()[row]
    radius = table["flux_radius_arcsec"].to_numpy()[row]
    known = catalogue[:, 15] > 0
    assert known.sum() == 64
    assert np.isnan(flux[~known]).all()
    np.testing.assert_allclose(flux[known], catalogue[known, 15], rtol=2e-6)
    np.testing.assert_allclose(
        error[known], 1.0857362 * catalogue[known, 16] / catalogue[known, 15], rtol=2e-6
    )
    np.testing.assert_allclose(radius[known], catalogue[known, 18], rtol=1e-3, atol=5e-4)


def test_sources_without_first_moment_get_the_least_aperture(real_data: Path):
    image, _ = sextractors_field(real_data)
    words = DetectionSettings(deblend_contrast=1.0, local_noise=False, mask_neighbours=False)
    table = detect_sources({"r": image}, "r", words, **PLAIN)
    assert table.num_rows == 65
    assert table["mag_r"].null_count == 0


def test_every_source_brighter_than_the_limit_is_found_once_in_its_place(sky):
    field, _, distance, row = sky
    bright = field.mag[:, 2] < 23
    assert bright.sum() > 60
    assert distance[bright].max() < 0.5
    assert len(set(row[bright])) == bright.sum()


def test_completeness_falls_where_signal_to_noise_does(sky):
    field, table, distance, _ = sky
    found = distance < 2
    i = field.mag[:, 2]
    assert found[i < 24].all()
    assert found[(i >= 24) & (i < 24.5)].mean() > 0.9
    assert 0.4 < found[i >= 25].mean() < 0.8
    there, _ = KDTree(np.stack([field.x, field.y], 1)).query(np.stack([table["x"], table["y"]], 1))
    assert there.max() < 5  # nothing else is found


def test_stars_are_told_from_galaxies(sky):
    field, table, distance, row = sky
    point = table["point_source"].to_numpy()[row]
    clear = (table["signal_to_noise"].to_numpy()[row] >= 20) & (distance < 1)
    stars, galaxies = clear & field.is_star, clear & ~field.is_star
    assert stars.sum() > 25
    assert point[stars].mean() >= 0.9
    assert point[galaxies].mean() <= 0.02
    assert not point[~clear & (distance < 1)].any()


def test_no_stars_leaves_out_the_point_sources_alone(sky):
    field, table, _, _ = sky
    galaxies = detect_sources(
        {"i": field.observed(sky=3.0)["i"]}, "i", DetectionSettings(no_stars=True), **HSC
    )
    assert galaxies["x"].to_pylist() == table.filter(np.invert(table["point_source"]))["x"].to_pylist()


def test_the_sequence_of_stars_is_found_whatever_the_seeing():
    rng = np.random.default_rng(0)
    for seeing in (0.8, 1.0, 1.3):
        stars = seeing * rng.normal(0.64, 0.01, 15)
        galaxies = np.hypot(0.64 * seeing, rng.lognormal(0, 0.35, 200))
        found = stellar_radius(np.concatenate([stars, galaxies]), 1.0)
        assert found == pytest.approx(0.64 * seeing, rel=0.04)


def test_galaxies_alone_are_no_point_sources():
    radius, snr = np.random.default_rng(0).lognormal(0.2, 0.35, 500), np.full(500, 100.0)
    assert stellar_radius(radius, None) is None
    assert not point_sources(radius, snr, None).any()
    assert not point_sources(np.full(3, np.nan), snr[:3], None).any()


def test_magnitudes_miss_what_lies_outside_of_kron_apertures(repeated):
    """Stars' are fainter by 0.03 to 0.09 (the wings of a Moffat PSF), galaxies' by 0.05 to 0.15, more when faint."""
    field, _, i, _ = repeated
    bias = i.mean(0) - field.mag[:, 2]
    assert 0.02 < bias[field.is_star].min() < bias[field.is_star].max() < 0.12
    assert 0.04 < np.median(bias[~field.is_star]) < 0.15


def test_errors_are_the_scatter_of_repeated_observations(repeated):
    """The scatter is 1.2 of the errors: apertures, which depend on the noise, and the background vary too."""
    _, _, i, error = repeated
    ratio = np.sqrt((i.var(0, ddof=1) / (error**2).mean(0)).mean())
    assert 1.0 < ratio < 1.4


def test_colours_are_of_the_same_part_of_the_sky(repeated):
    """Where the PSFs are alike colours are true, though magnitudes miss a tenth of the light."""
    field, g, i, _ = repeated
    bias = (g - i).mean(0) - (field.mag[:, 0] - field.mag[:, 2])
    bright = field.mag[:, 2] < 22
    assert abs(np.median(bias[bright])) < 0.005
    assert np.abs(bias[bright]).max() < 0.05


def test_shapes_have_their_size_and_angle():
    rows, columns = np.mgrid[:101, :121]
    u, v = columns - 60.25, rows - 40.5
    along, across = u * np.cos(0.5) + v * np.sin(0.5), v * np.cos(0.5) - u * np.sin(0.5)
    image = noise(101, 121) + 1e4 * np.exp(-((along / 4) ** 2 + (across / 2) ** 2) / 2)
    table = detect_sources(
        {"r": image}, "r", DetectionSettings(mesh=32), **PLAIN | {"pixel_scale_arcsec": 0.5}
    )
    source = table.sort_by([("signal_to_noise", "descending")]).slice(0, 1).to_pylist()[0]
    assert source["x"] == pytest.approx(60.25, abs=0.01)
    assert source["y"] == pytest.approx(40.5, abs=0.01)
    # SExtractor's second moments are those of the filtered image: half a squared pixel more.
    assert source["a_arcsec"] == pytest.approx(0.5 * 16.5**0.5, rel=0.01)
    assert source["b_arcsec"] == pytest.approx(0.5 * 4.5**0.5, rel=0.01)
    assert source["theta_deg"] == pytest.approx(np.degrees(0.5), abs=0.5)


def test_limits_of_magnitude_are_inclusive_and_of_every_band(sky):
    field, table, _, _ = sky
    table = table.filter(np.isfinite(table["mag_r"].to_numpy()) & np.isfinite(table["mag_g"].to_numpy()))
    kept = detect_sources(
        field.observed(sky=3.0), "i", DetectionSettings(magnitudes=("i=15..23.5", "g=15..24.2")), **HSC
    )
    i, g = table["mag_i"].to_numpy(), table["mag_g"].to_numpy()
    inside = (i <= 23.5) & (g <= 24.2)
    assert 0 < inside.sum() < (i <= 23.5).sum()
    assert kept["x"].to_pylist() == table.filter(inside)["x"].to_pylist()


def test_rows_come_by_y_then_x_in_the_promised_columns(sky):
    _, table, _, _ = sky
    assert table.schema.equals(source_schema(HSC["zero_points"]))
    y = table["y"].to_numpy()
    assert (np.diff(y) >= 0).all()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"threshold": 0.0}, "--threshold"),
        ({"threshold": float("nan")}, "--threshold"),
        ({"min_area": 0}, "--min-area"),
        ({"mesh": 4}, "--mesh"),
        ({"deblend_contrast": 2.0}, "--deblend-contrast"),
        ({"deblend_thresholds": 0}, "--deblend-thresholds"),
        ({"clean": -1.0}, "--clean"),
        ({"kron_minimum": float("inf")}, "--kron-minimum"),
        ({"magnitudes": ("i=15",)}, "i=15..23.5"),
        ({"magnitudes": ("15..23",)}, "i=15..23.5"),
        ({"magnitudes": ("i=23..15",)}, "i=15..23.5"),
        ({"magnitudes": ("i=nan..23",)}, "i=15..23.5"),
        ({"magnitudes": ("i=15..20", "i=21..23")}, "twice"),
    ],
)
def test_settings_that_mean_nothing_are_refused(words, message):
    with pytest.raises(InputError, match=message):
        DetectionSettings(**words)


def test_limits_on_a_band_without_magnitudes_are_refused():
    words = DetectionSettings(magnitudes=("z=15..20",))
    with pytest.raises(InputError, match="the bands are g, r"):
        words.check_bands({"g": 27.0, "r": 27.0})
    with pytest.raises(InputError, match="zero point"):
        words.check_bands({"z": None})
    with pytest.raises(InputError, match="'z'"):
        detect_sources({"r": noise(50, 50)}, "r", words, **PLAIN)


def test_planes_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match="shapes"):
        detect_sources({"r": noise(50, 50), "g": noise(50, 51)}, "r", DetectionSettings(), **PLAIN)
    with pytest.raises(ValueError, match="band of detection"):
        detect_sources({"r": noise(50, 50)}, "g", DetectionSettings(), **PLAIN)


def test_missing_pixels_are_neither_found_nor_counted_and_flag_what_they_touch():
    whole = noise(300, 300)
    for x, y in ((60, 60), (60, 200), (146, 150), (250, 250), (297, 100)):
        blob(whole, x, y)
    image = whole.copy()
    image[:, 150:200] = np.nan
    image[:10] = np.inf
    table = detect_sources({"r": image}, "r", DetectionSettings(), **PLAIN)
    found = {(round(r["x"]), round(r["y"])): r for r in table.to_pylist()}
    assert len(found) == table.num_rows == 5
    clean = [found[place] for place in ((60, 60), (60, 200), (250, 250))]
    assert all(source["flags"] == 0 for source in clean)
    touched = next(source for (x, y), source in found.items() if 140 <= x < 150)
    assert touched["flags"] & sep.APER_HASMASKED
    assert found[297, 100]["flags"] & sep.APER_TRUNC
    before = detect_sources({"r": whole}, "r", DetectionSettings(), **PLAIN)
    same = {(round(r["x"]), round(r["y"])): r for r in before.to_pylist()}
    assert found[60, 60]["mag_r"] == pytest.approx(same[60, 60]["mag_r"], abs=0.01)


def test_a_band_without_data_has_null_magnitudes():
    image = noise(200, 200)
    blob(image, 100, 100)
    nothing = np.full_like(image, np.nan)
    zero_points = {"r": 27.0, "g": 27.0, "z": None}
    planes = {"r": image, "g": nothing, "z": image}
    table = detect_sources(planes, "r", DetectionSettings(), pixel_scale_arcsec=1.0, zero_points=zero_points)
    assert table["mag_g"].null_count == table["magerr_g"].null_count == table.num_rows == 1
    assert table["mag_r"].null_count == 0
    assert "mag_z" not in table.column_names
    assert detect_sources(planes, "g", DetectionSettings(), **PLAIN).num_rows == 0


@pytest.mark.parametrize("value", [0.0, 3.7, 1e6])
def test_a_constant_image_has_no_sources(value):
    image = np.full((200, 150), value, np.float32)
    assert detect_sources({"r": image}, "r", DetectionSettings(), **PLAIN).num_rows == 0


def test_noise_alone_gives_few_sources():
    counts = [
        detect_sources({"r": noise(500, 500, seed)}, "r", DetectionSettings(), **PLAIN).num_rows
        for seed in range(4)
    ]
    assert sum(counts) <= 4  # in a million pixels


def test_noise_that_varies_over_the_image_gives_few_sources():
    image = noise(512, 512) - 100
    image[:, 256:] *= 5
    assert detect_sources({"r": image}, "r", DetectionSettings(), **PLAIN).num_rows <= 5
    assert detect_sources({"r": image}, "r", DetectionSettings(local_noise=False), **PLAIN).num_rows > 20


def test_a_crowd_of_too_many_peaks_is_divided_above_a_higher_threshold(monkeypatch):
    monkeypatch.setattr(detection, "SUB_OBJECTS", 50)
    monkeypatch.setattr(detection, "PIXEL_STACK", 2_000)
    rng = np.random.default_rng(0)
    light = np.zeros((400, 400))
    rows, columns = rng.integers(100, 300, (2, 2000))
    np.add.at(light, (rows, columns), 500 + 2000 * rng.pareto(1.5, 2000))
    image = (gaussian_filter(light, 1.5) + noise(400, 400)).astype(np.float32)
    blob(image, 40, 40)
    table = detect_sources({"r": image}, "r", DetectionSettings(), **PLAIN)
    x, y, crowded = (
        table["x"].to_numpy(),
        table["y"].to_numpy(),
        table["flags"].to_numpy() & sep.OBJ_DOVERFLOW > 0,
    )
    assert crowded.sum() > 200
    assert (x[crowded] > 80).all()
    alone = np.hypot(x - 40, y - 40) < 1
    assert alone.sum() == 1
    assert not crowded[alone].any()
    assert table["mag_r"].null_count < 5


def test_a_saturated_plateau_is_one_source():
    image = noise(400, 400)
    blob(image, 200, 200, peak=1e6, sigma=8)
    image = np.minimum(image, 2e4)
    image[200, :] = 2e4  # a bleeding trail
    table = detect_sources({"r": image}, "r", DetectionSettings(), **PLAIN)
    near = np.hypot(table["x"].to_numpy() - 200, table["y"].to_numpy() - 200) < 3
    assert near.sum() == 1


def test_neighbours_do_not_brighten_a_source():
    image = noise(200, 200)
    blob(image, 100, 100)
    alone = detect_sources({"r": image}, "r", DetectionSettings(), **PLAIN)["mag_r"][0].as_py()
    blob(image, 112, 100, peak=500)
    magnitudes = {}
    for masked in (True, False):
        table = detect_sources({"r": image}, "r", DetectionSettings(mask_neighbours=masked), **PLAIN)
        faint = np.argmax(table["mag_r"].to_numpy())
        magnitudes[masked] = table["mag_r"][int(faint)].as_py()
    assert magnitudes[True] == pytest.approx(alone, abs=0.2)
    assert magnitudes[False] < alone - 0.3


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_image_gives_a_table(data):
    dtype = data.draw(st.sampled_from(["<f4", ">f4", "<f8", "<i4", "<u2"]))
    shape = data.draw(hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40))
    image = noise(*shape, seed=data.draw(st.integers(0, 9)))
    for _ in range(data.draw(st.integers(0, 3))):
        x, y = (data.draw(st.floats(-5, side + 5)) for side in shape[::-1])
        blob(image, x, y, peak=data.draw(st.sampled_from([20.0, 1e4, 1e30 if dtype[1] == "f" else 1e4])))
    image = image.astype(dtype)
    if dtype[1] == "f":
        image[data.draw(hnp.arrays(bool, shape))] = data.draw(st.sampled_from([np.nan, np.inf, 0.0]))
    image = image if data.draw(st.booleans()) else image[::-1, ::-1]
    table = detect_sources({"r": image}, "r", DetectionSettings(), **PLAIN)
    assert table.schema.equals(source_schema(PLAIN["zero_points"]))
    x, y = table["x"].to_numpy(), table["y"].to_numpy()
    assert np.isfinite(x).all()
    assert np.isfinite(y).all()
