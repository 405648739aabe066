"""Random rows of a survey: uniform, without known lenses, the same for a seed, and read in bounded memory."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import surveys

from lensray import cutouts, survey_rows
from lensray.errors import InputError
from lensray.io import storage


def ids_of(table):
    return table["object_id"].to_pylist()


def test_rows_are_whole_rows_of_the_survey_without_its_lenses(tmp_path):
    url = surveys.toy_survey(tmp_path / "s", 90, files=3, row_group=7, tracers=6)
    stored = {row["object_id"]: row for row in pq.read_table(url, columns=["object_id", "mag_i"]).to_pylist()}
    pixels = dict(zip(stored, pq.read_table(url)["image"].to_pylist(), strict=True))
    table = survey_rows.sample_rows(url, 30, seed=1)
    ids = ids_of(table)
    assert len(set(ids)) == 30
    assert ids == sorted(ids)
    assert not set(ids) & set(range(6))
    assert table["mag_i"].to_pylist() == [stored[i]["mag_i"] for i in ids]
    assert table["image"].to_pylist() == [pixels[i] for i in ids]
    assert cutouts.read_format(table.schema) == surveys.cutout_format()


def test_the_seed_chooses_the_rows(tmp_path):
    url = surveys.toy_survey(tmp_path / "s", 200, files=2, row_group=10, size=8)
    first, again, other = (ids_of(survey_rows.sample_rows(url, 20, seed=s)) for s in (1, 1, 2))
    assert first == again != other


def test_every_row_is_as_likely_as_any_other(tmp_path):
    # 400 draws of 10 of 95 make 42 ± 6 of each row.
    url = surveys.toy_survey(tmp_path / "s", 100, files=4, row_group=5, size=4, tracers=5)
    drawn = np.concatenate(
        [ids_of(survey_rows.sample_rows(url, 10, seed=s, columns=["object_id"])) for s in range(400)]
    )
    counts = np.bincount(drawn, minlength=100)
    assert counts[:5].sum() == 0
    assert counts[5:].min() > 42 - 5 * 6.2
    assert counts[5:].max() < 42 + 5 * 6.2


def test_only_a_part_of_a_large_survey_is_read(tmp_path, monkeypatch):
    url = surveys.toy_survey(tmp_path / "s", 400, files=4, row_group=10, size=4, tracers=0)
    looked_at = []
    eligible = survey_rows._eligible
    monkeypatch.setattr(survey_rows, "_eligible", lambda *args: looked_at.append(args) or eligible(*args))
    assert survey_rows.sample_rows(url, 10, seed=3).num_rows == 10
    assert len(looked_at) == survey_rows.SPREAD


def test_given_ids_are_left_out_and_what_is_left_is_returned(tmp_path):
    url = surveys.toy_survey(tmp_path / "s", 30, files=1, size=4, tracers=5)
    table = survey_rows.sample_rows(url, 1000, seed=0, exclude_ids=range(5, 20), columns=["object_id"])
    assert ids_of(table) == list(range(20, 30))
    table = survey_rows.sample_rows(url, 1000, seed=0, exclude_lenses=False, columns=["mag_i", "object_id"])
    assert ids_of(table) == list(range(30))
    assert table.column_names == ["mag_i", "object_id"]


def test_string_ids_null_labels_and_labelled_lenses(tmp_path):
    fmt = surveys.cutout_format(size=4)
    table = cutouts.make_table(
        fmt, ["a", "b", "c", None], surveys.toy_images(4, 4), label=pa.array([True, None, False, False])
    )
    cutouts.write_survey([table], str(tmp_path / "s"), fmt)
    assert ids_of(survey_rows.sample_rows(str(tmp_path / "s"), 9, seed=0)) == ["b", "c"]
    assert ids_of(survey_rows.sample_rows(str(tmp_path / "s"), 9, seed=0, exclude_ids=["b"])) == ["c"]


def test_a_survey_without_rows_to_draw_is_refused(tmp_path):
    url = surveys.toy_survey(tmp_path / "s", 5, files=1, size=4, tracers=5)
    with pytest.raises(InputError, match="no cutout that may be drawn"):
        survey_rows.sample_rows(url, 2, seed=0)
    with pytest.raises(InputError, match="colour"):
        survey_rows.sample_rows(url, 2, seed=0, exclude_lenses=False, columns=["colour"])
    with pytest.raises(InputError, match="does not exist"):
        survey_rows.sample_rows(str(tmp_path / "none"), 2, seed=0)


def test_rows_come_from_s3_as_from_disk(any_url):
    fmt = surveys.cutout_format(size=4)
    table = cutouts.make_table(fmt, np.arange(50), surveys.toy_images(50, 4))
    cutouts.write_survey([table], any_url, fmt, rows_per_file=20)
    drawn = survey_rows.sample_rows(any_url, 12, seed=5)
    assert drawn.num_rows == 12
    assert len(storage.find_files(any_url)) == 3
    assert drawn["image"].to_pylist() == table.take(drawn["object_id"])["image"].to_pylist()
