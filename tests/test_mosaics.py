"""Windowed reading of FITS mosaics and cutting from them, against astropy reading and cutting the whole image."""

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import Cutout2D
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from synthetic_mosaics import noise, tan_wcs, write_mosaic

from lensray.extraction import cutting
from lensray.extraction.cutting import cut
from lensray.io import mosaics
from lensray.io.mosaics import MosaicFile, open_mosaic, read_header, read_rows


def mosaic_file(path: Path, hdu: str | None = None) -> MosaicFile:
    return MosaicFile(url=str(path), path=str(path), size=path.stat().st_size, hdu=hdu)


@pytest.mark.parametrize("name", ["plain.fits", "packed.fits.gz", "tiled.fits.fz"])
def test_rows_are_those_that_astropy_reads(tmp_path, name):
    pixels = noise((90, 70))
    file = mosaic_file(write_mosaic(tmp_path / name, pixels, tan_wcs(pixels.shape)))
    assert read_header(file).shape == (90, 70)
    with open_mosaic(file) as hdu:
        rows = read_rows(hdu, 17, 41)
    assert_array_equal(rows, pixels[17:41])


def test_scaled_integers_are_unscaled_and_blank_ones_nan(tmp_path):
    stored = np.arange(60, dtype=np.int16).reshape(10, 6)
    hdu = fits.PrimaryHDU(stored)
    hdu.header.update(BSCALE=0.5, BZERO=100.0, BLANK=7)
    hdu.writeto(tmp_path / "scaled.fits")
    with open_mosaic(mosaic_file(tmp_path / "scaled.fits")) as image:
        rows = read_rows(image, 1, 3)
    expected = stored[1:3] * 0.5 + 100
    expected[stored[1:3] == 7] = np.nan
    assert_array_equal(rows, expected)


def test_the_named_hdu_is_read(tmp_path):
    science, mask = noise((20, 30)), np.ones((20, 30), np.float32)
    names = [("MASK", mask), ("IMAGE", science)]
    hdus = [fits.PrimaryHDU(), *(fits.ImageHDU(data, name=name) for name, data in names)]
    path = tmp_path / "several.fits"
    fits.HDUList(hdus).writeto(path)
    for hdu, expected in ((None, mask), ("IMAGE", science), ("1", mask)):
        with open_mosaic(mosaic_file(path, hdu)) as image:
            assert_array_equal(read_rows(image, 0, 20), expected)
    with pytest.raises(ValueError, match="no HDU WEIGHT"):
        read_header(mosaic_file(path, "WEIGHT"))


def test_a_file_that_is_cut_off_is_told_by_its_header(tmp_path):
    path = write_mosaic(tmp_path / "whole.fits", noise((90, 70)))
    path.write_bytes(path.read_bytes()[:12_000])
    with pytest.raises(ValueError, match="cut off"):
        read_header(mosaic_file(path))


def test_only_the_rows_that_are_asked_for_are_read(tmp_path, monkeypatch):
    """By the bytes that pass the file's reader: header and rows, not the image."""
    path = write_mosaic(tmp_path / "large.fits", noise((2000, 500)))
    read: list[int] = []

    class Counting:
        def __init__(self, source):
            self.source = source

        def __getattr__(self, name):
            return getattr(self.source, name)

        def readinto(self, buffer):
            count = self.source.readinto(buffer)
            read.append(count)
            return count

        def read(self, *arguments):
            data = self.source.read(*arguments)
            read.append(len(data))
            return data

    reader = mosaics.io.BufferedReader
    monkeypatch.setattr(mosaics.io, "BufferedReader", lambda source, size: reader(Counting(source), size))
    with open_mosaic(mosaic_file(path)) as hdu:
        read_rows(hdu, 1000, 1010)
    assert 20_000 <= sum(read) < 10 * 500 * 4 + 4 * mosaics.BUFFER_BYTES


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000),
    size=st.integers(1, 24),
    count=st.integers(0, 30),
    run_bytes=st.sampled_from([1, 5_000, 1 << 20]),
    gap_bytes=st.sampled_from([0, 2_000, 1 << 20]),
)
def test_cutouts_are_those_of_astropy(tmp_path_factory, seed, size, count, run_bytes, gap_bytes):
    generator = np.random.default_rng(seed)
    pixels = noise((60, 50), seed)
    path = tmp_path_factory.getbasetemp() / f"mosaic-{seed}.fits"
    write_mosaic(path, pixels)
    x, y = generator.uniform(-30, 80, count), generator.uniform(-30, 90, count)
    with pytest.MonkeyPatch.context() as patch, open_mosaic(mosaic_file(path)) as hdu:
        patch.setattr(cutting, "RUN_BYTES", run_bytes)
        patch.setattr(cutting, "GAP_BYTES", gap_bytes)
        images = cut(hdu, x, y, size)
    assert images.shape == (count, size, size)
    for image, left, bottom in zip(images, x, y, strict=True):
        assert_array_equal(image, slow_cutout(pixels, left, bottom, size))


def slow_cutout(pixels: np.ndarray, x: float, y: float, size: int) -> np.ndarray:
    """By astropy, around the pixel that holds the position; NaN outside."""
    column, row = np.floor(x + 0.5), np.floor(y + 0.5)
    # Cutout2D has the position in pixel (size - 1) / 2, rounded up for even sizes as here.
    try:
        found = Cutout2D(pixels, (column, row), size, mode="partial", fill_value=np.nan).data
    except Exception:  # no overlap at all
        return np.full((size, size), np.nan, np.float32)
    return found


def test_damage_of_any_kind_is_one_kind_of_error(tmp_path):
    """Bytes overwritten at random in a tile-compressed file: the rows, or a ValueError or OSError."""
    path = write_mosaic(tmp_path / "tiled.fits.fz", noise((200, 180)))
    data, seen = path.read_bytes(), set()
    generator = np.random.default_rng(5)
    for _ in range(60):
        broken = bytearray(data)
        start = int(generator.integers(12_000, len(data) - 300))
        broken[start : start + 200] = generator.bytes(200)
        path.write_bytes(bytes(broken))
        try:
            with open_mosaic(mosaic_file(path)) as hdu:
                read_rows(hdu, 0, 200)
        except (OSError, ValueError) as error:
            seen.add(type(error.__cause__ or error).__name__)
    assert len(seen) >= 2
    packed = write_mosaic(tmp_path / "packed.fits.gz", noise((200, 180)))
    packed.write_bytes(packed.read_bytes()[:40_000])
    with pytest.raises((OSError, ValueError)), open_mosaic(mosaic_file(packed)) as hdu:
        read_rows(hdu, 0, 200)


def test_an_unknown_position_has_no_pixels(tmp_path):
    path = write_mosaic(tmp_path / "m.fits", noise((50, 60)))
    with open_mosaic(mosaic_file(path)) as hdu:
        images = cut(hdu, np.array([np.nan, 20.0, np.inf]), np.array([10.0, 20.0, 5.0]), 8)
    assert np.isnan(images).all((1, 2)).tolist() == [True, False, True]
