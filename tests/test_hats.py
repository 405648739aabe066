"""HATS catalogues, with the `hats` package as the reader that ours must satisfy."""

import logging
from pathlib import Path

import hats
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hats.catalog.dataset.table_properties import TableProperties
from hats.io.validation import is_valid_catalog
from hats.pixel_math.spatial_index import compute_spatial_index

from lensray.errors import InputError
from lensray.io import storage
from lensray.io.hats import hats_columns, table_files, write_hats


def candidates(count: int = 3000, seed: int = 0) -> pa.Table:
    """Half of the rows in one degree, the others all over the sky."""
    rng = np.random.default_rng(seed)
    ra, dec = rng.uniform(0, 360, count), np.degrees(np.arcsin(rng.uniform(-1, 1, count)))
    ra[::2], dec[::2] = rng.uniform(150, 151, ra[::2].size), rng.uniform(2, 3, ra[::2].size)
    names = [f"J{i}" for i in range(count)]
    return pa.table({"object_id": names, "ra": ra, "dec": dec, "score": rng.random(count, np.float32)})


def rows_of(url: str) -> pa.Table:
    filesystem, _ = storage.resolve(url)
    files = table_files(url)
    return pa.concat_tables([pq.ParquetFile(entry.path, filesystem=filesystem).read() for entry in files])


@pytest.mark.parametrize("max_rows", [100, 10_000])
def test_the_hats_package_finds_the_catalogue_valid_and_its_rows_where_they_belong(
    tmp_path, max_rows, caplog
):
    table = candidates()
    with caplog.at_level(logging.WARNING):
        assert write_hats(table, str(tmp_path), "found", max_rows=max_rows) == 3000
        assert is_valid_catalog(tmp_path, strict=True)
    assert caplog.text == ""
    catalogue = hats.read_hats(tmp_path)
    assert (catalogue.catalog_name, len(catalogue)) == ("found", 3000)
    assert catalogue.schema.names == ["_healpix_29", *table.column_names]
    for pixel in catalogue.get_healpix_pixels():
        rows = catalogue.read_pixel_to_pandas(pixel)
        index = rows["_healpix_29"].to_numpy()
        assert 0 < len(rows) <= max_rows
        assert (index >> 2 * (29 - pixel.order) == pixel.pixel).all()
        assert (np.diff(index) >= 0).all()
    assert rows_of(str(tmp_path)).drop_columns("_healpix_29").sort_by("object_id") == table.sort_by(
        "object_id"
    )
    footer = pq.read_metadata(tmp_path / "dataset/_metadata")
    assert (footer.num_rows, footer.num_row_groups) == (3000, len(catalogue.get_healpix_pixels()))


def test_index_properties_and_the_moc_are_those_of_the_hats_package(tmp_path):
    write_hats(candidates(), str(tmp_path), "found", max_rows=100)
    rows = rows_of(str(tmp_path))
    expected = compute_spatial_index(rows["ra"].to_numpy(), rows["dec"].to_numpy())
    np.testing.assert_array_equal(rows["_healpix_29"].to_numpy(), expected)
    properties = TableProperties.read_from_dir(tmp_path)
    assert (properties.ra_column, properties.dec_column, properties.total_rows) == ("ra", "dec", 3000)
    assert (properties.healpix_column, properties.healpix_order) == ("_healpix_29", 29)
    coverage = hats.read_hats(tmp_path).partition_info.calculate_fractional_coverage()
    assert properties.moc_sky_fraction == pytest.approx(coverage, rel=1e-5)


def test_rows_without_a_position_are_left_out_and_equal_positions_stay_together(tmp_path):
    table = pa.table(
        {"id": range(8), "RA": [10.0] * 5 + [None, float("nan"), 400.0], "DEC": [-20.0] * 5 + [1.0, 1.0, 1.0]}
    )
    assert write_hats(table, str(tmp_path), "found", ra="RA", dec="DEC", max_rows=2) == 5
    assert is_valid_catalog(tmp_path, strict=True)
    assert rows_of(str(tmp_path))["id"].to_pylist() == [0, 1, 2, 3, 4]
    assert write_hats(table.slice(5), str(tmp_path), "none", ra="RA", dec="DEC") == 0
    assert list(tmp_path.iterdir()) == []


def test_writing_again_leaves_nothing_of_the_catalogue_before(tmp_path):
    write_hats(candidates(), str(tmp_path), "found", max_rows=50)
    write_hats(candidates(40, seed=1), str(tmp_path), "found")
    assert is_valid_catalog(tmp_path, strict=True)
    assert rows_of(str(tmp_path)).num_rows == 40


def test_a_catalogue_on_s3_is_that_on_disk(tmp_path, s3_url):
    for url in (str(tmp_path), s3_url):
        write_hats(candidates(500), url, "found", max_rows=100)
    assert rows_of(s3_url) == rows_of(str(tmp_path))
    assert hats_columns(s3_url) == ("ra", "dec")


def test_a_collection_is_its_primary_catalogue_and_its_thumbnail_is_no_rows_of_it(tmp_path):
    write_hats(candidates(), str(tmp_path / "objects"), "found", max_rows=100)
    hats.io.write_parquet_metadata(tmp_path / "objects", create_thumbnail=True)
    thumbnail = (tmp_path / "objects/data_thumbnail.parquet").read_bytes()
    (tmp_path / "objects/dataset/data_thumbnail.parquet").write_bytes(
        thumbnail
    )  # where older versions put it
    text = "obs_collection=all\nhats_primary_table_url=objects\nall_margins=objects_10arcs\n"
    (tmp_path / "collection.properties").write_text(text)
    assert hats_columns(str(tmp_path)) == ("ra", "dec")
    assert rows_of(str(tmp_path)).num_rows == rows_of(str(tmp_path / "objects")).num_rows == 3000


def test_properties_as_java_writes_them_are_understood(tmp_path):
    text = "# a catalogue\nobs_collection = gaia\ndataproduct_type: object\nhats_col_ra=ra\\:deg\nhats_col_dec=DEC deg\n"
    (tmp_path / "properties").write_text(text)
    assert hats_columns(str(tmp_path)) == ("ra:deg", "DEC deg")
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset/data_thumbnail.parquet").touch()
    with pytest.raises(InputError, match="holds no partitions"):
        table_files(str(tmp_path))


def test_other_folders_are_no_hats_columns(tmp_path):
    assert hats_columns(str(tmp_path)) is None
    assert hats_columns(str(tmp_path / "missing")) is None
    (tmp_path / "properties").write_text("colour=blue\n")
    assert hats_columns(str(tmp_path)) is None
    Path(tmp_path / "file.parquet").touch()
    assert hats_columns(str(tmp_path / "file.parquet")) is None
    assert [Path(entry.path).name for entry in table_files(str(tmp_path))] == ["file.parquet"]


@pytest.mark.parametrize(
    "text",
    [
        "obs_collection=x\ndataproduct_type=index\nhats_index_column=id\n",
        "obs_collection=x\ndataproduct_type=margin\nhats_col_ra=ra\nhats_col_dec=dec\n",
        "obs_collection=x\ndataproduct_type=object\n",
    ],
)
def test_catalogues_that_hold_no_objects_of_their_own_are_refused(tmp_path, text):
    (tmp_path / "hats.properties").write_text(text)
    with pytest.raises(InputError, match="give one of objects or sources"):
        hats_columns(str(tmp_path))
