"""Mosaics: large FITS images that are read by bands of rows, from disk or S3, without the rest of the file.

A FITS image lies row after row, so that some rows are one range of bytes; a tile-compressed one (``.fz``) is decoded where
it is asked for. A gzipped file (``.gz``) can only be read from its start: it is unpacked once a process, into a
temporary file. Whatever the file's size, no more than the rows that are asked for is held in memory.
"""

import gzip
import io
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, BinaryIO, cast

import numpy as np
from astropy.io import fits

from lensray.io import storage

# Headers are some tens of kB, and every read of S3 is a request.
BUFFER_BYTES = 1 << 17
# Unpacked files that a process keeps: the bands of a tile or two.
KEPT_UNPACKED = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class MosaicFile:
    """A FITS image in a file."""

    url: str
    """Address of the folder or pattern that it was found by, which says how to reach it."""
    path: str
    """Its path on that filesystem."""
    size: int
    """Of the file, in bytes."""
    hdu: str | None = None
    """Name or number of the HDU; without one the first image counts."""

    @property
    def name(self) -> str:
        """Base name, for people."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True, kw_only=True, slots=True)
class MosaicHeader:
    """What a mosaic's header says."""

    header: fits.Header
    """All of it."""
    shape: tuple[int, int]
    """Height and width, in pixels."""


@contextmanager
def open_mosaic(mosaic: MosaicFile) -> Iterator[Any]:
    """The image HDU of a mosaic, whose pixels are read when asked for.

    Raises
    ------
    ValueError
        If the file holds no such image, or one that is not of two dimensions.
    OSError
        If it is damaged or cannot be read.
    """
    unpacked = _unpacked_file(mosaic) if _is_gzipped(mosaic) else _stored_file(mosaic)
    with unpacked as file, _image_of(file, mosaic) as hdu:
        yield hdu


def read_header(mosaic: MosaicFile) -> MosaicHeader:
    """Header and shape of a mosaic; no pixel is read (errors as of `open_mosaic`).

    Raises
    ------
    ValueError
        Also if the file is shorter than its header says (of a gzipped one that shows only when it is read).
    """
    with _stored_file(mosaic) as file:
        if _is_gzipped(mosaic):
            with gzip.open(file) as unpacked, _image_of(unpacked, mosaic) as hdu:
                return MosaicHeader(header=hdu.header.copy(), shape=hdu.shape)
        with _image_of(file, mosaic) as hdu:
            info = hdu.fileinfo() or {}
            end = info.get("datLoc", 0) + info.get("datSpan", 0)
            if end > mosaic.size:
                raise ValueError(f"{mosaic.name} is cut off: {mosaic.size} bytes where its header says {end}")
            return MosaicHeader(header=hdu.header.copy(), shape=hdu.shape)


def read_rows(hdu: Any, start: int, stop: int) -> np.ndarray:
    """Rows of a mosaic, shape (stop - start, width), scaled as the header says, in the byte order of the file.

    Raises
    ------
    OSError, ValueError
        If the file is damaged or cannot be read.
    """
    with _damage():
        return hdu.section[start:stop]


@contextmanager
def _damage() -> Iterator[None]:
    """Damaged bytes make astropy and zlib fail in many ways: one way for all."""
    try:
        yield
    except (OSError, ValueError):
        raise
    except Exception as error:
        raise ValueError(f"damaged: {type(error).__name__} {error}") from error


def check_reachable(mosaic: MosaicFile) -> None:
    """Raise OSError if not even the first byte can be had: then the storage is to blame, not the file."""
    with _stored_file(mosaic) as file:
        file.read(1)


@contextmanager
def _image_of(file: Any, mosaic: MosaicFile) -> Iterator[Any]:
    """The image HDU that is meant, of an open FITS file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the small print that survey headers break
        with fits.open(file, memmap=False, lazy_load_hdus=True) as hdus:
            hdu = _first_image(hdus) if mosaic.hdu is None else _named_image(hdus, mosaic)
            if hdu is None or not hdu.is_image or len(hdu.shape) != 2:
                raise ValueError(f"{mosaic.name} holds no image of two dimensions")
            yield hdu


def _first_image(hdus: Any) -> Any:
    return next((hdu for hdu in hdus if hdu.is_image and hdu.header.get("NAXIS", 0) >= 2), None)


def _named_image(hdus: Any, mosaic: MosaicFile) -> Any:
    name = str(mosaic.hdu)
    try:
        return hdus[int(name) if name.isdecimal() else name]
    except (KeyError, IndexError):
        raise ValueError(f"{mosaic.name} has no HDU {name}") from None


def _is_gzipped(mosaic: MosaicFile) -> bool:
    return mosaic.path.lower().endswith(".gz")


@contextmanager
def _stored_file(mosaic: MosaicFile) -> Iterator[BinaryIO]:
    """The file's bytes as they are stored, in reads that are worth a request."""
    filesystem, _ = storage.resolve(mosaic.url)
    with filesystem.open_input_file(mosaic.path) as source:
        yield io.BufferedReader(cast(Any, source), BUFFER_BYTES)


@contextmanager
def _unpacked_file(mosaic: MosaicFile) -> Iterator[BinaryIO]:
    with open(_unpack(mosaic).name, "rb") as file:
        yield file


@lru_cache(maxsize=KEPT_UNPACKED)
def _unpack(mosaic: MosaicFile) -> Any:
    """A temporary file with the unpacked bytes; it is deleted when it leaves the cache."""
    target = tempfile.NamedTemporaryFile(prefix="lensray-")  # noqa: SIM115  (kept open by the cache)
    with _damage(), _stored_file(mosaic) as file, gzip.open(file) as unpacked:
        shutil.copyfileobj(unpacked, target, 1 << 20)
    target.flush()
    return target
