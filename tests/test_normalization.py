import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.exposure import match_histograms

from lensray.errors import InputError
from lensray.normalization import (
    Arcsinh,
    HistogramTransform,
    PercentileClip,
    SigmaClip,
    Template,
    dim_galaxy_template,
    from_config,
    image_adjust,
    percentile_limits,
    template_from_image,
    to_config,
)

TEMPLATE = dim_galaxy_template(size=40)
ALL = [
    PercentileClip(),
    PercentileClip(percent=5, quantize=False),
    HistogramTransform(TEMPLATE),
    SigmaClip(),
    SigmaClip(low=-1, high=1, scale=100, mean=(10.0, 10.0), sigma=(2.0, 2.0)),
    Arcsinh(softening=3.0),
]
TYPES = [torch.uint8, torch.float16, torch.float32]


def sky_with_galaxy(batch=4, bands=2, size=20, seed=0):
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] - size / 2
    return (generator.normal(10, 1, (batch, bands, size, size)) + 80 * np.exp(-np.hypot(x, y))).astype(
        np.float32
    )


images = hnp.arrays(
    np.float32,
    st.tuples(st.just(2), st.just(2), st.integers(2, 9), st.integers(2, 9)),
    # Few values, so that there are many ties.
    elements=st.sampled_from([-3.5, -1.0, -0.0, 0.0, 0.25, 1.0, 2.0, 7.0, 1e4])
    | st.floats(-100, 100, width=32),
)


@pytest.mark.parametrize("normalization", ALL)
@pytest.mark.parametrize("dtype", TYPES)
def test_every_normalization_gives_finite_float32_of_the_same_shape_and_leaves_its_input(
    normalization, dtype
):
    stored = torch.from_numpy(sky_with_galaxy()).to(dtype)
    before = stored.clone()
    result = normalization(stored)
    assert result.dtype == torch.float32
    assert result.shape == stored.shape
    assert torch.isfinite(result).all()
    assert result.std() > 0
    assert torch.equal(stored, before)


@pytest.mark.parametrize("normalization", ALL)
@pytest.mark.parametrize("dtype", TYPES)
def test_a_constant_image_comes_out_constant_and_finite(normalization, dtype):
    result = normalization(torch.full((2, 2, 8, 8), 7, dtype=dtype))
    assert torch.isfinite(result).all()
    assert (result == result[:, :, :1, :1]).all()


@pytest.mark.parametrize("normalization", ALL)
@settings(max_examples=40, deadline=None)
@given(pixels=images)
def test_equal_pixels_stay_equal_and_order_is_kept(normalization, pixels):
    result = normalization(torch.from_numpy(pixels)).numpy()
    for before, after in zip(pixels.reshape(4, -1), result.reshape(4, -1), strict=True):
        order = np.argsort(before)
        steps, changes = np.diff(before[order]), np.diff(after[order])
        assert (changes >= 0).all()
        assert (changes[steps == 0] == 0).all()


@pytest.mark.parametrize("normalization", ALL)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_nan_pixels_become_zero_and_change_no_other_pixel(normalization, dtype):
    """An image with NaN pixels is normalized as the list of its other pixels."""
    whole = torch.from_numpy(sky_with_galaxy(batch=3)).to(dtype)
    holed = whole.clone()
    holed[1, :, :3] = torch.nan
    result = normalization(holed)
    assert (result[1, :, :3] == 0).all()
    torch.testing.assert_close(result[1, :, 3:], normalization(whole[1:2, :, 3:])[0], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(result[[0, 2]], normalization(whole[[0, 2]]), rtol=0, atol=0)


@pytest.mark.parametrize("normalization", ALL)
def test_an_image_of_nan_alone_comes_out_as_zeros(normalization):
    result = normalization(torch.full((1, 2, 6, 6), torch.nan))
    assert (result == 0).all()


@pytest.mark.parametrize("normalization", ALL)
def test_an_image_does_not_depend_on_its_neighbours_in_the_batch(normalization):
    batch = torch.from_numpy(sky_with_galaxy(batch=5, seed=1))
    alone = torch.cat([normalization(image[None]) for image in batch])
    torch.testing.assert_close(normalization(batch), alone, rtol=0, atol=0)


@pytest.mark.parametrize("normalization", ALL)
def test_configuration_and_arrays_rebuild_the_same_normalization(normalization):
    config, arrays = to_config(normalization)
    rebuilt = from_config(config, arrays)
    batch = torch.from_numpy(sky_with_galaxy())
    assert type(rebuilt) is type(normalization)
    assert torch.equal(rebuilt(batch), normalization(batch))


@pytest.mark.parametrize(
    ("config", "arrays", "reason"),
    [
        ({"name": "magic"}, {}, "unknown normalization 'magic'"),
        ({"name": "percentile_clip", "percent": 60}, {}, "percent must lie in"),
        ({"name": "percentile_clip", "persent": 1}, {}, "persent"),
        ({"name": "histogram_transform"}, {}, "quantiles"),
    ],
)
def test_a_wrong_configuration_is_refused(config, arrays, reason):
    with pytest.raises(InputError, match=reason):
        from_config(config, arrays)


@pytest.mark.parametrize("percent", [0.0, 0.5, 2.0, 10.0, 49.9])
@pytest.mark.parametrize("size", [2, 9, 64])
def test_percentile_limits_are_those_of_numpy(percent, size):
    pixels = np.random.default_rng(size).normal(size=(3, 2, size * size)).astype(np.float32)
    low, high = percentile_limits(torch.from_numpy(pixels), percent)
    expected = np.percentile(pixels, [percent, 100 - percent], axis=-1, keepdims=True)
    np.testing.assert_allclose(low, expected[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(high, expected[1], rtol=1e-5, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(pixels=images, holes=st.integers(0, 3), percent=st.floats(0, 45))
def test_percentile_limits_ignore_nan_as_numpy_does(pixels, holes, percent):
    pixels = pixels.reshape(2, 2, -1).copy()
    pixels[0, 0, :holes] = np.nan
    low, high = percentile_limits(torch.from_numpy(pixels), percent)
    expected = np.nanpercentile(pixels.astype(np.float64), [percent, 100 - percent], axis=-1, keepdims=True)
    np.testing.assert_allclose(low, expected[0], rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(high, expected[1], rtol=1e-5, atol=1e-4)


def test_percentile_clip_scales_what_lies_between_the_limits_to_0_and_1():
    pixels = sky_with_galaxy(size=64)
    low, high = np.percentile(pixels, [0.5, 99.5], axis=(2, 3), keepdims=True)
    expected = (np.clip(pixels, low, high) - low) / (high - low)
    np.testing.assert_allclose(PercentileClip(quantize=False)(torch.from_numpy(pixels)), expected, atol=1e-6)
    quantized = PercentileClip()(torch.from_numpy(pixels)).numpy()
    np.testing.assert_allclose(quantized, expected, atol=0.5001 / 255)
    np.testing.assert_array_equal(quantized * 255, np.rint(quantized * 255))


def test_a_stored_image_is_not_clipped_a_second_time():
    """Bright pixels just below the limit would move it inwards."""
    pixels = torch.from_numpy(sky_with_galaxy(size=64))
    clip = PercentileClip()
    stored = clip.to_uint8(pixels)
    assert stored.dtype == torch.uint8
    assert torch.equal(clip(stored), clip(pixels))
    assert torch.equal(clip.to_uint8(stored), stored)


def test_a_uint8_image_that_was_never_clipped_is_clipped():
    pixels = (torch.from_numpy(sky_with_galaxy(size=64)) * 2).to(torch.uint8)
    torch.testing.assert_close(PercentileClip()(pixels), PercentileClip()(pixels.float()), rtol=0, atol=0)


@pytest.mark.parametrize("percent", [-1, 50, float("nan")])
def test_percentile_clip_refuses_a_share_that_leaves_nothing(percent):
    with pytest.raises(ValueError, match="percent must lie in"):
        PercentileClip(percent=percent)


@settings(max_examples=40, deadline=None)
@given(pixels=images, reference=images)
def test_histogram_transform_is_that_of_scikit_image(pixels, reference):
    values, counts = np.unique(reference, return_counts=True)
    transform = HistogramTransform(Template(quantiles=np.cumsum(counts) / counts.sum(), values=values))
    result = transform(torch.from_numpy(pixels)).numpy()
    for before, after in zip(
        pixels.reshape(4, *pixels.shape[2:]), result.reshape(4, *pixels.shape[2:]), strict=True
    ):
        np.testing.assert_allclose(
            after, match_histograms(before, reference.reshape(2, -1)), rtol=1e-6, atol=1e-6
        )


def test_histogram_transform_of_uint8_is_that_of_its_values_as_floats():
    pixels = torch.from_numpy(sky_with_galaxy(size=50)).to(torch.uint8)
    transform = HistogramTransform(TEMPLATE)
    assert torch.equal(transform(pixels), transform(pixels.float()))


def test_histogram_transform_gives_the_template_back():
    pixels = sky_with_galaxy(batch=1, bands=1, size=60)
    template = Template(quantiles=np.arange(1, 3601) / 3600, values=np.linspace(0, 1, 3600) ** 2)
    result = HistogramTransform(template)(torch.from_numpy(pixels)).numpy()
    np.testing.assert_allclose(np.sort(result.ravel()), template.values, atol=1e-3)


def test_image_adjust_is_that_of_mathematica():
    """Printed by Mathematica for ImageAdjust[image, {1., .5}]."""
    image = [[0.492279, 0.413776], [0.17979, 0.510059]]
    expected = [[0.976837, 0.741327], [0.0393686, 1.0]]
    np.testing.assert_allclose(
        image_adjust(image, contrast=1.0, brightness=0.5, gamma=1.0), expected, atol=2e-6
    )


def test_a_template_from_an_image_keeps_its_distribution():
    image = np.array([[0.0, 0.01], [0.01, 0.2]])
    template = template_from_image(image)
    assert template.quantiles.tolist() == [0.25, 0.75, 1.0]
    np.testing.assert_allclose(template.values, [0.0, 3 * 0.01**0.3 - 0.5, 1.0])


def test_an_image_outside_0_and_1_makes_no_template():
    with pytest.raises(ValueError, match="from 0 to 1"):
        template_from_image([0.0, 3.0])


@pytest.mark.parametrize(
    ("quantiles", "values"),
    [([0.5, 0.5, 1], [0, 1, 2]), ([0.5, 1], [1, 0]), ([0.5, 0.9], [0, 1]), ([1], [np.nan]), ([], [])],
)
def test_a_template_that_is_no_distribution_is_refused(quantiles, values):
    with pytest.raises(ValueError, match="template"):
        Template(quantiles=np.array(quantiles), values=np.array(values))


def test_sigma_clip_is_the_standard_score_within_limits():
    pixels = sky_with_galaxy(size=30)
    score = (pixels - pixels.mean((2, 3), keepdims=True)) / pixels.std((2, 3), keepdims=True)
    expected = 2 * np.clip(score, -1.5, 4)
    result = SigmaClip(low=-1.5, high=4, scale=2)(torch.from_numpy(pixels))
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)


def test_sigma_clip_with_given_figures_is_deeplens():
    pixels = np.random.default_rng(0).normal(0, 2e-9, (2, 2, 5, 5)).astype(np.float32)
    expected = np.clip(pixels, -1e-9, 1e-9) / 1e-9 * 100
    deeplens = SigmaClip(low=-1, high=1, scale=100, mean=(0, 0), sigma=(1e-9, 1e-9))
    np.testing.assert_allclose(deeplens(torch.from_numpy(pixels)), expected, rtol=1e-5)


def test_sigma_clip_does_not_overflow():
    pixels = torch.full((1, 1, 8, 8), 1e30)
    pixels[..., 0] = -1e30
    result = SigmaClip()(pixels)
    assert torch.isfinite(result).all()
    assert result.std() > 0


def test_sigma_clip_wants_a_figure_for_each_band():
    with pytest.raises(ValueError, match="give one a band"):
        SigmaClip(mean=(0.0,))(torch.zeros(1, 3, 4, 4))


def test_arcsinh_is_linear_in_the_sky_and_logarithmic_above():
    pixels = sky_with_galaxy(batch=1, bands=1, size=51)
    median = np.median(pixels)
    sigma = 1.4826 * np.median(np.abs(pixels - median))
    expected = np.arcsinh((pixels - median) / (3 * sigma))
    np.testing.assert_allclose(Arcsinh(softening=3)(torch.from_numpy(pixels)), expected, rtol=1e-4, atol=1e-5)


def test_stored_pictures_are_not_clipped_again_whatever_their_type():
    images = torch.from_numpy(np.random.default_rng(4).standard_normal((3, 2, 40, 40)).astype(np.float32))
    stored = PercentileClip().to_uint8(images)
    torch.testing.assert_close(PercentileClip()(stored.float()), PercentileClip()(stored), rtol=0, atol=0)
