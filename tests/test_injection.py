"""Arcs on real galaxies: their light, blur and noise are what the survey's units say, and nothing else is touched."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.signal
import scipy.stats
from galaxies import galaxy

from lensray.errors import InputError
from lensray.simulation.deflectors import HostStatus, measure_hosts
from lensray.simulation.injection import INJECTED_SNR, inject
from lensray.survey import COSMOS_ACS, DES, HSC_WIDE

COUNT = 12
FREE_OF_NOISE = 1e15
"""Electrons an image unit at which shot noise is nothing."""


def with_gain(survey, gain):
    return replace(survey, gain=(gain,) * len(survey.bands))


def many(count=COUNT, survey=HSC_WIDE, **words):
    """One plausible deflector, often."""
    return np.repeat(galaxy(survey, **words), count, axis=0)


def arcs_on(images, survey, seed=1, indices=None, **words):
    """What was added to the images, and the parameters."""
    found = inject(
        images, survey, seed=seed, indices=np.arange(len(images)) if indices is None else indices, **words
    )
    assert found.hosts.plausible.all()
    return found.images.astype(np.float64) - images, found.parameters


@pytest.mark.parametrize("survey", [HSC_WIDE, DES])
def test_flux_of_an_arc_is_that_of_its_source_magnified(survey):
    arcs, found = arcs_on(many(survey=survey), survey)
    zero_point = survey.zero_point_mag[0]
    expected = 10 ** (0.4 * (zero_point - found["source_mag"])) * found["magnification"]
    # A few percent of a Moffat profile's light lie outside of the frame.
    assert arcs[:, 0].sum((1, 2)) == pytest.approx(expected, rel=0.05)
    assert found["arc_mag"] == pytest.approx(zero_point - 2.5 * np.log10(expected), abs=1e-3)
    assert (found["magnification"] > 2).all()
    assert found["source_mag"].min() > 20


def test_every_arc_can_be_seen_above_sky_and_host():
    images = many(seed=3)
    arcs, found = arcs_on(images, HSC_WIDE)
    light = np.clip(images.astype(np.float64), 0, None)
    sky = np.array(HSC_WIDE.sky_sigma)[:, None, None]
    variance = sky**2 + light / np.array(HSC_WIDE.gain)[:, None, None] + (0.1 * light) ** 2
    snr = np.sqrt((np.clip(arcs, 0, None) ** 2 / variance).sum((2, 3))).max(1)
    assert found["arc_snr"].min() >= 0.999 * INJECTED_SNR
    # The image's sky is measured, and the arc here has its noise.
    assert snr == pytest.approx(found["arc_snr"], rel=0.15)


def test_units_do_not_matter():
    factor = 250.0
    other = replace(
        HSC_WIDE,
        zero_point_mag=tuple(zp + 2.5 * np.log10(factor) for zp in HSC_WIDE.zero_point_mag),
        sky_sigma=tuple(factor * s for s in HSC_WIDE.sky_sigma),
        gain=tuple(g / factor for g in HSC_WIDE.gain),
        saturation=tuple(factor * s for s in HSC_WIDE.saturation),
    )
    images = many(4)
    arcs, found = arcs_on(images, HSC_WIDE)
    scaled, again = arcs_on(images * np.float32(factor), other)
    assert scaled / factor == pytest.approx(arcs, abs=1e-3 * arcs.max())
    assert again["source_mag"] == pytest.approx(found["source_mag"], abs=1e-3)
    assert again["einstein_radius_arcsec"] == pytest.approx(found["einstein_radius_arcsec"])


def test_images_of_the_source_stand_around_the_host_at_the_einstein_radius():
    x, y = 0.25, -0.2
    arcs, found = arcs_on(many(60, x=x, y=y), with_gain(HSC_WIDE, FREE_OF_NOISE))
    axis = (np.arange(64) - 31.5) * HSC_WIDE.pixel_scale_arcsec
    distance = np.hypot(axis[None, :] - x, axis[:, None] - y)
    light = arcs.sum(1)
    radius = (light * distance).sum((1, 2)) / light.sum((1, 2))
    ratio = radius / found["einstein_radius_arcsec"]
    assert 0.9 < np.median(ratio) < 1.25
    assert ratio.min() > 0.7
    assert ratio.max() < 1.8
    centroid = [
        (light * a).sum((1, 2)) / light.sum((1, 2)) for a in (axis[None, None, :], axis[None, :, None])
    ]
    # Each arc is to one side, but not all to the same.
    assert np.mean(centroid, axis=1) == pytest.approx([x, y], abs=0.3)


def moffat(fwhm, beta, pixel, half=40, fine=9):
    """A Moffat profile averaged over pixels, by brute force."""
    axis = (np.arange((2 * half + 1) * fine) - ((2 * half + 1) * fine - 1) / 2) * pixel / fine
    alpha = fwhm / (2 * np.sqrt(2 ** (1 / beta) - 1))
    profile = (1 + (axis[:, None] ** 2 + axis**2) / alpha**2) ** -beta
    binned = profile.reshape(2 * half + 1, fine, 2 * half + 1, fine).mean((1, 3))
    return binned / binned.sum()


def test_arcs_are_as_wide_as_the_psf_of_their_image():
    survey = with_gain(HSC_WIDE, FREE_OF_NOISE)
    images, indices = many(4), np.arange(4)
    point, wide = np.full((4, 3), 1e-3), np.tile([0.75, 0.65, 0.5], (4, 1))
    sharp, one = arcs_on(images, survey, indices=indices, psf_fwhm_arcsec=point)
    blurred, two = arcs_on(images, survey, indices=indices, psf_fwhm_arcsec=wide)
    fainter = 10 ** (0.4 * (two["source_mag"] - one["source_mag"]).astype(np.float64))
    for row in range(4):
        for band, fwhm in enumerate(wide[row]):
            kernel = moffat(fwhm, survey.psf_moffat_beta, survey.pixel_scale_arcsec)
            expected = scipy.signal.fftconvolve(sharp[row, band], kernel, mode="same")
            found = fainter[row] * blurred[row, band]
            # The kernel ends at 2.5 FWHM, with the 2% outside of it put back inside.
            assert np.abs(found - expected).max() < 0.03 * expected.max()


def test_the_widths_of_the_other_images_do_not_matter():
    images = many(3)
    widths = np.tile([0.9, 0.8, 0.7], (3, 1))
    widths[2] = 0.2
    together, _ = arcs_on(images, HSC_WIDE, psf_fwhm_arcsec=widths)
    alone, _ = arcs_on(images[:1], HSC_WIDE, psf_fwhm_arcsec=widths[:1])
    assert together[0] == pytest.approx(alone[0], abs=1e-4 * alone.max())


def test_photons_of_an_arc_have_the_variance_of_flux_over_gain():
    gain = 40.0
    images = many(20)
    noisy, one = arcs_on(images, with_gain(HSC_WIDE, gain))
    free, two = arcs_on(images, with_gain(HSC_WIDE, FREE_OF_NOISE))
    # Noise changes how bright the source must be; its shape stays.
    free = (
        free * 10 ** (0.4 * (two["source_mag"] - one["source_mag"]).astype(np.float64))[:, None, None, None]
    )
    bright = free > 0.2
    deviates = (noisy - free)[bright] / np.sqrt(free[bright] / gain)
    assert bright.sum() > 5000
    assert np.var(deviates) == pytest.approx(1.0, abs=0.04)
    assert scipy.stats.kstest(deviates, "norm").pvalue > 1e-3
    # Bands and objects have noise of their own.
    rest = (noisy - free)[:, :, 20:44, 20:44].reshape(60, -1)
    assert np.abs(np.corrcoef(rest) - np.eye(60)).max() < 0.25


def test_an_arc_follows_from_seed_and_index_whatever_the_batch():
    images, indices = many(7), np.array([5, 3, 11, 3, 900, 0, 7])
    arcs, found = arcs_on(images, HSC_WIDE, indices=indices)
    for row in (0, 3, 4):
        alone, parameters = arcs_on(images[row : row + 1], HSC_WIDE, indices=indices[row : row + 1])
        assert alone[0] == pytest.approx(arcs[row], abs=1e-4 * arcs[row].max())
        assert parameters["einstein_radius_arcsec"][0] == found["einstein_radius_arcsec"][row]
    assert arcs[1] == pytest.approx(arcs[3], abs=1e-4 * arcs[1].max())
    radii = found["einstein_radius_arcsec"]
    assert len(set(radii.tolist())) == 6
    other_seed = arcs_on(images, HSC_WIDE, seed=2, indices=indices)[1]["einstein_radius_arcsec"]
    assert not np.isin(other_seed, radii).any()


def test_large_batches_are_done_in_parts_without_a_change(monkeypatch):
    from lensray.simulation import injection

    images = many(5)
    whole, _ = arcs_on(images, HSC_WIDE)
    monkeypatch.setattr(injection, "MICRO_BATCH", 2)
    parts, _ = arcs_on(images, HSC_WIDE)
    assert parts == pytest.approx(whole, abs=1e-4 * whole.max())


def test_nothing_but_arcs_is_changed():
    images = np.concatenate([galaxy(), galaxy(radius=0.01), galaxy(seed=5), galaxy(mag=(30.0, 30.0, 30.0))])
    images[2, 1, 3:6, 4:9] = np.nan
    images[1, :, :, 40:] = np.nan
    before = images.copy()
    images.flags.writeable = False
    found = inject(images, HSC_WIDE, seed=1, indices=np.arange(4))
    assert found.hosts.plausible.tolist() == [True, False, True, False]
    assert images.tobytes() == before.tobytes()
    for row in (1, 3):
        assert found.images[row].tobytes() == before[row].tobytes()
    assert np.array_equal(np.isnan(found.images), np.isnan(before))
    assert found.images.dtype == before.dtype
    for values in found.parameters.values():
        assert np.isfinite(values).tolist() == [True, False, True, False]


def test_no_plausible_deflector_is_no_change():
    images = many(2, mag=(30.0, 30.0, 30.0))
    found = inject(images, HSC_WIDE, seed=1, indices=np.arange(2))
    assert set(found.hosts.status) == {HostStatus.NO_OBJECT}
    assert np.array_equal(found.images, images)
    assert found.parameters == {}


def test_float16_keeps_its_type_and_its_limits():
    half = np.concatenate([galaxy(), galaxy()]).astype(np.float16)
    half[1, :, 10, 10] = np.finfo(np.float16).max
    hosts = measure_hosts(np.repeat(half[:1], 2, axis=0), HSC_WIDE)
    found = inject(half, HSC_WIDE, seed=1, indices=np.arange(2), hosts=hosts)
    assert found.images.dtype == np.float16
    assert np.isfinite(found.images).all()
    single = inject(half.astype(np.float32), HSC_WIDE, seed=1, indices=np.arange(2), hosts=hosts)
    difference = np.abs(found.images.astype(np.float32) - single.images)
    assert (difference <= 2**-10 * np.abs(single.images) + 1e-3).all()


def test_a_single_band_and_frames_that_are_not_square():
    image = galaxy(COSMOS_ACS, 128, mag=(20.3,), radius=0.5)[:, :, :, 10:120]
    arcs, found = arcs_on(np.repeat(image, 3, axis=0), COSMOS_ACS)
    flux = 10 ** (0.4 * (COSMOS_ACS.zero_point_mag[0] - found["arc_mag"]))
    assert arcs.shape == (3, 1, 128, 110)
    assert arcs.sum((1, 2, 3)) == pytest.approx(flux, rel=0.05)


def test_bytes_and_wrong_shapes_are_refused():
    image = galaxy()
    with pytest.raises(InputError, match="linear pixels, but these are uint8"):
        inject(image.astype(np.uint8), HSC_WIDE, seed=1, indices=np.arange(1))
    with pytest.raises(ValueError, match="2 indices"):
        inject(image, HSC_WIDE, seed=1, indices=np.arange(2))
    with pytest.raises(ValueError, match="1 bands"):
        inject(image, COSMOS_ACS, seed=1, indices=np.arange(1))
