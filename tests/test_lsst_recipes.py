"""The two recipes for LSST mocks, without a cluster, at their smallest."""

import numpy as np
import pytest
from test_lsst_mocks import mock_folder

from lensray import bundle as bundles
from lensray.distributed.planning import ScanConfig, plan_scan
from lensray.errors import InputError
from lensray.recipes import deeplens_lsst, lsst_cnn
from lensray.training.plain import PlainWorkbench
from lensray.training.sets import rows_of


def smoke(recipe, folder, **words):
    config = recipe.Config(output=str(folder), scale="smoke", **words)
    name = recipe.__name__.rsplit(".", 1)[-1]
    return recipe.run(config, PlainWorkbench(config.output, name, config.settings()))


def test_deeplens_learns_beside_the_classic_network_and_meets_the_published_mocks(tmp_path):
    mock_folder(tmp_path / "mocks", lensed=6, unlensed=6)
    found = smoke(
        deeplens_lsst, tmp_path / "run", mocks=str(tmp_path / "mocks"), images=16, train_on_mocks=True
    )
    assert list(found.phases) == ["deeplens", "classic_cnn", "deeplens_mocks"]
    assert bundles.read_header(found.bundle).architecture == "deeplens"
    judged = {(e.model, e.kind): e for e in found.evaluations}
    real = {model for model, kind in judged if kind == "real"}
    assert real == {
        *("deeplens", "classic_cnn", "deeplens_mocks"),
        *("brightness", "forest, training half", "forest, simulated mocks"),
    }
    for evaluation in judged.values():
        assert np.isfinite(evaluation.scores).all()
        assert len(evaluation.scores) == (6 if evaluation.kind == "real" else 24)
    assert judged["deeplens", "real"].images.shape == (6, 1, 45, 45)


def test_lsst_cnn_regresses_the_einstein_radius(tmp_path):
    found = smoke(lsst_cnn, tmp_path / "run", target="einstein_radius_arcsec", seed=2)
    (residuals,) = found.regressions
    assert residuals.target == "einstein_radius_arcsec"
    # The twelve lenses of the validation set; unlensed mocks have no radius.
    assert residuals.true.shape == residuals.predicted.shape == (12,)
    assert ((residuals.true > 0.3) & (residuals.true < 3)).all()
    assert bundles.read_header(found.bundle).classes == ("einstein_radius_arcsec",)
    scan = ScanConfig(
        cutouts=str(tmp_path / "run" / "validation"), bundle=found.bundle, output=str(tmp_path / "scan")
    )
    with pytest.raises(InputError, match="regresses einstein_radius_arcsec and gives no probability"):
        plan_scan(scan)


def test_images_of_low_signal_are_left_out_and_counted(tmp_path):
    found = smoke(lsst_cnn, tmp_path / "run", min_snr=5.0)
    made = rows_of(str(tmp_path / "run" / "training")), rows_of(str(tmp_path / "run" / "good_0"))
    assert made[0] > made[1] > 0
    assert found.notes[0] == f"good_0: {made[0] - made[1]} of {made[0]} images have a signal-to-noise below 5"


def test_several_bands_are_simulated_as_lsst_epochs(tmp_path):
    found = smoke(lsst_cnn, tmp_path / "run", bands=("i", "g"), images=24)
    header = bundles.read_header(found.bundle)
    assert header.inputs.bands == ("i", "g")
    assert header.inputs.pixel_scale_arcsec == 0.2
    assert header.arguments["in_channels"] == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"train_on_mocks": True}, "--train-on-mocks needs --mocks"),
        ({"mocks": "m", "bands": ("g",)}, "leave --bands"),
        ({"images": 0}, "--images is 0"),
        ({"target": "colour"}, "einstein_radius_arcsec, velocity"),
        ({"target": "axis_ratio", "bands": ("g",)}, "--target is learned from simulated mocks"),
    ],
)
def test_words_that_make_no_sense_are_refused(words, message):
    with pytest.raises(InputError, match=message):
        lsst_cnn.Config(output="x", **words)


def test_unknown_bands_and_missing_mocks_are_refused(tmp_path):
    with pytest.raises(InputError, match="choose among them"):
        smoke(lsst_cnn, tmp_path / "a", bands=("u",))
    with pytest.raises(InputError, match="nothing"):
        smoke(lsst_cnn, tmp_path / "b", mocks=str(tmp_path / "nothing"))


def test_the_papers_settings_stand_at_the_papers_scale(tmp_path):
    from lensray.recipes.lsst import make_sets

    bench = PlainWorkbench(str(tmp_path), "deeplens_lsst")
    config = deeplens_lsst.Config(output=str(tmp_path), scale="paper")
    sets = make_sets(config, bench, images=4, validation=4)
    deeplens = deeplens_lsst.phase(config, sets, "deeplens")
    assert (deeplens.batch_size, deeplens.epochs, deeplens.schedule.at, deeplens.schedule.by) == (
        *(128, 120),
        (40, 80),
        0.1,
    )
    assert (deeplens.optimizer.name, deeplens.optimizer.learning_rate) == ("adam", 1e-3)
    slides = lsst_cnn.phase(lsst_cnn.Config(output=str(tmp_path), scale="paper"), sets)
    assert (slides.batch_size, slides.epochs, slides.optimizer.learning_rate) == (32, 200, 1e-3)
    # 1e-2 an epoch of 500 steps.
    assert slides.schedule.decay == pytest.approx(1e-2 / 500)
