"""Positions on the sky: read from tables, written for people, matched with each other, and numbered by HEALPix.

Right ascension and declination are ICRS. As numbers they are degrees; as texts, degrees or sexagesimal (hours and degrees).
"""

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from lensray.errors import InputError

HEALPIX_ORDER = 29
RA_NAMES = (
    "ra",
    "ra_icrs",
    "raj2000",
    "alpha_j2000",
    "alphawin_j2000",
    "right_ascension",
    "ra_deg",
    "radeg",
    "coord_ra",
    "i_ra",
)
DEC_NAMES = (
    "dec",
    "de_icrs",
    "dej2000",
    "delta_j2000",
    "deltawin_j2000",
    "declination",
    "dec_deg",
    "decdeg",
    "de",
    "coord_dec",
    "i_dec",
)
"""Usual names of columns of positions."""

_SEXAGESIMAL = re.compile(
    r"(?P<sign>[+-]?)(?P<whole>\d+)\s*(?P<mark>[:hd°\s])\s*(?P<minutes>[0-5]?\d(\.\d*)?)"
    r"(\s*[:m'′\s]\s*(?P<seconds>([0-5]?\d|60)(\.\d*)?)\s*[s\"″]?|\s*[m'′]?)"
)
_NO_VALUE = ("", "nan", "-", "--", "null", "none")

Column = pa.ChunkedArray | pa.Array | ArrayLike
"""A column of a table, or of values."""


def usual_column(names: Sequence[str], usual: Sequence[str]) -> str | None:
    """The column with the first usual name that there is, in any case of letters and with or without a unit.

    >>> usual_column(["name", "RA [deg]", "DEC [deg]"], RA_NAMES)
    'RA [deg]'
    """
    plain = {re.sub(r"\s*[\[(].*[\])]\s*$", "", name).strip().lower(): name for name in reversed(names)}
    return next((plain[name] for name in usual if name in plain), None)


def parse_positions(ra: Column, dec: Column) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Columns of a table as positions in degrees.

    Parameters
    ----------
    ra, dec : array of float or str, shape (N,)
        Numbers are degrees, texts without a separator as well. Texts of two or three parts (``10:00:27.92``, ``10h00m27.92s``,
        ``10 00 27.92``, with ``-02:12:18.7``) are sexagesimal, right ascension in hours unless the first part ends in ``d`` or ``°``.

    Returns
    -------
    ra, dec : ndarray of float, shape (N,)
        Both NaN where either is unknown, is no position, or lies off the sky: right ascension below 0° or above 360° (which
        becomes 0°), declination beyond ±90°.

    Raises
    ------
    InputError
        If a column has values, and none of them is an angle.

    >>> ra, dec = parse_positions(["10:00:27.92", "150.5", ""], ["-00:30:00", "2.25", "1.0"])
    >>> ra.round(4).tolist(), dec.tolist()
    ([150.1163, 150.5, nan], [-0.5, 2.25, nan])
    """
    alpha, delta = _angles(ra, "right ascension", 15.0), _angles(dec, "declination", 1.0)
    on_sky = (alpha >= 0) & (alpha <= 360) & (np.abs(delta) <= 90)
    return np.where(on_sky, alpha % 360, np.nan), np.where(on_sky, delta, np.nan)


def _angles(column: Column, what: str, degrees_per_whole: float) -> NDArray[np.float64]:
    """Degrees; NaN where a value is none."""
    values: Any = column if isinstance(column, pa.Array | pa.ChunkedArray) else pa.array(np.asarray(column))
    try:
        # Texts too, as long as all are plain numbers.
        return np.array(values.cast(pa.float64(), safe=False).fill_null(np.nan))
    except pa.ArrowInvalid:
        texts = [text or "" for text in values.to_pylist()]
    except pa.ArrowNotImplementedError:
        raise InputError(f"the {what} is {values.type}, which is no angle; give numbers or texts") from None
    angles = np.array([_angle(text.strip().replace("−", "-"), degrees_per_whole) for text in texts])
    named = [text for text in texts if text.strip().lower() not in _NO_VALUE]
    if named and np.isnan(angles).all():
        raise InputError(
            f"{named[0]!r} is no {what}; write degrees, or sexagesimal as 10:00:27.92 -02:12:18.7"
        )
    return angles


def _angle(text: str, degrees_per_whole: float) -> float:
    try:
        return float(text)
    except ValueError:
        parts = _SEXAGESIMAL.fullmatch(text)
    if parts is None:
        return math.nan
    angle = float(parts["whole"]) + float(parts["minutes"]) / 60 + float(parts["seconds"] or 0) / 3600
    return (-angle if parts["sign"] == "-" else angle) * (1 if parts["mark"] in "d°" else degrees_per_whole)


def sexagesimal(ra: ArrayLike, dec: ArrayLike) -> tuple[NDArray[np.str_], NDArray[np.str_]]:
    """Positions in degrees as texts, to 0.01 s of time and 0.1 arcsec; empty where they are not known.

    >>> ra, dec = sexagesimal([150.1163213, float("nan")], [-2.2052, 1.0])
    >>> ra.tolist(), dec.tolist()
    (['10:00:27.92', ''], ['-02:12:18.7', ''])
    """
    from astropy.coordinates import Angle  # here, since a command that checks its input does without astropy

    alpha, delta = np.asarray(ra, dtype=np.float64), np.asarray(dec, dtype=np.float64)
    known = np.isfinite(alpha) & np.isfinite(delta)
    # Rounded first: 359.9999999 degrees are 0 hours, not 24.
    hours = np.round(np.where(known, alpha, 0.0) % 360 * 24000) / 360000 % 24
    ra_text = Angle(hours, "hourangle").to_string(unit="hour", sep=":", precision=2, pad=True)
    dec_text = Angle(np.where(known, delta, 0.0), "deg").to_string(
        unit="deg", sep=":", precision=1, pad=True, alwayssign=True
    )
    return np.where(known, ra_text, ""), np.where(known, dec_text, "")


def cross_match(
    ra: ArrayLike, dec: ArrayLike, ra_known: ArrayLike, dec_known: ArrayLike, radius_arcsec: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The nearest known object of each position, within a radius.

    Parameters
    ----------
    ra, dec : array_like of float, shape (N,)
        Degrees (ICRS); NaN where not known.
    ra_known, dec_known : array_like of float, shape (M,)
        Positions to match with; those with NaN are never matched.
    radius_arcsec : float

    Returns
    -------
    index : ndarray of int, shape (N,)
        Place of the nearest known object, -1 if none is within the radius.
    separation_arcsec : ndarray of float, shape (N,)
        Great-circle distance to it, NaN where there is none. One known object may match several.
    """
    from astropy.coordinates import SkyCoord

    positions = [np.asarray(values, dtype=np.float64) for values in (ra, dec, ra_known, dec_known)]
    here = np.flatnonzero(np.isfinite(positions[0]) & np.isfinite(positions[1]))
    there = np.flatnonzero(np.isfinite(positions[2]) & np.isfinite(positions[3]))
    index = np.full(len(positions[0]), -1, dtype=np.int64)
    separation = np.full(len(positions[0]), np.nan)
    if not len(here) or not len(there):
        return index, separation
    known = SkyCoord(positions[2][there], positions[3][there], unit="deg")
    nearest, distance, _ = SkyCoord(positions[0][here], positions[1][here], unit="deg").match_to_catalog_sky(
        known
    )
    arcsec = np.asarray(distance.to_value("arcsec"), dtype=np.float64)
    near = arcsec <= radius_arcsec
    index[here[near]] = there[nearest[near]]
    separation[here[near]] = arcsec[near]
    return index, separation


def healpix_29(ra: ArrayLike, dec: ArrayLike) -> NDArray[np.int64]:
    """HEALPix pixel of order 29 (0.4 milliarcsec) in the nested scheme, the spatial index of HATS catalogues; -1 where not known.

    Parameters
    ----------
    ra, dec : array_like of float, shape (N,)
        Degrees (ICRS).

    >>> healpix_29([45.0, float("nan")], [0.0, 0.0]).tolist()
    [0, -1]
    """
    from astropy import units
    from astropy_healpix import lonlat_to_healpix

    alpha, delta = np.asarray(ra, dtype=np.float64), np.asarray(dec, dtype=np.float64)
    known = np.isfinite(alpha) & np.isfinite(delta)
    pixels = np.full(alpha.shape, -1, dtype=np.int64)
    pixels[known] = lonlat_to_healpix(
        alpha[known] * units.deg, delta[known] * units.deg, nside=1 << HEALPIX_ORDER, order="nested"
    )
    return pixels
