"""What is cut out of a survey's mosaics, worked out and checked before anything heavy is imported.

The tiles are found and their headers read, the catalogue's columns chosen. What identifies an extraction depends on the files, the
catalogue or the settings of the detection, and the size of the cutouts, never on the machine or the number of workers.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace

from lensray.cutout_format import CutoutFormat
from lensray.cutouts import existing_files
from lensray.errors import InputError
from lensray.extraction.config import MakeCutoutsConfig
from lensray.extraction.cutting import SAME_SCALE, frame_side
from lensray.extraction.mosaic_images import MosaicImages
from lensray.extraction.mosaic_options import MosaicOptions, band_names
from lensray.extraction.sources import CatalogColumns, catalog_columns, catalog_parts
from lensray.extraction.tiles import SurveyedTile, find_tiles, survey_tile
from lensray.io import storage
from lensray.io.hats import table_files
from lensray.pixels import Status
from lensray.progress import Progress
from lensray.survey import SURVEYS

HEADER_READERS = 16
# The underscore keeps readers of Parquet folders away.
FOLDER = "_extraction"


@dataclass(frozen=True, kw_only=True, slots=True)
class ExtractionPlan:
    """A checked extraction: which tiles, which sources, which cutouts."""

    options: MosaicOptions
    """The words it was asked for with."""
    folder: str
    """Where its files lie: the tiles, what was found, and the sources."""
    tiles: list[SurveyedTile]
    """All tiles, the unusable ones too."""
    formats: dict[str, CutoutFormat]
    """Bands, pixel scale and size of each column of images, the first one first."""
    zero_points: dict[str, float | None]
    """AB magnitude of one image unit of the bands of the first column, where a header does not say it."""
    catalog: CatalogColumns | None
    """Columns of the catalogue; None if the sources are to be found."""
    detection_band: str
    """Band that they are found in."""
    identity: dict
    """Everything that the cutouts depend on."""

    @property
    def sources(self) -> str:
        """Folder of the sources."""
        return storage.join(self.folder, "sources")

    @property
    def tile_table(self) -> str:
        """Address of the table of tiles."""
        return storage.join(self.folder, "tiles.parquet")

    @property
    def images(self) -> MosaicImages:
        """What cuts the sources' images out."""
        return MosaicImages(tiles=self.tile_table, formats=self.formats)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the identity."""
        return _hash(self.identity)

    @property
    def problems(self) -> list[SurveyedTile]:
        """The tiles that no cutout can be made of."""
        return [tile for tile in self.tiles if tile.status != Status.OK]

    def begun(self) -> bool:
        """Whether this extraction was begun in its folder before; nothing is written.

        Raises
        ------
        InputError
            If the folder holds another one.
        """
        url = storage.join(self.folder, "plan.json")
        if not storage.exists(url):
            return False
        stored = json.loads(storage.read_bytes(url))
        if stored["fingerprint"] == self.fingerprint:
            return True
        changed = [key for key in self.identity if stored.get(key) != self.identity[key]]
        raise InputError(
            f"{self.folder} holds another extraction (its {', '.join(changed) or 'plan'} differ); choose another --output, or "
            "give the words of that one"
        )


def plan_extraction(
    options: MosaicOptions,
    *,
    columns: Mapping[str, Sequence[str]],
    names: Mapping[str, str],
    size: Callable[[str, float], int],
    output: str,
    survey: str | None = None,
    keep: Sequence[str] = (),
    words: Mapping[str, object] | None = None,
) -> ExtractionPlan:
    """Find the tiles and check them against what is asked for.

    Parameters
    ----------
    options : MosaicOptions
    columns : mapping of str to sequence of str
        Bands of each column of images, the first one first.
    names : mapping of str to str
        What stands for each band in the names of files.
    size : callable
        ``size(column, pixel_scale_arcsec)``: side of its cutouts, in pixels of the mosaics.
    output : str
        Folder of the scan or survey.
    survey : str, optional
        Name of the survey, by default that of the layout.
    keep : sequence of str
        Columns of the catalogue that are kept.
    words : mapping of str to object, optional
        What else the result depends on, as JSON.

    Raises
    ------
    InputError
        If there are no tiles, none can be used, or the catalogue lacks a column; nothing was written.
    """
    layout = options.known_layout()
    survey = survey or (layout.survey if layout else "unknown")
    bands = columns[next(iter(columns))]
    detection_band = _detection_band(options, bands)
    zero_points = _zero_points(options, bands, survey)
    catalog = _catalog(options, keep)
    if options.detect:
        options.detection.check_bands(dict.fromkeys(bands, 0.0))
    root, patterns = options.patterns(names)
    hdu = options.hdu or (layout.hdu if layout else None)
    tiles = _surveyed(find_tiles(root, patterns, hdu), columns)
    scales = _pixel_scales(tiles, columns)
    tiles = _usable([_of_one_scale(tile, scales) for tile in tiles])
    formats = {
        column: CutoutFormat(
            survey=survey,
            bands=tuple(names_of),
            pixel_scale_arcsec=scales[column],
            shape=_cube(len(names_of), size(column, scales[column])),
            column=column,
        )
        for column, names_of in columns.items()
    }
    plan = ExtractionPlan(
        options=options,
        folder=storage.join(output, FOLDER),
        tiles=tiles,
        formats=formats,
        zero_points=zero_points,
        catalog=catalog,
        detection_band=detection_band,
        identity={
            "tiles": _hash([_tile_identity(tile) for tile in tiles]),
            "cutouts": {column: [list(fmt.bands), list(fmt.shape)] for column, fmt in formats.items()},
            "sources": _source_identity(options, catalog, detection_band, zero_points),
            "words": dict(words or {}),
        },
    )
    plan.begun()
    return plan


def _cube(bands: int, side: int) -> tuple[int, int, int]:
    return bands, side, side


def plan_cutouts(config: MakeCutoutsConfig) -> ExtractionPlan:
    """The extraction that ``make_cutouts.py --images`` asks for (errors as of `plan_extraction`).

    The cutouts of further columns, whose pixels have another size, have the field of view of the first.
    """
    names = band_names(_bands(config))
    columns = {
        "image": [band for band in names if not any(band in bands for bands in config.further().values())]
    }
    columns |= config.further()
    if not columns["image"]:
        raise InputError("--further-images names all bands; leave one at least for the column image")
    missing = [band for bands in columns.values() for band in bands if band not in names]
    if missing:
        raise InputError(
            f"--further-images names {', '.join(missing)}, which --bands does not; name it there, too"
        )
    first: list[float] = []

    def size(column: str, pixel_scale_arcsec: float) -> int:
        first.append(pixel_scale_arcsec)
        if column != "image":
            return max(
                1, round(config.size_or_default() * (config.pixel_scale or first[0]) / pixel_scale_arcsec)
            )
        return frame_side(
            config.size_or_default(), (config.pixel_scale or pixel_scale_arcsec) / pixel_scale_arcsec
        )

    survey = None if config.survey == "unknown" else config.survey
    written = ("survey", "size", "pixel_scale", "label", "tracer", "id_prefix")
    plan = plan_extraction(
        config,
        columns=columns,
        names=names,
        size=size,
        output=config.output,
        survey=survey,
        keep=config.keep,
        words={name: getattr(config, name) for name in written},
    )
    if not plan.begun() and (there := existing_files(config.output)):
        raise InputError(f"{config.output} holds Parquet files already ({there[0]}); choose another --output")
    return plan


def _bands(config: MakeCutoutsConfig) -> Sequence[str]:
    layout = config.known_layout()
    known = SURVEYS.get(config.survey)
    bands = config.bands or (tuple(layout.patterns) if layout else known.bands if known else ())
    if not bands:
        raise InputError(
            "--images needs the names of its bands; pass --bands g r i, or g=HSC-G where files have another name"
        )
    return bands


def _detection_band(options: MosaicOptions, bands: Sequence[str]) -> str:
    layout = options.known_layout()
    of_layout = layout.detection_band if layout and layout.detection_band in bands else bands[-1]
    band = options.detection_band or of_layout
    if band not in bands:
        raise InputError(
            f"--detection-band {band} is none of the bands {', '.join(bands)}; choose one of them"
        )
    return band


def _zero_points(options: MosaicOptions, bands: Sequence[str], survey: str) -> dict[str, float | None]:
    """By the user's words, the layout, or the survey; None where nothing is known."""
    if options.zero_point:
        if len(options.zero_point) != len(bands):
            raise InputError(
                f"--zero-point has {len(options.zero_point)} numbers for the bands {', '.join(bands)}; give one a band"
            )
        return dict(zip(bands, options.zero_point, strict=True))
    layout = options.known_layout()
    of_survey = SURVEYS.get(survey)
    known = dict(zip(of_survey.bands, of_survey.zero_point_mag, strict=True)) if of_survey else {}
    known = dict(layout.zero_points) if layout else known
    return {band: known.get(band) for band in bands}


def _catalog(options: MosaicOptions, keep: Sequence[str]) -> CatalogColumns | None:
    if options.catalog is None:
        return None
    return catalog_columns(
        options.catalog,
        object_id=options.id_column,
        ra=options.ra_column,
        dec=options.dec_column,
        keep=keep,
    )


def _surveyed(tiles: Sequence, columns: Mapping[str, Sequence[str]]) -> list[SurveyedTile]:
    """The tiles with what their headers say, read many at a time."""
    with (
        Progress("headers", total=len(tiles), unit="tiles") as bar,
        ThreadPoolExecutor(HEADER_READERS) as pool,
    ):
        found = []
        for tile in pool.map(lambda tile: survey_tile(tile, columns), tiles):
            found.append(tile)
            bar.advance(1)
    return _usable(found)


def _usable(tiles: list[SurveyedTile]) -> list[SurveyedTile]:
    """The tiles, if there is one that can be used."""
    if all(tile.status != Status.OK for tile in tiles):
        raise InputError(f"none of {len(tiles)} tiles can be used; the first: {tiles[0].problem}")
    return tiles


def _pixel_scales(tiles: Sequence[SurveyedTile], columns: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Pixel scale of each column's mosaics: the median, of an even number the lower middle one."""
    usable = [tile for tile in tiles if tile.status == Status.OK]
    return {
        column: sorted(tile.grids[column].pixel_scale_arcsec for tile in usable)[(len(usable) - 1) // 2]
        for column in columns
    }


def _of_one_scale(tile: SurveyedTile, scales: Mapping[str, float]) -> SurveyedTile:
    """A tile whose pixels have another size than those of the others cannot be used."""
    if tile.status != Status.OK:
        return tile
    for column, scale in scales.items():
        found = tile.grids[column].pixel_scale_arcsec
        if abs(found / scale - 1) > SAME_SCALE:
            problem = f"tile {tile.tile.name} has {found:.4g} arcsec pixels, the others {scale:.4g}"
            return replace(tile, status=Status.DIFFERENT_GRIDS, problem=problem)
    return tile


def _tile_identity(tile: SurveyedTile) -> list:
    files = [[band, file.name, file.size, file.hdu] for band, file in sorted(tile.tile.files.items())]
    grids = [[column, list(grid.shape), grid.wcs] for column, grid in tile.grids.items()]
    return [tile.tile.name, tile.status, files, _hash(grids), tile.headers]


def _source_identity(
    options: MosaicOptions,
    catalog: CatalogColumns | None,
    detection_band: str,
    zero_points: Mapping[str, float | None],
) -> dict:
    if catalog is None:
        return {
            "detection": asdict(options.detection),
            "detection_band": detection_band,
            "zero_points": dict(zero_points),
        }
    url = str(options.catalog)
    parts = catalog_parts(url)
    if parts[0].row_groups is None:
        content = hashlib.sha256(storage.read_bytes(url)).hexdigest()
    else:
        content = _hash(
            [[entry.size, footer.sha256] for entry, footer in storage.read_footers(url, table_files(url))]
        )
    return {"catalog": content, "columns": list(catalog.names)}


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
