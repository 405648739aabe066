"""Surveys joined to one: images on common pixels, ids that stay different, and the columns of all."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import surveys

from lensray.cutouts import CutoutFormat, images_of, make_table, read_format, tensor_column, write_survey
from lensray.distributed.planning import ScanConfig, plan_scan
from lensray.errors import InputError
from lensray.extraction import joining, object_ids
from lensray.extraction.config import MadeSurvey, MakeCutoutsConfig
from lensray.extraction.joining import join_surveys
from lensray.extraction.stamps import make_survey
from lensray.io import storage

RNG = np.random.default_rng(8)
GRI = ("g", "r", "i")


def write(
    url: Path | str, ids: Any, images: np.ndarray, bands=GRI, scale: float = 0.2, null=None, **columns: Any
) -> str:
    """A survey of these images; its address."""
    fmt = CutoutFormat(
        survey="toy", bands=bands, pixel_scale_arcsec=scale, shape=images.shape[1:], dtype=images.dtype
    )
    column = tensor_column(images, null=None if null is None else np.array(null))
    write_survey([make_table(fmt, ids, column, **columns)], str(url), fmt)
    return str(url)


def noise(*shape: int) -> np.ndarray:
    return RNG.normal(0, 1, shape).astype(np.float32)


def gaussians(count: int, size: int, scale: float, sigma_arcsec: float = 0.6) -> np.ndarray:
    """A round Gaussian of the surface brightness 1, 2 and 3 in three planes."""
    grid = (np.arange(size) - (size - 1) / 2) * scale
    blob = np.exp(-(grid[:, None] ** 2 + grid**2) / (2 * sigma_arcsec**2))
    return np.broadcast_to(np.arange(1, 4)[:, None, None] * blob, (count, 3, size, size)).astype(np.float32)


def join(*urls: str, output: Path | str, **options: Any) -> MadeSurvey:
    return join_surveys(MakeCutoutsConfig(surveys=urls, output=str(output), **options))


def read(url: Path | str) -> tuple[pa.Table, np.ndarray, list[str]]:
    filesystem, _ = storage.resolve(str(url))
    files = storage.find_files(str(url))
    table = pa.concat_tables([pq.read_table(entry.path, filesystem=filesystem) for entry in files])
    images, status = images_of(table, read_format(table.schema))
    return table, images, status.tolist()


def test_bands_scale_and_size_become_those_of_the_first(tmp_path: Path):
    a = write(tmp_path / "a", ["x"], gaussians(1, 32, 0.2))
    b = write(tmp_path / "b", ["y"], gaussians(1, 60, 0.15)[:, ::-1], bands=GRI[::-1], scale=0.15)
    made = join(a, b, output=tmp_path / "out")
    table, images, _ = read(tmp_path / "out")
    assert (made.rows, made.format.bands, made.format.pixel_scale_arcsec) == (2, GRI, 0.2)
    assert table["object_id"].to_pylist() == ["x", "y"]
    np.testing.assert_array_equal(images[0], gaussians(1, 32, 0.2)[0])
    np.testing.assert_allclose(images[1], gaussians(1, 32, 0.2)[0], atol=0.02)


def test_bands_scale_and_size_of_the_options(tmp_path: Path):
    a = write(tmp_path / "a", [1], gaussians(1, 32, 0.2))
    made = join(a, output=tmp_path / "out", keep_bands=("i", "g"), pixel_scale=0.4, size=12)
    _, images, _ = read(tmp_path / "out")
    assert made.format.shape == (2, 12, 12)
    wanted = gaussians(1, 12, 0.4)[0][[2, 0]]
    # The kernel that avoids aliasing widens this Gaussian of 1.5 new pixels a little.
    np.testing.assert_allclose(images[0], wanted, atol=0.2)
    assert images[0, 0].max() / images[0, 1].max() == pytest.approx(3, rel=1e-5)
    kept = join(a, output=tmp_path / "field", pixel_scale=0.4).format
    assert kept.shape == (3, 16, 16), "the field of view stays"


def test_integer_ids_stay_integers_if_none_clash(tmp_path: Path):
    a, b = write(tmp_path / "a", [1, 2], noise(2, 3, 8, 8)), write(tmp_path / "b", [3], noise(1, 3, 8, 8))
    join(a, b, output=tmp_path / "out")
    assert read(tmp_path / "out")[0]["object_id"].to_pylist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("first", "second", "options", "ids"),
    [
        ([1, 2], [2], {}, ["a-1", "a-2", "b-2"]),
        (["x", "y"], [7], {}, ["x", "y", "b-7"]),
        (["x", "y"], ["y"], {}, ["x", "y", "b-y"]),
        ([1, 2], [3], {"id_prefix": "p:"}, ["p:1", "p:2", "p:3"]),
    ],
)
def test_ids_get_the_name_of_their_survey_where_they_would_clash(
    tmp_path: Path, first: list, second: list, options: dict, ids: list
):
    a = write(tmp_path / "a", first, noise(2, 3, 8, 8))
    b = write(tmp_path / "b", second, noise(1, 3, 8, 8))
    join(a, b, output=tmp_path / "out", **options)
    assert read(tmp_path / "out")[0]["object_id"].to_pylist() == ids


def test_surveys_of_one_name_get_different_prefixes(tmp_path: Path):
    urls = [write(tmp_path / parent / "sim", [1], noise(1, 3, 8, 8)) for parent in "pq"]
    join(*urls, output=tmp_path / "out")
    assert read(tmp_path / "out")[0]["object_id"].to_pylist() == ["sim-1", "sim_2-1"]


def test_ids_that_are_too_many_to_compare_get_prefixes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    a, b = write(tmp_path / "a", [1, 2], noise(2, 3, 8, 8)), write(tmp_path / "b", [3], noise(1, 3, 8, 8))
    monkeypatch.setattr(object_ids, "MAX_CHECKED", 1)
    join(a, b, output=tmp_path / "out")
    assert read(tmp_path / "out")[0]["object_id"].to_pylist() == ["a-1", "a-2", "b-3"]


def test_columns_of_all_are_kept_with_nulls(tmp_path: Path):
    a = write(tmp_path / "a", ["x"], noise(1, 3, 8, 8), ra=[10.0], dec=[-5.0], label=[True], file=["f.fits"])
    b = write(
        tmp_path / "b",
        ["y"],
        noise(1, 3, 8, 8),
        is_tracer=[True],
        label=pa.array([None], pa.bool_()),
        einstein_radius_arcsec=np.array([1.5], np.float32),
        other=[[1, 2]],
    )
    made = join(a, b, output=tmp_path / "out")
    rows = read(tmp_path / "out")[0].drop_columns("image").to_pylist()
    assert rows == [
        {"object_id": "x", "ra": 10, "dec": -5, "label": True, "file": "f.fits"}
        | {"is_tracer": None, "einstein_radius_arcsec": None},
        {"object_id": "y", "ra": None, "dec": None, "label": None, "file": None}
        | {"is_tracer": True, "einstein_radius_arcsec": 1.5},
    ]
    assert made.left_out == ("other",)


def test_images_that_cannot_be_read_stay_null(tmp_path: Path):
    a = write(tmp_path / "a", [1, 2], noise(2, 3, 8, 8), null=[False, True])
    fmt = CutoutFormat(bands=GRI, pixel_scale_arcsec=0.2, shape=(3, 8, 8), encoding="list")
    lists = pa.array([[0.5] * 192, [0.5] * 7, [float("nan")] * 192], pa.list_(pa.float32()))
    write_survey([make_table(fmt, [3, 4, 5], lists)], str(tmp_path / "b"), fmt)
    made = join(a, str(tmp_path / "b"), output=tmp_path / "out")
    _, images, status = read(tmp_path / "out")
    assert status == ["ok", "null_image", "ok", "null_image", "ok"]
    assert np.isnan(images[4]).all()
    assert (images[2] == 0.5).all()
    assert (made.unreadable, made.first_problem) == (2, f"2 of {a}: null_image")


def test_float16_joins_float32_and_uint8_does_not(tmp_path: Path):
    a = write(tmp_path / "a", [1], noise(1, 3, 8, 8).astype(np.float16))
    b = write(tmp_path / "b", [2], noise(1, 3, 8, 8))
    c = write(tmp_path / "c", [3], np.full((1, 3, 8, 8), 200, np.uint8))
    assert join(a, output=tmp_path / "half").format.dtype == np.float16
    assert join(a, b, output=tmp_path / "single").format.dtype == np.float32
    np.testing.assert_array_equal(read(tmp_path / "single")[1][0], read(a)[1][0])
    with pytest.raises(InputError, match="normalized already"):
        join(b, c, output=tmp_path / "out")
    with pytest.raises(InputError, match="cannot take float32"):
        join(b, output=tmp_path / "half", append=True)


def test_bytes_stay_bytes_when_resampled(tmp_path: Path):
    planes = np.zeros((1, 3, 16, 16), np.uint8)
    planes[..., 8:] = 255
    a = write(tmp_path / "a", [1], planes)
    assert join(a, output=tmp_path / "out", pixel_scale=0.1).format.dtype == np.uint8
    row = read(tmp_path / "out")[1][0, 0, 16]
    # The cubic kernel overshoots at the edge; without clipping that would wrap around.
    assert row[:14].max() <= 20
    assert row[18:].min() >= 235


def test_rows_come_in_order_whatever_the_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    images = noise(50, 3, 8, 8)
    fmt = CutoutFormat(bands=GRI, pixel_scale_arcsec=0.2, shape=(3, 8, 8))
    write_survey([make_table(fmt, range(50), images)], str(tmp_path / "a"), fmt, rows_per_file=21)
    monkeypatch.setattr(joining, "BATCH_BYTES", 7 * 768)
    join(str(tmp_path / "a"), output=tmp_path / "out")
    table, joined, _ = read(tmp_path / "out")
    assert table["object_id"].to_pylist() == list(range(50))
    np.testing.assert_array_equal(joined, images)


def test_appended_survey_is_fitted_to_the_one_there_and_can_be_scanned(tmp_path: Path):
    real = write(
        tmp_path / "real", ["des-1", "des-2"], noise(2, 3, 32, 32), scale=0.168, is_tracer=[False] * 2
    )
    sim = write(
        tmp_path / "sim",
        [0, 1],
        noise(2, 3, 40, 40)[:, ::-1],
        GRI[::-1],
        0.2,
        is_tracer=[True] * 2,
        kind=["lens"] * 2,
    )
    made = join(sim, output=real, append=True)
    assert (made.rows, made.format.shape, made.left_out) == (2, (3, 32, 32), ("kind",))
    table, *_ = read(real)
    assert table["object_id"].to_pylist() == ["des-1", "des-2", "sim-0", "sim-1"]
    assert table["is_tracer"].to_pylist() == [False, False, True, True]
    bundle = surveys.toy_bundle(tmp_path / "toy.safetensors")
    assert plan_scan(ScanConfig(cutouts=real, output=str(tmp_path / "run"), bundle=bundle)).rows == 4
    with pytest.raises(InputError, match=r"object_id sim-0 of .* is there already"):
        join(sim, output=real, append=True)
    assert read(real)[0].num_rows == 4


def test_string_ids_that_are_there_are_refused(tmp_path: Path):
    a, b = (write(tmp_path / name, ["x"], noise(1, 3, 8, 8)) for name in "ab")
    with pytest.raises(InputError, match=r"object_id x of .* --id-prefix"):
        join(b, output=a, append=True)
    join(b, output=a, append=True, id_prefix="b:")
    assert read(a)[0]["object_id"].to_pylist() == ["x", "b:x"]


@pytest.mark.parametrize(
    ("second", "options", "words"),
    [
        ({"bands": ("g", "r", "z")}, {}, r"lacks the band i \(it has g, r, z\)"),
        ({"label": ["yes"]}, {}, "label has incompatible types"),
        ({}, {"id_prefix": "p"}, "object_id p1 of .* is there already"),
        ({"ids": ["x"]}, {"output": "a", "append": True}, "integers and cannot become strings"),
        ({}, {"output": "a", "append": True}, "object_id 1 of .* is there already"),
        ({"ids": [2], "label": ["yes"]}, {"output": "a", "append": True}, "label has incompatible types"),
    ],
)
def test_surveys_that_do_not_fit_are_refused_and_leave_nothing(
    tmp_path: Path, second: dict, options: dict, words: str
):
    a = write(tmp_path / "a", [1], noise(1, 3, 8, 8), label=[True])
    b = write(tmp_path / "b", second.pop("ids", [1]), noise(1, 3, 8, 8), **second)
    output = tmp_path / options.pop("output", "out")
    joined = (b,) if options.get("append") else (a, b)
    with pytest.raises(InputError, match=words) as error:
        join(*joined, output=output, **options)
    assert "\n" not in str(error.value)
    assert read(a)[0].num_rows == 1
    assert not (tmp_path / "out").exists()


def test_survey_named_twice_or_as_output_is_refused(tmp_path: Path):
    a = write(tmp_path / "a", [1], noise(1, 3, 8, 8))
    with pytest.raises(InputError, match="named twice"):
        join(a, f"{a}/", output=tmp_path / "out")
    with pytest.raises(InputError, match="the --output, too"):
        join(a, output=a, append=True)


def test_survey_without_bands_and_scale_is_refused(tmp_path: Path):
    a = write(tmp_path / "a", [1], noise(1, 3, 8, 8))
    path = f"{a}/part-00000.parquet"
    pq.write_table(pq.read_table(path).replace_schema_metadata(None), path)
    with pytest.raises(InputError, match=r"part-00000.parquet does not say its bands"):
        join(a, output=tmp_path / "out")


def test_surveys_are_joined_from_s3_to_s3(s3_url: str, tmp_path: Path):
    images = noise(2, 3, 8, 8)
    urls = [write(storage.join(s3_url, name), [1], images[i : i + 1]) for i, name in enumerate("ab")]
    join(*urls, output=storage.join(s3_url, "out"))
    table, joined, _ = read(storage.join(s3_url, "out"))
    assert table["object_id"].to_pylist() == ["a-1", "b-1"]
    np.testing.assert_array_equal(joined, images)


def test_simulated_tracers_are_appended_to_real_cutouts(real_data: Path, tmp_path: Path):
    real = str(tmp_path / "real")
    common: dict[str, Any] = {"pixel_scale": 0.168, "size": 64, "output": real}
    des = MakeCutoutsConfig(
        stamps=(str(real_data / "des_objects" / "{band}.fits"),),
        stack=True,
        bands=GRI,
        survey="des",
        input_pixel_scale=0.263,
        **common,
    )
    hsc = MakeCutoutsConfig(
        stamps=(str(real_data / "hsc_cosmos" / "Cut_HSC*.fits"),),
        bands=tuple("grizy"),
        keep_bands=GRI,
        append=True,
        **common,
    )
    assert [make_survey(config).rows for config in (des, hsc)] == [46, 2]
    sim = write(
        tmp_path / "sim", range(5), noise(5, 3, 64, 64), scale=0.168, label=[True] * 5, is_tracer=[True] * 5
    )
    join(sim, output=real, append=True)
    table, _, status = read(real)
    assert status == ["ok"] * 53
    assert table["is_tracer"].to_pylist() == [False] * 48 + [True] * 5
    assert table["object_id"].to_pylist()[-1] == "sim-4"
