"""The generator and its critic: what they make, how they learn, and when they stop."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import rings
import torch
from test_parallel import together
from test_recipes import config_of, work_through
from torch import nn

from lensray import bundle, recipes
from lensray.errors import InputError, LensRayError
from lensray.models.lens_generator import LensGenerator, generate
from lensray.training import plain
from lensray.training.adversarial import AdversarialTrainer
from lensray.training.parallel import ALONE, Team
from lensray.training.phases import AdversarialPhase, Augmentation, Optimizer
from lensray.training.sets import rows_of

CRITIC = {"blocks": [[6, 3, 8], [6, 3, 4]], "branching_rate": 2, "hidden": 8}


def phase(**changed):
    """A generator of rings and blobs."""
    own = rings.phase()
    words = {
        "name": "made",
        "architecture": "lens_generator",
        "arguments": {"in_channels": 1, "size": rings.SIZE, "latent": 8, "maps": 4, "critic": CRITIC},
        "inputs": own.inputs,
        "normalization": own.normalization,
        "classes": ("generated", "real"),
        "positive_classes": ("real",),
        "epochs": 2,
        "batch_size": 16,
        "sampling": "shuffled",
        "augmentation": Augmentation(symmetries=True, max_shift=1),
        "optimizer": Optimizer(name="adam", learning_rate=2e-3, momentum=0.5),
        "least_diversity": 0.0,
        "averaging": 5,
    }
    return AdversarialPhase(**{**words, **changed})


def start(folder, count=64, team=ALONE, **changed):
    examples = rings.examples(count, seed=1)
    return AdversarialTrainer(
        phase(**changed), examples, None, checkpoint=f"{folder}/checkpoint", fingerprint="toy", team=team
    )


def test_four_transposed_convolutions_make_an_image_of_64_numbers():
    model = LensGenerator()
    layers = [layer for layer in model.generator if isinstance(layer, nn.ConvTranspose2d)]
    assert len(layers) == 4
    sizes, maps = [], torch.randn(2, 64)[:, :, None, None]
    for layer in model.generator:
        maps = layer(maps)
        if isinstance(layer, nn.ConvTranspose2d):
            sizes.append(maps.shape[-1])
    assert sizes == [8, 16, 32, 64]
    made = model.generate(torch.randn(2, 64))
    assert made.shape == (2, 3, 64, 64)
    assert 0 <= made.min() < made.max() <= 1
    assert model(made).shape == (2, 2)
    assert model.critic.sizes[0] == 50


@pytest.mark.parametrize("words", [{"size": 60}, {"size": 4}, {"latent": 0}, {"in_channels": 0}])
def test_images_that_cannot_be_made_are_refused(words):
    with pytest.raises(ValueError, match="LensGenerator"):
        LensGenerator(**words)


def test_the_same_seed_gives_the_same_images_whatever_the_batch():
    model = LensGenerator(in_channels=1, size=16, maps=2, critic=CRITIC)
    first = generate(model, 10, seed=3)
    assert torch.equal(first, generate(model, 10, seed=3))
    torch.testing.assert_close(first, generate(model, 10, seed=3, batch_size=4))
    assert not torch.equal(first, generate(model, 10, seed=4))


@pytest.mark.parametrize(
    ("still", "told", "share"),
    # A fresh critic is nearly flat: there is little for the generator to gain.
    [("critic.", "generator_loss", 0.97), ("generator.", "training_loss", 0.5)],
    ids=["maker", "critic"],
)
def test_each_of_the_two_follows_its_own_loss(still, told, share, tmp_path):
    # While the other stands still: together they have no loss that must fall.
    adam = Optimizer(name="adam", learning_rate=2e-3, momentum=0.5, multipliers={still: 0.0})
    trained = start(tmp_path, count=256, epochs=8, optimizer=adam)
    before = {name: value.clone() for name, value in trained.model.state_dict().items()}
    history = trained.run()
    assert history[-1][told] < share * history[0][told]
    for name, value in trained.model.named_parameters():
        assert torch.equal(value, before[name]) == name.startswith(still), name
    assert json.loads(json.dumps(history)) == history


def test_a_stopped_training_ends_with_the_weights_of_one_that_was_not(tmp_path):
    whole = start(tmp_path / "whole", epochs=3)
    whole.run()
    cut = start(tmp_path / "cut", epochs=3)
    cut.on_progress = lambda progress: (
        (_ for _ in ()).throw(KeyboardInterrupt) if len(progress.history or []) == 1 else None
    )
    with pytest.raises(KeyboardInterrupt):
        cut.run()
    resumed = start(tmp_path / "cut", epochs=3)
    assert len(resumed.history) == 1
    resumed.run()
    for name, value in whole.best.items():
        assert torch.equal(value, resumed.best[name]), name


def _trained_together(rank, folder):
    trained = start(f"{folder}/{rank}", team=Team.here())
    return {"losses": torch.tensor([row["training_loss"] for row in trained.run()])}


def test_two_workers_have_the_loss_curve_of_one(tmp_path):
    alone = [row["training_loss"] for row in start(tmp_path).run()]
    for found in together(_trained_together, tmp_path):
        np.testing.assert_allclose(found["losses"], alone, rtol=1e-3)


def scripted(monkeypatch, diversities):
    values = iter(diversities)
    monkeypatch.setattr(
        AdversarialTrainer, "_measure", lambda self, epoch: {"generator_loss": 1.0, "diversity": next(values)}
    )


def test_a_collapse_ends_the_phase_and_the_last_diverse_weights_are_kept(tmp_path, monkeypatch):
    scripted(monkeypatch, [0.05, 0.5, 0.6, 0.1, 0.6])
    trained = start(tmp_path, epochs=5, least_diversity=0.2)
    kept = {}
    trained.on_progress = lambda progress: kept.setdefault(
        len(progress.history or []),
        {name: value.clone() for name, value in trained.shown.state_dict().items()},
    )
    assert len(trained.run()) == 4
    assert trained.best_epoch == 2
    for name, value in trained.bundle({"recipe": "toy"}).state.items():
        assert torch.equal(value, kept[3][name]), name


def test_images_that_are_all_alike_have_no_diversity(tmp_path):
    trained = start(tmp_path)
    with torch.no_grad():
        trained.average.module.generator[-2].weight.zero_()
    trained.generator_loss = 1.0
    measured = trained._measure(0)
    assert measured["diversity"] < 1e-3


def test_a_loss_that_is_not_finite_stops_the_training(tmp_path):
    trained = start(tmp_path, optimizer=Optimizer(name="sgd", learning_rate=1e36))
    with pytest.raises(LensRayError, match="diverged"):
        trained.run()


def test_generated_lenses_are_a_survey_that_another_recipe_takes(tmp_path):
    result, bench = work_through("lens_generator", config_of("lens_generator", tmp_path / "made"))
    survey = bench.folder("generated")
    assert rows_of(survey) == 12
    table = pq.read_table(survey)
    assert table["label"].to_pylist() == [True] * 12
    assert len(set(table["object_id"].to_pylist())) == 12
    assert "copies" in result.lines[-1]
    report = (tmp_path / "made" / "report.html").read_text()
    assert "Generated lenses" in report
    assert (tmp_path / "made" / "figures" / "generated.png").stat().st_size > 10_000

    config = config_of("eznet_hsc", tmp_path / "net", positives=(survey,))
    result, bench = work_through("eznet_hsc", config)
    data = bundle.read_header(result.outcome.bundle).provenance["data"]["training"]
    assert [part["rows"] for part in data] == [8, 24, 12]
    assert all(pq.read_table(bench.folder("positives_0"))["label"].to_pylist())


def test_each_cycle_makes_images_of_its_own(tmp_path):
    _, bench = work_through("lens_generator", config_of("lens_generator", tmp_path / "made"))
    images = np.stack(pq.read_table(bench.folder("generated"))["image"].combine_chunks().to_numpy_ndarray())
    first, second = images[:6].astype(float), images[6:].astype(float)
    paired = np.sqrt(((first - second) ** 2).mean((1, 2, 3)))
    others = np.sqrt(((first - np.roll(second, 1, axis=0)) ** 2).mean((1, 2, 3)))
    # The same latent numbers in both cycles would make pairs, which start from the same weights, alike.
    assert paired.mean() > 0.8 * others.mean()


def test_a_cycle_that_diverges_leaves_the_others(tmp_path, monkeypatch):
    train = plain.PlainWorkbench.train

    def fails(self, phase, **sets):
        if phase.name == "cycle_1":
            raise LensRayError("phase cycle_1 diverged")
        return train(self, phase, **sets)

    monkeypatch.setattr(plain.PlainWorkbench, "train", fails)
    result, bench = work_through("lens_generator", config_of("lens_generator", tmp_path / "made"))
    assert rows_of(bench.folder("generated")) == 6
    assert "cycle_1 diverged; it gave no images." in result.outcome.notes


def test_a_generator_that_never_is_diverse_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(
        AdversarialTrainer, "_measure", lambda self, epoch: {"generator_loss": 1.0, "diversity": 0.01}
    )
    with pytest.raises(LensRayError, match="collapsed in all of its 2 cycles"):
        work_through("lens_generator", config_of("lens_generator", tmp_path / "made", least_diversity=0.2))


@pytest.mark.parametrize("name", ["eznet_hsc", "lens_generator"])
def test_lenses_of_ones_own_stand_in_for_simulated_ones(name, tmp_path):
    with pytest.raises(InputError, match="--lenses is 0; give at least one, or lenses of your own"):
        config_of(name, tmp_path, lenses=0)
    assert config_of(name, tmp_path, lenses=0, positives=("own",)).lenses == 0


def test_what_cannot_be_is_refused(tmp_path):
    with pytest.raises(InputError, match="--least-diversity is 1"):
        config_of("lens_generator", tmp_path, least_diversity=1.0)
    wanted = recipes.load("lens_generator").sizes(config_of("lens_generator", tmp_path, positives=("own",)))
    assert wanted.lenses == 0
