"""Weights in fewer bytes, and bundles that are shipped so."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from surveys import toy_bundle, toy_survey

from lensray import bundle as bundles
from lensray.errors import InputError
from lensray.training import shipping
from lensray.weights import LARGE, pack, unpack


@given(st.integers(0, 2**31), st.floats(-6, 4))
@settings(max_examples=20, deadline=None)
def test_eight_bits_round_by_half_a_127th_of_the_largest_of_the_row(seed, log_size):
    generator = torch.Generator().manual_seed(seed)
    sizes = 10 ** torch.linspace(log_size, log_size + 2, 4)
    weights = torch.randn(4, 50, 5, 10, generator=generator) * sizes[:, None, None, None]
    found = unpack(pack({"w": weights}, "int8"))["w"]
    largest = weights.flatten(1).abs().amax(1)[:, None, None, None]
    assert found.shape == weights.shape
    assert bool(((found - weights).abs() <= 0.501 / 127 * largest).all())


def test_small_tensors_are_halved_and_integers_stay():
    state = {"bias": torch.randn(LARGE), "kernel": torch.randn(3, 3), "steps": torch.tensor(7)}
    packed = pack(state, "int8")
    assert packed["bias"].dtype == packed["kernel"].dtype == torch.float16
    assert torch.equal(packed["steps"], state["steps"])
    assert list(unpack(packed)) == list(state)


def test_a_row_of_zeros_stays_zero():
    weights = torch.zeros(2, LARGE)
    weights[1] = 1
    assert torch.equal(unpack(pack({"w": weights}, "int8"))["w"], weights)


def test_weights_beyond_half_precision_are_refused():
    with pytest.raises(ValueError, match="beyond half precision"):
        pack({"w": torch.tensor([1e6])}, "float16")


@pytest.fixture
def trained(tmp_path):
    """A bundle with its addresses, and a survey."""
    url = toy_bundle(tmp_path / "whole.safetensors")
    said = {"command": ["jobs/train.py", "--cifar", "/home/someone/cifar"]}
    bundles.save(replace(bundles.load(url), provenance=said), url)
    toy_survey(tmp_path / "survey", 120)
    return url, str(tmp_path / "survey"), str(tmp_path / "small.safetensors")


def test_a_shipped_bundle_is_smaller_scores_alike_and_names_no_folder(trained, capsys):
    whole, survey, output = trained
    shipping.main(shipping.ShipConfig(bundle=whole, survey=survey, output=output, storage="float16"))
    made = bundles.load(output)
    assert "Spearman" in capsys.readouterr().out
    assert "/home" not in json.dumps(made.provenance)
    assert made.provenance["command"] == ["train.py", "--cifar", "cifar"]
    assert made.provenance["shipped"]["rank_correlation"] > 0.999
    np.testing.assert_allclose(
        shipping._scores(made, survey), shipping._scores(bundles.load(whole), survey), atol=5e-3
    )


def test_a_bundle_whose_ranks_change_is_not_shipped(trained, monkeypatch, tmp_path):
    whole, survey, output = trained

    def turn(state, storage):
        return {
            name: -tensor if len(tensor.shape) and len(tensor) == 2 else tensor
            for name, tensor in state.items()
        }

    monkeypatch.setattr(shipping, "pack", turn)
    with pytest.raises(InputError, match="changes the ranks of"):
        shipping.main(shipping.ShipConfig(bundle=whole, survey=survey, output=output))
    assert not (tmp_path / "small.safetensors").exists()


def test_agreement_counts_what_the_first_hundredths_share():
    scores = np.linspace(0, 1, 1000)
    swapped = scores.copy()
    swapped[[-1, -500]] = swapped[[-500, -1]]
    correlation, shared = shipping.agreement(scores, swapped)
    assert shared == pytest.approx(0.9)
    assert correlation == pytest.approx(1 - 6 * 2 * 499**2 / (1000 * (1000**2 - 1)))
