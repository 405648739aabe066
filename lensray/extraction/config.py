"""What ``make_cutouts.py`` is asked for, and what it answers."""

from dataclasses import dataclass
from typing import Literal

from lensray.cutout_format import CutoutFormat
from lensray.errors import InputError
from lensray.extraction.mosaic_options import MosaicOptions

STAMPS_ONLY = ("hdus", "each_hdu", "stack", "dataset", "input_pixel_scale")
NOT_OF_SURVEYS = ("bands", *STAMPS_ONLY, "label", "tracer")
NOT_OF_IMAGES = (*STAMPS_ONLY, "append", "keep_bands")
DEFAULT_SIZE = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class MakeCutoutsConfig(MosaicOptions):
    """Make a cutout survey: of --stamps (FITS, HDF5, JPEG or PNG files), of the sources in --images (mosaics), or of --surveys
    that are joined."""

    output: str
    """Folder of the survey that is written, local or s3://."""
    stamps: tuple[str, ...] = ()
    """Files, as quoted patterns ('DIR/*.fits.gz'), local or s3://; {band} in a pattern: one file a band."""
    surveys: tuple[str, ...] = ()
    """Instead of stamps: cutout surveys (Parquet files or folders, local or s3://) to be joined."""
    append: bool = False
    """Add to the survey in --output instead of refusing to."""
    bands: tuple[str, ...] = ()
    """Names of all planes of the stamps, in order, or bands of the mosaics, as g or as g=HSC-G where files have another name
    (default: the bands of --layout or --survey)."""
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
    """Crop or pad to this many pixels a side, about the centre (needed where the sizes of stamps differ; of mosaics 64 by
    default)."""
    keep: tuple[str, ...] = ()
    """Columns of --catalog that the survey keeps."""
    further_images: tuple[str, ...] = ()
    """Bands of mosaics whose pixels have another size, to columns of their own: image_nisp=Y,J,H."""
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
        MosaicOptions.__post_init__(self)
        self._check_source()
        self.further()
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
        given = [f"--{name}" for name in ("stamps", "images", "surveys") if getattr(self, name)]
        if len(given) != 1:
            said = f"{' and '.join(given)} are" if given else "none of --stamps, --images and --surveys is"
            raise InputError(f"{said} given; pass one of them")
        others = NOT_OF_SURVEYS if self.surveys else NOT_OF_IMAGES if self.images else ()
        if wrong := [_option(name) for name in others if getattr(self, name)]:
            raise InputError(f"{', '.join(wrong)} says how stamps are read; leave it out with {given[0]}")
        of_images = [_option(name) for name in ("keep", "further_images") if getattr(self, name)]
        if of_images and not self.images:
            raise InputError(f"{of_images[0]} goes with --images; leave it out with {given[0]}")

    def size_or_default(self) -> int:
        """Side of the cutouts of mosaics, in pixels."""
        return self.size or DEFAULT_SIZE

    def further(self) -> dict[str, list[str]]:
        """Bands of the further columns of images, by column.

        Raises
        ------
        InputError
            If a word of ``further_images`` is not like ``image_nisp=Y,J,H``.
        """
        found = {}
        for word in self.further_images:
            column, _, bands = word.partition("=")
            if not column.startswith("image_") or not bands or column in found:
                raise InputError(
                    f"--further-images {word}: write the column and its bands, as image_nisp=Y,J,H"
                )
            found[column] = bands.split(",")
        return found


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
