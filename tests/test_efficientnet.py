"""EfficientNet of one or two resolutions: planes taken apart, pretrained weights, batch statistics."""

import socket

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from lensray import models
from lensray.augmentation import SYMMETRIES, symmetry
from lensray.errors import InputError
from lensray.models.efficientnet import (
    EfficientNetBranches,
    EfficientNetStack,
    NormAct,
    load_pretrained,
    reset_batch_norm,
)

PLANES = [[1, 64], [3, 20]]
BOTH = pytest.mark.parametrize("kind", [EfficientNetStack, EfficientNetBranches])


def images(count=3, seed=0):
    """Packed planes: VIS of 64×64, NISP of 20×20 in the middle of frames of zeros."""
    generator = torch.Generator().manual_seed(seed)
    packed = torch.zeros(count, 4, 64, 64)
    packed[:, :1] = torch.randn(count, 1, 64, 64, generator=generator)
    packed[:, 1:, 22:42, 22:42] = torch.randn(count, 3, 20, 20, generator=generator)
    return packed


def network(kind, **arguments):
    torch.manual_seed(0)
    return kind(planes=PLANES, **arguments).eval()


@pytest.fixture(scope="module")
def reference():
    """An untrained timm network whose weights and statistics differ from a fresh one's."""
    torch.manual_seed(1)
    model = timm.create_model("efficientnet_b0")
    for name, tensor in model.state_dict().items():
        if name.endswith(("running_mean", "bn1.bias", "bn2.bias")):
            tensor.uniform_(-0.1, 0.1)
    return model.eval()


@pytest.fixture(scope="module")
def weights(reference, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "b0.safetensors"
    save_file(reference.state_dict(), path)
    return str(path)


@BOTH
def test_the_logits_are_zero_and_one_number_so_that_softmax_is_its_sigmoid(kind):
    with torch.inference_mode():
        logits = network(kind)(images())
    assert logits.shape == (3, 2)
    assert not logits[:, 0].any()
    torch.testing.assert_close(
        models.probabilities(logits, kind.activation)[:, 1], torch.sigmoid(logits[:, 1])
    )


def test_two_branches_see_each_instrument_at_its_own_resolution():
    model = network(EfficientNetBranches)
    with torch.inference_mode():
        packed = images()
        vis, nisp = model._parts(packed)
        assert vis.shape == (3, 1, 64, 64)
        torch.testing.assert_close(nisp, packed[:, 1:, 22:42, 22:42], rtol=0, atol=0)
        features = torch.cat([model.backbones[0](vis), model.backbones[1](nisp)], dim=1)
        torch.testing.assert_close(model(packed)[:, 1:], model.classifier(features))


def test_one_stack_enlarges_the_smaller_images_to_the_whole_frame():
    model = network(EfficientNetStack)
    packed = images()
    seen = []
    model.backbones[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        model(packed)
    expected = F.interpolate(packed[:, 1:, 22:42, 22:42], size=(64, 64), mode="bilinear", align_corners=False)
    torch.testing.assert_close(seen[0], torch.cat([packed[:, :1], expected], dim=1))


@BOTH
def test_what_lies_outside_of_the_smaller_images_does_not_matter(kind):
    packed, model = images(), network(kind)
    with torch.inference_mode():
        before = model(packed)
        packed[:, 1:, :22] = 7
        torch.testing.assert_close(model(packed), before)


@pytest.mark.parametrize("element", range(SYMMETRIES))
def test_a_turned_packed_image_gives_the_network_turned_parts(element):
    model, packed = network(EfficientNetBranches), images()
    for turned, part in zip(model._parts(symmetry(packed, element)), model._parts(packed), strict=True):
        torch.testing.assert_close(turned, symmetry(part, element), rtol=0, atol=0)


def test_the_backbone_with_its_norms_apart_computes_what_timm_does(reference, weights):
    model = EfficientNetStack(planes=[[3, 64]]).eval()
    load_pretrained(model, weights)
    rgb = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        expected = reference.global_pool(reference.forward_features(rgb))
        torch.testing.assert_close(model.backbones[0](rgb), expected, rtol=1e-4, atol=1e-5)


@BOTH
def test_pretrained_weights_fill_all_but_the_last_layer_and_adapt_the_first(kind, reference, weights):
    model = network(kind)
    last = model.classifier[1].weight.clone()
    load_pretrained(model, weights)
    red, green, blue = reference.conv_stem.weight.unbind(1)
    expected = {
        1: [red + green + blue],
        3: [red, green, blue],
        4: [0.75 * red, 0.75 * green, 0.75 * blue, 0.75 * red],
    }
    for backbone, bands in zip(model.backbones, model.bands, strict=True):
        torch.testing.assert_close(
            backbone.conv_stem.weight.detach(), torch.stack(expected[bands], dim=1).detach()
        )
        torch.testing.assert_close(backbone.conv_head.weight, reference.conv_head.weight)
        torch.testing.assert_close(backbone.bn1.norm.running_mean, reference.bn1.running_mean)
    torch.testing.assert_close(model.classifier[1].weight, last)


def test_a_pth_file_is_read_as_tensors_alone(reference, tmp_path, weights):
    path = str(tmp_path / "b0.pth")
    torch.save({"state_dict": reference.state_dict()}, path)
    one, other = network(EfficientNetStack), network(EfficientNetStack)
    load_pretrained(one, path)
    load_pretrained(other, weights)
    torch.testing.assert_close(one.state_dict(), other.state_dict())
    torch.save({"conv_stem.weight": print}, path)
    with pytest.raises(InputError, match="no weights that can be read"):
        load_pretrained(one, path)


def test_weights_of_another_network_and_missing_files_are_refused(tmp_path):
    path = str(tmp_path / "other.safetensors")
    save_file({"conv_stem.weight": torch.zeros(32, 3, 3, 3)}, path)
    with pytest.raises(InputError, match=r"does not hold the weights of efficientnet_b0"):
        load_pretrained(network(EfficientNetStack), path)
    with pytest.raises(InputError):
        load_pretrained(network(EfficientNetStack), str(tmp_path / "nowhere.safetensors"))
    with pytest.raises(InputError, match="timm knows no network 'efficientnet_z9'"):
        models.build("efficientnet_stack", backbone="efficientnet_z9")


def test_a_download_without_network_is_one_helpful_line(monkeypatch, tmp_path):
    def no_network(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    model = network(EfficientNetStack)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(InputError, match=r"cannot be downloaded from here .*give a file of them") as caught:
        load_pretrained(model, "timm")
    assert "\n" not in str(caught.value)
    torch.testing.assert_close(model.state_dict(), before)


def test_batch_norm_is_forgotten_by_method_1_and_by_nothing_else(weights):
    model = network(EfficientNetStack)
    load_pretrained(model, weights)
    kernels = model.backbones[0].conv_head.weight.clone()
    reset_batch_norm(model)
    for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
        assert not norm.running_mean.any()
        assert not norm.bias.any()
        assert (norm.weight == 1).all()
    torch.testing.assert_close(model.backbones[0].conv_head.weight, kernels)


@BOTH
def test_with_batch_statistics_a_prediction_is_that_of_training_and_depends_on_the_neighbours(kind):
    running, batch = network(kind, dropout=0.0), network(kind, dropout=0.0, batch_statistics=True)
    batch.load_state_dict(running.state_dict())
    assert batch.depends_on_batch
    assert not running.depends_on_batch
    with torch.inference_mode():
        torch.testing.assert_close(running(images(1)), running(images())[:1], rtol=1e-4, atol=1e-5)
        assert (batch(images(2))[0, 1] - batch(images())[0, 1]).abs() > 1e-4
        torch.testing.assert_close(batch(images()), running.train()(images()), rtol=1e-4, atol=1e-4)


def test_every_norm_can_share_its_statistics_among_workers():
    model = network(EfficientNetBranches)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert all(type(norm) is nn.BatchNorm2d for norm in norms)
    assert len(norms) == sum(isinstance(module, NormAct) for module in model.modules())
