"""What cutouts are made of, where a survey is its mosaics: the options that a scan and ``make_cutouts.py`` share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lensray.errors import InputError
from lensray.extraction.detection_settings import DetectionSettings
from lensray.extraction.layouts import Layout, get_layout


@dataclass(frozen=True, kw_only=True, slots=True)
class MosaicOptions:
    """Mosaics, and which sources are cut out of them."""

    images: str = ""
    """Mosaics to cut from: 'URL/{tile}/{band}.fits' with * for what differs between files (FITS, .fz or .gz); with --layout
    the folder or bucket of the survey."""
    layout: str | None = None
    """Files and zero points of a public survey's mosaics: cosmos_acs, hsc_pdr3, rubin, euclid_q1 or des_dr2."""
    catalog: str | None = None
    """Sources to cut out: a table (Parquet, CSV, FITS, VOTable, ECSV) or a folder of Parquet files, such as a HATS catalogue."""
    id_column: str | None = None
    """Column of --catalog with the sources' names (default: object_id, id, source_id …)."""
    ra_column: str | None = None
    """Column of --catalog with right ascensions, in degrees or as texts in hours (default: ra, RA_ICRS, ALPHA_J2000 …)."""
    dec_column: str | None = None
    """Column of --catalog with declinations."""
    detect: bool = False
    """Instead of --catalog: find the sources in the mosaics."""
    detection_band: str | None = None
    """Band that sources are found in (default: that of --layout, else the last of the bands)."""
    detection: DetectionSettings = field(default_factory=DetectionSettings)
    """How sources are found."""
    zero_point: tuple[float, ...] = ()
    """AB magnitude of one image unit, a number a band (default: the headers', that of --layout or of --survey)."""
    hdu: str | None = None
    """HDU of the images (name or number; default: the first image of each file)."""

    def __post_init__(self) -> None:
        if not self.images:
            given = [
                name for name in ("layout", "catalog", "detect", "zero_point", "hdu") if getattr(self, name)
            ]
            if given:
                option = "--" + given[0].replace("_", "-")
                raise InputError(f"{option} goes with --images; say where the mosaics are")
            return
        if bool(self.catalog) == self.detect:
            given = "both --catalog and --detect are" if self.detect else "neither --catalog nor --detect is"
            raise InputError(f"{given} given; with --images pass one of them")
        if self.layout is None and "{" not in self.images:
            raise InputError(
                f"--images {self.images} says neither which tile nor which band a file is of; write {{tile}} and {{band}} "
                "where they stand, or name a --layout"
            )

    def known_layout(self) -> Layout | None:
        """The layout of that name (InputError if there is none)."""
        return None if self.layout is None else get_layout(self.layout)

    def patterns(self, names: Mapping[str, str]) -> tuple[str, dict[str, str]]:
        """Address before the patterns, and a pattern for each band.

        Parameters
        ----------
        names : mapping of str to str
            What stands for each band in the files' names.
        """
        layout = self.known_layout()
        if layout is None:
            patterns = {band: self.images.replace("{band}", name) for band, name in names.items()}
            if len(set(patterns.values())) < len(patterns):
                raise InputError(
                    f"--images {self.images} gives every band the same files; write {{band}} where its name stands"
                )
            return "", patterns
        missing = [band for band in names if band not in layout.patterns]
        if missing:
            raise InputError(
                f"--layout {layout.name} has the bands {', '.join(layout.patterns)}, not {', '.join(missing)}; "
                "choose another bundle or --bands"
            )
        return self.images, {band: layout.patterns[band] for band in names}


def band_names(words: Sequence[str]) -> dict[str, str]:
    """Bands, and what stands for them in the names of files, from words like ``g`` or ``g=HSC-G``.

    >>> band_names(["g=HSC-G", "r"])
    {'g': 'HSC-G', 'r': 'r'}
    """
    names = {}
    for word in words:
        band, _, name = word.partition("=")
        if not band or band in names:
            raise InputError(f"--bands {' '.join(words)}: name each band once, as g or as g=HSC-G")
        names[band] = name or band
    return names
