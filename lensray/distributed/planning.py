"""What a scan will do, worked out and checked before anything heavy is imported.

A scan is cut into fragments: one fragment is one slice of one Parquet file, small enough that its
decoded images stay one Ray block. The fragments, their order and the fingerprint of the scan depend
on the input, the bundle and the settings alone, never on the machine or on the number of workers.
"""

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from lensray import bundle as bundles
from lensray.cutouts import CutoutFormat
from lensray.errors import InputError
from lensray.extraction.cutting import SAME_SCALE, frame_side
from lensray.extraction.mosaic_options import MosaicOptions, band_names
from lensray.io import storage
from lensray.reading import Formats, ImageReader, StoredImages, read_formats
from lensray.survey_rows import TRUTH_COLUMNS

if TYPE_CHECKING:
    from lensray.distributed.extraction_plan import ExtractionPlan
    from lensray.known_lenses import KnownLenses
    from lensray.metrics.probabilities import Calibration

MIN_FRAGMENT_BYTES = 4 << 20
# Ray splits blocks over 128 MiB; the rest is room for the other columns.
MAX_FRAGMENT_BYTES = 96 << 20
# Enough pieces for a small survey to be shared out, shown in progress and resumed.
FRAGMENTS_WANTED = 64

POSITION_COLUMNS = ("object_id", "ra", "dec")
# Names that a scan's own columns have.
RESERVED_COLUMNS = (
    "score",
    "status",
    "rank",
    "ordinality",
    "probability",
    "image",
    "known_lens",
    "known_separation_arcsec",
)

FRAGMENT_SCHEMA = pa.schema(
    [
        ("fragment", pa.int64()),
        ("path", pa.string()),
        ("row_group", pa.int32()),
        ("row_groups", pa.int32()),
        ("offset", pa.int64()),
        ("rows", pa.int64()),
        ("first_row", pa.int64()),
    ]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ScanConfig(MosaicOptions):
    """Score every cutout of a survey, or every source in its mosaics, with a model bundle, rank them, and report."""

    cutouts: str = ""
    """Cutout survey: a Parquet file or folder, local or s3:// (or give --images)."""
    output: str
    """Folder for scores, candidates and report, local or s3://; the same words resume a scan."""
    bundle: str = "eznet_hsc"
    """Model bundle: the name of a shipped one, or a .safetensors file, local or s3://."""
    top: int = 2000
    """How many candidates the ranked list holds."""
    keep: tuple[str, ...] = ()
    """Further columns of the survey or catalogue that go into the scores and the candidates."""
    resample: bool = False
    """Fit cutouts of another pixel scale or size to the bundle's."""
    max_nan_fraction: float | None = None
    """Part of a cutout that may be NaN, as beyond the edge of a mosaic, and is filled with the median (default: the bundle's)."""
    classes: tuple[str, ...] = ()
    """Sum the probabilities of these classes into the score (default: the bundle's positive ones)."""
    bands: tuple[str, ...] = ()
    """Band names of the image planes, for a survey whose metadata lacks them; with --images what stands for the bundle's bands
    in the files' names, as g=HSC-G."""
    pixel_scale: float | None = None
    """Pixel scale in arcsec, for a survey whose metadata lacks it."""
    image_shape: tuple[int, int, int] | None = None
    """Bands, height and width of the images, for lists and FITS/PNG/JPEG bytes without a shape."""
    workers: int | None = None
    """Scoring actors (default: one a GPU, or one a CPU core where there is no GPU)."""
    gpus_per_worker: float | None = None
    """GPUs an actor (default: 1 where the cluster has GPUs, else 0); 0.5 lets two share one."""
    lens_rate: float = 1 / 30_000
    """Lenses an object of the survey, for the expected numbers and the probabilities of a calibrated bundle."""
    known_lenses: str | None = None
    """Table of known lenses with ra and dec (CSV, FITS, VOTable …): candidates near one are marked as known, others as new."""
    known_radius: float = 3.0
    """How near, in arcsec (published positions of one lens differ by some: 99% within 3)."""

    def __post_init__(self) -> None:
        MosaicOptions.__post_init__(self)
        for name in ("output", "bundle"):
            if not getattr(self, name):
                raise InputError(f"--{name} is empty; give an address")
        if bool(self.cutouts) == bool(self.images):
            given = "both --cutouts and --images are" if self.images else "neither --cutouts nor --images is"
            raise InputError(f"{given} given; pass the survey as one of them")
        if self.pixel_scale is not None and not self.pixel_scale > 0:
            raise InputError(f"--pixel-scale is {self.pixel_scale}; it must be positive, in arcsec")
        if self.max_nan_fraction is not None and not 0 <= self.max_nan_fraction < 1:
            raise InputError(
                f"--max-nan-fraction is {self.max_nan_fraction}; give a part of the pixels, such as 0.2"
            )
        if self.top < 1:
            raise InputError(f"--top is {self.top}; it must be at least 1")
        if self.workers is not None and self.workers < 1:
            raise InputError(f"--workers is {self.workers}; it must be at least 1")
        if self.gpus_per_worker is not None and self.gpus_per_worker < 0:
            raise InputError(f"--gpus-per-worker is {self.gpus_per_worker}; it must not be negative")
        if not 0 < self.lens_rate < 1:
            raise InputError(
                f"--lens-rate is {self.lens_rate}; give lenses an object, between 0 and 1, such as 3e-5"
            )
        if not 0 < self.known_radius < math.inf:
            raise InputError(f"--known-radius is {self.known_radius}; it must be positive, in arcsec")


@dataclass(frozen=True, kw_only=True, slots=True)
class ScanPlan:
    """A checked scan: what is read, how it is cut, and what identifies it."""

    config: ScanConfig
    """The words it was asked for with."""
    survey: str
    """Address of the table of cutouts, or of sources."""
    images: ImageReader
    """From its rows to the images that the bundle takes."""
    header: bundles.Header
    """The bundle's description, without its weights."""
    column_schema: pa.Schema
    """Columns beside the image that are read, in the order of the scores, with their types."""
    fragments: pa.Table
    """One row a fragment (`FRAGMENT_SCHEMA`)."""
    identity: dict
    """Everything that the scores depend on; its hash is the fingerprint."""

    @property
    def format(self) -> CutoutFormat:
        """Format of the first column of images, which candidates and report show."""
        return self.images.formats[self.header.inputs.column]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the identity: two scans share an output folder only if it is equal."""
        return _hash(self.identity)

    @property
    def rows(self) -> int:
        """Number of rows of the survey."""
        return int(sum(self.fragments["rows"].to_pylist()))

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns beside the image."""
        return tuple(self.column_schema.names)


def plan_mosaics(config: ScanConfig) -> "ExtractionPlan | None":
    """What is cut out of the mosaics of ``--images``; None for a survey of cutouts.

    Raises
    ------
    InputError
        If bundle or mosaics cannot be used, or do not fit each other; nothing was written.
    """
    if not config.images:
        return None
    from lensray.distributed.extraction_plan import plan_extraction  # here: it brings astropy along

    header = bundles.read_header(config.bundle)
    _check_classes(config, header)
    known_lenses_of(config)
    names = band_names(config.bands) if config.bands else {}
    inputs = {part.column: part for part in (header.inputs, *header.inputs.further)}
    unknown = set(names) - {band for part in inputs.values() for band in part.bands}
    if unknown:
        raise InputError(
            f"--bands names {', '.join(sorted(unknown))}; the bundle {config.bundle} takes {list(header.inputs.bands)}"
        )

    def size(column: str, pixel_scale_arcsec: float) -> int:
        return _frame(config, inputs[column], pixel_scale_arcsec)

    return plan_extraction(
        config,
        columns={column: part.bands for column, part in inputs.items()},
        names={band: names.get(band, band) for part in inputs.values() for band in part.bands},
        size=size,
        output=config.output,
        keep=config.keep,
    )


def _frame(config: ScanConfig, inputs: bundles.Inputs | bundles.FurtherImages, scale: float) -> int:
    """Side of the cutouts, in pixels of the mosaics, that hold all that the network sees."""
    ratio = inputs.pixel_scale_arcsec / scale
    side = max(inputs.height, inputs.width)
    if abs(ratio - 1) > SAME_SCALE and not config.resample:
        raise InputError(
            f"the mosaics' pixel scale is {scale:.4g} arcsec but the bundle {config.bundle} was made for "
            f"{inputs.pixel_scale_arcsec:g}; pass --resample to fit it"
        )
    return frame_side(side, ratio)


def plan_scan(config: ScanConfig, mosaics: "ExtractionPlan | None" = None) -> ScanPlan:
    """Check bundle and survey against each other and cut the survey into fragments.

    Parameters
    ----------
    config : ScanConfig
    mosaics : ExtractionPlan, optional
        From `plan_mosaics`, with its sources written.

    Raises
    ------
    InputError
        If the bundle or the survey cannot be used, or do not fit each other; nothing was written.
    """
    header = bundles.read_header(config.bundle)
    if config.max_nan_fraction is not None:
        header = replace(header, inputs=replace(header.inputs, max_nan_fraction=config.max_nan_fraction))
    _check_classes(config, header)
    calibration_of(config, header)
    known_lenses_of(config)
    survey = mosaics.sources if mosaics else config.cutouts
    if not mosaics:
        storage.check_outside(config.output, survey)
    footers = storage.read_footers(survey)
    metadata = [(entry.path, footer.metadata) for entry, footer in footers]
    schema = _common_schema(metadata)
    images = mosaics.images if mosaics else _stored_images(config, header, schema)
    formats = images.formats
    column_schema = _column_schema(config, header, schema)
    row_bytes = bytes_per_row(formats, header) + other_bytes_per_row(
        [m for _, m in metadata], column_schema.names
    )
    fragments = cut_fragments(metadata, row_bytes)
    if fragments.num_rows == 0:
        raise InputError(f"{survey} holds no rows; give a survey with at least one cutout")
    root = storage.resolve(survey)[1].rstrip("/")
    identity = {
        "layout": 1,
        "input": _hash(
            [
                [entry.path.removeprefix(root).lstrip("/"), entry.size, footer.sha256]
                for entry, footer in footers
            ]
        ),
        **({"mosaics": mosaics.fingerprint} if mosaics else {}),
        "bundle": header.sha256,
        "settings": {
            "keep": column_schema.names[3:],
            "resample": config.resample,
            "classes": list(config.classes),
            **({} if config.max_nan_fraction is None else {"max_nan_fraction": config.max_nan_fraction}),
            **_image_settings(formats[header.inputs.column]),
            **{part.column: _image_settings(formats[part.column]) for part in header.inputs.further},
        },
    }
    return ScanPlan(
        config=config,
        survey=survey,
        images=images,
        header=header,
        column_schema=column_schema,
        fragments=fragments,
        identity=identity,
    )


def _stored_images(config: ScanConfig, header: bundles.Header, schema: pa.Schema) -> StoredImages:
    """The survey's columns of images, which fit the bundle."""
    formats = read_formats(
        schema,
        header.inputs,
        bands=config.bands or None,
        pixel_scale_arcsec=config.pixel_scale,
        image_shape=config.image_shape,
    )
    for wanted in (header.inputs, *header.inputs.further):
        _check_fit(config, wanted, formats[wanted.column])
    return StoredImages(formats=formats)


def _image_settings(fmt: CutoutFormat) -> dict:
    return {
        "bands": list(fmt.bands),
        "pixel_scale": fmt.pixel_scale_arcsec,
        "image_shape": list(fmt.shape),
    }


def bytes_per_row(formats: Formats, header: bundles.Header) -> int:
    """Decoded size of a cutout at its largest: as stored, or fitted to the bundle's size in float32."""
    stored = sum(math.prod(fmt.shape) * fmt.dtype.itemsize for fmt in formats.values())
    return max(stored, math.prod(header.inputs.shape) * 4)


def other_bytes_per_row(files: list[pq.FileMetaData], columns: list[str]) -> int:
    """Decoded size of the columns beside the image: the mean of the row group where it is largest."""
    largest = 0
    for metadata in files:
        wanted = [
            i for i in range(metadata.num_columns) if metadata.schema.column(i).path.split(".")[0] in columns
        ]
        for group in map(metadata.row_group, range(metadata.num_row_groups)):
            size = sum(group.column(i).total_uncompressed_size for i in wanted)
            largest = max(largest, -(-size // max(group.num_rows, 1)))
    return largest


def cut_fragments(files: list[tuple[str, pq.FileMetaData]], row_bytes: int) -> pa.Table:
    """Fragments of a survey, in the order of its files and rows.

    Parameters
    ----------
    files : list of (path, pyarrow.parquet.FileMetaData)
    row_bytes : int
        Decoded size of a row, in bytes.

    Returns
    -------
    pyarrow.Table
        Columns of `FRAGMENT_SCHEMA`. A fragment is a run of whole row groups, or a slice of one
        that is too large by itself (that row group is then decoded once for each of its slices).
    """
    total = row_bytes * sum(metadata.num_rows for _, metadata in files)
    target = min(max(total // FRAGMENTS_WANTED, MIN_FRAGMENT_BYTES), MAX_FRAGMENT_BYTES)
    max_rows = max(1, target // row_bytes)
    columns: dict[str, list] = {name: [] for name in FRAGMENT_SCHEMA.names}
    fragment = first_row = 0
    for path, metadata in files:
        sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        for row_group, row_groups, offset, rows in _slices(sizes, max_rows):
            for name, value in zip(
                FRAGMENT_SCHEMA.names,
                (fragment, path, row_group, row_groups, offset, rows, first_row),
                strict=True,
            ):
                columns[name].append(value)
            fragment += 1
            first_row += rows
    return pa.table(columns, schema=FRAGMENT_SCHEMA)


def _slices(sizes: list[int], max_rows: int) -> Iterator[tuple[int, int, int, int]]:
    """(first row group, number of row groups, offset in rows, rows) of each fragment of a file."""
    first, rows = 0, 0
    for i, size in enumerate(sizes):
        if rows and rows + size > max_rows:
            yield first, i - first, 0, rows
            first, rows = i, 0
        if size > max_rows:
            for offset in range(0, size, max_rows):
                yield i, 1, offset, min(max_rows, size - offset)
            first, rows = i + 1, 0
        else:
            rows += size
    if rows:
        yield first, len(sizes) - first, 0, rows


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _common_schema(files: list[tuple[str, pq.FileMetaData]]) -> pa.Schema:
    """The schema of the first file, which all the others must share."""
    first_path, first = files[0]
    schema = first.schema.to_arrow_schema()
    for path, metadata in files[1:]:
        other = metadata.schema.to_arrow_schema()
        if not other.equals(schema, check_metadata=False):
            raise InputError(
                f"{path} has other columns or types than {first_path}; scan them as two surveys, or write them alike"
            )
        if (other.metadata or {}).get(b"lensray.survey") != (schema.metadata or {}).get(b"lensray.survey"):
            raise InputError(
                f"{path} has another 'lensray.survey' metadata than {first_path}; scan them as two surveys"
            )
    return schema


def _column_schema(config: ScanConfig, header: bundles.Header, schema: pa.Schema) -> pa.Schema:
    """Columns that the scores hold beside score and status: positions, truth, and the kept ones."""
    missing = [name for name in config.keep if name not in schema.names]
    if missing:
        others = [name for name in schema.names if not name.startswith("image")]
        raise InputError(f"--keep names {missing}, but the survey's columns are {others}")
    taken = (*RESERVED_COLUMNS, *header.inputs.columns)
    reserved = [name for name in config.keep if name in taken or name.startswith(("score_", "__"))]
    if reserved:
        raise InputError(f"--keep names {reserved}, which a scan has of its own; rename the survey's columns")
    for name in TRUTH_COLUMNS:
        if name in schema.names and schema.field(name).type != pa.bool_():
            raise InputError(
                f"column {name!r} must be bool but is {schema.field(name).type}; write it as bool"
            )
    truth = [name for name in TRUTH_COLUMNS if name in schema.names]
    tile = ["tile"] if config.images else []
    names = dict.fromkeys([*POSITION_COLUMNS, *truth, *tile, *config.keep])
    fields = [schema.field(name).remove_metadata() for name in names]
    return pa.schema([f.with_type(pa.float64()) if f.name in ("ra", "dec") else f for f in fields])


def _check_classes(config: ScanConfig, header: bundles.Header) -> None:
    if header.arguments.get("activation") == "linear":
        raise InputError(
            f"the bundle {config.bundle} regresses {', '.join(header.classes)} and gives no probability of a lens; "
            "give the bundle of a classifier"
        )
    unknown = [name for name in config.classes if name not in header.classes]
    if unknown:
        raise InputError(f"--classes names {unknown}, but the bundle's classes are {list(header.classes)}")


def calibration_of(config: ScanConfig, header: bundles.Header) -> "Calibration | None":
    """The calibration that the bundle was given in training; None if it has none, or the score sums other classes.

    Raises
    ------
    InputError
        If it is damaged.
    """
    stored = header.provenance.get("calibration")
    if not stored or set(config.classes or header.positive_classes) != set(header.positive_classes):
        return None
    from lensray.metrics.probabilities import Calibration  # here: it brings SciPy along

    try:
        return Calibration.from_json(stored)
    except ValueError as error:
        raise InputError(f"the calibration of the bundle {config.bundle} is damaged: {error}") from None


def known_lenses_of(config: ScanConfig) -> "KnownLenses | None":
    """The list of known lenses; None if there is none.

    Raises
    ------
    InputError
        If it cannot be used.
    """
    if config.known_lenses is None:
        return None
    from lensray.known_lenses import read_known_lenses  # here: not every scan has a list

    return read_known_lenses(config.known_lenses)


def _check_fit(config: ScanConfig, inputs: bundles.Inputs | bundles.FurtherImages, fmt: CutoutFormat) -> None:
    """Refuse a survey that the bundle was not made for, unless it is to be fitted."""
    missing = [band for band in inputs.bands if band not in fmt.bands]
    if missing:
        raise InputError(
            f"the bundle {config.bundle} needs the bands {list(inputs.bands)} but the survey has {list(fmt.bands)}; "
            "use a bundle made for these bands (or name the planes with --bands)"
        )
    if config.resample:
        return
    if fmt.shape[1:] != (inputs.height, inputs.width):
        raise InputError(
            f"the survey's cutouts are {fmt.shape[1]}×{fmt.shape[2]} pixels but the bundle {config.bundle} was made "
            f"for {inputs.height}×{inputs.width}; pass --resample to fit them"
        )
    if abs(fmt.pixel_scale_arcsec / inputs.pixel_scale_arcsec - 1) > SAME_SCALE:
        raise InputError(
            f"the survey's pixel scale is {fmt.pixel_scale_arcsec:g} arcsec but the bundle {config.bundle} was made "
            f"for {inputs.pixel_scale_arcsec:g}; pass --resample to fit it"
        )


def settings_of(config: ScanConfig) -> dict:
    """The words of a scan, as JSON."""
    return json.loads(json.dumps(asdict(config)))
