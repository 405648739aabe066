"""A survey's tiles: mosaics of one piece of sky, a file a band, found by a pattern and described by their headers.

A pattern is an address with ``{tile}`` and ``{band}`` in it, and ``*`` for what changes from file to file. Other names in
braces, as in ``{tract}/{patch}``, make up the tile's name with dashes between. A tile that cannot be used keeps the reason why,
and its sources get it as their status.
"""

import hashlib
import math
import re
import string
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from astropy.io import fits

from lensray.errors import InputError
from lensray.extraction.grid import Grid, grid_of
from lensray.io import storage
from lensray.io.explain import first_line
from lensray.io.mosaics import MosaicFile, check_reachable, read_header
from lensray.pixels import Status

# Bands whose pixels lie closer than this, at the corners and in the middle, are on one grid.
SAME_GRID_PIXELS = 0.05


@dataclass(frozen=True, kw_only=True, slots=True)
class Tile:
    """The files of a tile."""

    name: str
    """Unique within the survey."""
    files: Mapping[str, MosaicFile]
    """A mosaic a band; bands whose file is missing are not there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SurveyedTile:
    """A tile with what its headers say."""

    tile: Tile
    """Its files."""
    grids: Mapping[str, Grid] = field(default_factory=dict)
    """Pixel grid of each column of images."""
    zero_points: Mapping[str, float] = field(default_factory=dict)
    """AB magnitude of one image unit, of the bands whose header says it."""
    circle: tuple[float, float, float] | None = None
    """Right ascension, declination and radius (degrees) of a circle around all of them; None without a grid."""
    headers: str = ""
    """SHA-256 of the headers."""
    status: str = Status.OK
    """``ok``, or why no cutout can be made of it."""
    problem: str = ""
    """The same for people."""

    @property
    def grid(self) -> Grid | None:
        """Grid of the first column; None where no header tells it."""
        return next(iter(self.grids.values()), None)


def find_tiles(root: str, patterns: Mapping[str, str], hdu: str | None = None) -> list[Tile]:
    """The tiles below an address, sorted by name.

    Parameters
    ----------
    root : str
        Address before the patterns.
    patterns : mapping of str to str
        Path below `root` for each band, with ``{tile}`` or other names in braces, and ``*`` within a folder.
    hdu : str, optional
        HDU of the images; without it the first image of each file counts.

    Raises
    ------
    InputError
        If no file of any band is found, a pattern has no name in braces, or two files are one tile's and band's.
    """
    found: defaultdict[str, dict[str, MosaicFile]] = defaultdict(dict)
    for band, pattern in patterns.items():
        address = storage.join(root, pattern) if root else pattern
        for name, file in _files(address, hdu):
            if band in found[name]:
                other = found[name][band].path
                raise InputError(
                    f"{file.path} and {other} are both band {band} of tile {name}; make the pattern narrower"
                )
            found[name][band] = file
    if not found:
        shown = ", ".join(dict.fromkeys(patterns.values()))
        raise InputError(f"no file matches {storage.join(root, shown) if root else shown}; check the pattern")
    return [Tile(name=name, files=found[name]) for name in sorted(found)]


def _files(address: str, hdu: str | None) -> Iterable[tuple[str, MosaicFile]]:
    """(name of the tile, file) of each file that matches a pattern with names in braces."""
    fields = _names_in(address)
    if not fields:
        raise InputError(
            f"{address} says nowhere which tile a file is of; write {{tile}} where its name stands"
        )
    try:
        entries = storage.glob_files(address.format(**dict.fromkeys(fields, "*")))
    except InputError as error:
        if "no file matches" in str(error):
            return
        raise
    expression = re.compile(_expression(storage.resolve(address)[1]))
    for entry in entries:
        if match := expression.fullmatch(entry.path):
            name = "-".join(match.groupdict().values())
            yield name, MosaicFile(url=address, path=entry.path, size=entry.size, hdu=hdu)


def _names_in(address: str) -> list[str]:
    """The names in braces of a pattern."""
    try:
        found = [part[1:] for part in string.Formatter().parse(address) if part[1] is not None]
        well = all(
            name.isidentifier() and not form and not turn for name, form, turn in found if name is not None
        )
    except ValueError:
        found, well = [], False
    if not well or any(mark in address for mark in "?["):
        raise InputError(
            f"{address}: braces hold a name, as {{tile}} or {{patch}}, and * stands for the rest of a name"
        )
    return [str(name) for name, _, _ in found]


def _expression(pattern: str) -> str:
    """A regular expression for a path, with a group for each name in braces."""
    parts, seen = [], set[str]()
    for text, name, _, _ in string.Formatter().parse(pattern):
        parts.append(re.escape(text).replace(r"\*", "[^/]*"))
        if name is not None:
            parts.append(f"(?P={name})" if name in seen else f"(?P<{name}>[^/]+?)")
            seen.add(name)
    return "".join(parts)


def survey_tile(tile: Tile, columns: Mapping[str, Sequence[str]]) -> SurveyedTile:
    """Read a tile's headers, and say whether cutouts can be made of it.

    Parameters
    ----------
    tile : Tile
    columns : mapping of str to sequence of str
        The bands that make each column of images: these must share a grid.

    Raises
    ------
    OSError
        If the storage cannot be reached (a damaged file is a `problem` of the tile).
    """
    grids: dict[str, Grid] = {}
    headers = hashlib.sha256()
    zero_points: dict[str, float] = {}
    problems: list[tuple[str, str]] = []
    for column, bands in columns.items():
        for band in bands:
            try:
                grid, zero_point, text = _band_grid(tile, band)
            except _Problem as problem:
                problems.append((problem.status, str(problem)))
                continue
            headers.update(text.encode())
            if zero_point is not None:
                zero_points[band] = zero_point
            if not grids.setdefault(column, grid).is_same(grid, SAME_GRID_PIXELS):
                problems.append(
                    (Status.DIFFERENT_GRIDS, f"{tile.files[band].name} is on another grid than {bands[0]}")
                )
    status, problem = problems[0] if problems else (Status.OK, "")
    circles = [grid.circle() for grid in grids.values()]
    return SurveyedTile(
        tile=tile,
        grids=grids,
        circle=circles[0] if circles else None,
        zero_points=zero_points,
        headers=headers.hexdigest(),
        status=status,
        problem=problem,
    )


class _Problem(Exception):
    """Why a band of a tile cannot be used."""

    def __init__(self, status: str, text: str) -> None:
        super().__init__(text)
        self.status = status


def _band_grid(tile: Tile, band: str) -> tuple[Grid, float | None, str]:
    """Grid and zero point of a band by its header, and the header's text."""
    if band not in tile.files:
        raise _Problem(Status.MISSING_BAND, f"tile {tile.name} has no file of band {band}")
    file = tile.files[band]
    try:
        header = read_header(file)
    except Exception as error:
        # Damaged headers fail in many ways, and no bad tile may end the job; a storage that is down ends it.
        check_reachable(file)
        raise _Problem(Status.UNREADABLE, f"{file.name}: {first_line(error)}") from None
    grid = grid_of(header)
    if grid is None:
        raise _Problem(Status.NO_WCS, f"{file.name} does not say where on the sky it lies (no WCS)")
    return grid, zero_point_of(header.header), header.header.tostring()


def zero_point_of(header: fits.Header) -> float | None:
    """AB magnitude of one image unit by a header's ``MAGZERO`` or ``FLUXMAG0``; None where neither is there."""
    for name, value in (("MAGZERO", float), ("FLUXMAG0", lambda flux: 2.5 * math.log10(flux))):
        try:
            found = value(cast(Any, header[name]))
        except (KeyError, TypeError, ValueError):
            continue
        if math.isfinite(found):
            return found
    return None
