"""Stamps as surveys ship them: which files make an object, and which planes in them.

An object is a file (an image, a cube of bands, several HDUs, a picture), or one file a band, or one of many in
a file: an entry of a stack, or an HDU.
"""

import fnmatch
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, NamedTuple

import numpy as np
import pyarrow.fs as pafs

from lensray.errors import InputError
from lensray.io import storage
from lensray.io.fits import image_hdus, is_fits, native, open_hdus, pixel_scale_arcsec, sky_position
from lensray.io.hdf5 import is_hdf5, read_dataset
from lensray.io.pictures import decode_picture

BAND = "{band}"
# No path holds it, and it means nothing in a pattern.
_PLACEHOLDER = "\0"
_ENDINGS = re.compile(r"(\.(fits?|fz|gz|h5|hdf5|png|jpe?g|tiff?))+$", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Where the planes of an object are in its files."""

    bands: tuple[str, ...] = ()
    """Names of the planes: the values of ``{band}`` in a pattern."""
    hdus: tuple[str, ...] = ()
    """HDUs (names or numbers) that hold one band each; without them the first image counts."""
    each_hdu: bool = False
    """Every image HDU is an object."""
    stack: bool = False
    """The first axis of each image counts objects."""
    dataset: str | None = None
    """Dataset of an HDF5 file."""


class StampFiles(NamedTuple):
    """The files of an object, or of a stack of them."""

    filesystem: pafs.FileSystem
    name: str
    paths: tuple[str | None, ...]
    """One file, or one a band; None where it is missing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stamp:
    """One object's image, or the reason why there is none."""

    name: str
    """Unique within its file."""
    file: str
    """Base name of the (first) file."""
    planes: np.ndarray | None = None
    """Shape (planes, height, width), uint8 or float32."""
    ra: float | None = None
    """Right ascension of the image's centre, in degrees."""
    dec: float | None = None
    """Declination of the image's centre, in degrees."""
    pixel_scale_arcsec: float | None = None
    """From the header's WCS."""
    problem: str | None = None
    """Why there is no image."""


class _Image(NamedTuple):
    pixels: np.ndarray
    header: Any


def find_stamps(patterns: Sequence[str], bands: Sequence[str]) -> list[StampFiles]:
    """The files that patterns name, grouped by object where a pattern has ``{band}``.

    Raises
    ------
    InputError
        If a pattern matches nothing, or has ``{band}`` while no bands are named.
    """
    found: list[StampFiles] = []
    for pattern in patterns:
        found += _band_files(pattern, bands) if BAND in pattern else _single_files(pattern)
    return _with_different_names(found)


def _single_files(pattern: str) -> list[StampFiles]:
    filesystem, _ = storage.resolve(pattern)
    paths = [entry.path for entry in storage.glob_files(pattern)]
    return [StampFiles(filesystem, _stem(path), (path,)) for path in paths]


def _stem(path: str) -> str:
    """Base name without its endings, or the folder's name where nothing is left of it."""
    folder, _, name = path.rpartition("/")
    return _ENDINGS.sub("", name).strip("_-. ") or folder.rpartition("/")[2]


def _band_files(pattern: str, bands: Sequence[str]) -> list[StampFiles]:
    if not bands:
        raise InputError(f"{pattern} has {BAND} but no bands are named; pass --bands")
    filesystem, path_pattern = storage.resolve(pattern)
    groups: dict[str, dict[str, str]] = {}
    for band in bands:
        for entry in storage.glob_files(pattern.replace(BAND, band)):
            groups.setdefault(_without_band(entry.path, band, path_pattern), {})[band] = entry.path
    return [
        StampFiles(filesystem, _stem(rest.replace(BAND, "")), tuple(paths.get(band) for band in bands))
        for rest, paths in sorted(groups.items())
    ]


def _without_band(path: str, band: str, pattern: str) -> str:
    """The path with ``{band}`` again where the pattern has it: equal for the bands of an object."""
    numbers = count()
    regex = re.sub(
        _PLACEHOLDER,
        lambda _: f"(?P<band{next(numbers)}>{re.escape(band)})",
        fnmatch.translate(pattern.replace(BAND, _PLACEHOLDER)),
    )
    match = re.match(regex, path)
    if match is None:
        return path
    for start, end in sorted((match.span(f"band{i}") for i in range(pattern.count(BAND))), reverse=True):
        path = path[:start] + BAND + path[end:]
    return path


def _with_different_names(found: list[StampFiles]) -> list[StampFiles]:
    """Files of one name in several folders get the folder's name in front."""
    if not _repeated(found):
        return found
    renamed = []
    for files in found:
        path = next(path for path in files.paths if path)
        folder = path.rpartition("/")[0].rpartition("/")[2]
        renamed.append(files._replace(name=f"{folder}/{files.name}"))
    if twice := _repeated(renamed):
        raise InputError(
            f"several stamps are called {twice[0]}; make them one after the other, with --append --id-prefix"
        )
    return renamed


def _repeated(found: list[StampFiles]) -> list[str]:
    return [name for name, times in Counter(files.name for files in found).items() if times > 1]


def read_stamps(files: StampFiles, layout: Layout) -> Iterator[Stamp]:
    """The objects in files; a file that cannot be read gives one stamp with a `problem`.

    Raises
    ------
    InputError
        If the bands of a stack have different numbers of objects.
    """
    file = next(path for path in files.paths if path).rpartition("/")[2]
    try:
        images = _read_images(files, layout)
        objects = _objects(images, layout)
    except InputError:
        raise
    except Exception as error:
        # astropy, h5py and Pillow fail in many ways on damaged files, and no bad stamp may end the job.
        yield Stamp(name=files.name, file=file, problem=_one_line(error))
        return
    several = layout.stack or layout.each_hdu
    for number, images in enumerate(objects):
        name = f"{files.name}-{number}" if several else files.name
        yield _stamp(name, file, images, positioned=not layout.stack)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _read_images(files: StampFiles, layout: Layout) -> list[_Image]:
    """All images of an object: one, or one a band, or (``each_hdu``) one an object."""
    images: list[_Image] = []
    for path in files.paths:
        if path is None:
            raise ValueError("a band's file is missing")
        with files.filesystem.open_input_file(path) as file:
            images += _read_file(file.read(), layout)
    return images


def _read_file(data: bytes, layout: Layout) -> list[_Image]:
    if is_fits(data):
        return _read_fits(data, layout)
    if is_hdf5(data):
        return [_Image(native(read_dataset(data, layout.dataset)), None)]
    return [_Image(decode_picture(data), None)]


def _read_fits(data: bytes, layout: Layout) -> list[_Image]:
    with open_hdus(data) as hdus:
        images = image_hdus(hdus)
        if layout.hdus:
            by_name: Any = hdus
            images = [by_name[int(name) if name.isdecimal() else name] for name in layout.hdus]
        elif not layout.each_hdu:
            images = images[:1]
        if not images:
            raise ValueError("the FITS file holds no image")
        return [_Image(native(hdu.data), hdu.header) for hdu in images]


def _objects(images: list[_Image], layout: Layout) -> list[list[_Image]]:
    """The images of each object."""
    if layout.each_hdu:
        return [[image] for image in images]
    if not layout.stack:
        return [images]
    counts = {len(image.pixels) for image in images}
    if len(counts) > 1:
        raise InputError(
            f"the bands hold {sorted(counts)} objects; stacks must have the same objects in each band"
        )
    return [[image._replace(pixels=image.pixels[i]) for image in images] for i in range(counts.pop())]


def _stamp(name: str, file: str, images: list[_Image], positioned: bool) -> Stamp:
    """An object out of its images; in a stack the header's position is not that of its objects."""
    shapes = {image.pixels.shape for image in images}
    pixels = images[0].pixels
    if len(shapes) > 1:
        return Stamp(name=name, file=file, problem=f"its bands have different shapes: {sorted(shapes)}")
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and len(images) > 1):
        return Stamp(
            name=name,
            file=file,
            problem=f"an image of shape {pixels.shape}; pass --stack if it holds objects",
        )
    planes = np.stack([image.pixels for image in images]) if len(images) > 1 else pixels
    planes = planes.reshape(-1, *planes.shape[-2:])
    header = images[0].header
    if header is None:
        return Stamp(name=name, file=file, planes=planes)
    ra, dec = (sky_position(header, planes.shape) if positioned else None) or (None, None)
    scale = pixel_scale_arcsec(header)
    return Stamp(name=name, file=file, planes=planes, ra=ra, dec=dec, pixel_scale_arcsec=scale)
