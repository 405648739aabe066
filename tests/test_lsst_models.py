"""DeepLens, the classic network beside it, and the 17 layers of the LSST mocks."""

import pytest
import torch
import torch.nn.functional as F
from test_models import parameters, randomized
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lensray import models
from lensray.errors import InputError
from lensray.models.classic_cnn import ClassicCNN
from lensray.models.deeplens import DeepLens
from lensray.models.lsst_cnn import LsstCNN


def layers(model, kind, images):
    """Output shapes (maps, side) of the layers of a kind, in the order of their work."""
    shapes = []
    for module in model.modules():
        if isinstance(module, kind):
            module.register_forward_hook(lambda m, inputs, output: shapes.append(tuple(output.shape[1:])))
    model.eval()(images)
    return shapes


def megaflop(model, images):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(images)
    return counter.get_total_flops() / 1e6


def test_deeplens_has_46_layers_in_five_groups_of_three_bottlenecks():
    shortcuts = [b.shortcut for b in DeepLens().blocks if b.shortcut is not None]
    assert len(shortcuts) == 4
    shapes = layers(DeepLens(), nn.Conv2d, torch.rand(1, 1, 45, 45))
    assert len(shapes) == 46 + len(shortcuts)
    sums = layers(DeepLens(), type(DeepLens().blocks[0]), torch.rand(1, 1, 45, 45))
    groups = [(32, 45), (64, 23), (128, 12), (256, 6), (512, 3)]
    assert sums == [(maps, side, side) for maps, side in groups for _ in range(3)]


def test_deeplens_has_the_weights_of_its_layer_table():
    """Counted block by block from the table: 1×1 to the inner maps, 3×3, 1×1 to the outer ones."""

    def block(channels, inner, outer, first_of_all=False):
        convolutions = channels * inner + 9 * inner * inner + inner * outer + outer
        norms = 2 * (inner + inner) + (0 if first_of_all else 2 * channels)
        return convolutions + norms + (0 if channels == outer else channels * outer + outer)

    expected, channels = 49 * 32 + 2 * 32, 32
    for outer in (32, 64, 128, 256, 512):
        for k in range(3):
            expected += block(channels, outer // 2, outer, first_of_all=k == 0 and outer == 32)
            channels = outer
    assert parameters(DeepLens()) == expected + 512 + 1 == 3_508_545
    assert megaflop(DeepLens(), torch.rand(1, 1, 45, 45)) == pytest.approx(231.7, abs=0.1)


def test_a_bottleneck_is_its_definition():
    torch.manual_seed(0)
    halving = randomized(DeepLens().blocks[3])
    maps = torch.randn(2, 32, 9, 9)
    activated = F.elu(halving.activation[0](maps))
    first, second, third = (halving.residual[k] for k in (0, 2, 4))
    inner = F.conv2d(activated, first.weight, stride=2)
    inner = F.conv2d(F.elu(halving.residual[1][0](inner)), second.weight, padding=1)
    outer = F.conv2d(F.elu(halving.residual[3][0](inner)), third.weight, third.bias)
    shortcut = F.conv2d(activated, halving.shortcut.weight, halving.shortcut.bias, stride=2)
    torch.testing.assert_close(halving(maps), outer + shortcut)
    plain = randomized(DeepLens().blocks[1])
    torch.testing.assert_close(plain(maps) - maps, plain.residual(plain.activation(maps)))


@pytest.mark.parametrize("network", [DeepLens, ClassicCNN])
def test_the_two_logits_are_one_sigmoid_neuron(network):
    model = randomized(network())
    logits = model(torch.rand(3, 1, 45, 45))
    assert logits[:, 0].tolist() == [0, 0, 0]
    softmax = models.probabilities(logits, model.activation)
    torch.testing.assert_close(softmax[:, 1], torch.sigmoid(logits[:, 1]))
    assert network(classes=3)(torch.rand(2, 1, 45, 45)).shape == (2, 3)


def test_deeplens_takes_bands_and_images_of_any_size():
    model = DeepLens(in_channels=4, widths=(8, 16, 32))
    assert model(torch.rand(2, 4, 64, 64)).shape == (2, 2)
    assert model(torch.rand(2, 4, 31, 31)).shape == (2, 2)


def test_the_classic_cnn_has_its_layers():
    images = torch.rand(1, 1, 45, 45)
    assert layers(ClassicCNN(), nn.Conv2d, images) == [
        (32, 45, 45),
        (64, 22, 22),
        (128, 11, 11),
        (128, 11, 11),
    ]
    assert layers(ClassicCNN(), nn.Linear, images) == [(1024,), (1024,), (1,)]
    weights = 49 * 32 + 9 * (32 * 64 + 64 * 128 + 128 * 128) + 128 * 25 * 1024 + 1024 * 1024 + 1024 + 1
    norms = 2 * (32 + 64 + 128 + 128 + 1024 + 1024)
    assert parameters(ClassicCNN()) == weights + norms == 4_572_385


def test_lsst_cnn_has_the_17_layers_of_the_slide_in_their_order():
    names = [type(layer).__name__ for layer in LsstCNN().layers]
    convolution, dropped = ["Conv2d", "ReLU"], ["MaxPool2d", "Dropout"]
    dense = ["Flatten", "Linear", "ReLU", "Dropout", "Linear"]
    assert names == [*convolution * 2, *dropped, *convolution, *dropped, *dense]
    # The slide counts the input and the softmax too.
    assert len(names) + 2 == 17
    assert layers(LsstCNN(), nn.Conv2d, torch.rand(1, 1, 45, 45)) == [
        (32, 45, 45),
        (32, 43, 43),
        (64, 19, 19),
    ]
    weights = 9 * (32 + 32 * 32 + 32 * 64) + 64 * 81 * 64 + 64 * 2
    assert parameters(LsstCNN()) == weights + 32 + 32 + 64 + 64 + 2 == 360_034


def test_lsst_cnn_takes_the_convolution_of_the_authors_file_and_other_inputs():
    deeper = LsstCNN(extra_convolution=True)
    assert layers(deeper, nn.Conv2d, torch.rand(1, 1, 45, 45))[2:] == [(64, 19, 19), (64, 17, 17)]
    for extra in (False, True):
        model = LsstCNN(in_channels=3, size=64, extra_convolution=extra)
        assert model(torch.rand(2, 3, 64, 64)).shape == (2, 2)


def test_lsst_cnn_regresses_with_linear_outputs():
    model = models.build("lsst_cnn", classes=5, activation="linear")
    assert model.activation == "linear"
    images = torch.rand(2, 1, 45, 45)
    plain = model.eval()(images)
    assert plain.shape == (2, 5)
    model.get_buffer("scale").fill_(3.0)
    model.get_buffer("offset").copy_(torch.arange(5.0))
    torch.testing.assert_close(model(images), 3 * plain + torch.arange(5.0))
    with pytest.raises(ValueError, match="linear"):
        LsstCNN(activation="tanh")


@pytest.mark.parametrize("network", [ClassicCNN, LsstCNN])
def test_networks_of_one_size_say_which(network):
    with pytest.raises(ValueError, match="45×45"):
        network()(torch.zeros(1, 1, 64, 64))


def test_an_argument_that_a_network_lacks_is_refused():
    with pytest.raises(InputError, match="does not take"):
        models.build("deeplens", depth=50)
