import numpy as np
import pyarrow as pa
import pytest
import surveys
import torch
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from torch import nn

from lensray import bundle, cutouts, models
from lensray.bundle import Bundle, Inputs
from lensray.errors import InputError
from lensray.metrics import stacking
from lensray.models.committee import log_odds
from lensray.normalization import (
    Arcsinh,
    HistogramTransform,
    PercentileClip,
    SigmaClip,
    Unchanged,
    dim_galaxy_template,
    from_config,
    to_config,
)
from lensray.scoring import Scorer
from lensray.training import fusion

BANDS = ("g", "r", "i")


def member(
    url,
    normalization=None,
    *,
    size=32,
    bands=BANDS,
    seed=0,
    pixel_scale=surveys.PIXEL_SCALE,
    train=None,
    spread=20.0,
    **changes,
) -> str:
    """A tiny EZnet as a bundle; trained if `train` gives images and labels, else of random answers."""
    torch.manual_seed(seed)
    normalization = normalization or PercentileClip()
    arguments = {"in_channels": len(bands), "blocks": [list(block) for block in surveys.BLOCKS], "hidden": 8}
    model = models.build("eznet", **arguments)
    if train is not None:
        _train(model, normalization(torch.from_numpy(train[0])), torch.from_numpy(train[1]).float())
    else:
        with torch.no_grad():
            model.head[-1].weight.mul_(spread)  # type: ignore[union-attr, operator]
    made = Bundle(
        architecture="eznet",
        arguments=arguments,
        inputs=Inputs(bands=bands, height=size, width=size, pixel_scale_arcsec=pixel_scale),
        normalization=normalization,
        classes=("non-lens", "lens"),
        positive_classes=("lens",),
        state=model.state_dict(),
        **changes,
    )
    bundle.save(made, str(url))
    return str(url)


def _train(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> None:
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    for _ in range(60):
        optimizer.zero_grad()
        logits = model(images)
        nn.functional.binary_cross_entropy_with_logits(
            logits, torch.stack([1 - labels, labels], 1)
        ).backward()
        optimizer.step()


def blobs(count: int, seed: int, offset: float = 6.0) -> tuple[np.ndarray, np.ndarray]:
    """Blobs, of which the lenses have a neighbour."""
    images = surveys.toy_images(count, seed=seed)
    labels = np.random.default_rng(seed).random(count) < 0.5
    y, x = np.mgrid[:32, :32] - 15.5
    neighbour = np.exp(-((x - offset) ** 2 + (y - offset) ** 2) / 8)
    images[labels] += (12.0 * neighbour).astype(np.float32)
    return images, labels


def table_of(images: np.ndarray):
    fmt = surveys.cutout_format(size=images.shape[-1], dtype=images.dtype)
    return cutouts.make_table(fmt, np.arange(len(images)), images)


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_committee_scores_are_those_of_its_members_fused_by_hand(tmp_path, dtype):
    urls = [
        member(tmp_path / "a.safetensors", PercentileClip(), seed=1),
        member(tmp_path / "b.safetensors", HistogramTransform(dim_galaxy_template(20)), size=25, seed=2),
        member(tmp_path / "c.safetensors", SigmaClip(), bands=("i", "g", "r"), seed=3),
    ]
    images, labels = blobs(60, seed=4)
    if dtype == "uint8":
        images = PercentileClip().to_uint8(torch.from_numpy(images)).numpy()
    made, report = fusion.fuse_committee(urls, images, labels)
    bundle.save(made, str(tmp_path / "committee.safetensors"))
    scores = Scorer(str(tmp_path / "committee.safetensors"))(table_of(images))["score"].to_numpy()

    fmt = surveys.cutout_format(dtype=images.dtype)
    odds = np.full(len(images), report.weights["bias"])
    for url in urls:
        one = bundle.load(url)
        size = one.inputs.height
        fitted = cutouts.fit_cutouts(images, fmt, one.inputs.bands, size, surveys.PIXEL_SCALE)
        alone = Scorer(one)(table_of(np.ascontiguousarray(fitted)))["score"].to_numpy()
        odds += report.weights[url.split("/")[-1].removesuffix(".safetensors")] * logit(alone.astype(float))
    # The members' scores by hand are float32, which leaves few digits to odds near certainty.
    np.testing.assert_allclose(scores, expit(odds), atol=2e-5)
    assert (np.diff(scores[np.argsort(odds)]) > -2e-5).all()
    assert scores.std() > 0.001


def test_bundle_holds_the_arrays_of_its_members_normalizations(tmp_path):
    template = dim_galaxy_template(20)
    urls = [
        member(tmp_path / "a.safetensors", HistogramTransform(template)),
        member(tmp_path / "b.safetensors", Arcsinh(), seed=5),
    ]
    made, _ = fusion.fuse_committee(urls, *blobs(40, seed=4))
    bundle.save(made, str(tmp_path / "committee.safetensors"))
    model = bundle.load(str(tmp_path / "committee.safetensors")).model()
    loaded = model.members[0].normalization()  # type: ignore[union-attr, index, operator]
    np.testing.assert_array_equal(loaded.template.values, template.values)
    np.testing.assert_array_equal(loaded.template.quantiles, template.quantiles)
    assert model.members[1].normalization() == Arcsinh()  # type: ignore[union-attr, index, operator]
    header = bundle.read_header(str(tmp_path / "committee.safetensors"))
    assert [one["name"] for one in header.provenance["members"]] == ["a", "b"]
    assert header.provenance["fusion"]["n_lenses"] + header.provenance["fusion"]["n_non_lenses"] == 40


def test_learned_fusion_beats_the_mean_where_a_member_is_noise(tmp_path):
    urls = [
        member(tmp_path / "trained.safetensors", Arcsinh(), seed=1, train=blobs(100, seed=10)),
        member(tmp_path / "noise.safetensors", seed=2, spread=300.0),
    ]
    images, labels = blobs(200, seed=11)
    _, report = fusion.fuse_committee(urls, images, labels)
    assert report.members["trained"]["auroc"] > 0.9
    assert abs(report.members["noise"]["auroc"] - 0.5) < 0.15
    for name, sign in (("auroc", 1), ("brier_score", -1), ("calibration_error", -1)):
        gain, error = report.gain[name]
        assert gain == pytest.approx(report.fused[name] - report.mean[name])
        assert sign * gain > 2 * error


def test_a_member_that_gives_nan_gives_no_score(tmp_path):
    urls = [member(tmp_path / "a.safetensors"), member(tmp_path / "b.safetensors", seed=1)]
    images, labels = blobs(40, seed=4)
    made, report = fusion.fuse_committee(urls, images, labels)
    assert report.n_left_out == 0
    state = {**made.state, "members.1.network.head.3.bias": torch.tensor([0.0, float("nan")])}
    broken = Bundle(
        **{name: getattr(made, name) for name in Bundle.__dataclass_fields__ if name != "state"}, state=state
    )
    scored = Scorer(broken)(table_of(images))
    assert set(scored["status"].to_pylist()) == {"non_finite_score"}


def test_missing_pixels_stay_with_the_members(tmp_path):
    images, labels = blobs(40, seed=4)
    images[:5, :, 3:6, 3:6] = np.nan
    urls = [
        member(tmp_path / "a.safetensors", Arcsinh()),
        member(tmp_path / "b.safetensors", SigmaClip(), seed=1),
    ]
    made, report = fusion.fuse_committee(urls, images, labels)
    assert report.n_left_out == 0
    image = torch.tensor([[[[1.0, float("nan")]]]])
    assert torch.isnan(Unchanged()(image)).tolist() == [[[[False, True]]]]
    assert from_config(*to_config(Unchanged())) == made.normalization


def test_members_that_cannot_be_given_the_same_cutouts_are_refused(tmp_path):
    data = blobs(40, seed=4)
    first = member(tmp_path / "a.safetensors")
    with pytest.raises(InputError, match="two members or more"):
        fusion.fuse_committee([first], *data)
    with pytest.raises(InputError, match="named twice"):
        fusion.fuse_committee([first, first], *data)
    coarse = member(tmp_path / "coarse.safetensors", pixel_scale=0.2)
    with pytest.raises(InputError, match="one pixel scale"):
        fusion.fuse_committee([first, coarse], *data)
    grey = member(tmp_path / "grey.safetensors", bands=("g",))
    with pytest.raises(InputError, match="take the same cutouts"):
        fusion.fuse_committee([first, grey], *data)
    second = member(tmp_path / "b.safetensors", seed=1)
    with pytest.raises(InputError, match="at least 5 lenses"):
        fusion.fuse_committee([first, second], data[0], np.arange(40) < 4)


def test_surveys_are_fused_to_a_bundle_file(tmp_path):
    urls = [member(tmp_path / "a.safetensors"), member(tmp_path / "b.safetensors", seed=1)]
    images, labels = blobs(60, seed=4)
    images[7] = 0
    fmt = surveys.cutout_format()
    mask = np.arange(60) == 9
    table = cutouts.make_table(fmt, np.arange(60), images, label=pa.array(labels, mask=mask))
    cutouts.write_survey([table], str(tmp_path / "survey"), fmt)
    report = fusion.fuse_surveys(urls, [str(tmp_path / "survey")], str(tmp_path / "c.safetensors"), seed=3)
    assert report.n_lenses + report.n_non_lenses == 58
    usable = ~mask & (np.arange(60) != 7)
    _, same = fusion.fuse_committee(urls, images[usable], labels[usable], seed=3)
    assert report == same
    assert bundle.load(str(tmp_path / "c.safetensors")).architecture == "committee"


def test_odds_of_networks_are_those_of_their_scores():
    logits = torch.randn(20, 4, dtype=torch.float64) * 3
    for activation, positive in (("softmax", [1]), ("softmax", [0, 2]), ("sigmoid", [3])):
        score = models.probabilities(logits, activation)[:, positive].sum(1).numpy().astype(float)
        found = log_odds(logits, activation, positive).numpy()
        np.testing.assert_allclose(found, logit(score), rtol=2e-3, atol=1e-4)
    assert torch.isnan(log_odds(torch.tensor([[0.0, float("nan")]]), "softmax", [1])).all()
    with pytest.raises(ValueError, match="no odds"):
        log_odds(logits, "linear", [0])


# --- the fit --------------------------------------------------------------------------------------------


def answers(n: int = 3000, strengths=(1.0, 0.5), seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """True log odds of independent models, whose answers are normal around ± half of their variance."""
    generator = np.random.default_rng(seed)
    lens = generator.random(n) < 0.3
    signs = np.where(lens, 1, -1)[:, None]
    squares = np.square(strengths)
    return generator.normal(signs * squares / 2, np.sqrt(squares)), lens


def test_weights_are_those_of_scikit_learn():
    odds, lens = answers()
    odds[:, 1] = 4 * odds[:, 1] + 1
    fitted = stacking.fit(odds, lens)
    scale = odds.std(0)
    reference = LogisticRegression(C=1.0, tol=1e-10, max_iter=1000).fit(odds / scale, lens)
    np.testing.assert_allclose(fitted.weights * scale, reference.coef_[0], rtol=1e-4)
    np.testing.assert_allclose(fitted.bias, reference.intercept_[0], rtol=1e-4)


def test_weights_of_independent_calibrated_models_are_one():
    # Log likelihood ratios of independent answers add up; the bias is the log odds of the mix.
    fitted = stacking.fit(*answers(200_000))
    np.testing.assert_allclose(fitted.weights, 1, atol=0.03)
    assert fitted.bias == pytest.approx(np.log(0.3 / 0.7), abs=0.03)


def test_a_model_that_is_worse_than_chance_is_left_out():
    odds, lens = answers()
    odds[:, 1] *= -1
    assert stacking.fit(odds, lens).weights[1] == 0


def test_perfect_models_get_finite_weights():
    lens = np.arange(40) < 20
    fitted = stacking.fit(np.where(lens, 5.0, -5.0)[:, None] * np.ones((1, 2)), lens)
    assert np.isfinite(fitted.weights).all()
    assert fitted.probabilities(np.array([[5.0, 5.0]])) > 0.9


def test_cross_validated_scores_know_nothing_of_their_own_truth():
    # Noise fitted to its own sample would rank it better than chance.
    generator = np.random.default_rng(1)
    odds, lens = generator.normal(size=(60, 20)), np.arange(60) % 2 == 0
    held_out = stacking.METRICS["auroc"](stacking.cross_validated(odds, lens), lens)
    seen = stacking.METRICS["auroc"](stacking.fit(odds, lens).probabilities(odds), lens)
    assert seen > 0.65
    assert held_out < 0.6


def test_overconfident_models_are_calibrated():
    odds, lens = answers()
    fitted = stacking.fit(3 * odds, lens)
    report = stacking.measure(("a", "b"), 3 * odds, lens, fitted)
    assert report.fused["calibration_error"] < 0.03 < report.mean["calibration_error"]
    assert report.weights == pytest.approx({"a": 1 / 3, "b": 1 / 3, "bias": fitted.bias}, rel=0.15)
