"""A phase of training from start to end: it learns, stops, goes on, keeps the right weights, and says what is wrong."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import rings
import torch
from torch import nn

from lensray import bundle, models
from lensray.errors import InputError, LensRayError
from lensray.metrics.probabilities import Calibration, fit_platt
from lensray.metrics.ranking import ranking_performance
from lensray.training import checkpoints, trainer
from lensray.training.examples import Examples
from lensray.training.phases import Augmentation, Optimizer
from lensray.training.schedules import OnPlateau, Steps
from lensray.training.steps import evaluate
from lensray.training.trainer import Trainer


@pytest.fixture
def url(tmp_path):
    return str(tmp_path / "checkpoint.safetensors")


def start(phase, url, *, training=None, validation=None, **settings):
    training = rings.examples(200, seed=1) if training is None else training
    return Trainer(phase, training, validation, checkpoint=url, fingerprint="toy", **settings)


def weights(trained):
    return {name: value.clone() for name, value in trained.model.state_dict().items()}


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


class Interrupted(Exception):
    pass


def stop_after(epochs):
    def on_progress(progress):
        if progress.history is not None and len(progress.history) == epochs:
            raise Interrupted

    return on_progress


def test_a_phase_learns_rings_and_its_bundle_scores_them(url, tmp_path):
    held_out = rings.examples(200, seed=2)
    trained = start(rings.phase(epochs=6), url, validation=held_out)
    history = trained.run()
    assert [row["epoch"] for row in history] == [1, 2, 3, 4, 5, 6]
    assert history[-1]["training_loss"] < history[0]["training_loss"] / 2
    assert history[-1]["auroc"] > 0.99
    bundle.save(trained.bundle({"recipe": "toy"}), str(tmp_path / "rings.safetensors"))
    loaded = bundle.load(str(tmp_path / "rings.safetensors"))
    model = loaded.model().eval()
    with torch.no_grad():
        logits = model(held_out.images.float() / 255)
    scores = models.probabilities(logits, "sigmoid")[:, 1].numpy()
    best = max(row["ranking_performance"] for row in history)
    assert ranking_performance(scores, held_out.labels.numpy() == 1) == pytest.approx(best, abs=1e-3)


def test_the_weights_that_are_kept_are_calibrated_by_the_validation_set(url):
    held_out = rings.examples(100, seed=2)
    trained = start(rings.phase(epochs=4), url, validation=held_out)
    trained.run()
    # As if an earlier epoch had been the best one.
    trained.best = {name: value * 0.9 for name, value in trained.best.items()}
    last = weights(trained)
    found = trained.calibration()
    assert found is not None
    assert_same(last, weights(trained))
    model = trained.bundle({}).model().eval()
    with torch.no_grad():
        logits = model(held_out.images.float() / 255)
    scores = models.probabilities(logits, "sigmoid")[:, 1].numpy()
    exact = fit_platt(scores, held_out.labels.numpy() == 1)
    assert Calibration.from_json(found).lens_rate == exact.lens_rate
    assert exact.slope > 0.1
    assert found["slope"] == pytest.approx(exact.slope, rel=1e-2)
    assert found["intercept"] == pytest.approx(exact.intercept, abs=1e-2)


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"optimizer": Optimizer(name="adam", learning_rate=1e-3, multipliers={"head.": 0.5})},
        {"optimizer": Optimizer(name="adamw", weight_decay=0.1), "sampling": "shuffled", "autocast": True},
        {
            "architecture": "lsst_cnn",
            "arguments": {"size": 16},
            "augmentation": Augmentation(max_shift=2, crop=12),
        },
        {"averaging": 5},
    ],
    ids=["sgd", "adam", "adamw-shuffled-bfloat16", "dropout-shifts-crops", "averaged"],
)
def test_a_stopped_training_ends_with_the_weights_of_one_that_was_not(tmp_path, changed):
    phase = rings.phase(epochs=3, **changed)
    whole = start(phase, str(tmp_path / "whole"), validation=rings.examples(40, seed=2))
    whole.run()
    with pytest.raises(Interrupted):
        start(
            phase,
            str(tmp_path / "cut"),
            validation=rings.examples(40, seed=2),
            on_progress=stop_after(2),
        ).run()
    torch.rand(7)  # another process' generator is elsewhere
    resumed = start(phase, str(tmp_path / "cut"), validation=rings.examples(40, seed=2))
    assert len(resumed.history) == 2
    resumed.run()
    assert_same(weights(whole), weights(resumed))
    assert_same(whole.best, resumed.best)
    timed = {"seconds", "images_per_s"}
    assert [{k: v for k, v in row.items() if k not in timed} for row in whole.history] == [
        {k: v for k, v in row.items() if k not in timed} for row in resumed.history
    ]


def test_the_progress_after_an_interruption_tells_the_epochs_before_it(url):
    with pytest.raises(Interrupted):
        start(rings.phase(epochs=2), url, on_progress=stop_after(1)).run()
    told = []
    start(rings.phase(epochs=2), url, on_progress=told.append).run()
    assert [row["epoch"] for row in told[-1].history] == [1, 2]
    assert told[-1].images == told[-1].total


def test_a_checkpoint_of_another_training_is_not_used(url):
    start(rings.phase(epochs=1), url).run()
    other = Trainer(rings.phase(), rings.examples(64, seed=3), None, checkpoint=url, fingerprint="other")
    assert other.history == []


def test_a_damaged_checkpoint_is_named(url):
    start(rings.phase(epochs=1), url).run()
    with open(url, "r+b") as file:
        file.truncate(100)
    with pytest.raises(LensRayError, match=r"checkpoint .* is damaged"):
        start(rings.phase(epochs=2), url)


def scripted(monkeypatch, values, name="ranking_performance"):
    """Give the metrics of the validation set, epoch by epoch."""

    def measure(self, epoch):
        return {"validation_loss": 1.0, name: values[epoch]}

    monkeypatch.setattr(Trainer, "_measure", measure)


def test_the_best_epoch_is_kept_and_the_training_stops_when_it_lies_too_far_back(url, monkeypatch):
    scripted(monkeypatch, [0.5, 0.7, 0.9, 0.8, 0.85, 0.7, 0.6])
    seen = {}
    phase = rings.phase(epochs=7, patience=2)
    trained = start(
        phase,
        url,
        validation=rings.examples(20, seed=2),
        on_progress=lambda p: p.history and seen.update({len(p.history): weights(trained)}),
    )
    assert len(trained.run()) == 5
    assert trained.best_epoch == 2
    assert_same(dict(trained.bundle({"recipe": "toy"}).state), seen[3])
    again = start(phase, url, validation=rings.examples(20, seed=2))
    assert len(again.run()) == 5


def test_no_training_stops_before_its_patience_begins(url, monkeypatch):
    scripted(monkeypatch, [0.9, *[0.5] * 9])
    phase = rings.phase(epochs=10, patience=2, patient_until=5)
    trained = start(phase, url, validation=rings.examples(20, seed=2))
    assert len(trained.run()) == 7
    assert trained.best_epoch == 0


def test_the_last_of_equally_good_epochs_is_kept(url, monkeypatch):
    scripted(monkeypatch, [0.9, 0.9, 0.8])
    trained = start(rings.phase(epochs=3), url, validation=rings.examples(20, seed=2))
    trained.run()
    assert trained.best_epoch == 1


@pytest.mark.parametrize("keep", ["best", "last"])
def test_the_last_weights_are_kept_where_asked_for_or_nothing_is_validated(url, monkeypatch, keep):
    scripted(monkeypatch, [0.9, 0.5])
    validation = rings.examples(20, seed=2) if keep == "last" else None
    if validation is None:
        monkeypatch.undo()
    trained = start(rings.phase(epochs=2, keep=keep), url, validation=validation)
    trained.run()
    assert trained.best_epoch == 1
    assert_same(dict(trained.bundle({"recipe": "toy"}).state), weights(trained))


def test_validation_comes_every_so_many_epochs_and_after_the_last(url):
    phase = rings.phase(epochs=5, validate_every=2)
    history = start(phase, url, validation=rings.examples(40, seed=2)).run()
    assert [row["epoch"] for row in history if "auroc" in row] == [2, 4, 5]


def test_a_loss_that_is_not_finite_stops_the_training_and_keeps_the_last_good_epoch(url):
    # From the third epoch on the rate is beyond all bounds.
    phase = rings.phase(epochs=4, schedule=Steps(at=(2,), by=1e35))
    with pytest.raises(LensRayError, match=r"diverged.*epoch 3.*lower the learning rate"):
        start(phase, url).run()
    kept = checkpoints.load(url, "toy")
    assert kept is not None
    assert len(kept.history) == 2
    assert all(torch.isfinite(value).all() for value in kept.model.values())
    whole = start(replace(phase, epochs=2), url + ".whole")
    whole.run()
    assert_same(dict(kept.model), weights(whole))


def test_fewer_lenses_than_a_batch_shows_are_refused(url):
    images, labels = rings.rings_and_blobs(200, seed=1)
    rows = torch.cat([torch.nonzero(labels == 1)[:15, 0], torch.nonzero(labels == 0)[:, 0]])
    few = Examples(images=images[rows], labels=labels[rows])
    with pytest.raises(InputError, match="15 images with label true are fewer than the 16 of one batch"):
        start(rings.phase(), url, training=few)
    assert len(start(rings.phase(repeats=2, epochs=1), url, training=few).run()) == 1


def test_a_shuffled_training_set_smaller_than_a_batch_is_refused(url):
    with pytest.raises(InputError, match="31 images are fewer than one batch of 32"):
        start(rings.phase(sampling="shuffled"), url, training=rings.examples(31, seed=1))


@pytest.fixture
def first_bundle(tmp_path):
    """A bundle of one epoch; its address."""
    trained = start(rings.phase(epochs=1), str(tmp_path / "first.checkpoint"))
    trained.run()
    url = str(tmp_path / "first.safetensors")
    bundle.save(trained.bundle({"recipe": "toy"}), url)
    return url


def test_a_phase_starts_from_the_weights_of_a_bundle(url, first_bundle):
    trained = start(rings.phase(start=first_bundle, seed=9), url)
    assert_same(weights(trained), dict(bundle.load(first_bundle).state))


def test_a_fresh_output_layer_leaves_the_rest_of_the_start(url, first_bundle):
    last = [name for name, _ in models.build("eznet", **rings.EZNET).named_parameters()][-2:]
    prefix = last[0].rpartition(".")[0] + "."
    trained = weights(start(rings.phase(start=first_bundle, fresh=(prefix,), seed=9), url))
    began = dict(bundle.load(first_bundle).state)
    same = {name for name in began if torch.equal(began[name], trained[name])}
    assert set(began) - same == set(last)
    anew = weights(start(rings.phase(seed=9), url))
    assert torch.equal(trained[last[0]], anew[last[0]])


def test_a_fresh_output_layer_may_have_another_number_of_classes(url, first_bundle):
    last = [name for name, _ in models.build("eznet", **rings.EZNET).named_parameters()][-1]
    prefix = last.rpartition(".")[0] + "."
    wider = rings.phase(
        start=first_bundle,
        fresh=(prefix,),
        arguments={**rings.EZNET, "classes": 3},
        classes=("non-lens", "lens", "spiral"),
    )
    assert weights(start(wider, url))[last].shape == (3,)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"architecture": "lensflow", "arguments": {}}, "holds 'eznet'"),
        ({"arguments": {**rings.EZNET, "hidden": 9}}, "do not fit"),
        ({"arguments": {**rings.EZNET, "blocks": [[6, 3, 8]]}}, "do not fit"),
    ],
)
def test_a_start_of_another_architecture_is_refused(url, first_bundle, changed, said):
    with pytest.raises(InputError, match=said):
        start(rings.phase(start=first_bundle, **changed), url)


@pytest.mark.parametrize(("factor", "tolerance"), [(0.1, 1e-3), (0.0, 0.0)])
def test_parameters_with_a_multiplier_move_by_that_much_less(tmp_path, factor, tolerance):
    # One step, without momentum: it is the learning rate times the gradient.
    training = rings.examples(32, seed=1)

    def moved(multipliers):
        optimizer = Optimizer(name="sgd", learning_rate=0.1, multipliers=multipliers)
        phase = rings.phase(epochs=1, batch_size=32, sampling="shuffled", optimizer=optimizer)
        trained = start(phase, str(tmp_path / str(len(multipliers))), training=training)
        before = {name: value.detach().clone() for name, value in trained.model.named_parameters()}
        trained.run()
        return {name: value.detach() - before[name] for name, value in trained.model.named_parameters()}

    plain, slowed = moved({}), moved({"blocks.": factor})
    slow = [name for name in plain if name.startswith("blocks.")]
    assert slow
    assert len(slow) < len(plain)
    for name, step in plain.items():
        wanted = step * (factor if name in slow else 1.0)
        torch.testing.assert_close(slowed[name], wanted, rtol=tolerance, atol=1e-7)


def test_the_batch_grows_and_the_rate_falls_when_the_metric_stalls(url, monkeypatch):
    scripted(monkeypatch, [0.7, 0.7, 0.7, 0.7, 0.7], "auroc")
    phase = rings.phase(
        epochs=5,
        batch_size=8,
        monitor="auroc",
        schedule=OnPlateau(patience=2, by=0.5, batch_growth=4, max_batch_factor=16),
    )
    history = start(phase, url, validation=rings.examples(20, seed=2)).run()
    lenses = int((rings.examples(200, seed=1).labels == 1).sum())
    assert [row["batch_size"] for row in history] == [8, 8, 8, 32, 32]
    assert [row["learning_rate"] for row in history] == pytest.approx([0.05] * 3 + [0.025] * 2)
    assert [row["steps"] for row in history] == [math.ceil(2 * lenses / row["batch_size"]) for row in history]


class TinyRegressor(nn.Module):
    """Sums of pixels, linearly, in the units of the targets."""

    activation = "linear"

    def __init__(self, outputs=2):
        super().__init__()
        self.linear = nn.Linear(4, outputs)
        self.register_buffer("offset", torch.zeros(outputs))
        self.register_buffer("scale", torch.ones(outputs))

    def forward(self, images):
        return self.offset + self.scale * self.linear(images.flatten(1))


def test_a_regression_finds_parameters_of_very_different_units(url, monkeypatch, tmp_path):
    monkeypatch.setitem(models._NETWORKS, "tiny", TinyRegressor)
    generator = np.random.default_rng(0)
    pixels = generator.standard_normal((400, 1, 2, 2)).astype(np.float32)
    flat = pixels.reshape(400, 4)
    targets = np.column_stack([1e4 + 500 * flat[:, 0], 0.01 * (flat[:, 1] - flat[:, 2])]).astype(np.float32)
    data = Examples(images=torch.from_numpy(pixels).half(), labels=torch.from_numpy(targets))
    phase = rings.phase(
        architecture="tiny",
        arguments={},
        inputs=bundle.Inputs(bands=("g",), height=2, width=2, pixel_scale_arcsec=0.2),
        targets=("flux", "radius_arcsec"),
        sampling="shuffled",
        epochs=60,
        augmentation=Augmentation(symmetries=False),
        optimizer=Optimizer(name="adam", learning_rate=0.03),
    )
    trained = start(phase, url, training=data, validation=data)
    history = trained.run()
    assert history[-1]["rmse_flux"] < 0.02 * targets[:, 0].std()
    assert history[-1]["rmse_radius_arcsec"] < 0.02 * targets[:, 1].std()
    assert trained.best_epoch == int(np.argmin([row["validation_loss"] for row in history]))
    bundle.save(trained.bundle({"recipe": "toy"}), str(tmp_path / "tiny.safetensors"))
    assert bundle.load(str(tmp_path / "tiny.safetensors")).classes == ("flux", "radius_arcsec")


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16])
@pytest.mark.parametrize("how", [Augmentation(), Augmentation(max_shift=3), Augmentation(crop=12)])
def test_augmented_images_keep_type_shape_and_range(dtype, how):
    images, _ = rings.rings_and_blobs(20, seed=1)
    made = trainer.augment(images.to(dtype), how, torch.Generator().manual_seed(0))
    assert made.dtype == dtype
    assert made.shape == images.shape
    assert made.min() >= images.min() - 1
    assert made.max() <= images.max() + 1
    assert not torch.equal(made, images.to(dtype))


def test_half_of_the_showings_are_crops():
    images, _ = rings.rings_and_blobs(2000, seed=1)
    how = Augmentation(symmetries=False, crop=12)
    made = trainer.augment(images, how, torch.Generator().manual_seed(0))
    unchanged = (made == images).flatten(1).all(1).float().mean().item()
    assert unchanged == pytest.approx(0.5, abs=0.05)


def test_the_history_is_what_json_can_hold(url):
    history = start(rings.phase(epochs=1), url, validation=rings.examples(40, seed=2)).run()
    assert json.loads(json.dumps(history)) == history


@pytest.mark.parametrize("averaging", [None, 20])
def test_validation_metrics_are_those_of_the_weights_that_are_kept(url, averaging):
    held_out = rings.examples(60, seed=2)
    trained = start(rings.phase(epochs=2, averaging=averaging), url, validation=held_out)
    history = trained.run()
    found = evaluate(
        trained.shown, held_out.images, held_out.labels, trained.loss, normalization=lambda i: i.float() / 255
    )
    assert history[-1]["validation_loss"] == pytest.approx(found.loss, rel=1e-5)
    assert history[-1]["accuracy"] == pytest.approx(found.accuracy)


def test_the_average_follows_the_weights_and_the_batch_statistics():
    model = nn.BatchNorm1d(1)
    average = trainer.average_of(model, steps=4)
    values = [3.0, *np.random.default_rng(1).normal(size=30)]
    expected = values[0]
    for step, value in enumerate(values):
        nn.init.constant_(model.weight, value)
        model.running_mean.fill_(value)
        model.num_batches_tracked.fill_(step)
        average.update_parameters(model)
        expected += max(1 / 4, 9 / (10 + step)) * (value - expected)
    assert average.module.weight.item() == pytest.approx(expected, rel=1e-5)
    assert average.module.running_mean.item() == pytest.approx(expected, rel=1e-5)
    assert average.module.num_batches_tracked.item() == 30


def test_an_averaged_phase_keeps_the_average_and_not_the_last_weights(url):
    trained = start(rings.phase(epochs=2, averaging=20), url)
    trained.run()
    kept = trained.bundle({"recipe": "toy"}).state
    assert_same(dict(kept), dict(trained.average.module.state_dict()))
    assert not torch.equal(kept["head.1.weight"], trained.model.state_dict()["head.1.weight"])


def test_without_a_validation_set_of_both_classes_nothing_is_calibrated(url):
    assert start(rings.phase(epochs=1), url).calibration() is None
    held_out = rings.examples(20, seed=2)
    alike = Examples(images=held_out.images, labels=torch.ones_like(held_out.labels))
    assert start(rings.phase(epochs=1), url, validation=alike).calibration() is None
