"""HATS catalogues: tables in Parquet, partitioned by place on the sky, as LSDB and the archives' large catalogues have them.

A catalogue is a folder with ``hats.properties`` (what it is, and the names of its columns of positions), ``partition_info.csv``
and ``dataset/Norder=k/Dir=d/Npix=p.parquet``: one file a HEALPix pixel ``p`` of order ``k`` in the nested scheme, with the rows
in it sorted by the column ``_healpix_29``; ``d`` is ``p`` rounded down to ten thousand. Pixels are split where rows are dense.
A collection is a folder with ``collection.properties`` that holds a catalogue and others made of it.

Format: https://www.ivoa.net/documents/Notes/HATS/ (Caplar et al. 2025, arXiv:2501.02103, for LSDB).
"""

import re
import time
from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import lensray
from lensray.errors import InputError
from lensray.io import parquet, storage
from lensray.sky import HEALPIX_ORDER, healpix_29, parse_positions

HEALPIX_COLUMN = "_healpix_29"
_BASE_PIXELS = 12
_DIRECTORY = 10_000
_PROPERTIES = ("hats.properties", "properties")  # the second is the name that readers before 2025 look for
_PARTITIONS = "partition_info.csv"
_OF_OBJECTS = ("object", "source")


# --- reading --------------------------------------------------------------------------------------------


def hats_columns(url: str) -> tuple[str, str] | None:
    """The columns of right ascension and declination (degrees) of a HATS catalogue or collection; None if it is none.

    Raises
    ------
    InputError
        If it is one of another kind than objects on the sky (an index, a map), or names no columns of positions.
    """
    found = _catalogue(url)
    return None if found is None else found[1]


def table_files(url: str) -> list[storage.FileEntry]:
    """The Parquet files of a table: a HATS catalogue's partitions, or what `lensray.io.storage.find_files` finds (errors as of both).

    A catalogue has other files beside its partitions, such as ``data_thumbnail.parquet``, whose rows would come twice.
    """
    found = _catalogue(url)
    if found is None:
        return storage.find_files(url)
    partitions = [entry for entry in storage.find_files(found[0]) if "/Norder=" in entry.path]
    if not partitions:
        raise InputError(f"the HATS catalogue {url} holds no partitions; copy it with its folder 'dataset'")
    return partitions


def _catalogue(url: str) -> tuple[str, tuple[str, str]] | None:
    """Folder of the partitions, and columns of positions."""
    collection = _read_properties(url, ("collection.properties",))
    if collection is not None:
        primary = collection.get("hats_primary_table_url", "")
        if not primary:
            raise InputError(f"the HATS collection {url} names no primary table; give the catalogue itself")
        url = primary if "://" in primary else storage.join(url, primary)
    properties = _read_properties(url, _PROPERTIES)
    if properties is None or "dataproduct_type" not in properties:
        return None
    kind, ra, dec = (properties.get(key, "") for key in ("dataproduct_type", "hats_col_ra", "hats_col_dec"))
    if kind not in _OF_OBJECTS or not ra or not dec:
        raise InputError(
            f"{url} is a HATS catalogue of type {kind!r} with positions in {ra!r} and {dec!r}; give one of objects or sources"
        )
    return storage.join(url, "dataset"), (ra, dec)


def _read_properties(url: str, names: tuple[str, ...]) -> dict[str, str] | None:
    for name in names:
        address = storage.join(url, name)
        if storage.exists(address):
            return _parse_properties(storage.read_bytes(address).decode(errors="replace"))
    return None


def _parse_properties(text: str) -> dict[str, str]:
    """Keys and values of a Java properties file (none of HATS's values goes over a line)."""
    found = {}
    for line in text.splitlines():
        if match := re.match(r"\s*([^#!\s=:][^\s=:]*)\s*[=:\s]\s*(.*)", line):
            found[match[1]] = re.sub(r"\\(.)", r"\1", match[2]).strip()
    return found


# --- writing --------------------------------------------------------------------------------------------


def write_hats(
    table: pa.Table, url: str, name: str, *, ra: str = "ra", dec: str = "dec", max_rows: int = 100_000
) -> int:
    """Write a table that fits into memory as a HATS catalogue of objects; returns the number of rows in it.

    Parameters
    ----------
    table : pyarrow.Table
        Rows whose position is null, NaN or off the sky are left out. Columns as they are, with ``_healpix_29`` in front.
    url : str
        Folder of the catalogue, local or S3; one that it holds is replaced. Without a row that has a position there will be
        none: HATS knows no empty catalogue.
    name : str
        Name of the catalogue.
    ra, dec : str
        Columns of positions, in degrees (ICRS).
    max_rows : int
        Rows a file; more only where that many share a pixel of 0.4 milliarcsec.
    """
    index = healpix_29(*parse_positions(table[ra], table[dec]))
    order = np.argsort(index, kind="stable")[np.count_nonzero(index < 0) :]
    _delete(url)
    if not len(order):
        return 0
    index = index[order]
    others = table.drop_columns([name for name in table.column_names if name == HEALPIX_COLUMN])
    table = others.take(pa.array(order)).combine_chunks()
    table = table.add_column(0, pa.field(HEALPIX_COLUMN, pa.int64(), nullable=False), pa.array(index))
    pixels = list(_partitions(index, max_rows))
    footers = [_write_partition(table[rows], url, *pixel) for pixel, rows in pixels]
    _write_metadata(table.schema, footers, url)
    lines = ["Norder,Npix", *(f"{norder},{npix}" for norder, npix in sorted(pixel for pixel, _ in pixels))]
    storage.write_bytes(storage.join(url, _PARTITIONS), "\n".join([*lines, ""]).encode())
    properties = _properties_text(_properties(name, len(table), ra, dec, [pixel for pixel, _ in pixels]))
    for file in _PROPERTIES:
        storage.write_bytes(storage.join(url, file), properties)
    return len(table)


def _delete(url: str) -> None:
    """Delete the catalogue that a folder holds, its description first."""
    for name in (*_PROPERTIES, _PARTITIONS):
        storage.delete_file(storage.join(url, name))
    storage.delete_folder(storage.join(url, "dataset"))


def _partitions(index: np.ndarray, max_rows: int) -> Iterator[tuple[tuple[int, int], slice]]:
    """((order, pixel), its rows) of the largest pixels with at most `max_rows` of the sorted rows, in their order."""
    waiting = [(0, pixel) for pixel in reversed(range(_BASE_PIXELS))]
    while waiting:
        order, pixel = waiting.pop()
        ends = np.array([pixel, pixel + 1], np.int64) << 2 * (HEALPIX_ORDER - order)
        start, stop = np.searchsorted(index, ends).tolist()
        if stop - start > max_rows and order < HEALPIX_ORDER:
            waiting += [(order + 1, 4 * pixel + child) for child in reversed(range(4))]
        elif stop > start:
            yield (order, pixel), slice(start, stop)


def _write_partition(table: pa.Table, url: str, order: int, pixel: int) -> pq.FileMetaData:
    """Write the file of a pixel; returns its footer, which names the file."""
    path = f"Norder={order}/Dir={pixel // _DIRECTORY * _DIRECTORY}/Npix={pixel}.parquet"
    footers: list[pq.FileMetaData] = []
    with storage.atomic_output(storage.join(url, "dataset", path)) as file:
        pq.write_table(table, file, metadata_collector=footers, **parquet.options(table.schema))
    footers[0].set_file_path(path)
    return footers[0]


def _write_metadata(schema: pa.Schema, footers: list[pq.FileMetaData], url: str) -> None:
    """``_metadata``, the footers of all files in one, and ``_common_metadata``, the schema alone."""
    whole = footers[0]
    for footer in footers[1:]:
        whole.append_row_groups(footer)
    with storage.atomic_output(storage.join(url, "dataset", "_metadata")) as file:
        whole.write_metadata_file(file)
    with storage.atomic_output(storage.join(url, "dataset", "_common_metadata")) as file:
        pq.write_metadata(schema, file)


def _properties(
    name: str, rows: int, ra: str, dec: str, pixels: list[tuple[int, int]]
) -> Mapping[str, object]:
    return {
        "obs_collection": name,
        "dataproduct_type": "object",
        "hats_nrows": rows,
        "hats_col_ra": ra,
        "hats_col_dec": dec,
        "hats_col_healpix": HEALPIX_COLUMN,
        "hats_col_healpix_order": HEALPIX_ORDER,
        "hats_npix_suffix": ".parquet",
        "moc_sky_fraction": f"{sum(1 / (_BASE_PIXELS << 2 * order) for order, _ in pixels):.6g}",
        "hats_builder": f"LensRay {lensray.__version__}",
        "hats_creation_date": time.strftime("%Y-%m-%dT%H:%MUTC", time.gmtime()),
        "hats_version": "v1.0",
    }


def _properties_text(properties: Mapping[str, object]) -> bytes:
    return "".join(["#HATS catalog\n", *(f"{key}={value}\n" for key, value in properties.items())]).encode()
