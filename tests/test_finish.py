"""The end of a scan, without a cluster: what the table of candidates gets from a calibrated bundle."""

import hashlib
import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from lensray import catalogs, cutouts
from lensray.distributed import finish
from lensray.distributed.planning import ScanConfig, calibration_of, known_lenses_of
from lensray.errors import InputError
from lensray.io.hats import table_files
from lensray.known_lenses import KnownLenses
from lensray.metrics.probabilities import at_lens_rate, calibrated
from lensray.metrics.truth import TruthScores

FORMAT = cutouts.CutoutFormat(
    survey="toy", bands=("g",), pixel_scale_arcsec=0.2, shape=(1, 4, 4), dtype=np.dtype("float32")
)


def header(calibration: Any) -> Any:
    provenance = {} if calibration is None else {"calibration": calibration}
    return SimpleNamespace(
        provenance=provenance, classes=("non-lens", "ring", "arc"), positive_classes=("ring", "arc")
    )


def config(**words: Any) -> ScanConfig:
    return ScanConfig(cutouts="survey", output="out", **words)


@pytest.fixture
def reliable() -> dict:
    """The calibration of scores that are reliable at one lens in two."""
    scores = np.random.default_rng(1).random(20_000)
    lens = np.random.default_rng(2).random(20_000) < scores
    return json.loads(json.dumps(calibrated(scores, lens)))


def candidates(
    monkeypatch: pytest.MonkeyPatch, calibration: Any, known: KnownLenses | None = None, **words: Any
) -> pa.Table:
    monkeypatch.setattr(
        finish, "candidate_images", lambda plan, origins: cutouts.tensor_column(np.zeros((3, 1, 4, 4), "f4"))
    )
    table = pa.table(
        {
            "object_id": [1, 2, 3],
            "ra": [0.0, 1.0, 2.0],
            "dec": [0.0, 1.0, 2.0],
            "score": pa.array([0.5, 0.9, 0.1], pa.float32()),
        }
    )
    top = catalogs.TopK(3)
    top.add(table, fragment=0)
    counts = TruthScores().counts(extra=table["score"].to_numpy())
    counts.add(table["score"].to_numpy())
    plan: Any = SimpleNamespace(
        config=config(**words), header=header(calibration), format=FORMAT, columns=("object_id", "ra", "dec")
    )
    return finish.candidate_table(plan, top.table(), top.origins(), counts, known)


def test_candidates_of_a_calibrated_bundle_have_a_probability_at_the_lens_rate(
    monkeypatch, reliable, tmp_path
):
    table = candidates(monkeypatch, reliable, lens_rate=1e-3)
    assert table.column_names[5:7] == ["score", "probability"]
    expected = at_lens_rate([0.9, 0.5, 0.1], 0.5, 1e-3)
    np.testing.assert_allclose(table["probability"].to_numpy(), expected, rtol=0.15)
    catalogs.write_candidates(table, str(tmp_path))
    written = pacsv.read_csv(tmp_path / "candidates.csv")
    assert written["probability"].to_pylist() == table["probability"].to_pylist()


def test_candidates_near_a_known_lens_are_marked_and_the_run_says_how_many(monkeypatch, tmp_path, reliable):
    lenses = tmp_path / "lenses.csv"
    lenses.write_text("name,RA [deg],DEC [deg]\nA,1.0,1.0005\nB,50,50\nC,,\n")
    words = {"known_lenses": str(lenses), "known_radius": 2.0}
    known = known_lenses_of(config(**words))
    table = candidates(monkeypatch, reliable, known=known, **words)
    assert table.column_names[-3:] == ["known_lens", "known_separation_arcsec", "image"]
    assert table["known_lens"].to_pylist() == ["A", None, None]
    np.testing.assert_allclose(table["known_separation_arcsec"].to_pylist()[0], 1.8, rtol=1e-6)
    record = finish.known_record(known, 2.0, table)
    assert record is not None
    assert (record["lenses"], record["left_out"], record["candidates"], record["candidates_known"]) == (
        2,
        1,
        3,
        1,
    )
    assert record["sha256"] == hashlib.sha256(lenses.read_bytes()).hexdigest()
    run = {"rows": 3, "rows_scored": 3, "invalid": {}, "rows_this_run": 0, "known_lenses": record}
    said = finish.ScanResult(run=run, metrics=None, report="r.html").summary().splitlines()
    line = f"1 of 3 candidates are within 2 arcsec of a known lens (2 of {lenses}, 1 rows without a position left out)"
    assert line in said
    catalogs.write_candidates(table, str(tmp_path))
    written = pacsv.read_csv(tmp_path / "candidates.csv")
    assert written["known_lens"].to_pylist() == ["A", "", ""]
    files = table_files(str(tmp_path / "candidates_hats"))
    rows = pa.concat_tables([pq.ParquetFile(entry.path).read() for entry in files])
    assert sorted(rows["rank"].to_pylist()) == [1, 2, 3]
    assert {"_healpix_29", "known_lens", "probability"} <= set(rows.column_names)
    assert "image" not in rows.column_names


def test_without_a_list_nothing_is_said_of_known_lenses(monkeypatch):
    assert known_lenses_of(config()) is None
    table = candidates(monkeypatch, None)
    assert "known_lens" not in table.column_names
    assert finish.known_record(None, 3.0, table) is None


def test_a_list_that_cannot_be_used_is_said_before_the_scan(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        known_lenses_of(config(known_lenses=str(tmp_path / "lenses.csv")))
    for radius in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="--known-radius"):
            config(known_radius=radius)


def test_candidates_of_a_bundle_without_calibration_have_none(monkeypatch):
    assert "probability" not in candidates(monkeypatch, None).column_names


def test_a_calibration_is_not_used_for_the_score_of_other_classes(reliable):
    assert calibration_of(config(), header(reliable)) is not None
    assert calibration_of(config(classes=("arc", "ring")), header(reliable)) is not None
    assert calibration_of(config(classes=("arc",)), header(reliable)) is None


def test_a_damaged_calibration_is_said_before_the_scan(reliable):
    with pytest.raises(InputError, match=r"calibration of the bundle eznet_hsc is damaged"):
        calibration_of(config(), header({**reliable, "lens_rate": 7}))
