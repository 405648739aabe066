"""The training set of a phase: what is left out and counted, exactly which pixels the network sees, and in what order."""

import functools
from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rings
import torch
from scipy import ndimage

from lensray import cutouts
from lensray.bundle import Inputs
from lensray.errors import InputError
from lensray.normalization import Arcsinh, PercentileClip
from lensray.training.examples import (
    check_columns,
    check_labels,
    gather,
    parts_of,
    read_examples,
    read_part,
    to_float,
)


def survey(folder, images, labels=None, **columns):
    """A survey of one band whose images are given."""
    return rings.survey(
        folder,
        len(images),
        seed=0,
        row_group=5,
        images=images,
        labels=pa.array(np.arange(len(images)) % 2 == 1) if labels is None else labels,
        **columns,
    )


def noise(count, seed=0):
    return np.random.default_rng(seed).normal(10, 3, (count, 1, rings.SIZE, rings.SIZE)).astype(np.float32)


def test_rows_that_cannot_be_learned_are_left_out_and_counted_by_status(tmp_path):
    images = noise(14)
    images[2] = np.nan
    images[3, 0, 0, 0] = np.inf
    images[6] = 4.0
    labels = pa.array([i % 2 == 1 if i not in (4, 9) else None for i in range(14)])
    found = read_examples([survey(tmp_path / "s", images, labels)], rings.phase())
    assert found.left_out == Counter(nan=1, infinite=1, constant=1, no_label=2)
    kept = [i for i in range(14) if i not in (2, 3, 4, 6, 9)]
    assert found.labels.tolist() == [i % 2 for i in kept]
    expected = PercentileClip().to_uint8(torch.from_numpy(images[kept]))
    assert torch.equal(found.images, expected)


def test_partly_nan_images_are_kept_where_the_phase_allows_it(tmp_path):
    images = noise(8)
    images[1, 0, 0, :3] = np.nan
    url, phase = survey(tmp_path / "s", images), rings.phase()
    assert read_examples([url], phase).left_out == Counter(nan=1)
    forgiving = replace(phase, inputs=replace(phase.inputs, max_nan_fraction=0.05))
    assert len(read_examples([url], forgiving)) == 8


def test_images_of_256_levels_are_held_exactly_in_a_byte_each(tmp_path):
    images = noise(10)
    found = read_examples([survey(tmp_path / "s", images)], rings.phase())
    assert found.images.dtype == torch.uint8
    wanted = PercentileClip()(torch.from_numpy(images))
    torch.testing.assert_close(to_float(found.images), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("normalization", [PercentileClip(quantize=False), Arcsinh()], ids=["clip", "asinh"])
def test_other_images_are_held_in_half_precision(tmp_path, normalization):
    images = noise(10)
    found = read_examples([survey(tmp_path / "s", images)], rings.phase(normalization=normalization))
    assert found.images.dtype == torch.float16
    wanted = normalization(torch.from_numpy(images))
    torch.testing.assert_close(to_float(found.images), wanted, rtol=1e-3, atol=1e-3)


def test_the_order_does_not_depend_on_the_order_in_which_row_groups_come(tmp_path):
    url, phase = survey(tmp_path / "s", noise(23)), rings.phase()
    blocks = [read_part(part, phase) for part in parts_of([url])]
    assert len(blocks) > 4
    shuffled = [blocks[k] for k in np.random.default_rng(1).permutation(len(blocks))]
    first, second = gather(blocks, phase), gather([blocks[0].slice(0, 0), *shuffled], phase)
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.labels, second.labels)
    expected = PercentileClip().to_uint8(torch.from_numpy(noise(23)))
    assert torch.equal(first.images, expected)


def test_several_surveys_are_one_training_set_in_their_order(tmp_path):
    lenses = survey(tmp_path / "lenses", noise(6), pa.array([True] * 6))
    others = survey(tmp_path / "others", noise(9, seed=1), pa.array([False] * 9))
    check_labels([lenses, others], rings.phase())
    found = read_examples([lenses, others], rings.phase())
    assert found.labels.tolist() == [1] * 6 + [0] * 9


def test_cutouts_of_200_pixels_become_the_networks_100(tmp_path):
    # Smooth over a few pixels: what resampling is meant to keep.
    coarse = np.random.default_rng(2).normal(5, 1, (4, 1, 25, 25)).astype(np.float32)
    fine = np.stack([ndimage.zoom(image[0], 8, order=3)[None] for image in coarse])
    fmt = cutouts.CutoutFormat(
        survey="toy", bands=("g",), pixel_scale_arcsec=0.03, shape=(1, 200, 200), dtype=np.dtype("float32")
    )
    table = cutouts.make_table(fmt, np.arange(4), fine, label=pa.array([True, False] * 2))
    pq.write_table(table, tmp_path / "fine.parquet")
    inputs = Inputs(bands=("g",), height=100, width=100, pixel_scale_arcsec=0.06)
    phase = rings.phase(inputs=inputs, normalization=PercentileClip(quantize=False))
    found = read_examples([str(tmp_path / "fine.parquet")], phase)
    assert found.images.shape == (4, 1, 100, 100)
    means = torch.from_numpy(fine.reshape(4, 1, 100, 2, 100, 2).mean((3, 5)))
    wanted = phase.normalization(means)
    correlation = np.corrcoef(to_float(found.images).flatten(), wanted.flatten())[0, 1]
    assert correlation > 0.99


def test_targets_are_columns_and_rows_without_a_value_are_left_out(tmp_path):
    radius = pa.array([1.5, None, 0.7, float("nan"), 2.0, 1.0], pa.float32())
    flux = pa.array([1, 2, 3, 4, 5, 6], pa.int64())
    url = survey(tmp_path / "s", noise(6), radius_arcsec=radius, flux=flux)
    phase = rings.phase(targets=("radius_arcsec", "flux"), sampling="shuffled")
    check_labels([url], phase)
    found = read_examples([url], phase)
    assert found.labels.dtype == torch.float32
    np.testing.assert_allclose(found.labels, [[1.5, 1], [0.7, 3], [2.0, 5], [1.0, 6]], rtol=1e-6)
    assert found.left_out == Counter(no_label=2)


@pytest.mark.parametrize("label", [True, False])
def test_one_class_alone_is_refused_before_pixels_are_read(tmp_path, label):
    url = survey(tmp_path / "s", noise(6), pa.array([label, None] * 3))
    with pytest.raises(InputError, match=f"label true and false; of 3 {3 * label} are true"):
        check_labels([url], rings.phase())


def test_one_class_that_has_no_usable_image_is_refused_with_the_reasons(tmp_path):
    images = noise(6)
    images[1::2] = np.nan
    with pytest.raises(InputError, match=r"of 3 0 are true \(left out: 3 nan\)"):
        read_examples([survey(tmp_path / "s", images)], rings.phase())


def test_a_set_without_a_usable_image_is_refused_with_the_reasons(tmp_path):
    with pytest.raises(InputError, match=r"no usable image \(left out: 6 constant\)"):
        read_examples([survey(tmp_path / "s", np.ones((6, 1, 16, 16), np.float32))], rings.phase())


def test_a_survey_without_the_label_is_refused_with_the_columns_that_it_has(tmp_path):
    url = survey(tmp_path / "s", noise(6))
    with pytest.raises(InputError, match=r"no column 'grade'.*'label'"):
        check_columns([url], rings.phase(label="grade"))
    with pytest.raises(InputError, match=r"no column 'grade'"):
        read_examples([url], rings.phase(label="grade"))


@pytest.mark.parametrize("values", [[0, 1] * 3, ["lens", "none"] * 3], ids=["numbers", "words"])
def test_a_label_that_is_no_bool_is_refused(tmp_path, values):
    url = survey(tmp_path / "s", noise(6), pa.array(values))
    with pytest.raises(InputError, match=r"column 'label' .* must be bool"):
        check_labels([url], rings.phase())


def test_a_target_that_is_no_number_is_refused(tmp_path):
    url = survey(tmp_path / "s", noise(6), radius=pa.array(["wide"] * 6))
    with pytest.raises(InputError, match=r"column 'radius' .* must be a number"):
        check_columns([url], rings.phase(targets=("radius",)))


def test_a_survey_of_other_bands_is_refused(tmp_path):
    url, phase = survey(tmp_path / "s", noise(6)), rings.phase()
    with pytest.raises(InputError, match=r"needs the bands \['z'\] but 'image' of .* has \['g'\]"):
        check_columns([url], replace(phase, inputs=replace(phase.inputs, bands=("z",))))


def test_row_groups_are_numbered_through_all_surveys(tmp_path):
    urls = [survey(tmp_path / name, noise(12)) for name in ("a", "b")]
    parts = parts_of(urls)
    assert [part["part"] for part in parts] == list(range(len(parts)))
    rows = functools.reduce(lambda total, part: total + read_part(part, rings.phase()).num_rows, parts, 0)
    assert rows == 24
