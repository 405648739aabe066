"""Search spaces: what may vary, what a user may say of it, and a phase with settings drawn from it."""

import numpy as np
import pytest
import rings

from lensray import models, recipes
from lensray.errors import InputError
from lensray.normalization import Arcsinh
from lensray.recipes import tuning
from lensray.recipes.tuning import Trial
from lensray.training.phases import Augmentation, Optimizer
from lensray.training.search import (
    Choice,
    Range,
    changed,
    check_space,
    narrowed,
    own_values,
    sizes_around,
)

RATE, SIZE = "optimizer.learning_rate", "batch_size"
SPACE = {RATE: Range(low=1e-3, high=1e-1, log=True), SIZE: Choice({"16": 16, "32": 32})}
SEARCHED = [name for name in recipes.NAMES if hasattr(recipes.load(name), "tunable")]


def tunable(name, **words):
    recipe = recipes.load(name)
    return tuning.prepared(recipe, tuning.config_for(recipe)(output="nowhere", scale="smoke", **words))


def drawn(space, generator):
    """A point of a space."""
    values = {}
    for name, dimension in space.items():
        if isinstance(dimension, Choice):
            values[name] = str(generator.choice(list(dimension.of)))
        elif dimension.whole:
            values[name] = int(generator.integers(dimension.low, dimension.high + 1))
        else:
            values[name] = float(generator.uniform(dimension.low, dimension.high))
    return values


def test_settings_are_changed_at_any_depth_and_the_rest_stays():
    phase = rings.phase()
    arcsinh = Arcsinh(scale=0.3)
    space = {
        **SPACE,
        "arguments.branching_rate": Range(low=1, high=4, whole=True),
        "normalization": Choice({"arcsinh": arcsinh}),
        "augmentation.max_zoom": Range(low=1, high=2),
    }
    values = {RATE: 0.01, SIZE: "16", "arguments.branching_rate": 3, "normalization": "arcsinh"}
    made = changed(phase, {**values, "augmentation.max_zoom": 1.5}, space)
    assert made.optimizer == Optimizer(name="sgd", learning_rate=0.01, momentum=0.9, nesterov=True)
    assert made.batch_size == 16
    assert made.arguments == {**rings.EZNET, "branching_rate": 3}
    assert made.normalization is arcsinh
    assert made.augmentation == Augmentation(symmetries=True, max_zoom=1.5)
    assert made.epochs == phase.epochs
    assert phase == rings.phase()


def test_a_factor_applies_to_what_was_chosen():
    space = {
        "optimizer.learning_rate*": Range(low=0.1, high=10, log=True),
        "optimizer": Choice({"adam": Optimizer(name="adam", learning_rate=2e-3)}),
    }
    made = changed(rings.phase(), {"optimizer.learning_rate*": 3.0, "optimizer": "adam"}, space)
    assert made.optimizer.name == "adam"
    assert made.optimizer.learning_rate == pytest.approx(6e-3)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], SPACE),
        ([SIZE], {SIZE: SPACE[SIZE]}),
        ([f"{RATE}=0.01..0.05"], {RATE: Range(low=0.01, high=0.05, log=True)}),
        ([f"{RATE}=0.01,0.05"], {RATE: Choice({"0.01": 0.01, "0.05": 0.05})}),
        ([f"{SIZE}=32", RATE], {SIZE: Choice({"32": 32}), RATE: SPACE[RATE]}),
    ],
)
def test_a_user_narrows_the_space(words, expected):
    assert narrowed(SPACE, words) == expected


@pytest.mark.parametrize(
    ("word", "said"),
    [
        (
            "learning_rate=0.1..1",
            "--space learning_rate: the recipe searches optimizer.learning_rate, batch_size",
        ),
        (f"{RATE}=fast", "give numbers as LOW..HIGH or A,B,C"),
        (f"{RATE}=1..", "give numbers as LOW..HIGH"),
        (f"{SIZE}=64", "64 is not among 16, 32"),
    ],
)
def test_words_that_make_no_sense_are_refused(word, said):
    with pytest.raises(InputError, match=f"(?s).*{said}"):
        narrowed(SPACE, [word])


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({RATE: Range(low=0.1, high=0.1)}, "is no range"),
        ({RATE: Range(low=0.0, high=0.1, log=True)}, "begins above 0"),
        ({RATE: Range(low=0.0, high=float("inf"))}, "is no range"),
        ({"optimizer.speed": Range(low=1, high=2)}, "has no setting 'speed'"),
        ({SIZE: Range(low=0, high=2, whole=True)}, "batches of 0"),
        ({RATE: Choice({"-1": -1.0})}, "no optimizer has a learning rate of -1"),
        ({"optimizer.weight_decay": Range(low=-1, high=1)}, "a weight decay of -1"),
        ({"augmentation.max_zoom": Range(low=0.5, high=2)}, "the largest zoom is 0.5"),
        ({"augmentation.max_shift": Range(low=-2, high=2, whole=True)}, "cannot be shifted by -2"),
        ({"smoothing": Range(low=0, high=2)}, "smoothing is 2"),
        ({"arguments.branching_rate": Range(low=0, high=2, whole=True)}, "cannot be built with 0"),
    ],
)
def test_a_space_that_no_phase_can_have_is_refused(space, said):
    with pytest.raises(InputError, match=said):
        check_space(rings.phase(), space)


@pytest.mark.parametrize("name", SEARCHED)
def test_every_recipes_own_settings_lie_in_its_space(name):
    found = tunable(name)
    own = own_values(found.phase, found.space)
    assert own.keys() == found.space.keys()
    assert changed(found.phase, own, found.space) == found.phase


@pytest.mark.parametrize("name", SEARCHED)
def test_every_point_of_a_recipes_space_is_a_phase_with_a_network(name):
    found = tunable(name)
    generator = np.random.default_rng(1)
    for _ in range(5):
        values = drawn(found.space, generator)
        made = changed(found.phase, values, found.space)
        assert models.build(made.architecture, **made.arguments) is not None
        assert own_values(made, {k: d for k, d in found.space.items() if k in values and "*" not in k})


def test_all_recipes_with_a_ranking_can_be_searched():
    assert set(recipes.NAMES) - set(SEARCHED) == {"lens_generator"}


@pytest.mark.parametrize(
    ("name", "words", "said"),
    [
        ("eznet_hsc", {"trials": 0}, "--trials is 0"),
        ("eznet_hsc", {"concurrency": 0}, "--concurrency is 0"),
        ("eznet_hsc", {"reduction": 1}, "--reduction is 1"),
        ("eznet_hsc", {"inspection_depth": 0.0}, "--inspection-depth is 0.0"),
        ("eznet_hsc", {"objective": "cifar"}, "needs --cifar"),
        ("eznet_hsc", {"space": ("depth",)}, "the recipe searches optimizer.learning_rate"),
        ("lsst_cnn", {"target": "einstein_radius_arcsec"}, "--target has no lenses to rank"),
        ("lens_generator", {}, "reports no ranking performance"),
        ("eznet_hsc", {"workers": 4}, "a batch of 4 cannot be shared by 4 workers"),
        ("euclid_efficientnet", {"objective": "cifar", "cifar": "x"}, "networks of one image"),
    ],
)
def test_searches_that_cannot_be_made_are_refused(name, words, said):
    with pytest.raises(InputError, match=said):
        tunable(name, **words)


def test_an_architecture_can_be_chosen_on_pictures_of_other_things():
    found = tunable("deeplens_lsst", objective="cifar", cifar="cifar-10-binary.tar.gz")
    assert found.phase.inputs.bands == ("grey",)
    assert found.phase.arguments["in_channels"] == 1
    assert found.phase.monitor == "auroc"
    assert found.phase.positive_classes == ("automobile",)


@pytest.mark.parametrize("objective", ["ranking_performance", "recall"])
def test_the_objective_is_what_a_trial_keeps_its_best_epoch_by(objective):
    found = tunable("eznet_hsc", objective=objective, inspection_depth=0.05)
    assert found.phase.monitor == objective
    assert found.phase.inspection_depth == 0.05


def test_batch_sizes_around_a_small_one_are_even():
    assert sizes_around(8) == {"4": 4, "8": 8, "16": 16}
    assert all(size % 2 == 0 for size in sizes_around(2).values())


def test_records_of_trials_come_back_in_their_order(tmp_path):
    assert tuning.read_trials(str(tmp_path)) == []
    first = Trial(number=0, values={SIZE: "16"}, state="running")
    second = Trial(number=1, values={SIZE: "32"}, state="failed", reason="no room")
    for trial in (second, first):
        tuning.write_trial(str(tmp_path), trial)
    done = Trial(number=0, values={SIZE: "16"}, state="done", score=0.5, epochs=3)
    tuning.write_trial(str(tmp_path), done)
    assert tuning.read_trials(str(tmp_path)) == [done, second]
    assert tuning.ranked([second, done]) == [done]
    assert tuning.ranked([second]) == []
