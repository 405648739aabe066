"""Survey constants: consistent in themselves, and plausible against figures that they were not made from."""

import dataclasses
import math

import numpy as np
import pytest

from lensray.errors import InputError
from lensray.survey import HSC_WIDE, SURVEYS, get_survey, moffat_alpha, noise_area, sky_sigma_from_depth

SURVEY = pytest.mark.parametrize("survey", SURVEYS.values(), ids=SURVEYS)


def star(survey, band, side=301):
    """Pixels of a point source of flux 1, far wider than its wings."""
    alpha, beta = moffat_alpha(survey.psf_fwhm_arcsec[band], survey.psf_moffat_beta), survey.psf_moffat_beta
    axis = (np.arange(side * 5) - (side * 5 - 1) / 2) * survey.pixel_scale_arcsec / 5
    profile = (1 + (axis[:, None] ** 2 + axis[None, :] ** 2) / alpha**2) ** -beta
    profile = profile.reshape(side, 5, side, 5).sum((1, 3))
    return profile / profile.sum()


def test_the_six_surveys_are_found_by_name_in_either_case():
    assert list(SURVEYS) == ["cosmos_acs", "hsc_wide", "lsst_single_epoch", "lsst_coadd", "euclid", "des"]
    assert get_survey("HSC_WIDE") is HSC_WIDE


def test_an_unknown_survey_is_an_input_error_that_lists_the_known():
    with pytest.raises(InputError, match=r"'sdss'.*hsc_wide"):
        get_survey("sdss")


@SURVEY
def test_every_tuple_has_one_entry_a_band_and_the_source_is_named(survey):
    for field in dataclasses.fields(survey):
        value = getattr(survey, field.name)
        if isinstance(value, tuple):
            assert len(value) == len(survey.bands), field.name
            if field.name != "bands":
                assert all(math.isfinite(v) and v > 0 for v in value), field.name
    assert "20" in survey.source


@SURVEY
def test_a_source_at_the_limiting_magnitude_is_measured_with_the_published_signal_to_noise(survey):
    rng = np.random.default_rng(1)
    for band in range(len(survey.bands)):
        flux, noise = survey.flux(band, survey.limiting_mag[band]), survey.sky_sigma[band]
        if survey.limiting_aperture_arcsec is None:
            psf = star(survey, band, side=61)
            sky = rng.normal(0.0, noise, (2000, 61 * 61))
            measured = flux + sky @ psf.ravel() / (psf**2).sum()  # least-squares flux
            tolerance = 0.15  # pixels average the PSF, which the analytic noise area does not know
        else:
            radius = survey.limiting_aperture_arcsec / 2 / survey.pixel_scale_arcsec
            pixels = round(math.pi * radius**2)
            measured = flux + rng.normal(0.0, noise, (2000, pixels)).sum(1)
            tolerance = 0.1
        snr = measured.mean() / measured.std()
        assert snr == pytest.approx(survey.limiting_snr, rel=tolerance), survey.bands[band]


@SURVEY
def test_the_noise_is_at_least_the_photon_noise_of_the_darkest_sky_and_not_many_times_more(survey):
    darkest = {"g": 22.2, "r": 21.3, "i": 20.5, "VIS": 22.5, "F814W": 22.5}  # AB mag / arcsec²
    for band, name in enumerate(survey.bands):
        sky = survey.flux(band, darkest[name]) * survey.pixel_scale_arcsec**2
        photon_noise = math.sqrt(sky / survey.gain[band])
        # LSST's published ten-year depth is a little better than its sky and visits allow: 0.8 in r
        assert 0.7 * photon_noise < survey.sky_sigma[band] < 4 * photon_noise, name


def test_euclid_and_hsc_noise_agree_with_that_measured_on_real_coadds():
    assert get_survey("euclid").sky_sigma[0] == pytest.approx(0.0029, rel=0.3)  # a Q1 mosaic
    assert HSC_WIDE.sky_sigma == pytest.approx((0.029, 0.040, 0.058), rel=0.3)  # a Wide-like coadd in COSMOS


@SURVEY
def test_the_peak_of_a_star_of_seventh_magnitude_is_saturated_and_of_twentieth_not(survey):
    for band in range(len(survey.bands)):
        peak = star(survey, band).max()
        assert survey.flux(band, 7.0) * peak > survey.saturation[band] > survey.flux(band, 20.0) * peak


def test_noise_area_is_the_inverse_of_the_integral_of_the_squared_psf():
    beta, fwhm = 3.0, 0.8
    r = np.linspace(0.0, 60.0, 600_001)
    profile = (1 + (r / moffat_alpha(fwhm, beta)) ** 2) ** -beta
    flux = np.trapezoid(2 * np.pi * r * profile, r)
    assert np.trapezoid(2 * np.pi * r * (profile / flux) ** 2, r) == pytest.approx(
        1 / noise_area(fwhm, beta), rel=1e-4
    )


def test_one_magnitude_deeper_is_less_noise_by_a_factor_of_two_and_a_half():
    shallow, deep = (
        sky_sigma_from_depth(m, 27.0, snr=5, area_arcsec2=1.0, pixel_scale_arcsec=0.2) for m in (25.0, 26.0)
    )
    assert shallow / deep == pytest.approx(10**0.4)
