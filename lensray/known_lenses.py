"""Known lenses: which candidates of a search are in a published list, and which are new.

The list is the user's: any table with positions, such as lenscat (https://github.com/lenscat/lenscat) or a search's own
catalogue. Published positions of one lens differ (the deflector, the arc, or the middle of a cutout), so that a radius is needed: of
two lists from the Legacy Surveys (1,615 and 1,192 lenses) 97% are within 2 arcsec of an entry of lenscat, 99% within 3, and all within 10.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lensray.errors import InputError
from lensray.io import storage
from lensray.io.table_files import read_columns
from lensray.sky import DEC_NAMES, RA_NAMES, cross_match, parse_positions, sexagesimal, usual_column

KNOWN_COLUMNS = ("known_lens", "known_separation_arcsec")

_NAMES = ("name", "lens_name", "lens", "system", "object_id", "objectid", "id", "source_id")


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownLenses:
    """The lenses of a list whose position is known."""

    url: str
    """Where the list is."""
    sha256: str
    """SHA-256 of its file."""
    names: pa.Array
    """Name of each lens; by its position, ``J`` and sexagesimal, where the list has none."""
    ra: NDArray[np.float64]
    """Right ascension in degrees."""
    dec: NDArray[np.float64]
    """Declination in degrees."""
    left_out: int
    """Rows of the list without a position on the sky."""


def read_known_lenses(
    url: str, *, name: str | None = None, ra: str | None = None, dec: str | None = None
) -> KnownLenses:
    """A list of known lenses.

    Parameters
    ----------
    url : str
        CSV, TSV, ECSV, FITS, VOTable or Parquet, local or S3.
    name, ra, dec : str, optional
        Columns of names and positions (degrees, or sexagesimal with hours). By default those with the usual names, in upper or
        lower case and with or without a unit, as ``RA [deg]``; names may lack.

    Raises
    ------
    InputError
        If there is no such table, it lacks a column, or no row has a position.
    """
    chosen: list[str | None] = []

    def choose(names: Sequence[str]) -> list[str]:
        chosen[:] = [
            _column(names, name, _NAMES),
            _column(names, ra, RA_NAMES),
            _column(names, dec, DEC_NAMES),
        ]
        for wanted, found, what in ((ra, chosen[1], "ra"), (dec, chosen[2], "dec"), (name, chosen[0], None)):
            if found is None and (what or wanted):
                raise InputError(
                    f"{url} has no column {wanted or what!r} but {', '.join(names)}; call its positions 'ra' and 'dec'"
                )
        return list(dict.fromkeys(column for column in chosen if column is not None))

    table = read_columns(url, choose)
    alpha, delta = parse_positions(table[chosen[1]], table[chosen[2]])
    there = np.isfinite(alpha)
    if not there.any():
        raise InputError(f"no row of {url} has a position on the sky; give a list with ra and dec in degrees")
    names = None if chosen[0] is None else table[chosen[0]].filter(pa.array(there))
    return KnownLenses(
        url=url,
        sha256=hashlib.sha256(storage.read_bytes(url)).hexdigest(),
        names=_names(names, alpha[there], delta[there]),
        ra=alpha[there],
        dec=delta[there],
        left_out=int(np.count_nonzero(~there)),
    )


def _column(names: Sequence[str], asked: str | None, usual: Sequence[str]) -> str | None:
    """The column that is asked for, or the first with a usual name."""
    if asked is not None:
        return asked if asked in names else None
    return usual_column(names, usual)


def _names(column: pa.ChunkedArray | None, ra: NDArray, dec: NDArray) -> pa.Array:
    """Names as texts; those that are missing by their position."""
    given = [None] * len(ra) if column is None else column.to_pylist()
    names = np.array(["" if name is None else str(name).strip() for name in given], dtype=object)
    unnamed = names == ""
    if unnamed.any():
        texts = zip(*sexagesimal(ra[unnamed], dec[unnamed]), strict=True)
        names[unnamed] = ["J" + "".join(text).replace(":", "") for text in texts]
    return pa.array(names, pa.string())


def match_known(candidates: pa.Table, known: KnownLenses, radius_arcsec: float) -> pa.Table:
    """Candidates with the nearest known lens within a radius.

    Parameters
    ----------
    candidates : pyarrow.Table
        With ``ra`` and ``dec`` in degrees, null or NaN where not known.
    known : KnownLenses
    radius_arcsec : float

    Returns
    -------
    pyarrow.Table
        With ``known_lens`` (string) and ``known_separation_arcsec`` (float64) at the end, both null for a candidate that is near no known
        lens, or has no position. Several candidates may be one known lens.
    """
    index, separation = cross_match(
        *parse_positions(candidates["ra"], candidates["dec"]), known.ra, known.dec, radius_arcsec
    )
    new = index < 0
    columns = known.names.take(pa.array(index, mask=new)), pa.array(separation, mask=new)
    for name, column in zip(KNOWN_COLUMNS, columns, strict=True):
        candidates = candidates.append_column(name, column)
    return candidates
