"""A finished scan against a published truth: the challenge's figures, and what could not be measured."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import surveys
from astropy.table import MaskedColumn, Table
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import precision_score, recall_score, roc_auc_score

from lensray import bundle as bundles
from lensray.catalogs import finished_score_files
from lensray.distributed import stages
from lensray.distributed.ledger import Ledger
from lensray.distributed.planning import ScanConfig, plan_scan
from lensray.errors import InputError
from lensray.inspection.evaluation_report import summary
from lensray.inspection.scan_evaluation import evaluate_scan, figures_of
from lensray.io import storage
from lensray.metrics import bootstrap
from lensray.metrics.classification import auroc, completeness, tpr10
from lensray.metrics.counts import ClassCounts, RankCounts
from lensray.metrics.truth import THRESHOLD
from lensray.truth_table import ids_of_kind, read_truth_table

JOB = Path(__file__).parents[1] / "jobs" / "evaluate.py"


def write_scan(url, ids, scores, statuses=None, *, parts=3, done=None) -> str:
    """A scan's folder as its ledger leaves it; None as a score for none."""
    statuses = statuses or ["ok" if score is not None else "nan" for score in scores]
    columns = [pa.array(ids), pa.array(scores, pa.float32()), pa.array(statuses)]
    table = pa.table(columns, names=["object_id", "score", "status"])
    for number, rows in enumerate(np.array_split(np.arange(len(ids)), parts)):
        write_parquet(Ledger(str(url)).part_url(number), table.take(pa.array(rows)))
        if done is None or number in done:
            Ledger(str(url)).mark_done(number, {"statuses": {}})
    write_parquet(
        storage.join(str(url), "ledger", "fragments.parquet"), pa.table({"fragment": np.arange(parts)})
    )
    return str(url)


def write_parquet(url: str, table: pa.Table) -> None:
    with storage.atomic_output(url) as file:
        pq.write_table(table, file)


def write_csv(url, lines) -> str:
    storage.write_bytes(str(url), ("\n".join(lines) + "\n").encode())
    return str(url)


def evaluated(scan, truth, **columns):
    return evaluate_scan(str(scan), finished_score_files(str(scan)), read_truth_table(str(truth), **columns))


def sample(count: int = 600, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores with ties and classes that overlap."""
    generator = np.random.default_rng(seed)
    is_lens = generator.random(count) < 0.3
    return np.float32(np.round(generator.beta(1 + 2.5 * is_lens, 2.0), 2)), is_lens


def slow_tpr(scores, is_lens, false_positives: int) -> float:
    """True positive rate at the lowest threshold that lets fewer than `false_positives` non-lenses through."""
    rates = [
        (scores[is_lens] >= threshold).mean()
        for threshold in scores
        if (scores[~is_lens] >= threshold).sum() < false_positives
    ]
    return max(rates, default=0.0)


# --- the whole way --------------------------------------------------------------------------------------


def test_the_command_prints_and_writes_the_figures_of_independent_code(run_job, any_url, capsys):
    scores, is_lens = sample()
    scan = write_scan(storage.join(any_url, "run"), range(100000, 100600), scores.tolist())
    lines = [f"{100000 + i},{int(lens)}" for i, lens in enumerate(is_lens)]
    truth = write_csv(storage.join(any_url, "truth.csv"), ["ID,is_lens", *lines])
    output = storage.join(any_url, "evaluation")
    assert run_job("evaluate.py", "--scan", scan, "--truth", truth, "--output", output) == (0, [])
    found = json.loads(storage.read_bytes(storage.join(output, "evaluation.json")))
    assert found["auroc"] == pytest.approx(roc_auc_score(is_lens, scores))
    assert found["ranking_performance"] == pytest.approx(2 * roc_auc_score(is_lens, scores) - 1)
    assert found["tpr0"] == pytest.approx(slow_tpr(scores, is_lens, 1))
    assert found["tpr10"] == pytest.approx(slow_tpr(scores, is_lens, 10))
    assert found["completeness"] == pytest.approx(recall_score(is_lens, scores >= 0.5))
    assert found["contamination"] == pytest.approx(recall_score(~is_lens, scores >= 0.5, zero_division=0))
    assert found["purity"] == pytest.approx(precision_score(is_lens, scores >= 0.5))
    best = np.argsort(-scores, kind="stable")[:100]
    tied = (scores == scores[best[-1]]).sum()
    assert abs(found["tracers_in_top"]["100"] - is_lens[best].sum()) <= tied
    page = storage.read_bytes(storage.join(output, "report.html")).decode()
    assert f"{found['auroc']:.4f}" in page
    for name in ("roc", "rank_curve", "scores"):
        assert storage.read_bytes(storage.join(output, "figures", f"{name}.png")).startswith(b"\x89PNG")


def test_every_printed_figure_has_its_error_and_what_it_was_measured_on(run_job, tmp_path, capsys):
    scores, is_lens = sample(60)
    scan = write_scan(tmp_path / "run", range(60), scores.tolist())
    lines = [f"{i},{int(lens)}" for i, lens in enumerate(is_lens)]
    text = summary(evaluated(scan, write_csv(tmp_path / "t.csv", ["ID,is_lens", *lines])))
    lenses, others = int(is_lens.sum()), int((~is_lens).sum())
    for name in ("AUROC", "TPR0", "TPR10", "Ranking performance", "Efficiency", "Completeness", "Purity"):
        (line,) = [line for line in text.splitlines() if line.startswith(f"{name} ")]
        assert "± " in line
        assert f"{lenses} lenses" in line
        assert f"{others} non-lenses" in line or f"{lenses + others} scored cutouts" in line
        assert "in the truth table" in line


def test_the_scans_own_stages_leave_a_folder_that_can_be_evaluated(tmp_path):
    survey = surveys.toy_survey(tmp_path / "survey", 60, files=2)
    bundle = surveys.toy_bundle(tmp_path / "toy.safetensors")
    plan = plan_scan(ScanConfig(cutouts=survey, bundle=bundle, output=str(tmp_path / "run")))
    Ledger(plan.config.output).open(plan)
    fragments = [{**row, "duplicates": []} for row in plan.fragments.to_pylist()]
    schema = plan.fragments.schema.append(pa.field("duplicates", pa.list_(pa.int64())))
    read = stages.ReadFragment(
        survey=survey,
        images=plan.images,
        inputs=plan.header.inputs,
        columns=plan.columns,
        schema=plan.column_schema,
        attempts=surveys.NoAttempts(),
    )
    score = stages.ScoreFragment(bundles.load(bundle), surveys.NoAttempts(), lambda statuses: None)
    write = stages.WriteFragment(output=plan.config.output, columns=plan.columns)
    for fragment in fragments:
        write(score(read(pa.Table.from_pylist([fragment], schema))))
    stored = surveys.scores_of(tmp_path / "run")
    is_lens = np.arange(60) % 7 == 0
    lines = [f"{i},{int(lens)}" for i, lens in enumerate(is_lens)]
    found = evaluated(tmp_path / "run", write_csv(tmp_path / "t.csv", ["ID,is_lens", *lines]))
    by_id = np.argsort(stored["object_id"].to_numpy())
    expected = roc_auc_score(is_lens, stored["score"].to_numpy()[by_id])
    assert found.metrics.values["auroc"] == pytest.approx(expected)
    assert found.fates["lenses"].scored + found.fates["non_lenses"].scored == 60


# --- what is counted ------------------------------------------------------------------------------------


@pytest.fixture
def gaps(tmp_path):
    """A scan and a table each of which has objects that the other lacks, and rows without score, label or id."""
    ids = [1, 2, 3, 4, 5, 6, 7, 8, 2, None, 99]
    scores = [0.9, 0.8, None, None, 0.7, 0.4, None, 0.2, None, None, 0.99]
    statuses = ["ok", "filled_nan", "nan", "masked", "ok", "ok", "nan", "ok", "duplicate_object_id"]
    scan = write_scan(tmp_path / "run", ids, scores, [*statuses, "null_object_id", "ok"], parts=2)
    rows = ["1,1", "2,1", "3,1", "4,1", "44,1", "5,0", "6,0", "7,0", "55,0", "56,0", "8,", "66,", ",1"]
    return scan, write_csv(tmp_path / "truth.csv", ["ID,is_lens", *rows])


def test_every_object_and_every_row_is_counted_once(gaps):
    found = evaluated(*gaps)
    fates = {name: (f.in_truth, f.not_in_scan, dict(f.unscored), f.scored) for name, f in found.fates.items()}
    assert fates == {
        "lenses": (5, 1, {"nan": 1, "masked": 1}, 2),
        "non_lenses": (5, 2, {"nan": 1}, 2),
        "unknown": (2, 1, {}, 1),
    }
    assert found.scan_rows == {"all": 11, "without_id": 1, "without_truth": 1, "repeated": 1}
    assert found.truth.n_without_id == 1
    assert found.metrics.values["n_scored"] == 4
    assert found.metrics.values["n_lenses_unscored"] == 2


def test_lenses_without_a_score_are_left_out_and_told_as_missed_beside(gaps):
    found = evaluated(*gaps)
    assert found.metrics.values["completeness"] == 1.0
    assert found.unscored_missed == {"completeness": 0.5, "tpr0": 0.5}
    text = summary(found)
    assert "2 lenses that could not be scored counted as missed: completeness 1.0000 → 0.5000" in text
    assert "nan 1, masked 1" in text


def test_tpr10_of_fewer_than_ten_non_lenses_is_not_told(gaps):
    found = evaluated(*gaps)
    assert found.metrics.values["tpr10"] is None
    assert "tpr10" not in found.errors
    assert "not measurable" in found.metrics.measured_on["tpr10"]


def test_objects_that_the_table_does_not_label_change_nothing(tmp_path):
    scores, is_lens = sample(200)
    scan = write_scan(tmp_path / "run", range(400), [*scores.tolist(), *[1.0] * 200])
    lines = [f"{i},{int(lens)}" for i, lens in enumerate(is_lens)]
    unknown = [f"{i}," for i in range(200, 300)]
    found = evaluated(scan, write_csv(tmp_path / "t.csv", ["ID,is_lens", *lines, *unknown]))
    assert found.metrics.values["auroc"] == pytest.approx(roc_auc_score(is_lens, scores))
    assert found.metrics.values["n_scored"] == 200


# --- errors ---------------------------------------------------------------------------------------------


def counts_of(scores, is_lens) -> ClassCounts:
    lenses, others = (RankCounts([*scores[is_lens], THRESHOLD]) for _ in range(2))
    lenses.add(scores[is_lens])
    others.add(scores[~is_lens])
    return ClassCounts(
        thresholds=lenses.thresholds,
        positives=lenses.equal(),
        negatives=others.equal(),
        negatives_greater=others.greater(),
        n_negatives=others.n,
    )


@given(
    st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=2, max_size=40).filter(
        lambda rows: 0 < sum(lens for _, lens in rows) < len(rows)
    )
)
@settings(deadline=None)
def test_figures_with_errors_are_those_of_the_package(rows):
    scores, is_lens = np.array([row[0] / 8 for row in rows]), np.array([row[1] for row in rows])
    found = figures_of(counts_of(scores, is_lens), depths=(len(rows),))
    assert found["auroc"] == pytest.approx(roc_auc_score(is_lens, scores))
    assert found["tpr0"] == pytest.approx(slow_tpr(scores, is_lens, 1))
    assert found["tpr10"] == pytest.approx(slow_tpr(scores, is_lens, 10))
    assert found["completeness"] == pytest.approx(recall_score(is_lens, scores >= 0.5))
    assert found[str(len(rows))] == is_lens.sum()


@given(
    st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=20).filter(
        lambda rows: 0 < sum(lens for _, lens in rows) < len(rows)
    ),
    st.integers(0, 100),
)
@settings(max_examples=50, deadline=None)
def test_drawn_counts_are_counts_of_rows_of_the_sample(rows, seed):
    scores, is_lens = np.array([row[0] / 4 for row in rows]), np.array([row[1] for row in rows])
    counts = counts_of(scores, is_lens)
    for drawn in bootstrap.resampled_counts(counts, repeats=3, seed=seed):
        assert drawn.n_positives == is_lens.sum()
        assert (drawn.positives[counts.positives == 0] == 0).all()
        assert (drawn.negatives[counts.negatives == 0] == 0).all()
        at_or_above = drawn.negatives_greater + drawn.negatives
        assert (at_or_above[counts.negatives_greater + counts.negatives == 0] == 0).all()
        assert (
            at_or_above[counts.negatives_greater + counts.negatives == counts.n_negatives]
            == counts.n_negatives
        ).all()
        assert (drawn.negatives_greater[:-1] >= at_or_above[1:]).all()


@pytest.mark.parametrize(
    ("name", "metric"), [("auroc", auroc), ("tpr10", tpr10), ("completeness", completeness)]
)
def test_errors_are_those_of_drawing_rows(name, metric):
    scores, is_lens = sample(800)
    drawn = [
        figures_of(c)[name] for c in bootstrap.resampled_counts(counts_of(scores, is_lens), repeats=1000)
    ]
    expected = bootstrap.standard_error(metric, scores, is_lens, repeats=1000, seed=1)
    # A standard deviation of 1,000 draws is known to 2.2%.
    assert np.std(drawn) == pytest.approx(expected, rel=0.12)


def test_error_of_completeness_is_binomial(tmp_path):
    scores, is_lens = sample(2000)
    scan = write_scan(tmp_path / "run", range(2000), scores.tolist())
    lines = [f"{i},{int(lens)}" for i, lens in enumerate(is_lens)]
    found = evaluated(scan, write_csv(tmp_path / "t.csv", ["ID,is_lens", *lines]))
    p, n = found.metrics.values["completeness"], found.metrics.values["n_lenses"]
    # The 200 draws of a report know it to 5%.
    assert found.errors["completeness"] == pytest.approx(np.sqrt(p * (1 - p) / n), rel=0.25)


# --- tables ---------------------------------------------------------------------------------------------


def truth_of(path, **columns) -> dict:
    table = read_truth_table(str(path), **columns)
    return dict(zip(table.ids.to_pylist(), table.is_lens.to_pylist(), strict=True))


def test_both_challenges_are_known_by_their_columns(tmp_path):
    first = write_csv(
        tmp_path / "1.csv", ["# log, of the challenge", "ID,is_lens,Einstein_area", "7,1,0.5", "8,0,0"]
    )
    assert truth_of(first) == {"7": True, "8": False}
    second = ["# log", ",ID, z, n_source_im, mag_eff, n_pix_source", "0,7,.5, 2, 5.0, 40", "1,8,.5,1,1.6,40"]
    second += ["2,9,.5,1,1.7,20", "3,10,.5,0,nan,0", "4,11,.5,1,nan,40"]
    expected = {"7": True, "8": False, "9": False, "10": False, "11": None}
    assert truth_of(write_csv(tmp_path / "2.csv", second)) == expected


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.tsv", "t.ecsv", "t.fits", "t.vot", "t.parquet"])
def test_one_truth_in_any_format_is_the_same(tmp_path, name):
    table = Table({"NAME": [3, 1, 2], "LENS": [True, False, True], "note": ["a,b", "", "c"]})
    table["LENS"] = MaskedColumn(table["LENS"], mask=[False, False, True])
    path = tmp_path / name
    if name == "t.parquet":
        columns = {"note": ["a", "b", "c"], "NAME": [3, 1, 2], "LENS": [True, False, None]}
        pq.write_table(pa.table(columns), path)
    elif name in ("t.csv", "t.csv.gz", "t.tsv"):
        text = 'NAME,note,LENS\r\n3,"a,b",True\r\n1,,False\r\n2,c,\r\n'
        text = text.replace('"a,b"', "ab").replace(",", "\t") if name == "t.tsv" else text
        path.write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    elif name == "t.fits":
        table["LENS"] = table["LENS"].filled(False).astype(float)
        table["LENS"][2] = np.nan
        table.write(path)
    else:
        table.write(path, format={"t.ecsv": "ascii.ecsv", "t.vot": "votable"}[name])
    truth = read_truth_table(str(path), id_column="NAME", label_column="LENS")
    assert ids_of_kind(truth.ids, pa.int64()).to_pylist() == [3, 1, 2]
    assert truth.is_lens.to_pylist() == [True, False, None]


@pytest.mark.parametrize(
    "labels",
    [
        pa.array([True, False, None]),
        pa.array([1, 0, None], pa.int8()),
        pa.array([1.0, 0.0, float("nan")]),
        pa.array(["lens", "non-lens", None]),
        pa.array([" True", "FALSE ", ""]),
        pa.array(["1", "0", "NaN"]).dictionary_encode(),
    ],
)
def test_labels_are_understood_as_people_write_them(tmp_path, labels):
    pq.write_table(pa.table({"object_id": ["a", "b", "c"], "label": labels}), tmp_path / "t.parquet")
    assert truth_of(tmp_path / "t.parquet") == {"a": True, "b": False, "c": None}


@pytest.mark.parametrize(
    ("scan_ids", "table_ids"),
    [
        ([1, 2, 3], pa.array(["1", "2", "3"])),
        ([1, 2, 3], pa.array([1.0, 2.0, 3.0])),
        ([1, 2, 3], pa.array(["1.0", " 02", "+3"])),
        ([1, 2, 3], pa.array([1, 2, 3], pa.uint16())),
        (["1", "2", "3"], pa.array([1, 2, 3])),
        (["J1", "J2", "J3"], pa.array(["J1", "J2", "J3"], pa.large_string())),
        (["001", "2", "3"], pa.array(["001", "2", "3"])),
    ],
)
def test_ids_match_as_numbers_or_as_texts(tmp_path, scan_ids, table_ids):
    scan = write_scan(tmp_path / "run", scan_ids, [0.9, 0.1, 0.2])
    pq.write_table(pa.table({"id": table_ids, "label": [True, False, False]}), tmp_path / "t.parquet")
    found = evaluated(scan, tmp_path / "t.parquet")
    assert found.fates["lenses"].scored == 1
    assert found.fates["non_lenses"].scored == 2
    assert found.metrics.values["auroc"] == 1.0
    assert found.compared_as in summary(found)


def test_zeros_before_an_id_in_text_tell_objects_apart(tmp_path):
    scan = write_scan(tmp_path / "run", ["01", "1", "x"], [0.9, 0.1, 0.2])
    found = evaluated(scan, write_csv(tmp_path / "t.csv", ["ID,is_lens", "01,1", "1,0"]))
    assert found.metrics.values["auroc"] == 1.0
    whole = write_scan(tmp_path / "whole", [1, 2, 3], [0.9, 0.1, 0.2])
    with pytest.raises(InputError, match="id 1 in two ways of writing"):
        evaluated(whole, tmp_path / "t.csv")


def test_columns_with_one_name_and_none_do_not_confuse(tmp_path):
    path = write_csv(tmp_path / "t.csv", ["\ufeff,ID,,ID,is_lens", "x,7,y,8,1", "x,9,y,10,0"])
    assert truth_of(path) == {"7": True, "9": False}


# --- bad input ------------------------------------------------------------------------------------------


@pytest.fixture
def good(tmp_path):
    scan = write_scan(tmp_path / "run", [11, 12, 13, 14], [0.9, 0.2, None, 0.1])
    return scan, write_csv(tmp_path / "good.csv", ["ID,is_lens,grade", "11,1,A", "12,0,B", "13,1,C", "14,0,"])


def assert_refused(answer, *said):
    code, lines = answer
    assert code == 2, lines
    assert len(lines) == 1, lines
    for words in said:
        assert words in lines[0]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], ["is empty"]),
        (["ID,is_lens"], ["no rows"]),
        (["ID,z", "11,0.3"], ["lacks the column n_source_im", "this one has ID, z"]),
        (["name,is_lens", "11,1"], ["lacks the column id", "name, is_lens", "--id-column"]),
        (["ID,is_lens", "11,1", "12,maybe"], ["'maybe'", "no truth"]),
        (["ID,is_lens", "11,1", "12,2"], ["'2'", "no truth"]),
        (["ID,is_lens", "11,1", "12,0", "11,1"], ["'11'", "more than once"]),
        (["ID,is_lens", "11,0", "12,0"], ["0 lenses", "2 non-lenses"]),
        (["ID,is_lens", "11,1", "12,"], ["0 non-lenses"]),
        (["ID,is_lens", "21,1", "22,0"], ["none of the 2 objects", "'21', '22'", "11, 12"]),
        (["ID,is_lens", "13,1", "12,0"], ["none of the 1 lenses", "1 could not be scored (nan 1)"]),
        (["ID,is_lens", "11,1", "99,0"], ["none of the 1 non-lenses", "1 are not in it"]),
        (["ID,is_lens", "11,1", "12"], ["no table that can be read"]),
        (["ID,n_source_im,mag_eff,n_pix_source", "11,1,high,40"], ["'mag_eff'", "not of numbers"]),
    ],
)
def test_tables_that_tell_no_truth_are_refused(run_job, tmp_path, good, lines, said):
    bad = write_csv(tmp_path / "bad.csv", lines)
    answer = run_job("evaluate.py", "--scan", good[0], "--truth", bad, "--output", tmp_path / "out")
    assert_refused(answer, *said)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--id-column", "name"], ["no column 'name'", "ID, is_lens, grade"]),
        (["--label-column", "lens"], ["no column 'lens'", "ID, is_lens, grade"]),
        (["--label-column", "grade"], ["'A', 'B', 'C'", "no truth"]),
        (["--truth", "nowhere.csv"], ["nowhere.csv does not exist"]),
        (["--truth", "."], ["is a folder"]),
        (["--scan", "nowhere"], ["nowhere", "does not exist"]),
        (["--nonsense", "1"], ["--nonsense"]),
    ],
)
def test_wrong_words_are_refused(run_job, good, words, said):
    assert_refused(run_job("evaluate.py", "--scan", good[0], "--truth", good[1], *words), *said)


def test_scan_that_is_not_done_is_refused_with_how_far_it_is(run_job, tmp_path, good):
    begun = write_scan(tmp_path / "begun", [11, 12, 13, 14], [0.9, 0.2, 0.3, 0.1], parts=4, done=[0, 2])
    assert_refused(run_job("evaluate.py", "--scan", begun, "--truth", good[1]), "2 of 4 fragments are done")
    none = write_scan(tmp_path / "none", [11, 12], [0.9, 0.2], parts=2, done=[])
    assert_refused(run_job("evaluate.py", "--scan", none, "--truth", good[1]), "start its scan again")


def test_files_that_are_no_tables_are_refused(run_job, tmp_path, good):
    for name, data in {
        "a": b"SIMPLE  =",
        "b": b"PAR1 and no more",
        "c": b"\x1f\x8b\x08",
        "d": b"ID,\xff\xfe",
    }.items():
        (tmp_path / name).write_bytes(data)
        assert_refused(run_job("evaluate.py", "--scan", good[0], "--truth", tmp_path / name), "no table")


def test_output_that_holds_something_else_is_left_alone(run_job, tmp_path, good):
    words = ["--scan", good[0], "--truth", good[1], "--output"]
    before = sorted(Path(good[0]).rglob("*"))
    assert_refused(run_job("evaluate.py", *words, good[0]), "holds something else")
    assert_refused(run_job("evaluate.py", *words, good[1]), "is a file")
    assert sorted(Path(good[0]).rglob("*")) == before
    assert run_job("evaluate.py", *words, tmp_path / "out")[0] == 0
    assert run_job("evaluate.py", *words, tmp_path / "out")[0] == 0


def test_wrong_words_are_answered_without_heavy_imports(tmp_path, good):
    script = f"""
import runpy, sys
sys.argv = ["evaluate.py", "--scan", "nowhere", "--truth", {good[1]!r}]
try:
    runpy.run_path({str(JOB)!r}, run_name="__main__")
except SystemExit as stop:
    print(stop.code, *({{"torch", "ray", "matplotlib", "astropy", "sklearn"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2"]


def test_a_whole_evaluation_needs_neither_ray_nor_torch(good):
    script = f"""
import runpy, sys
sys.argv = ["evaluate.py", "--scan", {good[0]!r}, "--truth", {good[1]!r}]
try:
    runpy.run_path({str(JOB)!r}, run_name="__main__")
except SystemExit as stop:
    print(stop.code, *({{"torch", "ray"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0"
