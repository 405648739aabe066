"""The Bologna challenges' folders of FITS files and their CSV tables as cutout surveys."""

import numpy as np
import pytest
from astropy.io import fits

from lensray.bundle import Inputs
from lensray.errors import InputError
from lensray.extraction.challenge import challenge_tables, open_challenge, read_truth
from lensray.reading import read_formats, read_images
from lensray.simulation.euclid import INPUTS

NUMBERS = (200000, 200001, 200002, 200003)
TRUTH_2 = """# the challenge's log
# ID, x_crit, n_source_im, mag_eff, n_pix_source
200000, 0.1, 2, 5.0, 40
200001, 0.1, 0, 5.0, 40
200002, 0.1, 1, 1.6, 40
200003, 0.1, 1, 1.7, 20
"""


def write(folder, name, number, pixels):
    path = folder / f"EUC_{name}" / f"imageEUC_{name}-{number}.fits"
    path.parent.mkdir(parents=True, exist_ok=True)
    fits.PrimaryHDU(pixels.astype(np.float32)).writeto(path)
    return path


def pixels(number, band, side):
    return np.random.default_rng([number, ord(band[0])]).normal(size=(side, side)) * 1e-11


@pytest.fixture
def second(tmp_path):
    """Four objects of the second challenge, as published but for their number."""
    for number in NUMBERS:
        write(tmp_path / "Public", "VIS", number, pixels(number, "VIS", 200))
        for band in "HJY":
            write(tmp_path / "Public", band, number, pixels(number, band, 60))
    (tmp_path / "truth.csv").write_text(TRUTH_2)
    return tmp_path


def opened(folder):
    return open_challenge(str(folder / "Public"), str(folder / "truth.csv"))


def read(challenge, inputs=INPUTS):
    (table,) = challenge_tables(challenge, challenge.numbers)
    return table, *read_images(table, read_formats(table.schema, inputs), inputs)


def test_the_second_challenge_becomes_two_columns_with_their_own_scales(second):
    challenge = opened(second)
    assert [fmt.column for fmt in challenge.formats] == ["image", "image_nisp"]
    assert [fmt.bands for fmt in challenge.formats] == [("VIS",), ("Y", "J", "H")]
    assert [fmt.pixel_scale_arcsec for fmt in challenge.formats] == [0.1, 0.3]
    table, images, status = read(challenge)
    assert table["object_id"].to_pylist() == list(NUMBERS)
    assert status.tolist() == ["ok"] * 4
    np.testing.assert_allclose(images[2, 0], pixels(200002, "VIS", 200).astype(np.float32))
    np.testing.assert_allclose(images[3, 2, 70:130, 70:130], pixels(200003, "J", 60).astype(np.float32))


def test_a_lens_of_the_second_challenge_is_seen_magnified_and_large_enough(second):
    assert opened(second).is_lens == {200000: True, 200001: False, 200002: False, 200003: False}
    table, *_ = read(opened(second))
    assert table["label"].to_pylist() == [True, False, False, False]


@pytest.mark.parametrize("header", ["ID,is_lens,Einstein_area\n", "id, is_lens, Einstein_area\n"])
def test_the_first_challenge_says_itself_what_is_a_lens(tmp_path, header):
    (tmp_path / "c.csv").write_text(header + "100000,1,0.5\n100001,0,0\n")
    assert read_truth(str(tmp_path / "c.csv")) == {100000: True, 100001: False}


def test_the_first_challenges_ground_based_bands_are_one_column(tmp_path):
    for folder, band in enumerate("RIGU", start=1):
        path = tmp_path / "Public" / f"Band{folder}" / f"imageSDSS_{band}-100013.fits"
        path.parent.mkdir(parents=True)
        fits.PrimaryHDU(pixels(1, "R", 11).astype(np.float32)).writeto(path)
    (tmp_path / "truth.csv").write_text("ID,is_lens\n100013,0\n")
    challenge = opened(tmp_path)
    assert [(fmt.bands, fmt.shape) for fmt in challenge.formats] == [(("U", "G", "R", "I"), (4, 11, 11))]
    inputs = Inputs(bands=("U", "G", "R", "I"), height=11, width=11, pixel_scale_arcsec=0.2)
    assert read(challenge, inputs)[2].tolist() == ["duplicate_bands"]


def test_masked_pixels_missing_and_damaged_files_give_the_row_a_status(second):
    masked = pixels(200000, "VIS", 200)
    masked[:50] = 100
    (second / "Public/EUC_VIS/imageEUC_VIS-200000.fits").unlink()
    write(second / "Public", "VIS", 200000, masked)
    (second / "Public/EUC_J/imageEUC_J-200001.fits").unlink()
    damaged = second / "Public/EUC_H/imageEUC_H-200002.fits"
    damaged.write_bytes(damaged.read_bytes()[:3000])
    _, images, status = read(opened(second))
    assert status.tolist() == ["nan", "nan", "nan", "ok"]
    assert np.isnan(images[0, 0, :50]).all()


def test_objects_without_truth_are_left_out_and_tables_of_other_objects_refused(second):
    (second / "truth.csv").write_text("ID,is_lens\n200001,1\n")
    assert opened(second).numbers.tolist() == [200001]
    (second / "truth.csv").write_text("ID,is_lens\n7,1\n")
    with pytest.raises(InputError, match="give the table of these images"):
        opened(second)


def test_other_tables_and_folders_are_refused_with_what_is_wanted(second, tmp_path):
    (second / "truth.csv").write_text("ID,z\n200000,0.3\n")
    with pytest.raises(InputError, match="lacks the column n_source_im, mag_eff, n_pix_source"):
        opened(second)
    (second / "truth.csv").write_text("ID,is_lens\n200000,yes\n")
    with pytest.raises(InputError, match="'yes', which is no truth"):
        opened(second)
    (second / "truth.csv").write_text("")
    with pytest.raises(InputError, match="is empty"):
        opened(second)
    other = tmp_path / "other"
    other.mkdir()
    fits.PrimaryHDU(np.zeros((3, 3))).writeto(other / "galaxy.fits")
    with pytest.raises(InputError, match="no images of a challenge"):
        open_challenge(str(other), str(second / "truth.csv"))
