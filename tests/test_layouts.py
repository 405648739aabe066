"""Layouts against names of files as the surveys publish them."""

import math
from dataclasses import replace

import pytest

from lensray.errors import InputError
from lensray.extraction.layouts import LAYOUTS, get_layout
from lensray.extraction.tiles import find_tiles
from lensray.survey import SURVEYS

EUCLID = "102018211/{}_TILE102018211-{}_00.00.fits"
HSC = "deepCoadd-results/HSC-{0}/9813/4,3/calexp-HSC-{0}-9813-4,3.fits"
# Files as IRSA, ESA (astroquery's manual), NAOJ, NCSA and Rubin's Butler name them, with their tile.
PUBLISHED = {
    "cosmos_acs": ("071", {"F814W": "acs_I_030mas_071_sci.fits.gz"}),
    "hsc_pdr3": ("9813-4,3", {band: HSC.format(band.upper()) for band in "grizy"}),
    "rubin": (
        "10463-62",
        {
            band: f"10463/62/{band}/deep_coadd_10463_62_{band}_lsst_cells_v1_LSSTComCam_runs_DRP_DP1_DM-51335.fits"
            for band in "ugrizy"
        },
    ),
    "euclid_q1": (
        "102018211",
        {
            "VIS": EUCLID.format("VIS/EUC_MER_BGSUB-MOSAIC-VIS", "ACBD03_20241018T142710.276838Z"),
            "Y": EUCLID.format("NISP/EUC_MER_BGSUB-MOSAIC-NIR-Y", "E5CAE1_20241018T142558.172837Z"),
            "J": EUCLID.format("NISP/EUC_MER_BGSUB-MOSAIC-NIR-J", "E044A1_20241018T142600.459089Z"),
            "H": EUCLID.format("NISP/EUC_MER_BGSUB-MOSAIC-NIR-H", "42F1AD_20241018T142558.469987Z"),
        },
    ),
    "des_dr2": (
        "DES0017-3832",
        {band: f"DES0017-3832/DES0017-3832_r4907p01_{band}.fits.fz" for band in "grizY"},
    ),
}
# What lies beside the mosaics and is none.
BESIDE = {
    "cosmos_acs": ["acs_I_030mas_071_wht.fits.gz"],
    "hsc_pdr3": ["deepCoadd-results/HSC-I/9813/4,3/det_bkgd-HSC-I-9813-4,3.fits"],
    "rubin": ["10463/62/g/template_coadd_10463_62_g_lsst_cells_v1_LSSTComCam_runs_DRP_DP1_DM-51335.fits"],
    "euclid_q1": [
        EUCLID.format("VIS/EUC_MER_MOSAIC-VIS-RMS", "ACBD03_20241018T142710.276838Z"),
        EUCLID.format("VIS/EUC_MER_BGMOD-VIS", "ACBD03_20241018T142710.276838Z"),
        EUCLID.format("DECAM/EUC_MER_BGSUB-MOSAIC-DES-I", "31E2C9_20241018T143048.358037Z"),
    ],
    "des_dr2": [
        "DES0017-3832/DES0017-3832_r4907p01_g_nobkg.fits.fz",
        "DES0017-3832/DES0017-3832_r4907p01_det.fits.fz",
    ],
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_published_files_are_found_as_bands_of_their_tile_and_nothing_else_is(name, tmp_path):
    tile_name, files = PUBLISHED[name]
    for path in [*files.values(), *BESIDE[name]]:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    [tile] = find_tiles(str(tmp_path), get_layout(name).patterns)
    assert tile.name == tile_name
    assert {band: file.path.removeprefix(f"{tmp_path}/") for band, file in tile.files.items()} == files


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_layouts_have_the_bands_and_zero_points_of_their_survey(layout):
    survey = SURVEYS[layout.survey]
    assert set(survey.bands) <= layout.patterns.keys()
    for band, zero_point in zip(survey.bands, survey.zero_point_mag, strict=True):
        assert layout.zero_points[band] == pytest.approx(zero_point)


def test_zero_point_of_nanojansky_is_rubins():
    assert get_layout("rubin").zero_points["i"] == pytest.approx(2.5 * math.log10(3631e9), abs=0.001)


def test_names_are_found_in_any_case_and_unknown_ones_list_those_there_are():
    assert get_layout("Euclid_Q1").root == "s3://nasa-irsa-euclid-q1/q1/MER"
    with pytest.raises(InputError, match=r"'legacy'.*cosmos_acs, hsc_pdr3, rubin, euclid_q1, des_dr2"):
        get_layout("legacy")


def test_a_layout_whose_parts_name_different_bands_is_refused():
    with pytest.raises(ValueError, match="different bands"):
        replace(get_layout("des_dr2"), detection_band="K")
