"""Batch normalization when predicting: statistics of the batch, and taken anew from the target survey."""

import logging

import numpy as np
import pytest
import torch
from torch import nn

from lensray import bundle as bundles
from lensray import models
from lensray.bundle import Bundle, Inputs
from lensray.errors import InputError
from lensray.metrics.classification import auroc
from lensray.models.efficientnet import EfficientNetStack
from lensray.normalization import BandScale
from lensray.scoring import Scorer
from lensray.training.batch_statistics import (
    auroc_by_batch_size,
    forget_and_observe,
    reestimate,
    scores_by,
    use_batch_statistics,
)

SIZE = 64
ARGUMENTS = {"planes": [[1, SIZE]], "dropout": 0.0}


def images(count=24, shift=0.0, seed=0):
    return torch.randn(count, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(seed)) + shift


def bundle_of(**arguments):
    torch.manual_seed(0)
    model = EfficientNetStack(**ARGUMENTS, **arguments)
    return Bundle(
        architecture="efficientnet_stack",
        arguments={**ARGUMENTS, **arguments},
        inputs=Inputs(bands=("VIS",), height=SIZE, width=SIZE, pixel_scale_arcsec=0.1),
        normalization=BandScale(factors=(1.0,)),
        classes=("non-lens", "lens"),
        positive_classes=("lens",),
        state=model.state_dict(),
    )


def test_statistics_taken_anew_are_those_of_the_images_layer_by_layer():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2)
    )
    parts = images(20).split(10)
    forget_and_observe(model, parts)
    first, second = model[1], model[4]
    maps = [model[0](part) for part in parts]
    expected = torch.stack([m.mean((0, 2, 3)) for m in maps]).mean(0)
    torch.testing.assert_close(first.running_mean, expected)
    # In the pass itself, layers below normalize by their batch: that is what the layers above must see.
    normalized = [
        model[3](torch.relu(nn.functional.batch_norm(m, None, None, first.weight, first.bias, True)))
        for m in maps
    ]
    torch.testing.assert_close(
        second.running_mean, torch.stack([m.mean((0, 2, 3)) for m in normalized]).mean(0)
    )
    assert first.momentum == 0.1
    assert not model.training


def test_an_adapted_bundle_scores_shifted_images_as_their_batch_would(tmp_path):
    trained = bundle_of()
    shifted = images(48, shift=2.0)
    adapted = reestimate(trained, shifted, batch_size=48)
    by_batch = scores_by(trained.model(), trained.normalization(shifted), 48, batch_statistics=True)
    unadapted = scores_by(trained.model(), trained.normalization(shifted), 48, batch_statistics=False)
    found = scores_by(adapted.model(), adapted.normalization(shifted), 16, batch_statistics=False)
    # Running variances are unbiased, those of a batch are not.
    np.testing.assert_allclose(found, by_batch, atol=0.04)
    assert np.abs(unadapted - by_batch).max() > 5 * np.abs(found - by_batch).max()
    bundles.save(adapted, str(tmp_path / "adapted.safetensors"))
    loaded = bundles.load(str(tmp_path / "adapted.safetensors"))
    assert loaded.provenance["batch_statistics_of"] == "48 images of the target survey"
    torch.testing.assert_close(dict(loaded.state), dict(adapted.state))
    for name, tensor in trained.state.items():
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(adapted.state[name], tensor)


def test_an_adapted_bundle_of_method_2_no_longer_depends_on_the_batch():
    trained = bundle_of(batch_statistics=True)
    assert trained.model().depends_on_batch
    adapted = reestimate(trained, images())
    assert adapted.arguments["batch_statistics"] is False
    assert not adapted.model().depends_on_batch


def test_networks_without_batch_norm_and_single_images_are_refused():
    with pytest.raises(InputError, match="no batch normalization"):
        forget_and_observe(nn.Conv2d(1, 1, 3), [images()])
    with pytest.raises(InputError, match="at least two"):
        reestimate(bundle_of(), images(1))


@pytest.mark.parametrize("batch_size", [1, 5, 24])
def test_scores_by_batches_are_those_of_each_batch_by_itself(batch_size):
    model, pixels = bundle_of().model(), images()
    found = scores_by(model, pixels, batch_size, batch_statistics=True)
    use_batch_statistics(model, True)
    rows = np.arange(24) if 24 % batch_size == 0 else np.arange(25) % 24
    with torch.inference_mode():
        logits = [model(pixels[torch.from_numpy(part)]) for part in rows.reshape(-1, batch_size)]
    expected = models.probabilities(torch.cat(logits), "softmax")[:24, 1].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_auroc_is_given_for_every_batch_size_that_the_set_holds():
    model, pixels, is_lens = bundle_of().model(), images(), np.arange(24) % 3 == 0
    curve = auroc_by_batch_size(model, pixels, is_lens)
    assert list(curve) == [1, 2, 4, 8, 16]
    assert all(0 <= value <= 1 for value in curve.values())
    whole = auroc_by_batch_size(model, pixels, is_lens, sizes=(24,))
    use_batch_statistics(model, True)
    with torch.inference_mode():
        assert whole[24] == pytest.approx(auroc(model(pixels)[:, 1].numpy(), is_lens), abs=0.02)


def test_a_scorer_warns_of_scores_that_depend_on_the_batch(caplog):
    with caplog.at_level(logging.WARNING):
        Scorer(bundle_of(), device="cpu")
        assert not caplog.records
        Scorer(bundle_of(batch_statistics=True), device="cpu")
    assert "depends on the other images" in caplog.text
