"""Two classes of CIFAR-10 as a cutout table: LensFlow's network first learned airplanes from automobiles.

Read are the *binary* version (``cifar-10-binary.tar.gz``, or a folder with its ``.bin`` files: records of a class
byte and three planes of 32×32 bytes; Krizhevsky 2009) and folders of pictures, ``train/<class>/*`` and
``test/<class>/*``. The version for Python is pickled and is refused: unpickling a file runs what is in it.

Pictures become grey by the luma of ITU-R 601, ``0.299 R + 0.587 G + 0.114 B`` (Pillow's mode "L"), and are then
enlarged. LensFlow's notebook enlarges first; both are linear, so that only the rounding to bytes differs.
"""

import tarfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
from PIL import Image

from lensray.cutouts import CutoutFormat, make_table
from lensray.errors import InputError, LensRayError
from lensray.io import storage
from lensray.io.explain import explained, first_line
from lensray.io.pictures import decode_picture

Split = Literal["train", "test"]

SIDE = 32
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PIXEL_SCALE_ARCSEC = 1.0
"""Pictures have no pixel scale; a survey must state one."""

_RECORD = 1 + 3 * SIDE * SIDE
_BATCHES = {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)}
_ARCHIVES = (".tar.gz", ".tgz", ".tar")
_PICTURES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".JPG", ".JPEG", ".PNG")


class _Picture(NamedTuple):
    name: str
    category: str
    rgb: np.ndarray


def cifar_format(size: int = SIDE) -> CutoutFormat:
    """The format of the tables: uint8, one band "grey", of a pixel scale that means nothing."""
    return CutoutFormat(
        survey="cifar10",
        bands=("grey",),
        pixel_scale_arcsec=PIXEL_SCALE_ARCSEC,
        shape=(1, size, size),
        dtype=np.dtype(np.uint8),
    )


def cifar_tables(
    url: str, split: Split, classes: tuple[str, str] = ("airplane", "automobile"), *, size: int = SIDE
) -> pa.Table:
    """The pictures of two classes as a cutout table.

    Parameters
    ----------
    url : str
        The archive, a folder with its ``.bin`` files, or a folder with ``train`` and ``test``; local or s3://.
    split : {"train", "test"}
    classes : (str, str)
        The classes with the labels false and true.
    size : int
        Height and width to which the 32×32 pixels are enlarged (bicubic).

    Returns
    -------
    pyarrow.Table
        In the order of the files; ``object_id`` (file and number), ``image`` (`cifar_format`), ``label``, ``split``
        and ``class``; no positions.

    Raises
    ------
    InputError
        If there is no CIFAR-10 at `url`, it is the pickled version, a class or a file is missing, or a file is
        damaged.
    """
    if split not in _BATCHES or len(set(classes)) != 2 or size < 1:
        raise ValueError(f"CIFAR-10 is read by split, two classes and size; got {split!r}, {classes}, {size}")
    if storage.exists(storage.join(url, split)):
        pictures = _from_folder(url, split, classes)
    else:
        pictures = _from_batches(_batches(url, split), classes)
    names, found, images = [], [], []
    for picture in pictures:
        names.append(picture.name)
        found.append(picture.category)
        images.append(_grey(picture.rgb, size))
    missing = [category for category in classes if category not in found]
    if missing:
        raise InputError(f"{url} holds no {split} image of the class {', '.join(missing)}")
    return make_table(
        cifar_format(size),
        names,
        np.stack(images)[:, np.newaxis],
        label=pa.array([category == classes[1] for category in found]),
        split=pa.array([split] * len(names)),
        **{"class": pa.array(found)},
    )


def _grey(rgb: np.ndarray, size: int) -> np.ndarray:
    grey = Image.fromarray(rgb).convert("L")
    return np.asarray(grey.resize((size, size), Image.Resampling.BICUBIC))


def _from_batches(batches: Iterable[tuple[str, bytes]], classes: Sequence[str]) -> Iterator[_Picture]:
    unknown = [name for name in classes if name not in CLASSES]
    if unknown:
        raise InputError(f"CIFAR-10 has no class {', '.join(unknown)}; its classes are {', '.join(CLASSES)}")
    for name, data in batches:
        records = _records(name, data)
        wanted = np.isin(records[:, 0], [CLASSES.index(category) for category in classes])
        for number in np.flatnonzero(wanted):
            rgb = records[number, 1:].reshape(3, SIDE, SIDE).transpose(1, 2, 0)
            category = CLASSES[records[number, 0]]
            yield _Picture(f"{name.removesuffix('.bin')}-{number:05d}", category, np.ascontiguousarray(rgb))


def _records(name: str, data: bytes) -> np.ndarray:
    """The records of a file, shape (N, 3073)."""
    if not data or len(data) % _RECORD:
        raise InputError(
            f"{name} has {len(data):,} bytes, which is no whole number of records of {_RECORD}: it is cut off or no "
            "batch of CIFAR-10; fetch it again"
        )
    records = np.frombuffer(data, np.uint8).reshape(-1, _RECORD)
    if records[:, 0].max() >= len(CLASSES):
        raise InputError(
            f"{name} is damaged or no batch of CIFAR-10: it names the class {records[:, 0].max()}; fetch it again"
        )
    return records


def _batches(url: str, split: Split) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the split's files."""
    filesystem, _ = storage.resolve(url)
    entries = storage.find_files(url, "")
    archives = [entry.path for entry in entries if entry.path.endswith(_ARCHIVES)]
    if len(entries) == 1 and archives:
        return _unpacked(url, filesystem, archives[0], _BATCHES[split])
    paths = {entry.path.rpartition("/")[2]: entry.path for entry in entries}
    _check_names(url, paths, _BATCHES[split])
    return ((name, _read(filesystem, paths[name])) for name in _BATCHES[split])


def _unpacked(
    url: str, filesystem: pafs.FileSystem, path: str, wanted: Sequence[str]
) -> Iterator[tuple[str, bytes]]:
    try:
        with filesystem.open_input_file(path) as file, tarfile.open(fileobj=file, mode="r:*") as archive:
            members = {m.name.rpartition("/")[2]: m for m in archive.getmembers() if m.isfile()}
            _check_names(url, members, wanted)
            for name in wanted:
                content = archive.extractfile(members[name])
                assert content is not None
                yield name, content.read()
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise InputError(f"the archive {url} cannot be read ({first_line(error)}); fetch it again") from error


def _check_names(url: str, names: Iterable[str], wanted: Sequence[str]) -> None:
    missing = [name for name in wanted if name not in names]
    if missing and any(name.removesuffix(".bin") in names for name in wanted):
        raise InputError(
            f"{url} is the pickled version of CIFAR-10, which is not read because unpickling runs what is in a file; "
            "give the binary version, cifar-10-binary.tar.gz"
        )
    if missing:
        raise InputError(
            f"{url} lacks {', '.join(missing)}; give cifar-10-binary.tar.gz, the folder with its .bin files, or a "
            "folder with train/<class> and test/<class>"
        )


def _from_folder(url: str, split: Split, classes: Sequence[str]) -> Iterator[_Picture]:
    filesystem, root = storage.resolve(storage.join(url, split))
    there = storage.list_names(filesystem, root)
    missing = [category for category in classes if category not in there]
    if missing:
        raise InputError(
            f"{url}/{split} lacks the class {', '.join(missing)}; it has {', '.join(there) or 'none'}"
        )
    for category in classes:
        for entry in storage.find_files(storage.join(url, split, category), _PICTURES):
            name = entry.path.rpartition("/")[2].rpartition(".")[0]
            rgb = _decoded(entry.path, _read(filesystem, entry.path))
            yield _Picture(f"{split}/{category}/{name}", category, rgb)


def _decoded(path: str, data: bytes) -> np.ndarray:
    """A picture's colours, shape (32, 32, 3)."""
    try:
        planes = decode_picture(data)
    except Exception as error:
        # Pillow fails in many ways on damaged files.
        raise InputError(
            f"{path} is no picture that can be read ({first_line(error)}); remove or replace it"
        ) from error
    if planes.shape[1:] != (SIDE, SIDE) or planes.dtype != np.uint8:
        height, width = planes.shape[1:]
        raise InputError(f"{path} has {height}×{width} pixels of {planes.dtype}; CIFAR-10 has 32×32 of uint8")
    return np.ascontiguousarray(np.broadcast_to(planes, (3, SIDE, SIDE)).transpose(1, 2, 0))


def _read(filesystem: pafs.FileSystem, path: str) -> bytes:
    with explained(path, LensRayError), filesystem.open_input_file(path) as file:
        return file.read()
