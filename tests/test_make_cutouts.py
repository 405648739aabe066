"""Stamps to surveys: the layouts that surveys ship, positions, sizes, and what is said of bad input."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from PIL import Image

from lensray.cutouts import CutoutFormat, check_pixels, images_of, read_format
from lensray.errors import InputError
from lensray.extraction.config import MakeCutoutsConfig
from lensray.extraction.stamps import make_survey
from lensray.io import storage

ROOT = Path(__file__).parents[1]
RNG = np.random.default_rng(5)


def noise(*shape: int) -> np.ndarray:
    return RNG.normal(0, 1, shape).astype(np.float32)


def header_at(ra: float, dec: float, size: int, scale_arcsec: float = 0.2) -> fits.Header:
    """A WCS whose reference, the frame's centre (in FITS pixels), lies at (ra, dec)."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [ra, dec]
    wcs.wcs.crpix = [(size + 1) / 2, (size + 1) / 2]
    wcs.wcs.cdelt = [-scale_arcsec / 3600, scale_arcsec / 3600]
    return wcs.to_header()


def write_fits(
    path: Path, *images: np.ndarray, names: tuple[str, ...] = (), header: fits.Header | None = None
) -> None:
    """Images in one file: the first in the primary HDU, or all in named extensions."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if names:
        hdus = [fits.ImageHDU(image, header, name=name) for image, name in zip(images, names, strict=True)]
        fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(path)
    else:
        hdus = [fits.ImageHDU(image) for image in images[1:]]
        fits.HDUList([fits.PrimaryHDU(images[0], header), *hdus]).writeto(path)


def read_survey(url: str) -> tuple[pa.Table, CutoutFormat, np.ndarray, list[str]]:
    filesystem, _ = storage.resolve(url)
    table = pa.concat_tables([pq.read_table(e.path, filesystem=filesystem) for e in storage.find_files(url)])
    fmt = read_format(table.schema, pixel_scale_arcsec=None)
    images, status = images_of(table, fmt)
    return table, fmt, images, status.tolist()


def make(
    tmp_path: Path, pattern: str | tuple[str, ...], **options: Any
) -> tuple[pa.Table, CutoutFormat, np.ndarray, list[str]]:
    patterns = (pattern,) if isinstance(pattern, str) else pattern
    output = str(tmp_path / "survey")
    stamps = tuple(p if "://" in p else str(tmp_path / p) for p in patterns)
    make_survey(MakeCutoutsConfig(stamps=stamps, output=output, **{"input_pixel_scale": 0.2, **options}))
    return read_survey(output)


def test_gzipped_stamps_with_label(tmp_path: Path):
    images = noise(3, 9, 9)
    for i, image in enumerate(images):
        write_fits(tmp_path / f"s{i}.fits.gz", image.astype(">f8"))
    table, fmt, decoded, status = make(tmp_path, "*.fits.gz", bands=("i",), label="lens", survey="toy")
    np.testing.assert_array_equal(decoded[:, 0], images)
    assert status == ["ok"] * 3
    assert table["object_id"].to_pylist() == ["s0", "s1", "s2"]
    assert table["file"].to_pylist() == ["s0.fits.gz", "s1.fits.gz", "s2.fits.gz"]
    assert table["label"].to_pylist() == [True] * 3
    assert table["is_tracer"].to_pylist() == [False] * 3
    assert table["ra"].null_count == 3
    assert (fmt.bands, fmt.pixel_scale_arcsec, fmt.survey) == (("i",), 0.2, "toy")


def test_cube_with_chosen_bands(tmp_path: Path):
    cube = noise(5, 8, 8)
    write_fits(tmp_path / "a.fits", cube)
    _, fmt, decoded, _ = make(tmp_path, "a.fits", bands=tuple("grizy"), keep_bands=("i", "g"))
    assert fmt.bands == ("i", "g")
    np.testing.assert_array_equal(decoded[0], cube[[2, 0]])


def test_hdus_by_name_in_the_order_asked_for(tmp_path: Path):
    images = noise(4, 8, 8)
    write_fits(tmp_path / "a.fits", *images, names=("G", "R", "VIS", "I"))
    _, _, decoded, _ = make(tmp_path, "a.fits", hdus=("I", "G", "3"), bands=("i", "g", "vis"))
    np.testing.assert_array_equal(decoded[0], images[[3, 0, 2]])


def test_every_hdu_an_object(tmp_path: Path):
    images = [noise(n, n) for n in (8, 12, 9)]
    write_fits(tmp_path / "a.fits", *images)
    table, _, decoded, _ = make(tmp_path, "a.fits", each_hdu=True, bands=("i",), size=8)
    np.testing.assert_array_equal(decoded[:, 0], [images[0], images[1][2:10, 2:10], images[2][:8, :8]])
    assert table["object_id"].to_pylist() == ["a-0", "a-1", "a-2"]


@pytest.mark.parametrize("pattern", ["*_{band}.fits", "*/{band}/*_{band}_x.fits"])
def test_a_file_a_band_matched_by_the_rest_of_the_name(tmp_path: Path, pattern: str):
    """Names that hold the band's letters elsewhere, too."""
    images = {name: noise(3, 8, 8) for name in ("big_r", "g_g", "r")}
    for name, planes in images.items():
        for band, plane in zip("gri", planes, strict=True):
            folder = tmp_path if pattern.startswith("*_") else tmp_path / "grg" / band
            end = ".fits" if pattern.startswith("*_") else "_x.fits"
            write_fits(folder / f"{name}_{band}{end}", plane)
    table, _, decoded, status = make(tmp_path, pattern, bands=tuple("gri"))
    assert status == ["ok"] * 3
    for row, file in enumerate(table["file"].to_pylist()):
        name = file.removesuffix(".fits").removesuffix("_x").removesuffix("_g")
        np.testing.assert_array_equal(decoded[row], images[name])


def test_stack_of_objects_a_file_a_band(tmp_path: Path):
    cubes = noise(3, 7, 8, 8)
    for band, cube in zip("gri", cubes, strict=True):
        write_fits(tmp_path / "objects" / f"{band}.fits", cube, header=header_at(10, 10, 8))
    table, _, decoded, _ = make(tmp_path, "objects/{band}.fits", bands=tuple("gri"), stack=True)
    np.testing.assert_array_equal(decoded, cubes.transpose(1, 0, 2, 3))
    assert table["object_id"].to_pylist() == [f"objects-{i}" for i in range(7)]
    assert table["ra"].null_count == 7, "the header's position is not that of the stack's objects"


def test_stack_of_cubes_in_one_file(tmp_path: Path):
    cubes = noise(4, 2, 8, 8)
    write_fits(tmp_path / "a.fits", cubes)
    _, _, decoded, _ = make(tmp_path, "a.fits", bands=("g", "r"), stack=True)
    np.testing.assert_array_equal(decoded, cubes)


def test_stacks_of_different_length_are_refused(tmp_path: Path):
    write_fits(tmp_path / "g.fits", noise(3, 8, 8))
    write_fits(tmp_path / "r.fits", noise(4, 8, 8))
    with pytest.raises(InputError, match="the same objects in each band"):
        make(tmp_path, "{band}.fits", bands=("g", "r"), stack=True)


def test_hdf5_dataset(tmp_path: Path):
    image = noise(8, 8)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["image_data"], file["exposure_time"], file["background_rms"] = image, image + 1, 3.0
    _, _, decoded, _ = make(tmp_path, "a.h5", bands=("F814W",), dataset="image_data")
    np.testing.assert_array_equal(decoded[0, 0], image)
    with pytest.raises(InputError, match=r"exposure_time, image_data.*--dataset"):
        make(tmp_path / "other", str(tmp_path / "a.h5"), bands=("F814W",))


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_pictures_stay_bytes(tmp_path: Path, kind: str):
    grey = (np.add.outer(np.arange(16), np.arange(16)) * 7).astype(np.uint8)
    Image.fromarray(grey).save(tmp_path / f"a.{kind}")
    _, fmt, decoded, _ = make(tmp_path, f"*.{kind}", bands=("VIS",))
    assert fmt.dtype == np.uint8
    assert np.abs(decoded[0, 0].astype(int) - grey).max() <= (0 if kind == "png" else 8)


def test_colour_picture_is_a_cube(tmp_path: Path):
    planes = RNG.integers(0, 256, (3, 8, 8)).astype(np.uint8)
    Image.fromarray(np.ascontiguousarray(planes.transpose(1, 2, 0))).save(tmp_path / "a.png")
    _, _, decoded, _ = make(tmp_path, "a.png", bands=tuple("irg"), keep_bands=tuple("gri"))
    np.testing.assert_array_equal(decoded[0], planes[::-1])


def test_position_is_that_of_the_images_centre(tmp_path: Path):
    for name, size in (("even", 8), ("odd", 9)):
        write_fits(tmp_path / f"{name}.fits", noise(size, size), header=header_at(150.25, -2.5, size))
    table, fmt, *_ = make(tmp_path, ("even.fits", "odd.fits"), bands=("i",), size=6, input_pixel_scale=None)
    np.testing.assert_allclose(table["ra"].to_numpy(), 150.25, atol=1e-9)
    np.testing.assert_allclose(table["dec"].to_numpy(), -2.5, atol=1e-9)
    assert fmt.pixel_scale_arcsec == pytest.approx(0.2)


def test_galactic_wcs_becomes_icrs(tmp_path: Path):
    header = header_at(0.0, 90.0, 9)
    header["CTYPE1"], header["CTYPE2"] = "GLON-TAN", "GLAT-TAN"
    write_fits(tmp_path / "a.fits", noise(9, 9), header=header)
    table, *_ = make(tmp_path, "a.fits", bands=("i",))
    # The north galactic pole (ICRS).
    np.testing.assert_allclose(
        [table["ra"][0].as_py(), table["dec"][0].as_py()], [192.8595, 27.1283], atol=1e-3
    )


def test_resampling_brings_stamps_of_several_scales_to_one(tmp_path: Path):
    grid = np.arange(60) - 29.5
    for i, scale in enumerate((0.1, 0.2)):
        sigma = 0.6 / scale
        image = np.exp(-(grid[:, None] ** 2 + grid**2) / (2 * sigma**2)).astype(np.float32)
        write_fits(tmp_path / f"s{i}.fits", image, header=header_at(10, 20, 60, scale))
    with pytest.raises(
        InputError, match=r"s1.fits has 0.2 arcsec pixels but the first stamp 0.1; pass --pixel-scale"
    ):
        make(tmp_path, "s*.fits", bands=("i",), input_pixel_scale=None)
    _, fmt, decoded, _ = make(
        tmp_path, "s*.fits", bands=("i",), input_pixel_scale=None, pixel_scale=0.15, size=32
    )
    assert fmt.pixel_scale_arcsec == 0.15
    np.testing.assert_allclose(decoded[0], decoded[1], atol=0.01)


def test_field_of_view_is_kept_without_a_size(tmp_path: Path):
    write_fits(tmp_path / "a.fits", noise(30, 40))
    _, fmt, *_ = make(tmp_path, "a.fits", bands=("i",), pixel_scale=0.4)
    assert fmt.shape == (1, 15, 20)


def test_nan_stays_nan(tmp_path: Path):
    image = noise(8, 8)
    image[:2] = np.nan
    write_fits(tmp_path / "a.fits", image)
    _, _, decoded, status = make(tmp_path, "a.fits", bands=("i",))
    np.testing.assert_array_equal(decoded[0, 0], image)
    assert check_pixels(decoded, np.array(status, object))[1].tolist() == ["nan"]


def test_stamps_that_cannot_be_read_are_rows_without_an_image(tmp_path: Path):
    write_fits(tmp_path / "b.fits", noise(8, 8))
    write_fits(tmp_path / "d.fits", noise(2, 3, 8, 8))
    (tmp_path / "a.fits").write_bytes((tmp_path / "b.fits").read_bytes()[:2900])
    (tmp_path / "c.fits").write_bytes(b"no image")
    summary = make_survey(
        MakeCutoutsConfig(
            stamps=(str(tmp_path / "*.fits"),),
            output=str(tmp_path / "s"),
            bands=("i",),
            input_pixel_scale=0.2,
        )
    )
    table, *_, status = read_survey(str(tmp_path / "s"))
    assert table["object_id"].to_pylist() == ["a", "b", "c", "d"]
    assert status == ["null_image", "ok", "null_image", "null_image"]
    assert (summary.rows, summary.unreadable) == (4, 3)
    assert summary.first_problem is not None
    assert summary.first_problem.startswith("a.fits: ")


def test_missing_band_file_is_a_row_without_an_image(tmp_path: Path):
    for name in ("a_g", "a_r", "b_g", "c_r", "c_g"):
        write_fits(tmp_path / f"{name}.fits", noise(8, 8))
    table, *_, status = make(tmp_path, "*_{band}.fits", bands=("g", "r"))
    assert table["object_id"].to_pylist() == ["a", "b", "c"]
    assert status == ["ok", "null_image", "ok"]


def test_one_name_in_two_folders_gives_two_ids(tmp_path: Path):
    for folder in ("lensed", "unlensed"):
        write_fits(tmp_path / folder / "1.fits", noise(8, 8))
    table, *_ = make(tmp_path, "*lensed/1.fits", bands=("i",))
    assert table["object_id"].to_pylist() == ["lensed/1", "unlensed/1"]


def test_append_joins_sources_into_one_survey(tmp_path: Path):
    for name in ("a", "b"):
        write_fits(tmp_path / f"{name}.fits", noise(8, 8))
    make(tmp_path, "a.fits", bands=("i",), label="non-lens")
    table, _, _, status = make(tmp_path, "b.fits", bands=("i",), tracer=True, append=True, id_prefix="x:")
    assert table["object_id"].to_pylist() == ["a", "x:b"]
    assert table["label"].to_pylist() == [False, None]
    assert table["is_tracer"].to_pylist() == [False, True]
    assert status == ["ok", "ok"]
    with pytest.raises(InputError, match="holds Parquet files already"):
        make(tmp_path, "b.fits", bands=("i",))
    with pytest.raises(InputError, match=r"bands are \['i'\] but these cutouts have \['g'\]"):
        make(tmp_path, "b.fits", bands=("g",), append=True)
    with pytest.raises(InputError, match=r"pixels are 0.2 arcsec wide but those of these cutouts 0.3"):
        make(tmp_path, "b.fits", bands=("i",), append=True, input_pixel_scale=0.3)


def test_append_refuses_ids_that_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("a", "b", "c"):
        write_fits(tmp_path / f"{name}.fits", noise(8, 8))
    make(tmp_path, "b.fits", bands=("i",))
    # One stamp a table: the known id is not in the first.
    monkeypatch.setattr("lensray.extraction.stamps.BATCH_BYTES", 1)
    for pattern in ("*.fits", "b.fits"):
        with pytest.raises(InputError, match=r"object_id b is in .* already"):
            make(tmp_path, pattern, bands=("i",), append=True)
    assert read_survey(str(tmp_path / "survey"))[0]["object_id"].to_pylist() == ["b"]
    table, *_ = make(tmp_path, ("a.fits", "c.fits"), bands=("i",), append=True)
    assert table["object_id"].to_pylist() == ["b", "a", "c"]


def test_known_survey_names_bands_and_pixel_scale(tmp_path: Path):
    write_fits(tmp_path / "a.fits", noise(1, 8, 8))
    _, fmt, *_ = make(tmp_path, "a.fits", survey="cosmos_acs", input_pixel_scale=None)
    assert fmt.bands == ("F814W",) or len(fmt.bands) == 1
    assert fmt.pixel_scale_arcsec == pytest.approx(0.03)


def test_unknown_pixel_scale_is_asked_for_by_the_reader(tmp_path: Path):
    write_fits(tmp_path / "a.fits", noise(8, 8))
    with pytest.raises(InputError, match="--pixel-scale"):
        make(tmp_path, "a.fits", bands=("i",), input_pixel_scale=None)
    assert [entry.path for entry in storage.find_files(str(tmp_path / "survey"))], "written all the same"


def test_surveys_go_from_s3_to_s3(s3_url: str, tmp_path: Path):
    images = noise(2, 3, 8, 8)
    for i, planes in enumerate(images):
        for band, plane in zip("gri", planes, strict=True):
            write_fits(tmp_path / f"{i}_{band}.fits", plane)
            storage.write_bytes(
                storage.join(s3_url, "in", f"{i}_{band}.fits"), (tmp_path / f"{i}_{band}.fits").read_bytes()
            )
    config = MakeCutoutsConfig(
        stamps=(storage.join(s3_url, "in", "*_{band}.fits"),),
        output=storage.join(s3_url, "out"),
        bands=tuple("gri"),
        input_pixel_scale=0.2,
    )
    make_survey(config)
    np.testing.assert_array_equal(read_survey(config.output)[2], images)
    assert storage.list_names(*storage.resolve(config.output)) == ["part-00000.parquet"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"stamps": ("none*.fits",)}, "no file matches"),
        ({"stamps": ("none/{band}.fits",)}, "no bands are named"),
        ({"bands": ("g", "r")}, "3 planes but 2 bands are named|has 3 planes"),
        ({"bands": ("g", "g", "r")}, "not all different"),
        ({"bands": ("g", "r", "i"), "keep_bands": ("z",)}, "--keep-bands names z"),
        (
            {"stamps": ("*.fits",), "bands": ("g", "r", "i")},
            "10×10 pixels but the first stamp 8×8; pass --size",
        ),
        ({"bands": ("g", "r", "i"), "pixel_scale": 0.3}, "pass --input-pixel-scale"),
    ],
)
def test_bad_input_is_answered_and_leaves_nothing(tmp_path: Path, options: dict, words: str):
    write_fits(tmp_path / "a.fits", noise(3, 8, 8))
    write_fits(tmp_path / "b.fits", noise(3, 10, 10))
    stamps = tuple(str(tmp_path / p) for p in options.pop("stamps", ("a.fits",)))
    output = tmp_path / "survey"
    with pytest.raises(InputError, match=words) as error:
        make_survey(MakeCutoutsConfig(stamps=stamps, output=str(output), **options))
    assert "\n" not in str(error.value)
    assert not output.exists() or list(output.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 0}, "--size is 0"),
        ({"pixel_scale": -1.0}, "--pixel-scale is -1"),
        ({"each_hdu": True, "stack": True}, "--each-hdu"),
        ({"hdus": ("A",), "bands": ("g", "r")}, "one a band"),
        ({"stamps": ()}, "none of --stamps, --images and --surveys"),
        ({"surveys": ("s",)}, "--stamps and --surveys are given"),
        ({"stamps": (), "surveys": ("s",), "each_hdu": True, "label": "lens"}, "--each-hdu, --label"),
    ],
)
def test_options_that_contradict_are_answered(options: dict, words: str):
    with pytest.raises(InputError, match=words):
        MakeCutoutsConfig(**{"stamps": ("x",), "output": "y", **options})


def run_job(*words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "jobs" / "make_cutouts.py"), *words]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONWARNINGS": "error"}
    )


def test_command_line(tmp_path: Path):
    write_fits(tmp_path / "a.fits", noise(8, 8))
    output = str(tmp_path / "survey")
    words = [
        "--stamps",
        str(tmp_path / "*.fits"),
        "--bands",
        "i",
        "--input-pixel-scale",
        "0.2",
        "--output",
        output,
    ]
    done = run_job(*words, "--label", "lens")
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 cutouts of 1×8×8 float32 (i; 0.2 arcsec pixels)" in done.stdout
    assert read_survey(output)[0]["label"].to_pylist() == [True]
    again = run_job(*words)
    assert again.returncode == 2
    assert again.stderr.count("\n") == 1
    assert "holds Parquet files already" in again.stderr
    wrong = run_job("--stamps", str(tmp_path / "*.png"), "--output", output)
    assert wrong.returncode == 2
    assert wrong.stderr.count("\n") == 1


def test_command_line_joins_surveys(tmp_path: Path):
    write_fits(tmp_path / "a.fits", noise(8, 8))
    make(tmp_path, "a.fits", bands=("i",))
    done = run_job("--surveys", str(tmp_path / "survey"), "--output", str(tmp_path / "joined"), "--size", "6")
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 cutouts of 1×6×6 float32 (i; 0.2 arcsec pixels)" in done.stdout
    wrong = run_job("--surveys", str(tmp_path / "none"), "--output", str(tmp_path / "joined"))
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    assert "does not exist" in wrong.stderr


def test_real_des_stacks_become_a_survey_of_hsc_pixels(real_data: Path, tmp_path: Path):
    table, fmt, images, status = make(
        tmp_path,
        str(real_data / "des_objects" / "{band}.fits"),
        bands=tuple("gri"),
        stack=True,
        survey="des",
        input_pixel_scale=0.263,
        pixel_scale=0.168,
        size=64,
    )
    assert (table.num_rows, fmt.shape, fmt.bands) == (46, (3, 64, 64), tuple("gri"))
    assert check_pixels(images, np.array(status, object))[1].tolist() == ["ok"] * 46
    middle, border = images[:, :, 24:40, 24:40].max((1, 2, 3)), images[:, :, :4].max((1, 2, 3))
    assert np.mean(middle > border) > 0.9, "the objects stand in the middle"


def test_real_euclid_candidate_has_the_position_in_its_name(real_data: Path, tmp_path: Path):
    table, _, images, _ = make(
        tmp_path,
        str(real_data / "euclid_q1" / "*.fits"),
        hdus=("DES_G_BGSUB", "DES_R_BGSUB", "DES_I_BGSUB"),
        bands=tuple("gri"),
        input_pixel_scale=None,
    )
    assert table["ra"][0].as_py() == pytest.approx(57.0040238, abs=1e-4)
    assert table["dec"][0].as_py() == pytest.approx(-50.7752998, abs=1e-4)
    with fits.open(next((real_data / "euclid_q1").glob("*.fits"))) as hdus:
        np.testing.assert_array_equal(images[0, 2], hdus["DES_I_BGSUB"].data)


def test_real_hsc_cubes_keep_gri(real_data: Path, tmp_path: Path):
    table, fmt, images, _ = make(
        tmp_path,
        str(real_data / "hsc_cosmos" / "Cut_HSC*.fits"),
        bands=tuple("grizy"),
        keep_bands=tuple("gri"),
        input_pixel_scale=None,
    )
    assert fmt.pixel_scale_arcsec == pytest.approx(0.168, rel=1e-2)
    assert images.shape == (2, 3, 50, 50)
    assert all(149 < ra < 151 for ra in table["ra"].to_pylist())


def test_real_exposures_with_nan_keep_all_of_them(real_data: Path, tmp_path: Path):
    *_, images, _ = make(tmp_path, str(real_data / "des_objects" / "balrog_*.fits"), stack=True, bands=("r",))
    assert images.shape == (16, 1, 128, 128)
    assert np.isnan(images).sum() == 20480


@pytest.mark.parametrize(
    ("pattern", "options", "rows"),
    [
        ("lsst_mocks/*/*.fits.gz", {"bands": ("i",), "input_pixel_scale": 0.18}, 100),
        ("euclid_artefacts/*.jpeg", {"bands": ("VIS",), "input_pixel_scale": 0.1}, 19),
        ("hst_lenses/image_*.h5", {"bands": ("F",), "dataset": "image_data", "size": 100}, 4),
        ("cosmos_hst/real_galaxy_images_*.fits", {"bands": ("F814W",), "each_hdu": True, "size": 64}, 110),
    ],
)
def test_real_stamps_are_all_read(real_data: Path, tmp_path: Path, pattern: str, options: dict, rows: int):
    table, _, images, status = make(tmp_path, str(real_data / pattern), **options)
    assert len(set(table["object_id"].to_pylist())) == rows
    assert set(check_pixels(images, np.array(status, object))[1]) == {"ok"}
    assert json.loads(table.schema.metadata[b"lensray.survey"])["bands"] == list(options["bands"])
