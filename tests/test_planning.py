"""How a survey is cut into fragments."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from lensray.distributed import planning


class Footer:
    """The part of Parquet's footer that the cutting looks at."""

    def __init__(self, sizes):
        self.sizes = sizes
        self.num_rows = sum(sizes)
        self.num_row_groups = len(sizes)

    def row_group(self, i):
        return type("RowGroup", (), {"num_rows": self.sizes[i]})


surveys = st.lists(st.lists(st.integers(0, 5000), max_size=8), min_size=1, max_size=5)


@given(surveys, st.integers(1, 1 << 20))
def test_fragments_cover_every_row_once_in_order(sizes, row_bytes):
    files = [(f"part-{i}.parquet", Footer(groups)) for i, groups in enumerate(sizes)]
    fragments = planning.cut_fragments(files, row_bytes).to_pylist()
    rows = []
    for fragment in fragments:
        number = int(fragment["path"].removeprefix("part-").removesuffix(".parquet"))
        start = sum(sizes[number][: fragment["row_group"]]) + fragment["offset"]
        assert fragment["offset"] + fragment["rows"] <= sum(
            sizes[number][fragment["row_group"] : fragment["row_group"] + fragment["row_groups"]]
        )
        before = sum(sum(groups) for groups in sizes[:number])
        assert fragment["first_row"] == before + start
        rows += [(number, start + i) for i in range(fragment["rows"])]
    assert rows == [(i, row) for i, groups in enumerate(sizes) for row in range(sum(groups))]
    assert [fragment["fragment"] for fragment in fragments] == list(range(len(fragments)))


@given(surveys, st.integers(1, 1 << 20))
def test_no_fragment_is_too_large_for_a_ray_block(sizes, row_bytes):
    files = [(f"part-{i}", Footer(groups)) for i, groups in enumerate(sizes)]
    for fragment in planning.cut_fragments(files, row_bytes).to_pylist():
        assert fragment["rows"] * row_bytes <= planning.MAX_FRAGMENT_BYTES


def test_a_large_survey_has_fragments_of_nearly_the_largest_size():
    files = [("part-0", Footer([1000] * 1000))]
    fragments = planning.cut_fragments(files, 12_288)
    assert max(fragments["rows"].to_pylist()) == 8000
    assert fragments.num_rows == 125


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("top", 0),
        ("workers", 0),
        ("gpus_per_worker", -1.0),
        ("lens_rate", 0.0),
        ("lens_rate", 1.0),
        ("lens_rate", float("nan")),
    ],
)
def test_settings_without_sense_are_refused(field, value):
    with pytest.raises(ValueError, match=field.replace("_", "-")):
        planning.ScanConfig(cutouts="a", output="b", **{field: value})
