"""Where data lies: one set of functions for local folders, S3 and whatever else pyarrow can reach.

An address is a local path, a ``file://`` URL, ``s3://bucket/key`` or another URL of `pyarrow.fs`. For S3
the usual variables count: ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, ``AWS_SESSION_TOKEN``,
``AWS_PROFILE`` (or the role of the machine), ``AWS_REGION``, ``AWS_ENDPOINT_URL_S3`` or ``AWS_ENDPOINT_URL``
for a server that is not Amazon's, ``AWS_CA_BUNDLE``, and ``AWS_NO_SIGN_REQUEST=1`` for public data without
credentials. Keys are taken literally: ``%`` and blanks stand for themselves.

Reading functions answer what the user can mend with an `InputError` of one line. Files appear whole or not at
all: they are written under a temporary name and then renamed, or uploaded when complete.
"""

import contextlib
import hashlib
import os
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from fsspec.implementations.arrow import ArrowFSWrapper

from lensray.errors import InputError, LensRayError
from lensray.io.explain import explained, first_line, no_bucket
from lensray.io.s3 import s3_filesystem

# Footers are some tens of kB; one range read gets nearly all of them.
FOOTER_GUESS_BYTES = 1 << 16
FOOTER_READERS = 16


class FileEntry(NamedTuple):
    """A file that a listing found."""

    path: str
    size: int
    mtime_ns: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Footer:
    """The footer of a Parquet file."""

    metadata: pq.FileMetaData
    """What the file holds: schema, row groups, statistics."""
    sha256: str
    """SHA-256 of the footer's bytes, a cheap fingerprint of the file."""


def resolve(url: str) -> tuple[pafs.FileSystem, str]:
    """The filesystem of an address, and the path on it.

    Raises
    ------
    InputError
        If the address is of no known kind.
    """
    scheme, separator, _ = str(url).partition("://")
    if not separator:
        return pafs.LocalFileSystem(), os.path.abspath(os.path.expanduser(url))
    if scheme == "file":
        return pafs.LocalFileSystem(), os.path.abspath(unquote(urlsplit(url).path))
    if scheme in ("s3", "s3a"):
        return s3_filesystem(url)
    try:
        return pafs.FileSystem.from_uri(url)
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = first_line(error)
        raise InputError(f"{url} is no address that can be read ({reason}); give a path or s3://…") from None


def join(url: str, *parts: str) -> str:
    """An address below `url`.

    >>> join("s3://bucket/runs/", "demo", "scores")
    's3://bucket/runs/demo/scores'
    """
    return "/".join([str(url).rstrip("/"), *(part.strip("/") for part in parts)])


def check_outside(output: str, survey: str) -> None:
    """Raise InputError if an output lies in a survey, where it would be read as part of it the next time."""
    inner, outer = (resolve(url)[1].rstrip("/") + "/" for url in (output, survey))
    if inner.startswith(outer):
        raise InputError(f"--output {output} lies in the survey {survey}; choose another folder")


def unique_name() -> str:
    """A name that no other process uses."""
    return uuid.uuid4().hex


def exists(url: str) -> bool:
    """Whether there is a file or a folder at `url`."""
    return _probe(url).type != pafs.FileType.NotFound


def _probe(url: str) -> pafs.FileInfo:
    filesystem, path = resolve(url)
    with explained(url, InputError):
        return filesystem.get_file_info(path)


def find_files(url: str, suffix: str | tuple[str, ...] = ".parquet") -> list[FileEntry]:
    """The files at an address: the file itself, or all files below the folder that end in `suffix`.

    Parameters
    ----------
    url : str
        A file or a folder. Names that begin with ``.`` or ``_`` are ignored, as Parquet readers do.
    suffix : str or tuple of str
        Ending of the files' names; a file that is named itself may end in anything.

    Returns
    -------
    list of FileEntry
        Sorted by path; paths are those of ``resolve(url)[0]``.

    Raises
    ------
    InputError
        If there is nothing there, nothing of this suffix, or the storage cannot be reached or read.
    """
    info = _probe(url)
    if info.type == pafs.FileType.NotFound:
        raise InputError(_missing(url))
    if info.is_file:
        return [_entry(info)]
    infos = _list(url)
    found = sorted(
        _entry(i) for i in infos if i.is_file and i.path.endswith(suffix) and _visible(i, info.path)
    )
    if found:
        return found
    if not any(i.is_file for i in infos):
        raise InputError(f"{url} is an empty folder; give a folder or file that holds data")
    wanted = " or ".join([suffix] if isinstance(suffix, str) else suffix)
    raise InputError(f"{url} holds no {wanted} file; give a folder that does, or the file itself")


def _list(url: str) -> list[pafs.FileInfo]:
    filesystem, path = resolve(url)
    with explained(url, InputError):
        return filesystem.get_file_info(pafs.FileSelector(path, recursive=True))


def _entry(info: pafs.FileInfo) -> FileEntry:
    return FileEntry(info.path, info.size, info.mtime_ns)


def _visible(info: pafs.FileInfo, root: str) -> bool:
    names = info.path[len(root) :].strip("/").split("/")
    return not any(name.startswith((".", "_")) for name in names)


def _missing(url: str) -> str:
    """Why there is nothing at `url`: on S3 the bucket may be what is missing."""
    filesystem, path = resolve(url)
    bucket = path.split("/")[0]
    if filesystem.type_name == "s3" and filesystem.get_file_info(bucket).type == pafs.FileType.NotFound:
        return no_bucket(url)
    return f"{url} does not exist; check the path"


def glob_files(pattern: str) -> list[FileEntry]:
    """The files whose path matches a pattern of ``*``, ``?``, ``[…]`` and ``**``, sorted by path.

    Raises
    ------
    InputError
        If no file matches, or the storage cannot be reached or read.
    """
    if (info := _probe(pattern)).is_file:
        return [_entry(info)]
    filesystem, path = resolve(pattern)
    with explained(pattern, InputError):
        infos = filesystem.get_file_info([str(p) for p in ArrowFSWrapper(filesystem).glob(path)])
    found = sorted(_entry(info) for info in infos if info.is_file)
    if not found:
        raise InputError(f"no file matches {pattern}; check the pattern, and quote it against the shell")
    return found


def list_names(filesystem: pafs.FileSystem, path: str) -> list[str]:
    """Base names of what a folder holds, sorted; none if there is no such folder."""
    infos = filesystem.get_file_info(pafs.FileSelector(path, allow_not_found=True))
    return sorted(info.base_name for info in infos)


def open_input(url: str) -> pa.NativeFile:
    """A file opened for reading at any place.

    Raises
    ------
    InputError
        If it is missing or cannot be read.
    """
    filesystem, path = resolve(url)
    with explained(url, LensRayError):
        return filesystem.open_input_file(path)


def read_bytes(url: str) -> bytes:
    """The content of a file (errors as of `open_input`)."""
    with open_input(url) as file, explained(url, LensRayError):
        return file.read()


def write_bytes(url: str, data: bytes) -> None:
    """Write a file, whole or not at all; it may replace another."""
    with atomic_output(url) as file:
        file.write(data)


@contextlib.contextmanager
def atomic_output(url: str) -> Iterator[BinaryIO]:
    """A file to write to, which appears at `url` complete when the block ends, and not at all if it raises.

    Raises
    ------
    InputError
        If there is no permission to write there.
    LensRayError
        If writing failed for another reason (disk full, connection lost).
    """
    filesystem, path = resolve(url)
    if isinstance(filesystem, pafs.LocalFileSystem):
        yield from _local_output(url, Path(path))
    else:
        yield from _uploaded_output(url, filesystem, path)


def _local_output(url: str, path: Path) -> Iterator[BinaryIO]:
    temporary = path.with_name(f".{path.name}.{unique_name()}.tmp")
    with explained(url, LensRayError):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(temporary, "xb")  # noqa: SIM115  (closed below; opening it must be explained)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        with explained(url, LensRayError):
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _uploaded_output(url: str, filesystem: pafs.FileSystem, path: str) -> Iterator[BinaryIO]:
    """Written to local disk first: closing a half-written pyarrow stream would publish what it got."""
    local = pafs.LocalFileSystem()
    with tempfile.TemporaryDirectory(prefix="lensray-") as folder:
        temporary = os.path.join(folder, "output")
        with open(temporary, "xb") as file:
            yield file
        with explained(url, LensRayError):
            pafs.copy_files(temporary, path, source_filesystem=local, destination_filesystem=filesystem)


def move(source: str, destination: str) -> None:
    """Rename a file; it may replace another."""
    filesystem, path = resolve(source)
    with explained(destination, LensRayError):
        filesystem.move(path, resolve(destination)[1])


def delete_file(url: str) -> None:
    """Delete a file; nothing happens if there is none."""
    filesystem, path = resolve(url)
    with explained(url, LensRayError):
        if filesystem.get_file_info(path).is_file:
            filesystem.delete_file(path)


def delete_folder(url: str) -> None:
    """Delete a folder and all that it holds; nothing happens if there is none."""
    filesystem, path = resolve(url)
    with explained(url, LensRayError):
        if filesystem.get_file_info(path).type == pafs.FileType.Directory:
            filesystem.delete_dir(path)


def read_schema(url: str) -> pa.Schema:
    """The Arrow schema of a survey, by the footer of its first file (errors as of `find_files` and `read_footer`)."""
    filesystem, _ = resolve(url)
    first = find_files(url)[0]
    return read_footer(filesystem, first.path, first.size).metadata.schema.to_arrow_schema()


def read_footer(filesystem: pafs.FileSystem, path: str, size: int) -> Footer:
    """The footer of a Parquet file, by one read of the file's end in most cases.

    Parameters
    ----------
    filesystem : pyarrow.fs.FileSystem
    path : str
    size : int
        Size of the file, in bytes.

    Raises
    ------
    InputError
        If the file is no Parquet file, is cut off, or cannot be read.
    """
    with explained(path, InputError), filesystem.open_input_file(path) as file:
        tail = _read_tail(file, size, FOOTER_GUESS_BYTES)
        length = int.from_bytes(tail[-8:-4], "little") + 8
        if size < 12 or tail[-4:] != b"PAR1" or length > size:
            raise InputError(
                f"{path} is no complete Parquet file; remove it from the survey or write it again"
            )
        if length > len(tail):
            tail = _read_tail(file, size, length)
    footer = tail[-length:]
    try:
        metadata = pq.read_metadata(pa.BufferReader(footer))
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"{path} has a damaged Parquet footer ({first_line(error)}); write it again"
        ) from None
    return Footer(metadata=metadata, sha256=hashlib.sha256(footer).hexdigest())


def read_footers(url: str, files: Sequence[FileEntry] | None = None) -> list[tuple[FileEntry, Footer]]:
    """The footers of a survey's files, or of some of them, many at a time (errors as of `find_files`, `read_footer`)."""
    filesystem, _ = resolve(url)
    files = find_files(url) if files is None else files
    with ThreadPoolExecutor(FOOTER_READERS) as pool:
        footers = pool.map(lambda entry: read_footer(filesystem, entry.path, entry.size), files)
        return list(zip(files, footers, strict=True))


def _read_tail(file: pa.NativeFile, size: int, length: int) -> bytes:
    length = min(size, length)
    return bytes(file.read_at(length, size - length))
