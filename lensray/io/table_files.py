"""Tables of values as files: CSV, ECSV, FITS, VOTable and Parquet, told apart by their first bytes.

CSV may be separated by commas, semicolons or tabs, begin with lines of comment (``#``), and have its header as the last
of them, as the tables of the lens finding challenges do. Its values are texts: what they mean is the reader's to say, and ids
like ``00017`` keep their zeros.
"""

import csv
import gzip
import io
import re
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from lensray.errors import InputError
from lensray.io import storage
from lensray.io.explain import first_line

Choose = Callable[[Sequence[str]], Sequence[str]]


def read_columns(url: str, choose: Choose) -> pa.Table:
    """Some columns of a table file.

    Parameters
    ----------
    url : str
        Local or S3; may be gzipped, except for Parquet.
    choose : callable
        ``choose(names)`` gives the columns to read; it may raise what it likes if they are not there.

    Returns
    -------
    pyarrow.Table
        The chosen columns, in their order. Masked values are null; those of CSV are texts, none of them null.

    Raises
    ------
    InputError
        If there is no file, it is empty, or it is no such table.
    """
    with storage.open_input(url) as file:
        if file.size() >= 4 and file.read_at(4, 0) == b"PAR1":
            return _read_parquet(url, file, choose)
    data = storage.read_bytes(url)
    if data.startswith(b"\x1f\x8b"):
        data = _decompressed(url, data)
    if not data.strip():
        raise InputError(f"{url} is empty; give a table")
    kind = _astropy_format(data)
    return _read_csv(url, data, choose) if kind is None else _read_astropy(url, data, kind, choose)


def _decompressed(url: str, data: bytes) -> bytes:
    try:
        return gzip.decompress(data)
    except (OSError, EOFError) as error:
        raise _unreadable(url, error) from None


def _unreadable(url: str, error: Exception) -> InputError:
    return InputError(f"{url} is no table that can be read ({first_line(error)}); write it again")


def _read_parquet(url: str, file: pa.NativeFile, choose: Choose) -> pa.Table:
    try:
        opened = pq.ParquetFile(file)
        chosen = list(choose(opened.schema_arrow.names))
        return opened.read(list(dict.fromkeys(chosen))).select(chosen)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(url, error) from None


# --- CSV ------------------------------------------------------------------------------------------------


def _read_csv(url: str, data: bytes, choose: Choose) -> pa.Table:
    header, rows = _header_and_rows(data.removeprefix(b"\xef\xbb\xbf"))
    try:
        text = header.decode()
    except UnicodeDecodeError as error:
        raise _unreadable(url, error) from None
    delimiter = next((mark for mark in ",\t;" if mark in text), ",")
    names = [name.strip() for name in next(csv.reader([text], delimiter=delimiter), [])]
    chosen = list(choose(names))
    # By place, since names may be empty or come twice.
    places = [str(names.index(name)) for name in chosen]
    if not rows.strip():
        return pa.table({name: pa.array([], pa.string()) for name in chosen})
    try:
        table = pacsv.read_csv(
            pa.BufferReader(rows),
            pacsv.ReadOptions(column_names=[str(place) for place in range(len(names))]),
            pacsv.ParseOptions(delimiter=delimiter),
            pacsv.ConvertOptions(include_columns=places, column_types=dict.fromkeys(places, pa.string())),
        )
    except pa.ArrowException as error:
        raise _unreadable(url, error) from None
    return table.rename_columns(chosen)


def _header_and_rows(data: bytes) -> tuple[bytes, bytes]:
    """The line with the names of the columns, and what comes after it."""
    start, comment = 0, b""
    while start < len(data):
        end = data.find(b"\n", start)
        end = len(data) if end < 0 else end
        line = data[start:end].strip()
        if line and not line.startswith(b"#"):
            if comment and re.match(rb"[-+.\d]", line):
                break
            return line, data[end + 1 :]
        comment, start = line or comment, end + 1
    return comment.lstrip(b"# "), data[start:]


# --- formats of astropy ---------------------------------------------------------------------------------


def _astropy_format(data: bytes) -> str | None:
    if data.startswith(b"SIMPLE  ="):
        return "fits"
    if data.startswith(b"# %ECSV"):
        return "ascii.ecsv"
    head = data[:1000].lstrip()
    return "votable" if head.startswith(b"<") and b"<VOTABLE" in head else None


def _read_astropy(url: str, data: bytes, kind: str, choose: Choose) -> pa.Table:
    from astropy.table import (
        Table,
    )  # here, since a table of any other kind is read without astropy's half second

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the small print that published tables break
        try:
            table = Table.read(io.BytesIO(data), format=kind)
        except Exception as error:
            # astropy fails in many ways on damaged bytes.
            raise _unreadable(url, error) from None
        table.convert_bytestring_to_unicode()
    return pa.table({name: _column(url, name, table[name]) for name in choose(table.colnames)})


def _column(url: str, name: str, column: np.ndarray) -> pa.Array:
    values, mask = np.asarray(column), getattr(column, "mask", None)
    if values.ndim != 1:
        raise InputError(f"column {name!r} of {url} holds several values a row; give one with a single value")
    if values.dtype.kind in "OU":
        return pa.array(values.tolist(), mask=None if mask is None else np.asarray(mask))
    native = np.ascontiguousarray(values, values.dtype.newbyteorder("="))
    return pa.array(native, mask=None if mask is None else np.asarray(mask))
