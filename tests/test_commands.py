"""Commands as a user types them: bad input gets exit code 2 and one helpful line, and leaves nothing behind."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import surveys

from lensray import cutouts

JOBS = Path(__file__).parent.parent / "jobs"


@pytest.fixture
def toy(tmp_path):
    bundle = surveys.toy_bundle(tmp_path / "toy.safetensors")
    survey = surveys.toy_survey(tmp_path / "survey", 30, files=1)
    return survey, bundle


def scan_words(tmp_path, toy, **changed):
    words = {"cutouts": toy[0], "bundle": toy[1], "output": tmp_path / "out", **changed}
    return [part for key, value in words.items() for part in (f"--{key.replace('_', '-')}", value)]


def assert_refused(answer, *said):
    code, lines = answer
    assert code == 2, lines
    assert len(lines) == 1, lines
    for words in said:
        assert words in lines[0]


def write_table(tmp_path, table):
    (tmp_path / "bad").mkdir()
    pq.write_table(table, tmp_path / "bad" / "a.parquet")
    return tmp_path / "bad"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"cutouts": "nowhere"}, "does not exist"),
        ({"bundle": "no_such_bundle"}, "no bundle"),
        ({"top": "many"}, "--top"),
        ({"top": "0"}, "at least 1"),
        ({"keep": "colour"}, "colour"),
        ({"keep": "image"}, "of its own"),
        ({"pixel_scale": "0"}, "--pixel-scale"),
        ({"cutouts": ""}, "neither --cutouts nor --images"),
        ({"classes": "ring"}, "ring"),
        ({"nonsense": "1"}, "--nonsense"),
    ],
)
def test_wrong_words_of_a_scan_are_refused(run_job, tmp_path, toy, words, said):
    assert_refused(run_job("scan_survey.py", *scan_words(tmp_path, toy, **words)), said)
    assert not (tmp_path / "out").exists()


def test_empty_folder_and_folder_without_parquet_are_refused(run_job, tmp_path, toy):
    (tmp_path / "empty").mkdir()
    assert_refused(run_job("scan_survey.py", *scan_words(tmp_path, toy, cutouts=tmp_path / "empty")), "empty")
    (tmp_path / "empty" / "notes.txt").write_text("no survey")
    assert_refused(
        run_job("scan_survey.py", *scan_words(tmp_path, toy, cutouts=tmp_path / "empty")), ".parquet"
    )
    (tmp_path / "empty" / "fake.parquet").write_bytes(b"this is no Parquet file at all")
    assert_refused(
        run_job("scan_survey.py", *scan_words(tmp_path, toy, cutouts=tmp_path / "empty")), "fake.parquet"
    )


def test_missing_and_wrong_columns_are_refused_by_name(run_job, tmp_path, toy):
    table = pq.read_table(Path(toy[0]) / "part-00000.parquet")
    bad = write_table(tmp_path, table.drop_columns(["ra"]))
    assert_refused(run_job("scan_survey.py", *scan_words(tmp_path, toy, cutouts=bad)), "ra")
    pq.write_table(table.set_column(0, "object_id", pa.array(np.linspace(0, 1, 30))), bad / "a.parquet")
    assert_refused(run_job("scan_survey.py", *scan_words(tmp_path, toy, cutouts=bad)), "object_id", "double")
    pq.write_table(table.set_column(3, "image", pa.array(["x"] * 30)), bad / "a.parquet")
    assert_refused(run_job("scan_survey.py", *scan_words(tmp_path, toy, cutouts=bad)), "image")
    pq.write_table(table.set_column(4, "is_tracer", pa.array([1] * 30)), bad / "a.parquet")
    assert_refused(run_job("scan_survey.py", *scan_words(tmp_path, toy, cutouts=bad)), "is_tracer", "bool")
    pq.write_table(table.replace_schema_metadata(None), bad / "a.parquet")
    assert_refused(
        run_job("scan_survey.py", *scan_words(tmp_path, toy, cutouts=bad)), "--bands", "--pixel-scale"
    )


def test_survey_that_the_bundle_was_not_made_for_is_refused(run_job, tmp_path, toy):
    small = surveys.toy_survey(tmp_path / "small", 10, files=1, size=24)
    assert_refused(
        run_job("scan_survey.py", *scan_words(tmp_path, toy, cutouts=small)), "24×24", "32×32", "--resample"
    )
    coarse = surveys.toy_survey(tmp_path / "coarse", 10, files=1, pixel_scale=0.27)
    assert_refused(
        run_job("scan_survey.py", *scan_words(tmp_path, toy, cutouts=coarse)), "0.27", "--resample"
    )
    other = surveys.toy_survey(tmp_path / "other", 10, files=1, bands=("g", "r", "z"))
    assert_refused(run_job("scan_survey.py", *scan_words(tmp_path, toy, cutouts=other)), "'i'", "'z'")


def test_what_is_no_bundle_is_refused(run_job, tmp_path, toy):
    (tmp_path / "text.safetensors").write_text("weights")
    answer = run_job("scan_survey.py", *scan_words(tmp_path, toy, bundle=tmp_path / "text.safetensors"))
    assert_refused(answer, "no .safetensors file")
    from safetensors.numpy import save_file

    save_file({"w": np.zeros(3, np.float32)}, tmp_path / "bare.safetensors")
    answer = run_job("scan_survey.py", *scan_words(tmp_path, toy, bundle=tmp_path / "bare.safetensors"))
    assert_refused(answer, "no LensRay description")
    data = Path(toy[1]).read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    description = json.loads(header["__metadata__"]["lensray"])
    del description["normalization"]
    header["__metadata__"]["lensray"] = json.dumps(description)
    words = json.dumps(header).encode()
    (tmp_path / "n.safetensors").write_bytes(len(words).to_bytes(8, "little") + words + data[8 + size :])
    answer = run_job("scan_survey.py", *scan_words(tmp_path, toy, bundle=tmp_path / "n.safetensors"))
    assert_refused(answer, "lacks its normalization")


def test_output_that_is_a_file_or_a_survey_is_refused(run_job, tmp_path, toy):
    other = surveys.toy_survey(tmp_path / "other", 5, files=1)
    assert_refused(run_job("scan_survey.py", *scan_words(tmp_path, toy, output=other)), "perhaps a survey")
    answer = run_job("scan_survey.py", *scan_words(tmp_path, toy, output=Path(other) / "part-00000.parquet"))
    assert_refused(answer, "is a file")
    answer = run_job(
        "simulate_survey.py", "--output", Path(other) / "part-00000.parquet", "--count", 5, "--lenses", 1
    )
    assert_refused(answer, "is a file")


def test_bundle_whose_normalization_has_other_bands_is_refused(run_job, tmp_path, toy):
    from lensray import bundle, models
    from lensray.normalization import SigmaClip

    arguments = {"in_channels": 3, "blocks": [[4, 1, 1]]}
    made = bundle.Bundle(
        architecture="eznet",
        arguments=arguments,
        inputs=bundle.Inputs(bands=("g", "r", "i"), height=8, width=8, pixel_scale_arcsec=0.168),
        normalization=SigmaClip(mean=(0.0, 0.0), sigma=(1.0, 1.0)),
        classes=("non-lens", "lens"),
        positive_classes=("lens",),
        state=models.build("eznet", **arguments).state_dict(),
    )
    with pytest.raises(ValueError, match="normalization"):
        bundle.save(made, str(tmp_path / "two.safetensors"))


def test_output_inside_the_survey_is_refused(run_job, tmp_path, toy):
    answer = run_job("scan_survey.py", *scan_words(tmp_path, toy, output=Path(toy[0]) / "out"))
    assert_refused(answer, "choose another folder")


def test_s3_that_cannot_be_reached_or_entered_is_refused(run_job, tmp_path, toy, s3_url, monkeypatch):
    assert_refused(
        run_job("scan_survey.py", *scan_words(tmp_path, toy, cutouts=f"{s3_url}/none")), "does not exist"
    )
    assert_refused(
        run_job("scan_survey.py", *scan_words(tmp_path, toy, cutouts="s3://no-such-bucket-here/x")), "bucket"
    )
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    answer = run_job("scan_survey.py", *scan_words(tmp_path, toy, cutouts=s3_url))
    assert_refused(answer, "AWS_ENDPOINT_URL")
    assert "testing-secret" not in answer[1][0]


def test_cluster_that_does_not_answer_is_refused_before_anything_is_written(
    run_job, tmp_path, toy, monkeypatch
):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    assert_refused(run_job("scan_survey.py", *scan_words(tmp_path, toy)), "RAY_ADDRESS=127.0.0.1:9")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--survey", "sdss"], "sdss"),
        (["--lenses", "30", "--count", "20"], "--lenses 30"),
        (["--size", "3"], "--size is 3"),
        (["--seed", "-1"], "--seed"),
    ],
)
def test_simulations_without_sense_are_refused(run_job, tmp_path, words, said):
    assert_refused(run_job("simulate_survey.py", "--output", tmp_path / "s", *words), said)
    assert not (tmp_path / "s").exists()


def test_simulation_into_a_folder_of_something_else_is_refused(run_job, tmp_path, toy):
    assert_refused(
        run_job("simulate_survey.py", "--output", toy[0], "--count", "10", "--lenses", "1"), "not empty"
    )


def test_objects_are_found_only_in_a_run(run_job, tmp_path, toy):
    assert_refused(
        run_job("find_objects.py", "--run", tmp_path / "none", "--object-ids", "1"), "does not exist"
    )


def test_wrong_path_is_answered_without_heavy_imports(tmp_path):
    script = f"""
import runpy, sys
sys.argv = ["scan_survey.py", "--cutouts", "nowhere", "--output", {str(tmp_path / "out")!r}]
try:
    runpy.run_path({str(JOBS / "scan_survey.py")!r}, run_name="__main__")
except SystemExit as stop:
    print(stop.code, "torch" in sys.modules, "ray" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "False", "False"]


@pytest.mark.parametrize("job", sorted(path.name for path in JOBS.glob("*.py")))
def test_help_explains_every_field(job):
    done = subprocess.run(
        [sys.executable, str(JOBS / job), "--help"], capture_output=True, text=True, check=True
    )
    assert "--help" in done.stdout
    assert done.stderr == ""


def test_cutouts_with_other_metadata_in_one_survey_are_refused(run_job, tmp_path, toy):
    fmt = surveys.cutout_format(pixel_scale=0.2)
    table = pq.read_table(Path(toy[0]) / "part-00000.parquet")
    schema = cutouts.cutout_schema(fmt).metadata
    pq.write_table(table.replace_schema_metadata(schema), Path(toy[0]) / "part-00001.parquet")
    assert_refused(run_job("scan_survey.py", *scan_words(tmp_path, toy)), "lensray.survey")
