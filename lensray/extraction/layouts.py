"""Named layouts: how public surveys lay out and name the mosaics that they publish, and in which units.

A layout's patterns are paths below an address that the user gives (a folder with a copy, or the survey's own bucket):
``{tile}``, or other names in braces, stand for what tells the tiles apart, ``*`` for the rest of a name within one folder. They
hold for copies that keep the survey's tree; any other tree can be named with a pattern of one's own. Where a mosaic's
header gives its zero point, that counts, not the one here.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from lensray.errors import InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """The mosaics of a survey as they are published."""

    name: str
    """Identifier as in the command lines."""
    survey: str
    """Key of `lensray.survey.SURVEYS`, for pixel scale, PSF and depth."""
    patterns: Mapping[str, str]
    """Path below the address for each band."""
    zero_points: Mapping[str, float]
    """AB magnitude of a source of one image unit, for each band."""
    detection_band: str
    """Band that sources are detected in."""
    source: str
    """Where paths, names and units are described, and what is not."""
    hdu: str | None = None
    """HDU of the image; None: the first one that holds an image."""
    root: str | None = None
    """Public address of the mosaics, read without credentials (``AWS_NO_SIGN_REQUEST=1``); None: there is none on S3."""

    def __post_init__(self) -> None:
        if self.patterns.keys() != self.zero_points.keys() or self.detection_band not in self.patterns:
            raise ValueError(f"{self.name}: patterns, zero points and detection band name different bands")


def _layout(
    *,
    name: str,
    survey: str,
    pattern: str,
    bands: Mapping[str, str],
    zero_points: Mapping[str, float] | float,
    detection_band: str,
    source: str,
    root: str | None = None,
) -> Layout:
    """A layout with one pattern, in which ``[band]`` becomes the survey's own word for each band."""
    if not isinstance(zero_points, Mapping):
        zero_points = dict.fromkeys(bands, zero_points)
    patterns = {band: pattern.replace("[band]", word) for band, word in bands.items()}
    return Layout(
        name=name,
        survey=survey,
        patterns=patterns,
        zero_points=dict(zero_points),
        detection_band=detection_band,
        source=source,
        root=root,
    )


_COSMOS_ACS = _layout(
    name="cosmos_acs",
    survey="cosmos_acs",
    pattern="acs_[band]_030mas_{tile}_sci.fits*",
    bands={"F814W": "I"},
    zero_points=25.94,
    detection_band="F814W",
    source="https://irsa.ipac.caltech.edu/data/COSMOS/images/acs_mosaic_2.0/tiles/: 81 tiles acs_I_030mas_*_sci.fits.gz, north up, over "
    "HTTPS alone (give a folder with a copy); counts a second by ACS_INFO_2.0.txt, which gives no zero point: that of "
    "ACS F814W in 2003 to 2005, as in Leauthaud et al. 2007 (ApJS 172, 219)",
)

_HSC_PDR3 = _layout(
    name="hsc_pdr3",
    survey="hsc_wide",
    pattern="deepCoadd-results/[band]/{tract}/{patch}/calexp-[band]-{tract}-{patch}.fits",
    bands={band: f"HSC-{band.upper()}" for band in "grizy"},
    zero_points=27.0,
    detection_band="i",
    source="Aihara et al. 2022 (PASJ 74, 247), third data release; the release site's tree below pdr3_wide or pdr3_dud, as "
    "https://hscla.mtk.nao.ac.jp/doc/available-data-2016/ describes it (an account is needed: give a folder with a copy). Every coadd "
    "has the zero point 27; since hscPipe 7 no header says so",
)

_RUBIN = _layout(
    name="rubin",
    survey="lsst_coadd",
    pattern="{tract}/{patch}/[band]/deep_coadd_{tract}_{patch}_[band]_*.fits",
    bands={band: band for band in "ugrizy"},
    zero_points=31.4,
    detection_band="i",
    source="https://dp1.lsst.io/products/images/deep_coadd.html: Data Preview 1, in nJy, whose AB zero point is 2.5 log10(3631e9); the "
    "Butler's tree below its folder deep_coadd, where names end in the sky map and the run (data rights are needed: give a folder "
    "with a copy)",
)

_EUCLID_Q1 = _layout(
    name="euclid_q1",
    survey="euclid",
    pattern="{tile}/[band]_TILE{tile}-*.fits*",
    bands={
        "VIS": "VIS/EUC_MER_BGSUB-MOSAIC-VIS",
        **{band: f"NISP/EUC_MER_BGSUB-MOSAIC-NIR-{band}" for band in "YJH"},
    },
    zero_points={"VIS": 24.6, "Y": 29.8, "J": 30.0, "H": 29.9},
    detection_band="VIS",
    root="s3://nasa-irsa-euclid-q1/q1/MER",
    source="IRSA's guide to Euclid Q1 and its notebook on cloud access (github.com/Caltech-IPAC/irsa-tutorials): bucket, folders, names, "
    "one grid of 0.1 arcsec for all bands, tiles of 32 arcmin with a core of 30; zero points by MAGZERO in the headers of tile "
    "102018665",
)

_DES_DR2 = _layout(
    name="des_dr2",
    survey="des",
    pattern="{tile}/{tile}_r*p*_[band].fits.fz",
    bands={band: band for band in "grizY"},
    zero_points=30.0,
    detection_band="i",
    source="Abbott et al. 2021 (ApJS 255, 20), second data release, zero point 30; names as at "
    "https://desdr-server.ncsa.illinois.edu/despublic/dr2_tiles/ (over HTTPS alone: give a folder with a copy). The images "
    "*_nobkg.fits.fz beside these are left out",
)

LAYOUTS: dict[str, Layout] = {
    layout.name: layout for layout in (_COSMOS_ACS, _HSC_PDR3, _RUBIN, _EUCLID_Q1, _DES_DR2)
}
"""The known layouts by their names."""


def get_layout(name: str) -> Layout:
    """Return the layout of that name, in upper or lower case.

    Raises
    ------
    InputError
        If there is none of that name; the message lists those that there are.
    """
    try:
        return LAYOUTS[name.lower()]
    except KeyError:
        raise InputError(
            f"there is no layout named {name!r}; choose one of {', '.join(LAYOUTS)}, or give the pattern with --images"
        ) from None
