"""Tables of the truth: which objects are lenses, published apart from their images.

Known by their columns are those of the Bologna lens finding challenges (Metcalf et al. 2019, A&A 625, A119): the first
has ``ID`` and ``is_lens``; in the second a lens is what has a source with an image (``n_source_im > 0``), magnified by
more than 1.6 (``mag_eff``), on more than 20 pixels (``n_pix_source``). Other tables have a column of ids and one of the truth.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lensray.errors import InputError
from lensray.io.table_files import read_columns
from lensray.io.tables import one_array

CHALLENGE_2 = {"n_source_im": 0, "mag_eff": 1.6, "n_pix_source": 20}
"""Columns of the second challenge's table, and what a lens has more of."""
ID_COLUMNS, LABEL_COLUMNS = ("id", "object_id"), ("is_lens", "label")
"""Columns that are looked for where none is named, in any case of letters; the first that is there counts."""

_TEXTS = {
    **dict.fromkeys(("true", "lens", "1", "1.0"), True),
    **dict.fromkeys(("false", "non-lens", "0", "0.0"), False),
    **dict.fromkeys(("", "nan", "null", "none", "n/a"), None),
}
_WHOLE = r"^[+-]?[0-9]{1,18}(\.0*)?$"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TruthTable:
    """Which objects are lenses."""

    url: str
    """Where the table is."""
    ids: pa.Array
    """Names of the objects, int64 or string, each once; shape (N,)."""
    is_lens: pa.BooleanArray
    """True for a lens, false for a non-lens, null where it is not known; shape (N,)."""
    id_column: str
    """The column of the ids."""
    rule: str
    """What makes a lens, in the table's columns."""
    n_without_id: int
    """Rows that were left out since they have no id."""


def read_truth_table(url: str, id_column: str | None = None, label_column: str | None = None) -> TruthTable:
    """Read a table of the truth.

    Parameters
    ----------
    url : str
        A CSV, ECSV, FITS, VOTable or Parquet file, local or S3.
    id_column, label_column : str, optional
        Names of the columns, as the table writes them; by default those of the challenges (see the module), or
        ``object_id`` and ``label``. Labels are booleans, 0 and 1, or the texts true, false, lens and non-lens; what is
        null, NaN or empty is not known.

    Raises
    ------
    InputError
        If there is no such table, it lacks the columns, a label is something else, or an id comes twice.
    """
    table = read_columns(url, lambda names: _chosen(url, names, id_column, label_column))
    name, *labels = table.column_names
    if not table.num_rows:
        raise InputError(f"{url} has columns but no rows; give the table of the scanned objects")
    ids = _ids(url, name, one_array(table[name]))
    known = ids.is_valid()
    if len(labels) == 1:
        is_lens, rule = _labels(url, labels[0], one_array(table[labels[0]])), labels[0]
    else:
        is_lens, rule = _challenge_2(url, table.select(labels))
    truth = TruthTable(
        url=url,
        ids=ids.filter(known),
        is_lens=is_lens.filter(known),
        id_column=name,
        rule=rule,
        n_without_id=ids.null_count,
    )
    _check_unique(url, truth.ids)
    return truth


def check_classes(truth: TruthTable) -> None:
    """Raise InputError if a table has no lens or no non-lens, so that nothing can be measured by it."""
    lenses, others = truth.is_lens.true_count, truth.is_lens.false_count
    if not lenses or not others:
        raise InputError(
            f"{truth.url} has {lenses:,} lenses and {others:,} non-lenses by {truth.rule}; give a table that has both"
        )


def ids_of_kind(ids: pa.Array, kind: pa.DataType) -> pa.Array:
    """Ids as int64 where `kind` is a whole number, else as texts; null where an id is no whole number.

    Texts of digits are whole numbers, also with a decimal point and zeros after it.
    """
    if not pa.types.is_integer(kind):
        return ids.cast(pa.string())
    if pa.types.is_integer(ids.type):
        return ids.cast(pa.int64())
    whole: Any = pc.call_function("match_substring_regex", [ids], pc.MatchSubstringOptions(_WHOLE))
    digits = [text.split(".")[0] for text in ids.filter(whole).to_pylist()]
    numbers = np.zeros(len(ids), np.int64)
    numbers[whole.to_numpy(zero_copy_only=False)] = np.array(digits, dtype=object).astype(np.int64)
    return pa.array(numbers, mask=~whole.to_numpy(zero_copy_only=False))


def _check_unique(url: str, ids: pa.Array) -> None:
    counts = ids.value_counts()
    repeated = counts.field("values").filter(pa.array(counts.field("counts").to_numpy() > 1))
    if len(repeated):
        raise InputError(
            f"{url} has {len(repeated):,} ids more than once, {repeated[0].as_py()!r} for one; give each object one row"
        )


# --- columns --------------------------------------------------------------------------------------------


def _chosen(url: str, names: Sequence[str], id_column: str | None, label_column: str | None) -> list[str]:
    """The column of the ids, then the one or three that tell the truth."""
    for wanted in (id_column, label_column):
        if wanted is not None and wanted not in names:
            raise InputError(f"{url} has no column {wanted!r}; it has {_listed(names)}")
    by_name = {name.lower(): name for name in reversed(names)}
    ids = [id_column] if id_column else [by_name[name] for name in ID_COLUMNS if name in by_name]
    labels = [label_column] if label_column else [by_name[name] for name in LABEL_COLUMNS if name in by_name]
    if not labels and all(name in by_name for name in CHALLENGE_2):
        return [*_first(ids, url, ["id"], names), *(by_name[name] for name in CHALLENGE_2)]
    missing = [] if ids else ["id"]
    missing += [] if labels else [name for name in CHALLENGE_2 if name not in by_name]
    return [*_first(ids, url, missing, names), *_first(labels, url, missing, names)]


def _first(found: list[str], url: str, missing: list[str], names: Sequence[str]) -> list[str]:
    if found:
        return found[:1]
    raise InputError(
        f"{url} lacks the column {', '.join(missing)}: the first challenge's table has ID and is_lens, the second's ID, "
        f"{', '.join(CHALLENGE_2)}; this one has {_listed(names)} (evaluate.py takes others by --id-column and --label-column)"
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "no columns"


# --- values ---------------------------------------------------------------------------------------------


def _ids(url: str, name: str, column: pa.Array) -> pa.Array:
    """Ids as int64 or texts, null where there is none."""
    kind = column.type
    if pa.types.is_floating(kind):
        column = _null_where("is_nan", column)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        try:
            return column.cast(pa.int64())
        except pa.ArrowInvalid:
            raise InputError(
                f"column {name!r} of {url} holds numbers that are no whole ids; name another"
            ) from None
    if not _is_text(kind):
        raise InputError(
            f"column {name!r} of {url} holds {kind}, which are no ids; name another by --id-column"
        )
    return _null_where("equal", _trimmed(column), "")


def _null_where(condition: str, column: pa.Array, *arguments: str) -> pa.Array:
    """A column, null where a condition of its values (a function of `pyarrow.compute`) holds."""
    return pc.call_function("if_else", [pc.call_function(condition, [column, *arguments]), None, column])


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _trimmed(column: pa.Array) -> pa.Array:
    return pc.call_function("utf8_trim_whitespace", [column.cast(pa.string())])


def _labels(url: str, name: str, column: pa.Array) -> pa.BooleanArray:
    """A column of the truth as booleans; null where it is not known."""
    try:
        texts = _trimmed(column).dictionary_encode()
    except pa.ArrowException:
        raise InputError(
            f"column {name!r} of {url} holds {column.type}, which is no truth; name another"
        ) from None
    values = texts.dictionary.to_pylist()
    strange = [value for value in values if value.lower() not in _TEXTS]
    if strange:
        raise InputError(
            f"column {name!r} of {url} holds {', '.join(map(repr, strange[:3]))}, which is no truth; write lenses as true, "
            "1 or lens, others as false, 0 or non-lens, and leave empty what is not known"
        )
    truth = pa.array([_TEXTS[value.lower()] for value in values], pa.bool_())
    return truth.take(texts.indices)


def _challenge_2(url: str, columns: pa.Table) -> tuple[pa.BooleanArray, str]:
    """The second challenge's lenses, and the rule; what one column rules out is a non-lens whatever the others are."""
    limits = CHALLENGE_2.values()
    more = [
        pc.call_function("greater", [_numbers(url, name, one_array(columns[name])), pa.scalar(float(limit))])
        for name, limit in zip(columns.column_names, limits, strict=True)
    ]
    rule = " and ".join(
        f"{name} > {limit:g}" for name, limit in zip(columns.column_names, limits, strict=True)
    )
    first, second, third = more
    return pc.call_function("and_kleene", [pc.call_function("and_kleene", [first, second]), third]), rule


def _numbers(url: str, name: str, column: pa.Array) -> pa.Array:
    """A column as float64; null where it is NaN or empty."""
    try:
        if _is_text(column.type):
            column = _null_where("equal", _trimmed(column), "")
        numbers = column.cast(pa.float64())
    except pa.ArrowException as error:
        raise InputError(f"column {name!r} of {url} is not of numbers ({error})") from None
    return _null_where("is_nan", numbers)
