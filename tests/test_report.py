import re
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lensray.bundle import Inputs
from lensray.catalogs import TopK, with_ordinality, with_probability
from lensray.inspection import figures
from lensray.inspection.report import ReportData, draw_figures, known_as, render, write_report
from lensray.io.tables import tensor_column
from lensray.metrics.ranking import tracer_rank_curve
from lensray.metrics.scan_metrics import scan_metrics
from lensray.metrics.truth import ScoreHistogram, TruthScores

BANDS = ("g", "r", "i")


def galaxy(rng: np.random.Generator, bands: int, is_lens: bool, size: int = 48) -> np.ndarray:
    """A red blob, with a blue arc around it or with neighbours."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    radius = np.hypot(x, y)
    image = np.linspace(0.15, 1, bands)[:, None, None] * 300 * np.exp(-((radius / 2.5) ** 0.8))
    if is_lens:
        angle = np.angle(np.exp(1j * (np.arctan2(y, x) - rng.uniform(0, 6.28))))
        arc = np.exp(-0.5 * ((radius - rng.uniform(7, 12)) / 1.4) ** 2 - (angle / 0.8) ** 2)
        image = image + 30 * np.linspace(1, 0.8, bands)[:, None, None] * arc
    else:
        for _ in range(3):
            cx, cy = rng.uniform(-20, 20, 2)
            image = image + 20 * rng.uniform(0.3, 1, bands)[:, None, None] * np.exp(
                -((x - cx) ** 2 + (y - cy) ** 2) / 6
            )
    return (image + rng.normal(size=image.shape)).astype(np.float32)


def scan_outcome(
    n: int = 4000,
    lenses: int = 40,
    bands: tuple[str, ...] = BANDS,
    truth: tuple[str, ...] = ("is_tracer", "label"),
    candidates: int = 60,
    ids: list[str] | None = None,
    scored: bool = True,
) -> ReportData:
    """What a scan hands to its report, from drawn scores."""
    rng = np.random.default_rng(5)
    is_lens = np.arange(n) < lenses
    scores = np.where(is_lens, rng.beta(6, 1.2, n), rng.beta(1, 14, n)).astype(np.float32)
    scores[~is_lens & (np.arange(n) % 100 == 0)] = np.nan
    if not scored:
        scores[:] = np.nan
    columns = dict.fromkeys(truth, is_lens)
    first = TruthScores()
    first.add(scores, **columns)
    table = pa.table(
        {
            "object_id": ids or [f"HSC J{i:06d}" for i in range(n)],
            "ra": pa.array(rng.uniform(0, 360, n)),
            "dec": pa.array(rng.uniform(-90, 90, n), mask=np.arange(n) % 7 == 0),
            "score": pa.array(scores, mask=np.isnan(scores)),
            **columns,
        }
    )
    top = TopK(candidates)
    top.add(table, fragment=0)
    best = top.table()
    second = first.counts(best["score"].to_numpy())
    second.add(scores, **columns)
    best = with_ordinality(best, second.ordinality(best["score"].to_numpy()))
    images = [galaxy(rng, len(bands), bool(is_lens[row])) for row in top.origins()["row"].to_pylist()]
    stacked = np.stack(images) if images else np.zeros((0, len(bands), 48, 48), np.float32)
    return ReportData(
        run=run_record(n, int(np.isnan(scores).sum()), bands),
        metrics=scan_metrics(first, second),
        candidates=best.append_column("image", tensor_column(stacked)),
        histogram=first.histogram,
        bands=bands,
    )


def run_record(rows: int, invalid: int, bands: tuple[str, ...]) -> dict:
    return {
        "rows": rows,
        "rows_scored": rows - invalid,
        "rows_filled_nan": 3,
        "invalid": {"constant": invalid - 3, "duplicate_bands": 2, "nan": 1},
        "fragments": 12,
        "started": "2026-01-02T03:04:05Z",
        "duration_s": 62.4,
        "rows_this_run": rows,
        "cutouts_per_s": 512.3,
        "actors": 2,
        "device": "CPU, x86_64",
        "survey": {
            "cutouts": "s3://surveys/hsc",
            "survey": "hsc_wide",
            "bands": list(bands),
            "pixel_scale_arcsec": 0.168,
            "shape": [len(bands), 48, 48],
            "dtype": "float32",
            "sha256": "ab" * 32,
        },
        "bundle": {
            "name": "eznet_hsc",
            "sha256": "cd" * 32,
            "architecture": "eznet",
            "normalization": {"name": "percentile_clip", "percent": 0.5},
            "precision": "float32",
            "positive_classes": ["lens"],
            "provenance": {"recipe": "eznet_hsc", "phase": 1, "seed": 7},
        },
        "versions": {"lensray": "0.1.0", "python": "3.11.0", "torch": "2.11"},
        "command": ["jobs/scan_survey.py", "--cutouts", "s3://surveys/hsc", "--output", "runs/my run"],
    }


class Page(HTMLParser):
    """Tags and texts of a page; a well-formed one closes what it opens."""

    VOID = frozenset({"meta", "img", "link", "br", "hr", "input"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.text += " " + data

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def words(self) -> str:
        return " ".join(self.text.split())


def page_of(data: ReportData) -> Page:
    page = Page(render(data, draw_figures(data)))
    assert page.open == []
    return page


@pytest.fixture(scope="module")
def data() -> ReportData:
    return scan_outcome()


@pytest.fixture(scope="module")
def page(data) -> Page:
    return page_of(data)


def test_report_is_one_file_that_loads_nothing_from_the_network(page):
    assert not page.all("script")
    assert not page.all("link")
    assert not page.all("iframe")
    sources = [image["src"] for image in page.all("img")]
    assert len(sources) == 8
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert all(anchor["href"].startswith("#") for anchor in page.all("a"))


def test_no_style_loads_anything(data):
    assert not re.search(r"url\(|@import|https?://", render(data, {}))


def test_every_picture_has_an_alternative_text_and_every_link_a_target(page):
    assert all(len(image["alt"]) > 20 for image in page.all("img"))
    targets = {attributes.get("id") for _, attributes in page.tags}
    assert {anchor["href"][1:] for anchor in page.all("a")} <= targets


def test_report_states_counts_metrics_and_what_they_were_measured_on(data, page):
    assert data.metrics is not None
    assert "4,000" in page.words
    assert "3,961" in page.words
    assert f"{data.metrics.values['ranking_performance']:.4f}" in page.words
    assert "40 tracers (is_tracer) among 3,961 scored cutouts" in page.words
    assert "constant" in page.all("img")[-1]["alt"]
    assert "'runs/my run'" in page.words
    assert "torch 2.11" in page.words
    assert "cd" * 32 in page.words


def test_report_lists_the_top_fifty_candidates_with_positions(data, page):
    first = data.candidates.slice(0, 1).to_pylist()[0]
    assert first["object_id"] in page.words
    assert f"{first['ra']:.6f}" in page.words
    assert "first 50 of 60 candidates" in page.words
    fifty_first = data.candidates["object_id"][50].as_py()
    assert fifty_first not in page.words


def test_hostile_texts_are_shown_and_never_run():
    hostile = "<script>alert(1)</script>"
    data = scan_outcome(n=30, lenses=5, ids=[f"{hostile}{i}" for i in range(30)])
    data.run["survey"]["survey"] = '"><img src="https://example.org/x.png">'
    data.run["command"] = ["scan", hostile]
    data.run["bundle"]["provenance"][hostile] = hostile
    page = page_of(data)
    assert not page.all("script")
    assert all(image["src"].startswith("data:") for image in page.all("img"))
    assert f"{hostile}0" in page.words


def test_report_without_tracers_or_labels_says_so():
    page = page_of(scan_outcome(truth=()))
    assert "neither tracers" in page.words
    assert "there is no ROC" in page.words
    assert len(page.all("img")) == 4


def test_report_of_a_scan_in_which_nothing_could_be_scored():
    page = page_of(scan_outcome(n=50, lenses=5, scored=False))
    assert "No cutout has a score" in page.words
    assert "No tracer and no labelled lens has a score" in page.words
    assert len(page.all("img")) == 1


@pytest.mark.parametrize("bands", [("F814W",), ("g", "i"), ("VIS", "Y", "J", "H")])
def test_report_shows_surveys_of_any_number_of_bands(bands):
    data = scan_outcome(n=200, lenses=10, bands=bands)
    assert {"candidates", "pixels"} <= set(draw_figures(data))


def test_report_without_images_lists_the_candidates_all_the_same():
    data = scan_outcome(n=100, lenses=5)
    bare = ReportData(
        run={},
        metrics=data.metrics,
        candidates=data.candidates.drop_columns("image"),
        histogram=data.histogram,
        bands=BANDS,
    )
    page = page_of(bare)
    assert "The candidates have no images." in page.words
    assert "HSC J" in page.words


def test_report_tells_known_lenses_from_new_ones(data):
    count = data.candidates.num_rows
    names = [None, "Cheshire Cat | SDSSJ1038+4849", "<b>"] + [None] * (count - 3)
    candidates = data.candidates.drop_columns(["is_tracer", "label"])
    candidates = candidates.append_column("known_lens", pa.array(names, pa.string()))
    separations = pa.array([None, 0.44, 2.0] + [None] * (count - 3), pa.float64())
    candidates = candidates.append_column("known_separation_arcsec", separations)
    record = {"lenses": 32_838, "radius_arcsec": 3.0, "candidates": count, "candidates_known": 2}
    page = page_of(replace(data, run={**data.run, "known_lenses": record}, candidates=candidates))
    assert "Cheshire Cat, 0.4″ off" in page.words
    assert "SDSSJ1038+4849" not in page.words
    assert "<b>, 2.0″ off" in page.words
    assert "Known lenses 2 of 60 candidates" in page.words
    assert "32,838 lenses) within 3 arcsec, else new" in page.words
    placed = {"ra": 1.0, "dec": 2.0, "known_lens": None}
    found = {"known_lens": "A", "known_separation_arcsec": 1.0}
    assert known_as({**placed, **found, "is_tracer": True}) == "tracer, A, 1.0″ off"
    assert known_as({**placed, "is_tracer": True}) == "tracer"
    assert [known_as(row) for row in (placed, {**placed, "ra": None}, {**placed, "dec": float("nan")})] == [
        "new",
        "",
        "",
    ]


def test_report_says_what_an_inspection_brings(data, page):
    assert data.metrics is not None
    row = data.metrics.forecast.rows([100])[0]
    assert row["completeness"] == 1
    assert f"{row['completeness_low']:.1%} to 100.0%" in page.words
    assert f"{row['expected_lenses']:.3g} (" in page.words
    assert "one lens in 30,000" in page.words
    assert "Expected calibration error" in page.words


def test_purity_that_the_sample_cannot_tell_is_not_shown():
    rng = np.random.default_rng(3)
    lens = np.arange(400) < 40
    scores = np.where(lens, rng.uniform(0.8, 1, 400), rng.uniform(0, 0.1, 400)).astype(np.float32)
    first = TruthScores()
    first.add(scores, label=lens)
    second = first.counts()
    second.add(scores, label=lens)
    metrics = scan_metrics(first, second, depths=(10, 300), lens_rate=0.5)
    data = replace(scan_outcome(n=30, lenses=5), metrics=metrics)
    page = page_of(data)
    # 200 lenses, and the first false positive stands for 200 / 360.
    assert "With fewer than 201 images" in page.words
    assert "10 not measurable not measurable not measurable" in page.words
    assert "66.7% (" in page.words or "67% (" in page.words


def test_candidates_of_a_calibrated_bundle_have_their_probability_shown():
    data = scan_outcome(n=60, lenses=5)
    probability = np.linspace(0.4321, 0.0012, data.candidates.num_rows)
    candidates = with_probability(data.candidates, probability)
    assert candidates.column_names[5:7] == ["score", "probability"]
    page = page_of(replace(data, candidates=candidates))
    assert "Probability" in page.words
    assert "0.432" in page.words
    assert "as the bundle was calibrated in training" in page.words
    assert "as the bundle was calibrated in training" not in page_of(data).words


def model(normalization: Any, bands: tuple[str, ...]) -> Any:
    inputs = Inputs(bands=bands, height=48, width=48, pixel_scale_arcsec=0.168)
    return SimpleNamespace(normalization=normalization, inputs=inputs)


def test_pixels_are_shown_as_the_network_gets_them(monkeypatch):
    from lensray.normalization import HistogramTransform, Template

    template = Template(quantiles=np.array([0.5, 0.75, 1.0]), values=np.array([0.0, 0.3, 0.8]))
    data = scan_outcome(n=200, lenses=10)
    data = replace(data, bundle=model(HistogramTransform(template=template), ("r", "i")))
    shown = []
    plain = figures.pixel_histogram_figure
    monkeypatch.setattr(
        figures, "pixel_histogram_figure", lambda *given: shown.append(given) or plain(*given)
    )
    page = page_of(data)
    (images, bands, drawn_template), *_ = shown
    assert bands == ("r", "i")
    assert images.shape == (60, 2, 48, 48)
    # Away from the template's corners, a quarter of the pixels lies in its upper quarter.
    assert images.min() >= 0
    assert images.max() == pytest.approx(0.8, abs=1e-6)
    assert (images > 0.3).mean() == pytest.approx(0.25, abs=0.01)
    np.testing.assert_allclose(drawn_template[0], [0, 0.3, 0.8])
    np.testing.assert_allclose(drawn_template[1], [0.5, 0.25, 0.25])
    assert "as the network gets them" in page.words


def test_figures_lie_beside_the_report_as_they_are_in_it(tmp_path, data):
    address = write_report(str(tmp_path), data)
    assert address == f"{tmp_path}/report.html"
    pictures = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert pictures == [
        "candidates.png",
        "forecast.png",
        "invalid.png",
        "pixels.png",
        "rank_curve.png",
        "reliability.png",
        "roc.png",
        "scores.png",
    ]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in (tmp_path / "figures").iterdir())
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".tmp")]


def test_drawing_needs_no_window_and_leaves_matplotlib_as_it_was():
    import matplotlib

    before = dict(matplotlib.rcParams)
    curve = tracer_rank_curve([0.9, 0.8, 0.1], [1, 0, 0])
    figure = figures.rank_curve_figure(curve, 1.0)
    assert figures.png(figure).startswith(b"\x89PNG")
    assert dict(matplotlib.rcParams) == before


def test_curve_of_the_figure_is_the_tracer_rank_curve():
    scores, tracers = [0.9, 0.8, 0.7, 0.2, 0.1], [1, 0, 1, 0, 0]
    figure = figures.rank_curve_figure(tracer_rank_curve(scores, tracers), 2 / 3)
    drawn = next(line for line in figure.axes[0].lines if line.get_label() == "this scan")
    np.testing.assert_allclose(np.asarray(drawn.get_xydata()), [[0, 0], [0.2, 0.5], [0.6, 1], [1, 1]])
    assert "0.6667" in figure.axes[0].get_title(loc="left")


def test_score_histogram_takes_scores_that_rounding_put_above_one():
    histogram = ScoreHistogram()
    histogram.add(np.array([0.0, 0.5, 1.0, 1.0000001]), np.array([False, True, True, True]))
    assert histogram.all.sum() == 4
    assert histogram.all[-1] == 2
    assert histogram.lenses.sum() == 3


def test_pixel_histogram_shows_the_template_as_the_distribution_that_it_is():
    values, weights = np.array([0.0, 0.25, 0.9]), np.array([0.5, 0.3, 0.2])
    figure = figures.pixel_histogram_figure(np.zeros((4, 1, 8, 8), np.float32), ("i",), (values, weights))
    stairs = next(patch for patch in figure.axes[0].patches if patch.get_label() == "template")
    share = stairs.get_data().values  # pyright: ignore[reportAttributeAccessIssue]
    np.testing.assert_allclose(share[share > 0], weights)
