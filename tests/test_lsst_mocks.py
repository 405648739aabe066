"""Published mocks read from their folder, mocks simulated like them, and what is measured on both."""

import itertools

import numpy as np
import pyarrow as pa
import pytest
import torch
from astropy.cosmology import FlatLambdaCDM
from astropy.io import fits
from scipy.ndimage import gaussian_filter

from lensray import cutouts
from lensray.bundle import Inputs
from lensray.cosmology import einstein_radius_arcsec
from lensray.errors import InputError
from lensray.extraction.lsst_mocks import BAND, PARAMETERS, find_mocks, parse_name, read_mocks
from lensray.image_quality import signal_to_noise
from lensray.simulation.lsst_mocks import MARGIN_PIXELS, Population, mock_tables, simulate_mocks
from lensray.training import radial_forest

INPUTS = Inputs(bands=(BAND,), height=45, width=45, pixel_scale_arcsec=0.18)


def write_mock(folder, name, pixels, suffix="_imgs.fits.gz"):
    folder.mkdir(parents=True, exist_ok=True)
    fits.PrimaryHDU(np.asarray(pixels, ">f8")).writeto(folder / f"{name}{suffix}")


def mock_folder(folder, lensed=4, unlensed=4, seed=0):
    """A folder of mocks as published: noise, with a bright middle where nothing is lensed."""
    generator = np.random.default_rng(seed)
    for k in range(lensed):
        name = f"lensed_{2 * k}_{200 + k}.5_0.75_{90.5 + k}_0.35_{2.5 + k}"
        write_mock(folder / "lensed_outputs" / "0", name, generator.normal(0, 3.6, (45, 45)))
    for k in range(unlensed):
        pixels = generator.normal(0, 3.6, (45, 45))
        pixels[20:25, 20:25] += 30
        name = f"unlensed_{10_000 + 2 * k}_250.25_0.9_30.1_0.5_0.998762157383"
        write_mock(folder / "unlensed_outputs" / "0", name, pixels)


def test_einstein_radii_are_those_of_astropy():
    sigma, redshift = np.meshgrid([150.0, 250.0, 350.0], [0.05, 0.35, 0.68, 1.9])
    cosmology = FlatLambdaCDM(H0=70, Om0=0.3)
    lens, source = (cosmology.comoving_distance(z).value for z in (redshift, 2.0))
    expected = 4 * np.pi * (sigma / 299_792.458) ** 2 * (1 - lens / source) * 206_264.806
    np.testing.assert_allclose(einstein_radius_arcsec(sigma, redshift, 2.0), expected, rtol=1e-5)
    assert einstein_radius_arcsec(300.0, 2.5, source_redshift=2.0) == 0


def test_a_name_that_is_no_mocks_says_nothing():
    assert parse_name("lensed_1_2_3.fits") is None
    assert parse_name("README.md") is None
    assert parse_name("unlensed_10064_216.7_0.8_62.7_0.484_1.0_imgs.fits.gz").number == 10064


def test_mocks_become_cutouts_with_the_parameters_of_their_names(tmp_path):
    mock_folder(tmp_path)
    table = read_mocks(str(tmp_path))
    fmt = cutouts.read_format(table.schema)
    assert (fmt.survey, fmt.bands, fmt.pixel_scale_arcsec, fmt.shape) == (
        "lsst_mocks",
        (BAND,),
        0.18,
        (1, 45, 45),
    )
    rows = table.drop_columns(["image"]).to_pylist()
    assert [row["label"] for row in rows] == [False] * 4 + [True] * 4
    lens = next(row for row in rows if row["object_id"] == "lensed_2")
    assert [lens[name] for name in PARAMETERS[:5]] == pytest.approx([201.5, 0.75, 91.5, 0.35, 3.5])
    assert lens["einstein_radius_arcsec"] == pytest.approx(einstein_radius_arcsec(201.5, 0.35, 2.0), rel=1e-5)
    # An unlensed mock shows no lens, whatever its name says.
    assert all(row[name] is None for row in rows[:4] for name in PARAMETERS)


def test_the_halves_share_no_mock_and_are_balanced(tmp_path):
    mock_folder(tmp_path, lensed=5, unlensed=6)
    training, test = (
        {(m.is_lens, m.number) for m in find_mocks(str(tmp_path), half)} for half in ("training", "test")
    )
    assert not training & test
    assert training | test == {(m.is_lens, m.number) for m in find_mocks(str(tmp_path))}
    assert sorted(n for lens, n in training if lens) == [0, 4, 8]
    assert sorted(n for lens, n in test if lens) == [2, 6]


def test_damaged_mocks_are_rows_that_every_reader_leaves_out(tmp_path):
    mock_folder(tmp_path)
    (tmp_path / "lensed_90_200.5_0.7_1.5_0.3_2.5_imgs.fits.gz").write_bytes(b"no FITS")
    write_mock(tmp_path, "lensed_92_200.5_0.7_1.5_0.3_2.5", np.zeros((44, 44)))
    pixels = np.ones((45, 45))
    pixels[3, 4] = np.nan
    write_mock(tmp_path, "lensed_94_200.5_0.7_1.5_0.3_2.5", pixels)
    table = read_mocks(str(tmp_path))
    images, status = cutouts.images_of(table, cutouts.read_format(table.schema))
    _, status = cutouts.check_pixels(images, status)
    ids = table["object_id"].to_pylist()
    assert {ids[row] for row in np.flatnonzero(status != "ok")} == {"lensed_90", "lensed_92", "lensed_94"}


def test_a_folder_without_both_classes_is_refused(tmp_path):
    mock_folder(tmp_path, unlensed=0)
    with pytest.raises(InputError, match="4 lensed and 0 unlensed"):
        read_mocks(str(tmp_path))


def simulated(count=24, seed=3, **settings):
    indices = np.arange(count)
    return simulate_mocks(indices, indices % 2 == 0, seed=seed, **settings)


def test_a_simulated_mock_depends_on_its_index_and_class_alone():
    together = simulated(12)
    alone = simulate_mocks(np.array([7, 4]), np.array([False, True]), seed=3)
    torch.testing.assert_close(alone.images, together.images[[7, 4]], rtol=1e-5, atol=1e-4)
    assert together.images.shape == (12, 1, 45, 45)
    assert together.kind.tolist() == ["lens", "unlensed"] * 6
    assert not torch.allclose(simulated(2, seed=4).images, together.images[:2])


QUIET = {
    "field_galaxies": 0.0,
    "sky_sigma": 1e-3,
    "noisy_share": 0.0,
    "correlated_log_sigma": -6.0,
    "psf_scatter": 1e-6,
}


def test_unlensed_light_keeps_its_flux_and_its_place():
    mocks = simulated(60, population=Population(unlensed_log_radius=-0.5, radius_scatter=1e-3, **QUIET))
    rows = np.flatnonzero(mocks.kind == "unlensed")
    images = mocks.images[rows, 0].double().numpy()
    flux = images.sum((1, 2))
    np.testing.assert_allclose(flux, mocks.parameters["source_flux"][rows], rtol=0.12)
    axis = (np.arange(45) - 22) * 0.18
    for image, x, y in zip(
        images,
        mocks.parameters["source_x_arcsec"][rows],
        mocks.parameters["source_y_arcsec"][rows],
        strict=True,
    ):
        found = (image.sum(0) * axis).sum() / image.sum(), (image.sum(1) * axis).sum() / image.sum()
        np.testing.assert_allclose(found, (x, y), atol=0.06)
    assert np.isnan(mocks.parameters["einstein_radius_arcsec"][rows]).all()


def test_lensed_light_is_magnified_and_lies_on_the_ring():
    mocks = simulated(120, population=Population(lensed_log_radius=-0.8, radius_scatter=1e-3, **QUIET))
    p, images = mocks.parameters, mocks.images[:, 0].double().numpy()
    offset = np.hypot(p["source_x_arcsec"], p["source_y_arcsec"])
    radius = np.hypot(*np.meshgrid(*[(np.arange(45) - 22) * 0.18] * 2))
    close = np.flatnonzero((mocks.kind == "lens") & (offset < 0.35 * p["einstein_radius_arcsec"]))
    assert len(close) > 5
    for row in close:
        flux = images[row].sum()
        assert flux == pytest.approx(p["magnification"][row] * p["source_flux"][row], rel=0.1)
        # A point source of an isothermal sphere: 2 θ_E / β; an ellipse and a disc's size change it within factors.
        assert 0.4 < p["magnification"][row] / (2 * p["einstein_radius_arcsec"][row] / offset[row]) < 2.5
        mean = (images[row] * radius).sum() / flux
        assert mean == pytest.approx(p["einstein_radius_arcsec"][row], abs=0.3 + 0.15 * mean)


def test_the_noise_has_the_sigma_that_it_says():
    quiet = Population(
        field_galaxies=0.0,
        unlensed_log_flux=-3.0,
        correlated_log_sigma=-6.0,
        sky_scatter=1e-6,
        noisy_share=0.0,
    )
    images = simulate_mocks(np.arange(20), np.zeros(20, bool), seed=1, population=quiet).images
    assert float(images.std()) == pytest.approx(quiet.sky_sigma, rel=0.02)
    tinted = Population(
        field_galaxies=0.0,
        unlensed_log_flux=-3.0,
        sky_sigma=1.0,
        correlated_log_sigma=1.0,
        correlated_scatter=1e-3,
    )
    images = simulate_mocks(np.arange(20), np.zeros(20, bool), seed=1, population=tinted).images[:, 0]
    neighbours = (images[:, :, 1:] * images[:, :, :-1]).mean() / images.square().mean()
    assert float(images.std()) == pytest.approx(10.0, rel=0.1)
    assert float(neighbours) > 0.7


def test_lensed_images_show_fewer_other_galaxies():
    """They lie behind the lens: the frame shows a smaller part of their plane."""
    population = Population(
        unlensed_log_flux=-3.0, lensed_log_flux=-3.0, field_galaxies=4.0, field_scatter=1e-3, noisy_share=0.0
    )
    indices = np.arange(200)
    counts = []
    for lensed in (False, True):
        images = simulate_mocks(indices, np.full(200, lensed), seed=2, population=population).images[:, 0]
        smooth = gaussian_filter(images.numpy(), (0, 1.3, 1.3))
        counts.append(float((smooth > 6).any((1, 2)).mean()))
    assert counts[1] < counts[0]


def test_the_margin_holds_the_psf():
    assert 2.5 * Population().psf_fwhm_arcsec < MARGIN_PIXELS * 0.18


def test_tables_of_simulated_mocks_are_like_those_of_published_ones(tmp_path):
    mock_folder(tmp_path)
    (made,) = mock_tables(10, seed=0)
    published = read_mocks(str(tmp_path))
    assert made["label"].to_pylist() == [True, False] * 5
    assert made.schema.names == published.schema.names
    kinds = [[table.schema.field(name).type for name in PARAMETERS] for table in (made, published)]
    assert kinds[0] == kinds[1] == [pa.float32()] * len(PARAMETERS)
    nulls = made["einstein_radius_arcsec"].is_null().to_pylist()
    assert nulls == [False, True] * 5


def test_simulated_mocks_are_as_bright_and_as_separable_as_the_published(real_data):
    """Against the published mocks: neither a class's brightness nor the baseline's AUROC may be far off."""
    from lensray.metrics.classification import auroc

    table = read_mocks(str(real_data / "lsst_mocks"), "test")
    images, _ = cutouts.images_of(table, cutouts.read_format(table.schema))
    label = table["label"].to_numpy()
    mocks = simulated(400)
    lens = mocks.kind == "lens"
    middle = [x[:, 0, 19:26, 19:26].mean((1, 2)) for x in (images, mocks.images.numpy())]
    for chosen in (lambda is_lens: is_lens, lambda is_lens: ~is_lens):
        real, ours = np.median(middle[0][chosen(label)]), np.median(middle[1][chosen(lens)])
        # The median of 25 mocks scatters by 0.7.
        assert ours == pytest.approx(real, abs=2.0)
    found = auroc(-middle[1], lens)
    assert found == pytest.approx(auroc(-middle[0], label), abs=0.1)


def test_signal_to_noise_finds_what_is_there_and_nothing_in_noise():
    generator = np.random.default_rng(0)
    noise = generator.normal(100, 5, (200, 2, 45, 45))
    assert np.percentile(signal_to_noise(noise, 3.7), [1, 99]) == pytest.approx([2.0, 4.6], abs=0.5)
    y, x = np.mgrid[:45, :45] - 22.0
    star = np.exp(-(np.hypot(x, y) ** 2) / (2 * (3.7 / 2.3548) ** 2))
    star /= np.sqrt((star**2).sum())  # the matched filter's signal-to-noise is then the amplitude over sigma
    for expected in (10.0, 30.0):
        bright = noise.copy()
        bright[:, 1] += expected * 5 * star
        assert np.median(signal_to_noise(bright, 3.7)) == pytest.approx(expected, rel=0.15)


def test_signal_to_noise_is_nan_without_pixels_and_blind_to_the_edge():
    images = np.random.default_rng(1).normal(0, 1, (3, 1, 45, 45))
    images[0, 0, 5, 5] = np.nan
    images[1] = 7.0
    images[2, 0, :4, :4] += 500
    found = signal_to_noise(images, 3.0)
    assert np.isnan(found[:2]).all()
    assert found[2] < 6


def test_radial_statistics_are_those_of_a_loop_over_pixels():
    images = np.random.default_rng(2).normal(0, 1, (2, 1, 45, 45))
    found = radial_forest.radial_statistics(images)
    assert found.shape == (2, 27)
    edges = radial_forest.RING_EDGES_PIXELS
    for ring, (inner, outer) in enumerate(itertools.pairwise(edges)):
        pixels = [
            images[1, 0, row, column]
            for row in range(45)
            for column in range(45)
            if inner <= ((row - 22) ** 2 + (column - 22) ** 2) ** 0.5 < outer
        ]
        expected = [np.mean(pixels), np.std(pixels), np.percentile(pixels, 95)]
        np.testing.assert_allclose(found[1, 3 * ring : 3 * ring + 3], expected)


def test_baselines_tell_bright_from_faint(tmp_path):
    mock_folder(tmp_path, lensed=20, unlensed=20)
    table = read_mocks(str(tmp_path))
    images, _ = cutouts.images_of(table, cutouts.read_format(table.schema))
    label = table["label"].to_numpy()
    brightness = radial_forest.brightness_scores(images[::2], images[1::2])
    forest = radial_forest.forest_scores(images[::2], label[::2], images[1::2])
    for scores in (brightness, forest):
        assert ((scores >= 0) & (scores <= 1)).all()
        assert ((scores > 0.5) == label[1::2]).all()


def test_labelled_images_are_read_up_to_a_limit(tmp_path):
    tables = list(mock_tables(30, seed=0))
    cutouts.write_survey(tables, str(tmp_path / "a"), cutouts.read_format(tables[0].schema))
    images, labels = radial_forest.labelled_images([str(tmp_path / "a")], INPUTS, limit=21)
    assert images.shape == (21, 1, 45, 45)
    assert labels.tolist() == [True, False] * 10 + [True]
