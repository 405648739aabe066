"""A scan of a survey with two columns of images: planned, read, scored and ranked."""

import os
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
import surveys

from lensray import bundle as bundles
from lensray import cutouts
from lensray.bundle import FurtherImages
from lensray.distributed import planning, scan
from lensray.distributed.planning import ScanConfig, plan_scan
from lensray.errors import InputError
from lensray.normalization import BandScale
from lensray.reading import pack_planes
from lensray.scoring import Scorer

COARSE = cutouts.CutoutFormat(
    survey="toy", bands=("Y", "J"), pixel_scale_arcsec=0.504, shape=(2, 10, 10), column="image_nisp"
)
NISP = FurtherImages(
    column="image_nisp", bands=("Y", "J"), height=10, width=10, pixel_scale_arcsec=COARSE.pixel_scale_arcsec
)


@pytest.fixture
def bundle(tmp_path):
    """A network on five planes: g, r, i of 32×32 pixels and Y, J of 10×10."""
    plain = bundles.load(surveys.toy_bundle(tmp_path / "five.safetensors", bands=("g", "r", "i", "a", "b")))
    inputs = replace(plain.inputs, bands=surveys.BANDS, further=(NISP,))
    url = str(tmp_path / "two.safetensors")
    bundles.save(replace(plain, inputs=inputs, normalization=BandScale(factors=(1.0,) * 5)), url)
    return url


@pytest.fixture
def survey(tmp_path):
    """60 blobs in both columns; row 3 has no NISP image worth the name."""
    folder = surveys.toy_survey(tmp_path / "vis", 60, files=1)
    table = pq.read_table(f"{folder}/part-00000.parquet")
    nisp = surveys.toy_images(60, size=10, bands=2, seed=5)
    nisp[3, 0] = 0
    url = tmp_path / "survey"
    url.mkdir()
    pq.write_table(cutouts.add_images(table, COARSE, nisp), url / "part-00000.parquet", row_group_size=20)
    return str(url)


def stored(survey):
    return pq.read_table(f"{survey}/part-00000.parquet")


def test_the_inputs_come_back_from_a_file_and_old_bundles_have_no_further_images(bundle, tmp_path):
    assert bundles.load(bundle).inputs.further == (NISP,)
    assert bundles.read_header(bundle).inputs.shape == (5, 32, 32)
    assert bundles.read_header(surveys.toy_bundle(tmp_path / "old.safetensors")).inputs.further == ()


def test_a_scorer_takes_the_columns_of_the_survey_or_packed_planes(bundle, survey):
    table = stored(survey)
    scored = Scorer(bundle)(table.select(["object_id", "ra", "dec", "image", "image_nisp"]))
    assert scored.column_names == ["object_id", "ra", "dec", "score", "status"]
    assert scored["status"].to_pylist() == ["ok"] * 3 + ["constant"] + ["ok"] * 56
    vis, nisp = (table[name].combine_chunks().to_numpy_ndarray() for name in ("image", "image_nisp"))
    packed = pa.table({"image": cutouts.tensor_column(pack_planes(vis, [nisp]))})
    again = Scorer(bundle)(packed)["score"].to_numpy()
    usable = np.arange(60) != 3
    np.testing.assert_allclose(scored["score"].to_numpy()[usable], again[usable], atol=1e-6)


def test_the_scan_scores_every_row_once_as_the_bare_scorer(bundle, survey, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "local")
    monkeypatch.setattr(planning, "MIN_FRAGMENT_BYTES", 1 << 18)
    try:
        words = ScanConfig(cutouts=survey, bundle=bundle, output=str(tmp_path / "out"), top=10)
        result = scan.scan(plan_scan(words))
    finally:
        ray.shutdown()
    scores = surveys.scores_of(tmp_path / "out")
    expected = Scorer(bundle)(stored(survey))
    assert scores["object_id"].to_pylist() == list(range(60))
    assert scores["status"].to_pylist() == expected["status"].to_pylist()
    usable = np.arange(60) != 3
    np.testing.assert_allclose(
        scores["score"].to_numpy()[usable], expected["score"].to_numpy()[usable], atol=1e-6
    )
    assert result.run["invalid"] == {"constant": 1}
    candidates = pq.read_table(tmp_path / "out" / "candidates.parquet")
    assert candidates["image"].type.shape == [3, 32, 32]
    assert os.path.getsize(tmp_path / "out" / "report.html") > 1000


def test_a_survey_without_the_further_column_is_refused_before_anything_starts(bundle, tmp_path):
    words = ScanConfig(
        cutouts=surveys.toy_survey(tmp_path / "vis", 30), bundle=bundle, output=str(tmp_path / "out")
    )
    with pytest.raises(InputError, match="lacks the column image_nisp"):
        plan_scan(words)


def test_further_images_of_another_size_need_resample(bundle, survey, tmp_path):
    table = stored(survey).drop_columns("image_nisp")
    other = replace(COARSE, shape=(2, 12, 12))
    folder = tmp_path / "other"
    folder.mkdir()
    table = cutouts.add_images(table, other, surveys.toy_images(60, size=12, bands=2))
    pq.write_table(table, folder / "a.parquet")
    words = {"cutouts": str(folder), "bundle": bundle, "output": str(tmp_path / "out")}
    with pytest.raises(InputError, match=r"12×12 pixels.*10×10; pass --resample"):
        plan_scan(ScanConfig(**words))
    assert plan_scan(ScanConfig(**words, resample=True)).rows == 60


def test_the_further_images_are_part_of_what_identifies_a_scan_and_are_not_kept(bundle, survey, tmp_path):
    words = ScanConfig(cutouts=survey, bundle=bundle, output=str(tmp_path / "out"))
    identity = plan_scan(words).identity
    assert identity["settings"]["image_nisp"]["image_shape"] == [2, 10, 10]
    with pytest.raises(InputError, match="which a scan has of its own"):
        plan_scan(replace(words, keep=("image_nisp",)))
