"""Real images through the commands: stamps of three surveys, with simulated lenses, scanned on disk and on S3."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
import surveys

from lensray.io import storage

JOBS = Path(__file__).parent.parent / "jobs"
GRID = ("--pixel-scale", "0.168", "--size", "64")


def job(name, *words):
    environment = {**os.environ, "RAY_ADDRESS": "local"}
    command = [sys.executable, str(JOBS / name), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def real_survey(tmp_path, real_data):
    """DES and HSC galaxies and the Euclid candidate's DES images at HSC's pixel scale, with simulated lenses."""
    survey, simulated = tmp_path / "real", tmp_path / "sim"
    job(
        *(
            "make_cutouts.py",
            "--stamps",
            f"{real_data}/des_objects/{{band}}.fits",
            "--stack",
            "--bands",
            "g",
            "r",
            "i",
        ),
        *(
            "--survey",
            "des",
            "--input-pixel-scale",
            "0.263",
            "--id-prefix",
            "des-",
            *GRID,
            "--output",
            survey,
        ),
    )
    job(
        *("make_cutouts.py", "--stamps", f"{real_data}/euclid_q1/*.fits", "--bands", "g", "r", "i"),
        *("--hdus", "DES_G_BGSUB", "DES_R_BGSUB", "DES_I_BGSUB", *GRID, "--output", survey, "--append"),
    )
    job(
        *(
            "make_cutouts.py",
            "--stamps",
            f"{real_data}/hsc_cosmos/Cut_HSC*.fits",
            *GRID,
            "--output",
            survey,
            "--append",
        ),
        *("--bands", "g", "r", "i", "z", "y", "--keep-bands", "g", "r", "i"),
    )
    job(
        "simulate_survey.py",
        "--survey",
        "hsc_wide",
        "--count",
        "150",
        "--lenses",
        "50",
        "--seed",
        "77",
        "--output",
        simulated,
    )
    job("make_cutouts.py", "--surveys", simulated, "--output", survey, "--append")
    return survey


@pytest.mark.slow
def test_real_images_have_the_same_scores_on_disk_and_on_s3(real_survey, tmp_path, s3_url):
    words = ("--bundle", "eznet_hsc", "--keep", "file")
    job("scan_survey.py", "--cutouts", real_survey, "--output", tmp_path / "run", *words)
    local = surveys.scores_of(tmp_path / "run")
    assert local.num_rows == 46 + 1 + 2 + 150
    assert set(local["status"].to_pylist()) == {"ok"}
    filesystem, path = storage.resolve(s3_url)
    pafs.copy_files(str(real_survey), f"{path}/survey", destination_filesystem=filesystem)
    job("scan_survey.py", "--cutouts", f"{s3_url}/survey", "--output", f"{s3_url}/run", *words)
    parts = [entry.path for entry in storage.find_files(f"{s3_url}/run/scores")]
    remote = pa.concat_tables([pq.read_table(part, filesystem=filesystem) for part in parts])
    assert remote.equals(local)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["n_tracers"] == 50
    # The simulated lenses must stand out among real galaxies that the network has never seen.
    assert metrics["ranking_performance"] > 0.5


@pytest.mark.slow
def test_real_exposures_with_nan_pixels_are_scored_or_say_why_not(real_data, tmp_path):
    bundle = surveys.toy_bundle(tmp_path / "r.safetensors", bands=("r",), size=64, max_nan_fraction=0.05)
    job(
        *("make_cutouts.py", "--stamps", f"{real_data}/des_objects/balrog_cutouts_00102.fits", "--stack"),
        *("--bands", "r", "--survey", "des", "--input-pixel-scale", "0.263", "--output", tmp_path / "balrog"),
    )
    job(
        *(
            "scan_survey.py",
            "--cutouts",
            tmp_path / "balrog",
            "--bundle",
            bundle,
            "--output",
            tmp_path / "run",
        ),
        "--resample",
    )
    scores = surveys.scores_of(tmp_path / "run")
    statuses = scores["status"].to_pylist()
    assert len(statuses) == 16
    assert {"nan", "filled_nan"} & set(statuses)
    for score, status in zip(scores["score"].to_pylist(), statuses, strict=True):
        assert (score is not None) == (status in ("ok", "filled_nan"))
