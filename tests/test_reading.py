"""A survey's table to packed images: several columns, each with a scale of its own."""

from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given

from lensray import cutouts
from lensray.augmentation import SYMMETRIES, symmetry
from lensray.bundle import FurtherImages, Inputs
from lensray.errors import InputError
from lensray.reading import blank_images, pack_planes, read_formats, read_images

FINE = cutouts.CutoutFormat(survey="toy", bands=("VIS",), pixel_scale_arcsec=0.1, shape=(1, 12, 12))
COARSE = cutouts.CutoutFormat(
    survey="toy", bands=("Y", "J"), pixel_scale_arcsec=0.3, shape=(2, 4, 4), column="image_nisp"
)
NISP = FurtherImages(column="image_nisp", bands=("Y", "J"), height=4, width=4, pixel_scale_arcsec=0.3)
INPUTS = Inputs(bands=("VIS",), height=12, width=12, pixel_scale_arcsec=0.1, further=(NISP,))


def pixels(fmt, count=6, seed=0):
    return np.random.default_rng(seed).normal(size=(count, *fmt.shape)).astype(fmt.dtype)


def survey(vis=None, nisp=None, count=6):
    vis = pixels(FINE, count) if vis is None else vis
    nisp = pixels(COARSE, count, 1) if nisp is None else nisp
    return cutouts.add_images(cutouts.make_table(FINE, np.arange(count), vis), COARSE, nisp)


def test_planes_of_both_columns_are_packed_and_come_out_again_exactly():
    table = survey()
    images, status = read_images(table, read_formats(table.schema, INPUTS), INPUTS)
    assert images.shape == (6, *INPUTS.shape) == (6, 3, 12, 12)
    assert status.tolist() == ["ok"] * 6
    np.testing.assert_array_equal(images[:, :1], pixels(FINE))
    np.testing.assert_array_equal(images[:, 1:, 4:8, 4:8], pixels(COARSE, seed=1))
    outside = images[:, 1:].copy()
    outside[:, :, 4:8, 4:8] = 0
    assert not outside.any()


@given(st.integers(0, SYMMETRIES - 1))
def test_packing_commutes_with_the_symmetries_of_the_square(element):
    import torch

    first, second = torch.from_numpy(pixels(FINE)), torch.from_numpy(pixels(COARSE))
    turned_after = symmetry(torch.from_numpy(pack_planes(first.numpy(), [second.numpy()])), element)
    turned_before = pack_planes(symmetry(first, element).numpy(), [symmetry(second, element).numpy()])
    np.testing.assert_array_equal(turned_after.numpy(), turned_before)


def test_one_column_is_read_as_it_is_without_a_copy():
    inputs = replace(INPUTS, further=())
    table = survey()
    images, _ = read_images(table, read_formats(table.schema, inputs), inputs)
    assert images.shape == (6, 1, 12, 12)
    assert not images.flags.owndata


def test_a_row_is_fit_only_if_all_its_images_are_and_the_first_reason_wins():
    vis, nisp = pixels(FINE), pixels(COARSE, seed=1)
    nisp[1, 0, 0, 0] = np.nan
    nisp[2, 1] = 3
    vis[3], nisp[3] = 7, np.inf
    vis[4, 0, 0, 0] = np.nan
    nisp[5, 1] = nisp[5, 0]
    table = survey(vis, nisp)
    formats = read_formats(table.schema, INPUTS)
    _, status = read_images(table, formats, INPUTS)
    assert status.tolist() == ["ok", "nan", "constant", "constant", "nan", "duplicate_bands"]
    images, status = read_images(table, formats, replace(INPUTS, max_nan_fraction=0.1))
    assert status.tolist() == ["ok", "filled_nan", "constant", "constant", "filled_nan", "duplicate_bands"]
    assert np.isfinite(images[[0, 1, 4]]).all()


def test_a_filled_row_still_gets_the_reason_of_its_other_column():
    vis, nisp = pixels(FINE), pixels(COARSE, seed=1)
    vis[0, 0, 0, 0], nisp[0] = np.nan, np.inf
    table = survey(vis, nisp)
    _, status = read_images(table, read_formats(table.schema, INPUTS), replace(INPUTS, max_nan_fraction=0.1))
    assert status[0] == "infinite"


def test_each_column_is_fitted_to_its_own_size_and_bands():
    wanted = replace(INPUTS, height=10, width=10, further=(replace(NISP, bands=("J",), height=2, width=2),))
    table = survey()
    images, _ = read_images(table, read_formats(table.schema, wanted), wanted)
    assert images.shape == (6, 2, 10, 10)
    np.testing.assert_array_equal(images[:, 0], pixels(FINE)[:, 0, 1:11, 1:11])
    np.testing.assert_array_equal(images[:, 1, 4:6, 4:6], pixels(COARSE, seed=1)[:, 1, 1:3, 1:3])


def test_blank_images_have_the_shape_and_type_of_read_ones():
    table = survey(pixels(FINE).astype(np.float16).astype(np.float32))
    formats = read_formats(table.schema, INPUTS)
    images, _ = read_images(table, formats, INPUTS)
    blank = blank_images(4, formats, INPUTS)
    assert blank.shape == (4, *images.shape[1:])
    assert blank.dtype == images.dtype
    assert not blank.any()


def test_a_missing_or_undescribed_further_column_is_refused_with_what_to_do():
    table = survey()
    with pytest.raises(InputError, match=r"lacks the column image_nisp"):
        read_formats(table.drop_columns("image_nisp").schema, INPUTS)
    without = cutouts.make_table(FINE, np.arange(6), pixels(FINE)).append_column(
        "image_nisp", cutouts.tensor_column(pixels(COARSE))
    )
    with pytest.raises(InputError, match=r'"images": {"image_nisp"'):
        read_formats(without.schema, INPUTS)


def test_bands_and_scale_given_in_words_are_those_of_the_first_column():
    table = survey()
    formats = read_formats(table.schema, INPUTS, bands=("I",), pixel_scale_arcsec=0.2)
    assert formats["image"].bands == ("I",)
    assert formats["image_nisp"].bands == ("Y", "J")
    assert formats["image_nisp"].pixel_scale_arcsec == 0.3


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"height": 5}, "no middle"), ({"height": 14}, "do not fit"), ({"column": "image"}, "each column once")],
)
def test_further_images_that_cannot_be_packed_are_refused(change, reason):
    with pytest.raises(ValueError, match=reason):
        replace(INPUTS, further=(replace(NISP, **change),))


def test_added_images_keep_the_metadata_and_wrong_ones_are_refused():
    table = survey().replace_schema_metadata({**(survey().schema.metadata or {}), b"other": b"kept"})
    again = cutouts.add_images(table, replace(COARSE, column="image_2"), pixels(COARSE))
    assert (again.schema.metadata or {})[b"other"] == b"kept"
    assert cutouts.read_format(again.schema, column="image_nisp").bands == ("Y", "J")
    assert cutouts.read_format(again.schema, column="image_2").shape == (2, 4, 4)
    with pytest.raises(ValueError, match="the format says"):
        cutouts.add_images(table, COARSE, pixels(FINE))


def test_nulls_and_lists_of_a_further_column_have_their_status():
    nisp = pixels(COARSE, seed=1)
    column = pa.array([None if i == 2 else image.ravel().tolist() for i, image in enumerate(nisp)])
    described = survey()
    table = described.set_column(4, "image_nisp", column.cast(pa.list_(pa.float32())))
    metadata = (described.schema.metadata or {})[cutouts.METADATA_KEY]
    table = table.replace_schema_metadata(
        {
            cutouts.METADATA_KEY: metadata.replace(
                b'"pixel_scale_arcsec": 0.3', b'"pixel_scale_arcsec": 0.3, "shape": [2, 4, 4]'
            )
        }
    )
    images, status = read_images(table, read_formats(table.schema, INPUTS), INPUTS)
    assert status.tolist() == ["ok", "ok", "null_image", "ok", "ok", "ok"]
    np.testing.assert_array_equal(images[0, 1:, 4:8, 4:8], nisp[0])
