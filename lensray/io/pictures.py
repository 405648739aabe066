"""Pixels out of the bytes of FITS, PNG and JPEG files."""

import io

import numpy as np
from PIL import Image, UnidentifiedImageError

from lensray.io.fits import is_fits, read_planes


def decode_image(data: bytes, bands: int | None = None) -> np.ndarray:
    """The image in the bytes of a FITS (also gzipped), PNG or JPEG file.

    Parameters
    ----------
    data : bytes
    bands : int, optional
        Number of planes that is wanted: decides how a FITS file of several images is read (`read_planes`).

    Returns
    -------
    ndarray, shape (planes, height, width)
        Native byte order; FITS as float32, or uint8 where it holds bytes.

    Raises
    ------
    Exception
        Whatever astropy and Pillow raise for bytes that are damaged or of another kind.
    """
    return read_planes(data, bands) if is_fits(data) else decode_picture(data)


def decode_picture(data: bytes) -> np.ndarray:
    """A PNG, JPEG or TIFF as planes (planes, height, width): 1 of a grey picture, 3 of a colour one.

    Pixels are uint8, those of 16-bit and floating-point pictures float32. An alpha plane is no band, and is
    left out.

    Raises
    ------
    Exception
        ValueError for other kinds of bytes, and whatever Pillow raises for damaged ones.
    """
    try:
        opened = Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "TIFF"))
    except UnidentifiedImageError:
        raise ValueError("the file is no FITS, HDF5, PNG, JPEG or TIFF image") from None
    with opened as picture:
        picture.load()
        if picture.mode in ("L", "1"):
            return np.asarray(picture.convert("L"))[None]
        if picture.mode.startswith(("I", "F")):
            return np.asarray(picture).astype(np.float32)[None]
        if picture.mode == "LA":
            return np.asarray(picture.convert("L"))[None]
        return np.ascontiguousarray(np.asarray(picture.convert("RGB")).transpose(2, 0, 1))
