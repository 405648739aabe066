"""Object ids stay unique when cutouts come together: prefixes where they would clash, refusal where they do.

Ids are compared as text. They are read and compared up to `MAX_CHECKED` rows; in larger surveys a scan gives
the second row of an id the status ``duplicate_object_id``.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lensray.cutouts import existing_files
from lensray.errors import InputError, LensRayError
from lensray.io import storage
from lensray.io.explain import explained

# Three million string ids are hashed in a second on a busy core, so this many take a few.
MAX_CHECKED = 10_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class SurveyIds:
    """The object ids of a survey."""

    name: str
    """Base name of the survey's folder or file: the prefix of its ids, where they need one."""
    url: str
    """The survey's address."""
    kind: pa.DataType
    """Type of the column."""
    ids: pa.ChunkedArray | None
    """The ids as text; None where there are too many to compare."""

    @property
    def are_text(self) -> bool:
        """Whether they are stored as strings."""
        return pa.types.is_string(self.kind) or pa.types.is_large_string(self.kind)


def read_ids(url: str) -> SurveyIds:
    """The object ids of a survey, from that column alone.

    Parameters
    ----------
    url : str
        A Parquet file, or a folder of them.
    """
    filesystem, root = storage.resolve(url)
    footers = storage.read_footers(url)
    kind = footers[0][1].metadata.schema.to_arrow_schema().field("object_id").type
    ids = None
    if sum(footer.metadata.num_rows for _, footer in footers) <= MAX_CHECKED:
        with explained(url, LensRayError):
            tables = [
                pq.read_table(entry.path, filesystem=filesystem, columns=["object_id"])
                for entry, _ in footers
            ]
        ids = pa.chunked_array(
            [chunk for table in tables for chunk in as_text(table["object_id"]).chunks], pa.string()
        )
    name = root.rstrip("/").rpartition("/")[2].removesuffix(".parquet")
    return SurveyIds(name=name, url=url, kind=kind, ids=ids)


def as_text(ids: pa.ChunkedArray) -> pa.ChunkedArray:
    """Ids as strings; null ones stay null."""
    return ids.cast(pa.string())


def with_prefix(ids: pa.ChunkedArray, prefix: str) -> pa.ChunkedArray:
    """Ids as strings with a prefix; null ones stay null."""
    return pc.binary_join_element_wise(pa.scalar(prefix), as_text(ids), "")  # pyright: ignore[reportAttributeAccessIssue]


def first_common(ids: pa.ChunkedArray, known: pa.ChunkedArray) -> str | None:
    """The first of the ids that is known, if any."""
    ids = ids.drop_null()
    common = ids.filter(pc.is_in(ids, value_set=known))  # pyright: ignore[reportAttributeAccessIssue]
    return common[0].as_py() if len(common) else None


def choose_prefixes(
    surveys: Sequence[SurveyIds], existing: SurveyIds | None = None, id_prefix: str = ""
) -> list[str | None]:
    """What goes before the ids of each survey, so that all are different.

    Parameters
    ----------
    surveys : sequence of SurveyIds
        In the order in which they are joined.
    existing : SurveyIds, optional
        Of the survey that they are added to, whose ids cannot change.
    id_prefix : str
        The prefix of all, if not empty.

    Returns
    -------
    list of (str or None)
        None where ids are taken over with their type: integers if all are and none clash. Otherwise all become
        strings; integers get the name of their survey, and strings do where they clash with earlier ones (or
        there are too many to know).

    Raises
    ------
    InputError
        If ids are equal all the same, or those of `existing` would have to change.
    """
    text = [one.are_text for one in (*([existing] if existing else []), *surveys)]
    if existing and not existing.are_text and (any(text) or id_prefix):
        raise InputError(
            f"the object_ids of {existing.url} are integers and cannot become strings; join all with --surveys "
            "into a new --output"
        )
    clashing = [_clashes(surveys[:place], one) for place, one in enumerate(surveys)]
    if id_prefix or (existing and not existing.are_text):
        prefixes: list[str | None] = [id_prefix or None] * len(surveys)
    else:
        as_they_are = not any(text) and not any(clashing)
        prefixes = [
            f"{name}-" if clash or not (as_they_are or one.are_text) else None
            for name, one, clash in zip(_different_names(surveys), surveys, clashing, strict=True)
        ]
    _check_different(surveys, prefixes, existing)
    return prefixes


def _clashes(before: Sequence[SurveyIds], one: SurveyIds) -> bool:
    """Whether ids came before; if there are too many to compare, they might have."""
    if not before:
        return False
    known = _together([other.ids for other in before])
    return one.ids is None or known is None or first_common(one.ids, known) is not None


def _together(ids: Sequence[pa.ChunkedArray | None]) -> pa.ChunkedArray | None:
    """Ids of several surveys, if they are few enough to be compared."""
    known = [each for each in ids if each is not None]
    if len(known) < len(ids) or sum(map(len, known)) > MAX_CHECKED:
        return None
    return pa.chunked_array([chunk for each in known for chunk in each.chunks], pa.string())


def _different_names(surveys: Sequence[SurveyIds]) -> list[str]:
    """Names of the surveys, numbered where they are equal."""
    names: list[str] = []
    for one in surveys:
        name, number = one.name, 2
        while name in names:
            name, number = f"{one.name}_{number}", number + 1
        names.append(name)
    return names


def _check_different(
    surveys: Sequence[SurveyIds], prefixes: Sequence[str | None], existing: SurveyIds | None
) -> None:
    before = [existing.ids] if existing else []
    for one, prefix in zip(surveys, prefixes, strict=True):
        ids = with_prefix(one.ids, prefix) if one.ids is not None and prefix else one.ids
        known = _together(before)
        if ids is not None and known is not None and (common := first_common(ids, known)) is not None:
            raise InputError(
                f"the object_id {common} of {one.url} is there already; pass another --id-prefix"
            )
        before.append(ids)


def refuse_known_ids(parts: Iterable[pa.Table], url: str) -> Iterator[pa.Table]:
    """The same tables; an `InputError` if one has an id that the survey at `url` has.

    Looks at the first table at once (the same stamps given twice show there) and at the others when they have
    all come, since each look builds a hash table of the survey's ids.
    """
    known = read_ids(url).ids if existing_files(url) else None
    if known is None:
        yield from parts
        return
    waiting: list[pa.ChunkedArray] = []
    for number, part in enumerate(parts):
        ids = as_text(part["object_id"])
        if number == 0:
            _refuse(ids, known, url)
        else:
            waiting.append(ids)
        yield part
    _refuse(pa.chunked_array([chunk for ids in waiting for chunk in ids.chunks], pa.string()), known, url)


def _refuse(ids: pa.ChunkedArray, known: pa.ChunkedArray, url: str) -> None:
    common = first_common(ids, known)
    if common is not None:
        raise InputError(f"the object_id {common} is in {url} already; pass another --id-prefix")
