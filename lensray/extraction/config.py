"""What ``make_cutouts.py`` is asked for, and what it answers."""

from dataclasses import dataclass
from typing import Literal

from lensray.cutout_format import CutoutFormat
from lensray.errors import InputError

STAMPS_ONLY = ("bands", "hdus", "each_hdu", "stack", "dataset", "input_pixel_scale", "label", "tracer")


@dataclass(frozen=True, kw_only=True, slots=True)
class MakeCutoutsConfig:
    """Make a cutout survey: of --stamps (FITS, HDF5, JPEG or PNG files), or of --surveys that are joined."""

    output: str
    """Folder of the survey that is written, local or s3://."""
    stamps: tuple[str, ...] = ()
    """Files, as quoted patterns ('DIR/*.fits.gz'), local or s3://; {band} in a pattern: one file a band."""
    surveys: tuple[str, ...] = ()
    """Instead of stamps: cutout surveys (Parquet files or folders, local or s3://) to be joined."""
    append: bool = False
    """Add to the survey in --output instead of refusing to."""
    bands: tuple[str, ...] = ()
    """Names of all planes of the stamps, in order (default: the bands of --survey)."""
    keep_bands: tuple[str, ...] = ()
    """Bands that go into the survey, in this order (default: all; with --surveys those of the first)."""
    hdus: tuple[str, ...] = ()
    """FITS HDUs (names or numbers) that hold one band each, in the order of --bands."""
    each_hdu: bool = False
    """Every image HDU of a FITS file is an object of its own."""
    stack: bool = False
    """The first axis of each image counts objects (objects × height × width, or × bands × height × width)."""
    dataset: str | None = None
    """Dataset of HDF5 files, such as image_data."""
    size: int | None = None
    """Crop or pad to this many pixels a side, about the centre (needed where the sizes of stamps differ)."""
    pixel_scale: float | None = None
    """Resample to this pixel scale, in arcsec (default: none; with --surveys that of the first)."""
    input_pixel_scale: float | None = None
    """Pixel scale of the stamps in arcsec (default: their WCS, else that of --survey)."""
    survey: str = "unknown"
    """Name of the survey, such as hsc_wide or des (default with --surveys: that of the first)."""
    label: Literal["lens", "non-lens"] | None = None
    """What the stamps show (default: not known)."""
    tracer: bool = False
    """The stamps are tracers: known lenses that the ranking is judged by."""
    id_prefix: str = ""
    """Put before the object ids (default with --surveys: the survey's folder, where ids would clash)."""

    def __post_init__(self) -> None:
        self._check_source()
        if self.each_hdu and (self.hdus or self.stack):
            raise InputError("--each-hdu goes with neither --hdus nor --stack; choose one")
        if self.hdus and self.bands and len(self.hdus) != len(self.bands):
            raise InputError(
                f"--hdus names {len(self.hdus)} HDUs but --bands {len(self.bands)} bands; name one a band"
            )
        for name in ("size", "pixel_scale", "input_pixel_scale"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"{_option(name)} is {value}; it must be positive")

    def _check_source(self) -> None:
        if bool(self.stamps) == bool(self.surveys):
            given = "both --stamps and --surveys are" if self.stamps else "neither --stamps nor --surveys is"
            raise InputError(f"{given} given; pass one of them")
        wrong = [_option(name) for name in STAMPS_ONLY if getattr(self, name)] if self.surveys else []
        if wrong:
            raise InputError(f"{', '.join(wrong)} says how stamps are read; leave it out with --surveys")


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


@dataclass(frozen=True, kw_only=True, slots=True)
class MadeSurvey:
    """What became of the stamps, or of the surveys."""

    format: CutoutFormat
    """Format of the survey."""
    rows: int
    """Rows written."""
    unreadable: int
    """How many of them have a null image."""
    first_problem: str | None
    """Which object was the first of these, and why."""
    pixel_scale_known: bool = True
    """False where neither headers nor options tell it; a scan then asks for it."""
    left_out: tuple[str, ...] = ()
    """Columns of joined surveys that were not taken over."""
