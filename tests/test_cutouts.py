"""Cutout surveys: every kind of image column comes back as it went in, and bad ones get a reason."""

import gzip
import io
import json
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from PIL import Image

from lensray import cutouts
from lensray.cutouts import CutoutFormat, images_of, make_table, read_format, write_survey
from lensray.errors import InputError
from lensray.io import storage

BANDS = ("g", "r", "i")
META = {"survey": "toy", "bands": ["g", "r", "i"], "pixel_scale_arcsec": 0.168}


def toy_format(dtype: str = "float32", size: int = 8, bands: tuple[str, ...] = BANDS) -> CutoutFormat:
    return CutoutFormat(
        survey="toy",
        bands=bands,
        pixel_scale_arcsec=0.168,
        shape=(len(bands), size, size),
        dtype=np.dtype(dtype),
    )


def noise(count: int = 5, dtype: str = "float32", size: int = 8, bands: int = 3) -> np.ndarray:
    return np.random.default_rng(1).normal(100, 30, (count, bands, size, size)).astype(dtype)


def table_of(image: pa.Array, ids: pa.Array | None = None, metadata: dict | None = META) -> pa.Table:
    ids = pa.array(range(len(image))) if ids is None else ids
    empty = pa.nulls(len(image), pa.float64())
    table = pa.table({"object_id": ids, "ra": empty, "dec": empty, "image": image})
    return table.replace_schema_metadata({"lensray.survey": json.dumps(metadata)} if metadata else None)


def through_parquet(table: pa.Table, url: str) -> pa.Table:
    """The table as a scan reads it: written by pyarrow's defaults, its format from the footer."""
    with storage.atomic_output(storage.join(url, "a.parquet")) as file:
        pq.write_table(table, file)
    with storage.open_input(storage.join(url, "a.parquet")) as file:
        return pq.read_table(file)


def fits_bytes(image: np.ndarray, dtype: str = ">f4", compress: bool = False) -> bytes:
    out = io.BytesIO()
    fits.PrimaryHDU(image.astype(dtype)).writeto(out)
    return gzip.compress(out.getvalue()) if compress else out.getvalue()


def picture_bytes(image: np.ndarray, kind: str) -> bytes:
    """`image` is (planes, height, width) of uint8."""
    out = io.BytesIO()
    pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    Image.fromarray(np.ascontiguousarray(pixels)).save(out, format=kind)
    return out.getvalue()


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
def test_survey_comes_back_as_written(any_url: str, dtype: str):
    fmt, images = toy_format(dtype), noise(23, dtype)
    ids = [f"object {i}" for i in range(23)]
    label = np.arange(23) % 3 == 0
    table = make_table(fmt, ids, images, ra=np.arange(23.0), label=label, mag_i=np.ones(23, np.float32))
    assert write_survey([table.slice(0, 10), table.slice(10)], any_url, fmt, rows_per_file=9) == 23
    files = storage.find_files(any_url)
    assert [Path(entry.path).name for entry in files] == [f"part-0000{i}.parquet" for i in range(3)]
    filesystem, _ = storage.resolve(any_url)
    parts = [pq.read_table(entry.path, filesystem=filesystem) for entry in files]
    assert [part.num_rows for part in parts] == [9, 9, 5]
    stored = pa.concat_tables(parts)
    found = read_format(stored.schema)
    assert found == fmt
    decoded, status = images_of(stored, found)
    assert decoded.dtype == dtype
    np.testing.assert_array_equal(decoded, images)
    assert set(status) == {"ok"}
    assert stored.drop_columns("image").equals(table.drop_columns("image"))
    assert stored["dec"].null_count == 23


def test_footer_alone_gives_the_format(tmp_path: Path):
    write_survey(
        [make_table(toy_format("uint8"), range(5), noise(5, "uint8"))],
        str(tmp_path / "s"),
        toy_format("uint8"),
    )
    (entry,) = storage.find_files(str(tmp_path / "s"))
    filesystem, _ = storage.resolve(str(tmp_path / "s"))
    footer = storage.read_footer(filesystem, entry.path, entry.size)
    assert read_format(footer.metadata.schema.to_arrow_schema()) == toy_format("uint8")


def test_other_pixels_give_another_footer_hash(tmp_path: Path):
    hashes = []
    for change in (0, 0, 1):
        images = noise(5)
        images[3, 1, 2, 2] += change
        url = str(tmp_path / str(len(hashes)))
        write_survey([make_table(toy_format(), range(5), images)], url, toy_format())
        (entry,) = storage.find_files(url)
        hashes.append(storage.read_footer(storage.resolve(url)[0], entry.path, entry.size).sha256)
    assert hashes[0] == hashes[1] != hashes[2]


def test_row_groups_hold_at_most_the_bytes_asked_for(tmp_path: Path):
    fmt = toy_format(size=16)
    images = noise(100, size=16)
    parts = (make_table(fmt, range(i, i + 7), images[i : i + 7]) for i in range(0, 98, 7))
    write_survey(parts, str(tmp_path / "s"), fmt, row_group_bytes=20 * 3 * 16 * 16 * 4)
    metadata = pq.read_metadata(tmp_path / "s" / "part-00000.parquet")
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [20] * 4 + [18]


def test_bytes_are_stored_as_bytes(tmp_path: Path):
    fmt = toy_format("uint8", size=32)
    images = np.random.default_rng(0).integers(0, 256, (200, 3, 32, 32)).astype(np.uint8)
    write_survey([make_table(fmt, range(200), images)], str(tmp_path / "s"), fmt)
    assert (tmp_path / "s" / "part-00000.parquet").stat().st_size < 1.1 * images.nbytes


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
def test_null_image_among_tensors(any_url: str, dtype: str):
    images = noise(4, dtype)
    column = cutouts.tensor_column(images, null=np.array([False, True, False, False]))
    table = through_parquet(table_of(column), any_url)
    decoded, status = images_of(table, read_format(table.schema))
    assert status.tolist() == ["ok", "null_image", "ok", "ok"]
    np.testing.assert_array_equal(decoded[[0, 2, 3]], images[[0, 2, 3]])
    assert not decoded[1].any()


def test_tensors_are_not_copied_and_slices_are_right():
    images = noise(10)
    table = make_table(toy_format(), range(10), images)
    decoded, _ = images_of(table, toy_format())
    assert np.shares_memory(decoded, images)
    sliced, _ = images_of(table.slice(3, 4), toy_format())
    np.testing.assert_array_equal(sliced, images[3:7])
    chunked = pa.concat_tables([table.slice(8), table.slice(2, 3)])
    np.testing.assert_array_equal(images_of(chunked, toy_format())[0], images[[8, 9, 2, 3, 4]])
    assert images_of(table.slice(0, 0), toy_format())[0].shape == (0, 3, 8, 8)


def test_tensor_with_permuted_axes_is_bands_first(tmp_path: Path):
    images = noise(4)
    storage_array = pa.FixedSizeListArray.from_arrays(pa.array(images.transpose(0, 2, 3, 1).ravel()), 192)
    tensor = pa.fixed_shape_tensor(pa.float32(), (8, 8, 3), permutation=[2, 0, 1])
    table = through_parquet(table_of(pa.ExtensionArray.from_storage(tensor, storage_array)), str(tmp_path))
    fmt = read_format(table.schema)
    assert fmt.shape == (3, 8, 8)
    np.testing.assert_array_equal(images_of(table, fmt)[0], images)


def test_images_of_two_dimensions_have_one_band():
    images = noise(4, bands=1)
    tensor = pa.fixed_shape_tensor(pa.float32(), (8, 8))
    column = pa.ExtensionArray.from_storage(tensor, cutouts.tensor_column(images).storage)
    fmt = read_format(table_of(column).schema, bands=["VIS"])
    assert fmt.shape == (1, 8, 8)
    np.testing.assert_array_equal(images_of(table_of(column), fmt)[0], images)


def test_double_precision_is_read_as_float32(tmp_path: Path):
    images = noise(4, "float64")
    table = through_parquet(table_of(cutouts.tensor_column(images)), str(tmp_path))
    fmt = read_format(table.schema)
    assert fmt.dtype == np.float32
    np.testing.assert_array_equal(images_of(table, fmt)[0], images.astype(np.float32))


def list_column(images: np.ndarray, kind: str) -> pa.Array:
    values = pa.array(images.ravel())
    size = images[0].size
    if kind == "fixed":
        return pa.FixedSizeListArray.from_arrays(values, size)
    offsets = np.arange(len(images) + 1) * size
    if kind == "large":
        return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), values)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)


@pytest.mark.parametrize("kind", ["fixed", "list", "large"])
@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "float64"])
def test_lists_of_pixels(any_url: str, kind: str, dtype: str):
    images = noise(6, dtype)
    table = through_parquet(
        table_of(list_column(images, kind), metadata={**META, "shape": [3, 8, 8]}), any_url
    )
    fmt = read_format(table.schema)
    assert fmt.encoding == "list"
    decoded, status = images_of(table, fmt)
    np.testing.assert_array_equal(decoded, images.astype(fmt.dtype))
    assert set(status) == {"ok"}
    np.testing.assert_array_equal(images_of(table.slice(2, 3), fmt)[0], images[2:5].astype(fmt.dtype))


def test_lists_of_wrong_length_and_null_pixels():
    row = list(range(192))
    rows = [row, row[:-1], None, [], [*row, 1], [None, *row[1:]], row[::-1]]
    for kind, reason in ((pa.uint8(), "corrupt_image"), (pa.float32(), "ok")):
        table = table_of(pa.array(rows, pa.list_(kind)))
        fmt = read_format(table.schema, image_shape=(3, 8, 8))
        decoded, status = images_of(table, fmt)
        wrong = "wrong_shape"
        assert status.tolist() == ["ok", wrong, "null_image", wrong, wrong, reason, "ok"]
        assert decoded[0].ravel().tolist() == row
        assert decoded[6].ravel().tolist() == row[::-1]
        assert not decoded[1:5].any()
        assert (decoded[5] == 0).all() or np.isnan(decoded[5, 0, 0, 0])


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_fits_png_and_jpeg_bytes(any_url: str, kind: pa.DataType):
    rows = noise(4)
    picture = noise(1, "uint8", bands=3)[0]
    values = [
        fits_bytes(rows[0]),
        fits_bytes(rows[1], compress=True),
        fits_bytes(rows[2], ">f8"),
        picture_bytes(picture, "PNG"),
        None,
        b"",
        b"SIMPLE  = nonsense",
        fits_bytes(rows[3])[:3000],
        picture_bytes(picture, "PNG")[:60],
        fits_bytes(rows[3][:2]),
        picture_bytes(picture[:1], "PNG"),
        fits_bytes(rows[3, :, :, :7]),
    ]
    table = through_parquet(table_of(pa.array(values, kind), metadata={**META, "shape": [3, 8, 8]}), any_url)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decoded, status = images_of(table, read_format(table.schema))
    assert status.tolist() == ["ok"] * 4 + ["null_image"] + ["corrupt_image"] * 4 + ["wrong_shape"] * 3
    np.testing.assert_array_equal(decoded[:3], rows[:3])
    np.testing.assert_array_equal(decoded[3], picture)
    assert decoded.dtype == np.float32
    assert not decoded[4:].any()


def test_jpeg_bytes_are_planes_of_the_picture():
    smooth = (np.add.outer(np.arange(32), np.arange(32)) * 3 + np.zeros((3, 1, 1))).astype(np.uint8)
    smooth[1] = 255 - smooth[1]
    table = table_of(
        pa.array([picture_bytes(smooth, "JPEG"), picture_bytes(smooth, "JPEG")[:200]], pa.binary())
    )
    decoded, status = images_of(table, read_format(table.schema, image_shape=(3, 32, 32)))
    assert status.tolist() == ["ok", "corrupt_image"]
    assert np.abs(decoded[0] - smooth).mean() < 6


def test_grey_picture_is_one_band_and_alpha_is_none():
    grey = noise(1, "uint8", bands=1)[0]
    out = io.BytesIO()
    rgba = np.concatenate([np.repeat(grey, 3, 0), np.full((1, 8, 8), 9, np.uint8)]).transpose(1, 2, 0)
    Image.fromarray(np.ascontiguousarray(rgba)).save(out, format="PNG")
    table = table_of(pa.array([picture_bytes(grey, "PNG"), out.getvalue()], pa.binary()), metadata=None)
    one = read_format(table.schema, bands=["VIS"], pixel_scale_arcsec=0.1, image_shape=(1, 8, 8))
    three = read_format(table.schema, bands=BANDS, pixel_scale_arcsec=0.1, image_shape=(3, 8, 8))
    assert images_of(table, one)[1].tolist() == ["ok", "wrong_shape"]
    decoded, status = images_of(table, three)
    assert status.tolist() == ["wrong_shape", "ok"]
    np.testing.assert_array_equal(decoded[1], np.repeat(grey, 3, 0))


def test_fits_file_with_an_image_a_band():
    image = noise(1)[0]
    out = io.BytesIO()
    hdus = [
        fits.PrimaryHDU(),
        *(fits.ImageHDU(plane, name=band) for plane, band in zip(image, BANDS, strict=True)),
    ]
    fits.HDUList(hdus).writeto(out)
    table = table_of(pa.array([out.getvalue()], pa.binary()))
    decoded, status = images_of(table, read_format(table.schema, image_shape=(3, 8, 8)))
    assert status.tolist() == ["ok"]
    np.testing.assert_array_equal(decoded[0], image)


@pytest.mark.parametrize(
    "ids", [pa.array([1, 2], pa.uint16()), pa.array(["a", "b"]), pa.array(["a", "b"], pa.large_string())]
)
def test_ids_may_be_integers_or_strings(ids: pa.Array):
    assert read_format(table_of(cutouts.tensor_column(noise(2)), ids).schema).bands == BANDS


def bad_schema(change: str) -> pa.Schema:
    table = table_of(cutouts.tensor_column(noise(2)))
    if change.startswith("no "):
        return table.drop_columns(change[3:]).schema
    name, kind = change.split(":")
    index = table.column_names.index(name)
    types = {"double": pa.float64(), "string": pa.string(), "int": pa.list_(pa.int64()), "bool": pa.bool_()}
    return table.set_column(index, name, pa.nulls(2, types[kind])).schema


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("no object_id", "lacks the column object_id; it has ra, dec, image"),
        ("no ra", "lacks the column ra"),
        ("no image", "lacks the column image"),
        ("object_id:double", "'object_id' must be an integer or a string but is double"),
        ("ra:string", "'ra' must be float64 .* but is string"),
        ("image:string", "'image' must hold images .* but is string"),
        ("image:int", "the pixels of column 'image' are int64"),
    ],
)
def test_bad_columns_are_named(change: str, words: str):
    with pytest.raises(InputError, match=words) as error:
        read_format(bad_schema(change))
    assert "\n" not in str(error.value)


def test_survey_without_metadata_needs_bands_and_pixel_scale():
    table = table_of(cutouts.tensor_column(noise(2)), metadata=None)
    for arguments in ({}, {"bands": BANDS}, {"pixel_scale_arcsec": 0.2}):
        with pytest.raises(InputError, match=r"pass --bands .* and --pixel-scale"):
            read_format(table.schema, **arguments)
    fmt = read_format(table.schema, bands=BANDS, pixel_scale_arcsec=0.2)
    assert (fmt.bands, fmt.pixel_scale_arcsec, fmt.survey) == (BANDS, 0.2, "unknown")


def test_arguments_correct_the_metadata():
    schema = table_of(cutouts.tensor_column(noise(2))).schema
    assert read_format(schema, bands=("i", "r", "g"), pixel_scale_arcsec=0.5).bands == ("i", "r", "g")
    with pytest.raises(InputError, match=r"3 planes but 2 bands are named \(g, r\)"):
        read_format(schema, bands=("g", "r"))
    with pytest.raises(InputError, match="not all different"):
        read_format(schema, bands=("g", "r", "g"))


@pytest.mark.parametrize("text", [b"{", b"[1]", b'"x"', b'{"bands": 3, "pixel_scale_arcsec": "x"}'])
def test_damaged_metadata_is_answered(text: bytes):
    table = table_of(cutouts.tensor_column(noise(2))).replace_schema_metadata({"lensray.survey": text})
    with pytest.raises(InputError, match=r"lensray\.survey"):
        read_format(table.schema)


def test_lists_and_bytes_need_a_shape():
    table = table_of(list_column(noise(2), "list"))
    with pytest.raises(InputError, match="--image-shape"):
        read_format(table.schema)
    with pytest.raises(InputError, match="bands × height × width"):
        read_format(table.schema, image_shape=(3, 0, 8))


def test_column_of_another_resolution_has_its_own_description():
    table = table_of(cutouts.tensor_column(noise(2)))
    table = table.append_column("image_nisp", cutouts.tensor_column(noise(2, bands=2, size=4)))
    with pytest.raises(InputError, match="bands and pixel scale of 'image_nisp'"):
        read_format(table.schema, column="image_nisp")
    meta = {**META, "images": {"image_nisp": {"bands": ["Y", "J"], "pixel_scale_arcsec": 0.3}}}
    table = table.replace_schema_metadata({"lensray.survey": json.dumps(meta)})
    fmt = read_format(table.schema, column="image_nisp")
    assert (fmt.bands, fmt.pixel_scale_arcsec, fmt.shape) == (("Y", "J"), 0.3, (2, 4, 4))
    assert read_format(table.schema).bands == BANDS


def test_make_table_refuses_images_of_another_format():
    with pytest.raises(ValueError, match="the format says float32"):
        make_table(toy_format(), range(2), noise(2, "uint8"))


def test_survey_is_not_written_over_another(any_url: str):
    table = make_table(toy_format(), range(5), noise())
    write_survey([table], any_url, toy_format())
    with pytest.raises(InputError, match="holds Parquet files already"):
        write_survey([table], any_url, toy_format())


def test_append_adds_files_of_the_same_format(any_url: str):
    fmt, images = toy_format(), noise()
    write_survey([make_table(fmt, list("abcde"), images, label=[True] * 5)], any_url, fmt)
    write_survey([make_table(fmt, range(5), images[::-1])], any_url, fmt, append=True)
    filesystem, _ = storage.resolve(any_url)
    whole = pa.concat_tables(
        [pq.read_table(e.path, filesystem=filesystem) for e in storage.find_files(any_url)]
    )
    assert whole["object_id"].to_pylist() == [*"abcde", *"01234"]
    assert whole["label"].to_pylist() == [True] * 5 + [None] * 5
    np.testing.assert_array_equal(images_of(whole, fmt)[0], np.concatenate([images, images[::-1]]))


def test_append_refuses_another_format(tmp_path: Path):
    url = str(tmp_path / "s")
    write_survey([make_table(toy_format(), range(5), noise())], url, toy_format())
    others = {
        "bands": (toy_format(bands=("g", "r", "z")), {}),
        "'image'": (toy_format("uint8"), {}),
        "lacks the column mag": (toy_format(), {"mag": [1.0] * 5}),
    }
    for words, (fmt, columns) in others.items():
        with pytest.raises(InputError, match=words):
            write_survey(
                [make_table(fmt, range(5), noise(dtype=str(fmt.dtype)), **columns)], url, fmt, append=True
            )
    assert storage.list_names(*storage.resolve(url)) == ["part-00000.parquet"]


def test_failure_on_the_way_leaves_no_survey(any_url: str):
    def parts():
        yield make_table(toy_format(), range(5), noise())
        raise RuntimeError("lost")

    with pytest.raises(RuntimeError, match="lost"):
        write_survey(parts(), any_url, toy_format(), rows_per_file=2)
    if storage.exists(any_url):
        assert storage.list_names(*storage.resolve(any_url)) == []


def test_nothing_to_write_is_answered(tmp_path: Path):
    with pytest.raises(InputError, match="no cutout to write"):
        write_survey([], str(tmp_path / "s"), toy_format())
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file"):
        write_survey([], str(tmp_path / "file"), toy_format())
