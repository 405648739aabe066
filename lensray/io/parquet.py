"""Writing tables with images as a folder of Parquet files, in bounded memory."""

import hashlib
from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from lensray.errors import InputError
from lensray.io import storage

CONTENT_KEY = "lensray.content"


def write_folder(
    parts: Iterable[pa.Table], url: str, *, group_rows: int, file_rows: int, first_part: int = 0
) -> int:
    """Write tables as ``part-00000.parquet`` and so on; returns the number of rows.

    The files are written into a hidden folder and moved when all are there, so that a run that fails
    while it reads or writes pixels leaves nothing that looks like a survey. (Killed in the moment of moving,
    it may leave a part of the files.)

    Parameters
    ----------
    parts : iterable of pyarrow.Table
        Of one schema, and of any number of rows.
    url : str
    group_rows, file_rows : int
        Rows a row group and a file.
    first_part : int
        Number of the first file.

    Raises
    ------
    InputError
        If there is no row.
    """
    staging = storage.join(url, f"_staging-{storage.unique_name()}")
    groups = regroup(parts, min(group_rows, file_rows))
    rows, names = 0, []
    try:
        group = next(groups, None)
        while group is not None:
            names.append(f"part-{first_part + len(names):05d}.parquet")
            group, written = _write_file(group, groups, storage.join(staging, names[-1]), file_rows)
            rows += written
        if not names:
            raise InputError(f"there is no cutout to write to {url}; give at least one")
        for name in names:
            storage.move(storage.join(staging, name), storage.join(url, name))
    finally:
        storage.delete_folder(staging)
    return rows


def read_table(url: str) -> pa.Table:
    """A Parquet file that fits into memory, by its address."""
    with storage.open_input(url) as file:
        return pq.read_table(file)


def regroup(parts: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """The same rows in tables of `rows` rows (the last may have fewer)."""
    waiting: list[pa.Table] = []
    count = 0
    for part in parts:
        for start in range(0, part.num_rows, rows):
            piece = part.slice(start, rows)
            waiting.append(piece)
            count += piece.num_rows
            if count >= rows:
                whole = pa.concat_tables(waiting)
                yield whole.slice(0, rows)
                waiting, count = [whole.slice(rows)], count - rows
    if count:
        yield pa.concat_tables(waiting)


def _write_file(
    group: pa.Table, groups: Iterator[pa.Table], url: str, file_rows: int
) -> tuple[pa.Table | None, int]:
    """Write groups until the file is full; returns the group that is next and the rows written."""
    content = hashlib.sha256()
    following: pa.Table | None = group
    rows = 0
    with (
        storage.atomic_output(url) as file,
        pq.ParquetWriter(file, group.schema, **options(group.schema)) as writer,
    ):
        while following is not None and (rows == 0 or rows + following.num_rows <= file_rows):
            writer.write_table(following, row_group_size=following.num_rows)
            content.update(_ipc_bytes(following))
            rows += following.num_rows
            following = next(groups, None)
        # Uncompressed pixels leave no trace in the footer, which is a survey's fingerprint.
        writer.add_key_value_metadata({CONTENT_KEY: content.hexdigest()})
    return following, rows


def _ipc_bytes(table: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def options(schema: pa.Schema) -> dict:
    """How a table with images is stored: arguments of `pyarrow.parquet.ParquetWriter`.

    Pixel noise hardly compresses (zstd saves 15% of float32 and costs 40% of the reading rate), so images are
    plain. Bytes would take four bytes each so (Parquet has no type under 32 bits); a dictionary makes it one.
    """
    leaves = list(_leaves(schema))
    pixels = [path for path, field, _ in leaves if _holds_images(field.type)]
    repeated = (pa.uint8(), pa.string(), pa.large_string())
    return {
        "compression": {path: "none" if path in pixels else "zstd" for path, _, _ in leaves},
        "use_dictionary": [path for path, _, leaf in leaves if leaf in repeated],
        "write_statistics": [path for path, _, _ in leaves if path not in pixels],
    }


def _holds_images(kind: pa.DataType) -> bool:
    is_bytes = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    return isinstance(kind, pa.FixedShapeTensorType) or pa.types.is_nested(kind) or is_bytes


def _leaves(schema: pa.Schema) -> Iterator[tuple[str, pa.Field, pa.DataType]]:
    """Parquet's column paths, with the field that each belongs to and its stored type."""
    for field in schema:
        stored = field.type.storage_type if isinstance(field.type, pa.BaseExtensionType) else field.type
        if pa.types.is_list(stored) or pa.types.is_large_list(stored) or pa.types.is_fixed_size_list(stored):
            yield f"{field.name}.list.element", field, stored.value_type
        else:
            yield field.name, field, stored
