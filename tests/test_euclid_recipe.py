"""The recipe euclid_efficientnet: its words, its phases, and a run from end to end."""

import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import timm
import torch
from astropy.io import fits
from safetensors.torch import save_file

from lensray import bundle as bundles
from lensray.errors import InputError
from lensray.normalization import BOLOGNA_FACTORS, BandScale
from lensray.recipes import euclid_efficientnet as recipe
from lensray.recipes.euclid_efficientnet import Config
from lensray.recipes.euclid_sets import make_sets
from lensray.recipes.outcome import run_recipe
from lensray.training.plain import PlainWorkbench
from lensray.training.schedules import OneCycle, OnPlateau


def bench_of(config):
    return PlainWorkbench(config.output, "euclid_efficientnet", config.settings())


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ({"challenge": "folder"}, "belong together"),
        ({"truth": "t.csv"}, "belong together"),
        ({"lens_fraction": 1.0}, "between 0 and 1"),
        ({"members": 0}, "--members is 0"),
        ({"cutouts": "c", "challenge": "f", "truth": "t"}, "leave out --challenge"),
        ({"workers": 0}, "--workers is 0"),
    ],
)
def test_words_without_sense_are_refused(words, reason):
    with pytest.raises(InputError, match=reason):
        Config(output="out", **words)


def test_the_paper_scale_is_the_reports():
    config = Config(output="out", scale="paper", architecture="stack")
    wanted = recipe.phase(config, "2", 0, "")
    assert recipe.sizes(config).objects == 100_000
    assert wanted.architecture == "efficientnet_stack"
    assert wanted.inputs.shape == (4, 200, 200)
    assert wanted.arguments["planes"] == [[1, 200], [3, 60]]
    assert wanted.arguments["batch_statistics"]
    assert wanted.optimizer.learning_rate == 0.01
    assert wanted.optimizer.weight_decay == 1e-4
    assert isinstance(wanted.schedule, OnPlateau)
    stalled = [0.5] * 6
    assert [wanted.batch_size * wanted.schedule.batch_factor(stalled[:n]) for n in range(7)] == [
        *(8, 8, 16, 32, 64, 128, 128),
    ]


def test_small_sees_the_middle_of_the_images_of_both_instruments():
    config = Config(output="out", scale="small")
    inputs = recipe.phase(config, "1", 0, "").inputs
    vis, nisp = inputs, inputs.further[0]
    assert vis.height * vis.pixel_scale_arcsec == pytest.approx(nisp.height * nisp.pixel_scale_arcsec)
    assert isinstance(recipe.phase(config, "1", 0, "").schedule, OneCycle)


def test_fluxes_of_the_challenge_are_multiplied_by_the_reports_constants():
    config = Config(output="out", challenge="folder", truth="t.csv")
    normalization = recipe.phase(config, "1", 0, "").normalization
    assert normalization == BandScale(factors=tuple(BOLOGNA_FACTORS[band] for band in ("VIS", "Y", "J", "H")))


def test_members_and_methods_differ_by_seed_and_start_alone():
    config = Config(output="out")
    one, two = (recipe.phase(config, "1", member, "start") for member in range(2))
    assert replace(two, name=one.name, seed=one.seed) == one
    assert one.fresh == ("classifier.",)
    assert recipe._methods(config) == ("1",)
    assert recipe._methods(replace(config, pretrained="timm")) == ("1", "2")


def test_the_challenges_objects_are_divided_once_and_without_overlap(tmp_path):
    rows = ["ID,is_lens"]
    for number in range(100000, 100020):
        for band, side in (("VIS", 12), ("Y", 4), ("J", 4), ("H", 4)):
            path = tmp_path / "Public" / f"EUC_{band}" / f"imageEUC_{band}-{number}.fits"
            path.parent.mkdir(parents=True, exist_ok=True)
            fits.PrimaryHDU(np.random.default_rng(number).normal(size=(side, side))).writeto(path)
        rows.append(f"{number},{int(number % 10 > 0)}")
    (tmp_path / "truth.csv").write_text("\n".join(rows))
    config = Config(
        output=str(tmp_path / "out"), challenge=str(tmp_path / "Public"), truth=str(tmp_path / "truth.csv")
    )
    (training,), validation, test = make_sets(config, bench_of(config), objects=recipe.sizes(config).objects)
    ids = [
        pq.read_table(url, columns=["object_id"])["object_id"].to_pylist()
        for url in (training, validation, test)
    ]
    assert [len(part) for part in ids] == [14, 2, 4]
    assert sorted(row for part in ids for row in part) == list(range(100000, 100020))


@pytest.mark.slow
def test_a_run_from_pretrained_weights_measures_both_methods_and_their_average(tmp_path):
    torch.manual_seed(0)
    weights = str(tmp_path / "b0.safetensors")
    save_file(timm.create_model("efficientnet_b0").state_dict(), weights)
    config = Config(
        output=str(tmp_path / "out"),
        scale="smoke",
        objects=40,
        members=1,
        pretrained=weights,
        lens_fraction=0.5,
    )
    result = run_recipe(recipe, config, bench_of(config))
    measured = json.loads((tmp_path / "out" / "batch_size.json").read_text())
    assert list(measured["auroc_by_batch_size"]) == ["method_1_member_1", "method_2_member_1"]
    assert list(measured["auroc_by_batch_size"]["method_1_member_1"]) == ["1", "2", "4", "8"]
    assert "average of 2" in measured["auroc"]
    assert (tmp_path / "out" / "batch_size.png").read_bytes().startswith(b"\x89PNG")
    names = [one.model for one in result.outcome.evaluations]
    assert names[0] == "method_1_member_1, running statistics"
    assert len(names) == 7
    second = bundles.load(str(tmp_path / "out" / "method_2_member_1" / "bundle.safetensors"))
    assert second.model().depends_on_batch
    first = bundles.load(str(tmp_path / "out" / "start_1" / "bundle.safetensors"))
    kept = bundles.load(str(tmp_path / "out" / "start_2" / "bundle.safetensors"))
    stem = "backbones.0.conv_stem.weight"
    torch.testing.assert_close(first.state[stem], kept.state[stem])
    assert "AUROC by the number of images" in result.outcome.notes[0]


def test_pretrained_weights_that_are_not_there_end_the_run_before_any_training(tmp_path):
    config = Config(
        output=str(tmp_path / "out"), scale="smoke", objects=40, pretrained=str(tmp_path / "no.pth")
    )
    with pytest.raises(InputError, match=r"no\.pth"):
        recipe._start(config, bench_of(config), "1")
