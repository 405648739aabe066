import csv
import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lensray import catalogs
from lensray.catalogs import TopK, find_objects, write_candidates
from lensray.errors import InputError
from lensray.io import storage
from lensray.io.hats import hats_columns, table_files
from lensray.io.tables import tensor_column


def scores_table(scores, first_id=0, **columns) -> pa.Table:
    values = pa.array([None if score is None else np.float32(score) for score in scores], pa.float32())
    ids = pa.array([f"J{first_id + i}" for i in range(len(scores))], pa.string())
    return pa.table({"object_id": ids, "score": values, **columns})


# --- the best K -----------------------------------------------------------------------------------------


@st.composite
def fragments(draw):
    """Fragments of scores with ties and nulls, and an order in which to add them."""
    score = st.one_of(st.none(), st.integers(0, 4).map(lambda value: value / 4))
    parts = draw(st.lists(st.lists(score, max_size=8), min_size=1, max_size=6))
    return parts, draw(st.permutations(range(len(parts)))), draw(st.integers(1, 12))


@given(fragments(), st.booleans())
def test_best_rows_are_those_of_a_stable_sort_for_any_order_of_fragments(drawn, in_two):
    parts, order, k = drawn
    tops = [TopK(k), TopK(k)]
    for turn, fragment in enumerate(order):
        table = scores_table(parts[fragment], first_id=100 * fragment)
        tops[turn % 2 if in_two else 0].add(table, fragment=fragment)
    if in_two:
        tops[0].merge(tops[1])
    rows = [(-s, f, r) for f, part in enumerate(parts) for r, s in enumerate(part) if s is not None]
    expected = sorted(rows)[:k]
    table, origins = tops[0].table(), tops[0].origins()
    assert table["object_id"].to_pylist() == [f"J{100 * f + r}" for _, f, r in expected]
    assert table["rank"].to_pylist() == list(range(1, len(expected) + 1))
    assert list(zip(*origins.to_pydict().values(), strict=True)) == [(f, r) for _, f, r in expected]


def test_fragment_added_in_parts_is_the_fragment_added_whole():
    whole, parts = TopK(3), TopK(3)
    whole.add(scores_table([0.5] * 6), fragment=0)
    parts.add(scores_table([0.5] * 3, first_id=3), fragment=0, first_row=3)
    parts.add(scores_table([0.5] * 3), fragment=0)
    assert whole.table().equals(parts.table())


def test_best_rows_keep_their_columns_images_included():
    images = np.arange(4 * 1 * 2 * 2, dtype=np.float32).reshape(4, 1, 2, 2)
    top = TopK(2)
    top.add(scores_table([0.1, 0.9, None, 0.5], image=tensor_column(images)), fragment=0)
    column = top.table()["image"].combine_chunks()
    assert isinstance(column.type, pa.FixedShapeTensorType)
    chunk = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
    np.testing.assert_array_equal(chunk.to_numpy_ndarray(), images[[1, 3]])


def test_nan_score_is_refused_since_it_has_no_rank():
    with pytest.raises(ValueError, match="NaN"):
        TopK(2).add(scores_table([0.1, float("nan")]), fragment=0)


def test_rows_without_a_score_leave_an_empty_ranking():
    top = TopK(5)
    top.add(scores_table([None, None]), fragment=0)
    assert top.table().num_rows == 0
    assert top.table().column_names == ["rank", "object_id", "score"]


# --- files ----------------------------------------------------------------------------------------------


def candidates() -> pa.Table:
    top = TopK(3)
    columns = {
        "ra": pa.array([150.123456789012, None, 10.0]),
        "note": ["plain", 'comma, "quote"', None],
        "is_tracer": [True, False, None],
        "image": tensor_column(np.ones((3, 2, 4, 4), np.uint8)),
    }
    top.add(scores_table([0.1, 0.30000001192092896, 0.9], **columns), fragment=0)
    return catalogs.with_ordinality(top.table(), [1.0, 0.5, 0.25])


def test_candidates_are_written_with_images_and_as_text_without(tmp_path):
    table = candidates()
    write_candidates(table, str(tmp_path))
    stored = pq.read_table(tmp_path / "candidates.parquet")
    assert stored.equals(table)
    assert stored.column_names[:4] == ["rank", "ordinality", "object_id", "score"]
    rows = list(csv.DictReader(io.StringIO((tmp_path / "candidates.csv").read_text())))
    assert "image" not in rows[0]
    assert [row["object_id"] for row in rows] == ["J2", "J1", "J0"]
    assert rows[1]["note"] == 'comma, "quote"'
    assert rows[1]["ra"] == ""


def test_candidates_with_a_position_are_a_hats_catalogue_without_images(tmp_path):
    table = candidates().append_column("dec", pa.array([1.0, 2.0, None]))
    write_candidates(table, str(tmp_path))
    [entry] = table_files(str(tmp_path / "candidates_hats"))
    rows = pq.ParquetFile(entry.path).read()
    assert rows["object_id"].to_pylist() == ["J2"]
    assert rows.column_names == ["_healpix_29", *(name for name in table.column_names if name != "image")]
    write_candidates(table.slice(1), str(tmp_path))
    assert hats_columns(str(tmp_path / "candidates_hats")) is None


def test_numbers_survive_the_text_file_to_the_last_bit(tmp_path):
    table = candidates()
    write_candidates(table, str(tmp_path))
    rows = list(csv.DictReader(io.StringIO((tmp_path / "candidates.csv").read_text())))
    assert [np.float32(row["score"]) for row in rows] == table["score"].to_pylist()
    assert float(rows[2]["ra"]) == 150.123456789012


# --- objects by name ------------------------------------------------------------------------------------


def write_run(url: str, parts: list[pa.Table], done: list[int]) -> None:
    for number, table in enumerate(parts):
        with storage.atomic_output(storage.join(url, "scores", f"part-{number:08d}.parquet")) as file:
            pq.write_table(table, file)
    for number in done:
        storage.write_bytes(storage.join(url, "ledger", "done", f"{number:08d}.json"), b"{}")


def part(ids, scores, statuses) -> pa.Table:
    return pa.table(
        {
            "object_id": pa.array(ids, pa.int64()),
            "ra": pa.nulls(len(ids), pa.float64()),
            "score": pa.array(scores, pa.float32()),
            "status": statuses,
        }
    )


@pytest.fixture
def run_url(tmp_path) -> str:
    parts = [
        part([1, 2, 3], [0.5, None, 0.9], ["ok", "nan", "ok"]),
        part([4, 5, 2], [0.5, 0.7, None], ["ok", "ok", "duplicate_object_id"]),
        part([6], [0.99], ["ok"]),
    ]
    write_run(str(tmp_path), parts, done=[0, 1])
    return str(tmp_path)


def test_objects_are_found_with_their_rank_in_the_order_asked_for(run_url):
    found = find_objects(run_url, [4, 3, 5])
    assert found["object_id"].to_pylist() == [4, 3, 5]
    assert found["rank"].to_pylist() == [3, 1, 2]
    assert found["score"].to_pylist() == [np.float32(0.5), np.float32(0.9), np.float32(0.7)]
    assert found["status"].to_pylist() == ["ok"] * 3


def test_equal_scores_share_their_rank_and_rows_without_a_score_have_none(run_url):
    found = find_objects(run_url, ["1", "2", "4"]).to_pylist()
    assert [(row["object_id"], row["rank"], row["status"]) for row in found] == [
        (1, 3, "ok"),
        (2, None, "nan"),
        (2, None, "duplicate_object_id"),
        (4, 3, "ok"),
    ]


def test_object_that_is_not_there_says_so(run_url):
    found = find_objects(run_url, [3, 77]).to_pylist()
    assert [(row["object_id"], row["status"]) for row in found] == [(3, "ok"), (77, "not_found")]


def test_fragment_without_a_done_marker_is_not_trusted(run_url):
    (row,) = find_objects(run_url, [6]).to_pylist()
    assert row["status"] == "not_found"
    assert find_objects(run_url, [3])["rank"].to_pylist() == [1]


def test_search_that_cannot_succeed_is_answered(run_url, tmp_path):
    with pytest.raises(InputError, match="int64"):
        find_objects(run_url, ["J1000"])
    with pytest.raises(InputError, match="does not exist"):
        find_objects(str(tmp_path / "nowhere"), [1])
    write_run(str(tmp_path / "begun"), [part([1], [0.5], ["ok"])], done=[])
    with pytest.raises(InputError, match="start its scan again"):
        find_objects(str(tmp_path / "begun"), [1])
