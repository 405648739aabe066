import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_report import BANDS, Page, galaxy

from lensray.inspection import training_figures
from lensray.inspection.training_records import (
    Evaluation,
    PhaseRecord,
    Regression,
    TrainingReport,
    gaps,
    read_scan,
    to_json,
)
from lensray.inspection.training_report import draw_figures, render, write_training_report
from lensray.io import storage
from lensray.metrics.classification import tpr0
from lensray.metrics.ranking import ranking_performance
from lensray.metrics.scan_metrics import ScanMetrics, scan_metrics
from lensray.metrics.truth import TruthScores


def history(epochs: int, validation: bool = True) -> list[dict]:
    rows = []
    for epoch in range(1, epochs + 1):
        progress = 1 - np.exp(-epoch / (epochs / 3))
        row = {
            "epoch": epoch,
            "training_loss": 0.7 - 0.6 * progress,
            "learning_rate": 1e-3 * 0.1 ** (epoch > epochs // 2),
            "batch_size": 32 * 2 ** (epoch > epochs // 2),
            "images": 4000,
            "seconds": 12.5,
            "skipped": 0,
        }
        if validation:
            row |= {"validation_loss": 0.7 - 0.45 * progress, "accuracy": 0.5 + 0.42 * progress}
            row |= {"auroc": 0.5 + 0.47 * progress, "tpr0": 0.3 * progress, "tpr10": 0.6 * progress}
            row |= {"ranking_performance": 0.94 * progress if epoch > 1 else None}
        rows.append(row)
    return rows


def scan(separation: float, seed: int, n: int = 5000, tracers: int = 52) -> ScanMetrics:
    generator = np.random.default_rng(seed)
    is_tracer = np.arange(n) < tracers
    scores = 1 / (1 + np.exp(-generator.normal(np.where(is_tracer, separation, 0), 1.2)))
    first = TruthScores()
    first.add(scores, is_tracer=is_tracer)
    second = first.counts()
    second.add(scores, is_tracer=is_tracer)
    metrics = scan_metrics(first, second)
    assert metrics is not None
    return metrics


def evaluation(separation: float, seed: int, n: int = 400, images: bool = True, **fields) -> Evaluation:
    generator = np.random.default_rng(seed)
    is_lens = np.arange(n) % 2 == 0
    scores = 1 / (1 + np.exp(-generator.normal(np.where(is_lens, separation, -separation), 1.5)))
    pictures = np.stack([galaxy(generator, 3, bool(lens)) for lens in is_lens]) if images else None
    return Evaluation(
        **{"model": "deeplens", "data": "simulated mocks", **fields},
        scores=scores,
        is_lens=is_lens,
        images=pictures,
        bands=BANDS,
    )


def regression(n: int = 800) -> Regression:
    generator = np.random.default_rng(2)
    true = generator.uniform(0.5, 2.5, n)
    return Regression(
        model="lsst_cnn",
        data="simulated mocks",
        target="einstein_radius_arcsec",
        true=true,
        predicted=0.3 + 0.8 * true + generator.normal(0, 0.15, n),
    )


def demo_report() -> TrainingReport:
    phases = [
        PhaseRecord(
            name="phase0", history=history(8, validation=False), bundle="runs/a/phase0/bundle.safetensors"
        ),
        PhaseRecord(
            name="phase1",
            history=history(20),
            scan=scan(3.6, 1),
            published={"ranking_performance": 0.97, "top_share": 1.0},
            provenance={"data": {"training": [{"rows": 10000, "sha256": "ab" * 32}]}, "device": "cpu"},
        ),
        PhaseRecord(
            name="phase2",
            history=history(25),
            scan=scan(1.4, 2),
            published={"ranking_performance": 0.60},
        ),
    ]
    return TrainingReport(
        recipe="lensflow_cosmos",
        phases=phases,
        evaluations=[
            evaluation(1.9, 3, published={"accuracy": 0.8}),
            evaluation(0.6, 4, n=120, data="real mocks", kind="real"),
        ],
        regressions=[regression()],
        notes=["The survey is simulated, and a tenth of the paper's."],
        run={
            "command": ["jobs/train_phases.py", "lensflow_cosmos", "--output", "runs/my run"],
            "versions": {"lensray": "0.1.0", "torch": "2.15"},
            "scale": "small",
            "seed": 1,
            "started": "2026-01-02T03:04:05Z",
            "duration_s": 4125.0,
            "device": "CPU, x86_64",
        },
    )


@pytest.fixture(scope="module")
def report() -> TrainingReport:
    return demo_report()


@pytest.fixture(scope="module")
def page(report) -> Page:
    page = Page(render(report, draw_figures(report)))
    assert page.open == []
    return page


def test_report_is_one_file_that_loads_nothing_from_the_network(page):
    assert not page.all("script")
    assert not page.all("link")
    sources = [image["src"] for image in page.all("img")]
    assert len(sources) == 12
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert all(len(image["alt"]) > 20 for image in page.all("img"))
    targets = {attributes.get("id") for _, attributes in page.tags}
    assert {anchor["href"][1:] for anchor in page.all("a")} <= targets


def test_phases_stand_beside_the_papers_values(report, page):
    performance = report.phases[1].scan.values["ranking_performance"]
    assert f"{performance:.4f} paper: 0.97" in page.words
    assert "paper: 0.6" in page.words
    assert "52 tracers (is_tracer) among 5,000 scored cutouts" in page.words


def test_evaluations_state_error_counts_and_difference(report, page):
    simulated, real = report.evaluations
    assert f"{simulated.values['auroc']:.4f} ± {simulated.auroc_error:.4f}" in page.words
    assert "(real; 60 lenses, 60 non-lenses)" in page.words
    assert f"difference {real.values['auroc'] - simulated.values['auroc']:+.4f}" in page.words


def test_run_can_be_repeated_from_the_page(page):
    assert "jobs/train_phases.py lensflow_cosmos --output 'runs/my run'" in page.words
    assert "ab" * 32 in page.words
    assert "torch 2.15" in page.words
    assert "runs/a/phase0/bundle.safetensors" in page.words


def test_numbers_are_in_json_with_null_for_what_cannot_be_measured(report):
    silent = replace_scores(report.evaluations[0], np.zeros(400))
    content = json.loads(
        json.dumps(to_json(replace(report, evaluations=[*report.evaluations, silent])), allow_nan=False)
    )
    assert content["phases"][1]["scan"]["top_share"] == pytest.approx(0.94, abs=0.05)
    assert content["phases"][0]["scan"] is None
    assert content["phases"][1]["history"][0]["ranking_performance"] is None
    assert content["evaluations"][1]["auroc"] == pytest.approx(report.evaluations[1].values["auroc"])
    assert content["evaluations"][2]["purity"] is None
    assert content["regressions"][0]["bias"] == pytest.approx(0.0, abs=0.05)


def replace_scores(one: Evaluation, scores: np.ndarray) -> Evaluation:
    return Evaluation(model=one.model, data="silent", scores=scores, is_lens=one.is_lens)


def test_gap_is_shown_only_where_a_model_saw_both(report):
    pairs = gaps(report.evaluations)
    assert [(s.data, r.data) for s, r in pairs] == [("simulated mocks", "real mocks")]
    page = Page(render(replace(report, evaluations=report.evaluations[:1]), {}))
    assert "the gap between them is not known" in page.words


def test_report_of_a_run_of_which_little_is_known():
    report = TrainingReport(recipe="eznet_hsc", phases=[PhaseRecord(name="one")])
    page = Page(render(report, draw_figures(report)))
    assert page.open == []
    assert not page.all("img")
    assert "No labelled cutouts were scored" in page.words
    assert "No survey with known lenses was ranked" in page.words


def test_hostile_texts_are_shown_and_never_run():
    hostile = "<script>alert(1)</script>"
    report = TrainingReport(
        recipe=hostile,
        phases=[PhaseRecord(name=hostile, history=history(2), provenance={hostile: hostile})],
        evaluations=[evaluation(1, 1, 20, images=False, data=hostile)],
        notes=[hostile],
        run={"command": hostile, hostile: hostile},
    )
    page = Page(render(report, draw_figures(report)))
    assert not page.all("script")
    assert hostile in page.words


def test_everything_is_written_to_disk_and_to_s3(report, any_url):
    small = replace(report, phases=report.phases[:1], evaluations=[], regressions=[])
    address = write_training_report(small, any_url)
    assert address == f"{any_url}/report.html"
    assert json.loads(storage.read_bytes(f"{any_url}/training.json"))["recipe"] == "lensflow_cosmos"
    assert storage.read_bytes(f"{any_url}/figures/curves_0.png").startswith(b"\x89PNG")


def test_examples_are_of_their_kind_and_the_worst_mistakes_come_first():
    scores = np.array([0.9, 0.2, 0.8, 0.1, 0.4, 0.95, 0.6, 0.3])
    lens = np.array([True, True, False, False, True, False, True, False])
    rows = training_figures.example_rows(Evaluation(model="m", data="d", scores=scores, is_lens=lens), 2)
    assert sorted(rows["true positives"].tolist()) == [0, 6]
    assert rows["false positives"].tolist() == [5, 2]
    assert rows["false negatives"].tolist() == [1, 4]
    assert sorted(rows["true negatives"].tolist()) == [3, 7]


def test_picture_of_the_confusion_matrix_has_its_counts():
    one = evaluation(1.0, 7, 200, images=False)
    figure = training_figures.confusion_figure(one)
    shown = [text.get_text() for text in figure.axes[0].texts][::2]
    matrix = one.matrix
    wanted = matrix.true_positives, matrix.false_negatives, matrix.false_positives, matrix.true_negatives
    assert shown == [str(count) for count in wanted]


def test_metrics_at_the_threshold_are_counted():
    lens = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0], bool)
    scores = np.array([0.9, 0.8, 0.7, 0.2, 0.85, 0.1, 0.1, 0.1, 0.1, 0.1])
    values = Evaluation(model="m", data="d", scores=scores, is_lens=lens).values
    assert values["accuracy"] == 0.8
    assert values["completeness"] == 0.75
    assert values["contamination"] == pytest.approx(1 / 6)
    assert values["purity"] == 0.75
    assert values["tpr0"] == tpr0(scores, lens) == 0.25


def test_residuals_of_a_known_error():
    true = np.linspace(1, 3, 101)
    noise = np.random.default_rng(3).permutation(np.linspace(-0.3, 0.3, 101))
    values = Regression(model="m", data="d", target="t", true=true, predicted=true + 0.5 + noise).values
    assert values["bias"] == pytest.approx(0.5)
    assert values["median"] == pytest.approx(0.5)
    assert values["scatter"] == pytest.approx(noise.std())
    assert values["nmad"] == pytest.approx(1.4826 * 0.15)
    assert values["r2"] == pytest.approx(1 - (0.25 + noise.var()) / true.var())
    constant = Regression(model="m", data="d", target="t", true=true, predicted=np.full(101, true.mean()))
    assert constant.values["r2"] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("n", [1, 3, 40])
def test_residuals_of_few_cutouts_are_drawn(n):
    true = np.linspace(1, 2, n)
    regression = Regression(model="m", data="d", target="t", true=true, predicted=true)
    assert len(training_figures.residuals_figure(regression).axes) == 2


def test_scan_is_measured_again_from_its_score_files(tmp_path):
    generator = np.random.default_rng(0)
    is_tracer = generator.random(300) < 0.1
    scores = (generator.normal(size=300) + 2 * is_tracer).astype(np.float32)
    scores = (1 / (1 + np.exp(-scores))).astype(np.float32)
    missing = np.arange(300) % 50 == 7
    table = pa.table({"score": pa.array(scores, mask=missing), "is_tracer": is_tracer})
    (tmp_path / "scores").mkdir()
    for part in range(3):
        pq.write_table(table.slice(part * 100, 100), tmp_path / "scores" / f"part-{part}.parquet")
    metrics = read_scan(str(tmp_path))
    assert metrics is not None
    wanted = ranking_performance(scores[~missing], is_tracer[~missing])
    assert metrics.values["ranking_performance"] == pytest.approx(wanted)
    assert metrics.rank_curve is not None
    assert metrics.rank_curve.n == 300 - 6
