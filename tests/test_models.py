import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lensray import models
from lensray.errors import InputError
from lensray.models import eznet
from lensray.models.eznet import THESIS_BLOCKS, EZNet, resize
from lensray.models.lensflow import LensFlow

IMAGES = {
    "classic_cnn": (1, 45, 45),
    "deeplens": (1, 45, 45),
    "eznet": (3, 64, 64),
    "lensflow": (1, 100, 100),
    "lsst_cnn": (1, 45, 45),
}


def randomized(model, seed=0):
    """Weights and running statistics as unlike their initial values as training leaves them."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2, generator=generator)
        elif tensor.is_floating_point():
            tensor.add_(0.05 * torch.randn(tensor.shape, generator=generator))
    return model.eval()


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def test_every_network_is_exercised_here():
    # Committees, generators and the networks of two resolutions have tests of their own.
    elsewhere = ["committee", "efficientnet_branches", "efficientnet_stack", "lens_generator"]
    assert models.names() == sorted([*IMAGES, *elsewhere])


@pytest.mark.parametrize("name", IMAGES)
def test_a_network_gives_finite_logits_in_either_memory_format_and_learns(name):
    torch.manual_seed(0)
    model = models.build(name, classes=3)
    images = torch.rand(4, *IMAGES[name])
    with torch.no_grad():
        contiguous = randomized(model)(images)
        last = model.to(memory_format=torch.channels_last)(
            images.contiguous(memory_format=torch.channels_last)
        )
    assert contiguous.shape == (4, 3)
    assert torch.isfinite(contiguous).all()
    assert contiguous.std() > 0
    torch.testing.assert_close(last, contiguous, rtol=1e-4, atol=1e-5)
    model.train()(images).square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_does_not_depend_on_its_neighbours_in_the_batch(name):
    model = randomized(models.build(name))
    images = torch.rand(3, *IMAGES[name])
    with torch.inference_mode():
        alone = torch.cat([model(image[None]) for image in images])
        torch.testing.assert_close(model(images), alone, rtol=1e-4, atol=1e-5)


def test_an_unknown_network_or_argument_is_refused():
    with pytest.raises(
        InputError, match=r"unknown architecture 'resnet'.*eznet, lens_generator, lensflow, lsst_cnn"
    ):
        models.build("resnet")
    with pytest.raises(InputError, match="does not take"):
        models.build("eznet", colour="blue")


def test_probabilities_are_float32_and_safe_at_extremes():
    logits = torch.tensor([[0.0, 0.0], [200.0, -200.0]], dtype=torch.bfloat16)
    softmax, sigmoid = (models.probabilities(logits, activation) for activation in ("softmax", "sigmoid"))
    assert softmax.dtype == sigmoid.dtype == torch.float32
    assert softmax.tolist() == [[0.5, 0.5], [1.0, 0.0]]
    assert sigmoid.tolist() == [[0.5, 0.5], [1.0, 0.0]]
    with pytest.raises(ValueError, match="activation"):
        models.probabilities(logits, "relu")


def test_lensflow_has_the_shapes_of_table_2_1():
    shapes = []

    def note(module, inputs, output):
        shapes.append((type(module).__name__, tuple(output.shape[1:])))

    model = LensFlow()
    for module in model.modules():
        if not list(module.children()):
            module.register_forward_hook(note)
    model(torch.rand(1, 1, 100, 100))
    convolutions = [s for name, s in shapes if name == "Conv2d"]
    assert convolutions == [(30, 96, 96), (60, 44, 44), (90, 18, 18)]
    assert [s for name, s in shapes if name == "Tanh"] == [(30, 48, 48), (60, 22, 22), (90, 9, 9)]
    rest = [layer for layer in shapes if layer[0] not in ("Conv2d", "MaxPool2d", "Tanh")]
    assert rest == [
        ("Flatten", (7290,)),
        *[(layer, (n,)) for n in (1000, 800, 600) for layer in ("Linear", "ReLU", "Dropout")],
        ("Linear", (2,)),
    ]
    weights = 25 * (1 * 30 + 30 * 60 + 60 * 90) + 7290 * 1000 + 1000 * 800 + 800 * 600 + 600 * 2
    biases = 30 + 60 + 90 + 1000 + 800 + 600 + 2
    assert parameters(model) == weights + biases == 8_754_532


def test_lensflow_gives_the_numbers_of_its_table_in_the_tables_order():
    """tanh before pooling, as Table 2.1 has it."""
    model = randomized(LensFlow())
    maps = images = torch.rand(2, 1, 100, 100)
    for stage in model.features:
        maps = F.max_pool2d(torch.tanh(stage[0](maps)), 2)
    torch.testing.assert_close(model(images), model.classifier(maps), rtol=1e-5, atol=1e-6)


def test_lensflow_says_which_size_it_takes():
    with pytest.raises(ValueError, match="100×100"):
        LensFlow()(torch.zeros(1, 1, 64, 64))


class ObviousEZNet(nn.Module):
    """Section 4.5 and Figure 3.5 word by word: every block's maps are kept, resized anew for each block that sees them."""

    def __init__(self, model: EZNet):
        super().__init__()
        self.model = model

    def forward(self, images):
        outputs = [images]
        for block, size in zip(self.model.blocks, self.model.sizes, strict=True):
            seen = torch.cat(outputs[-self.model.branching_rate :], dim=1)
            kernel = block.conv.kernel_size[0]
            before, after = (kernel - 1) // 2, kernel // 2
            padded = F.pad(torch.tanh(block.norm(seen)), (before, after, before, after))
            outputs.append(F.conv2d(padded, block.conv.weight, block.conv.bias))
            outputs = [resize(maps, size) for maps in outputs]
        return self.model.head(torch.cat(outputs[-self.model.branching_rate :], dim=1))


@pytest.mark.parametrize("branching_rate", [1, 2, 5])
def test_eznet_is_its_definition(branching_rate):
    model = randomized(EZNet(branching_rate=branching_rate))
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(model(images), ObviousEZNet(model)(images), rtol=1e-4, atol=1e-5)


def test_eznet_has_the_blocks_of_table_4_2():
    assert len(THESIS_BLOCKS) == 50
    model = EZNet()
    inputs, kernels = [], []
    for block in model.blocks:
        block.register_forward_hook(lambda b, args, out: inputs.append(tuple(args[0].shape[1:])))
        kernels.append((block.conv.out_channels, *block.conv.kernel_size))
    model.eval()(torch.rand(1, 3, 64, 64))
    assert kernels == [(16, 5, 5), (12, 4, 4), *[(12, 3, 3)] * 38, *[(32, 1, 1)] * 10]
    sizes = [64, 50, 40, 32, 24, *[16] * 6, *[12] * 10, *[8] * 20, *[1] * 9]
    assert [shape[1] for shape in inputs] == sizes
    assert [shape[0] for shape in inputs[:6]] == [3, 19, 31, 43, 55, 64]
    assert {shape[0] for shape in inputs[6:41]} == {60}
    assert inputs[-1] == (160, 1, 1)
    assert parameters(model) == 305_960


def test_eznet_takes_another_block_table_and_branching_rate():
    model = EZNet(
        in_channels=1, classes=4, blocks=[[8, 3, 20], [8, 3, 10], [6, 1, 2]], branching_rate=2, hidden=5
    )
    assert model(torch.rand(2, 1, 33, 33)).shape == (2, 4)
    assert model.head[1].in_features == (8 + 6) * 4
    with pytest.raises(ValueError, match="branching rate"):
        EZNet(branching_rate=0)


def test_the_first_batch_normalization_acts_on_the_image():
    model = EZNet(in_channels=4)
    assert model.blocks[0].norm.num_features == 4


def test_resizing_is_the_identity_bilinear_or_a_mean():
    maps = torch.rand(1, 2, 8, 8)
    assert resize(maps, 8) is maps
    torch.testing.assert_close(resize(maps, 1)[..., 0, 0], maps.mean((2, 3)))
    ramp = torch.arange(12.0).expand(1, 1, 12, 12)
    torch.testing.assert_close(resize(ramp, 8)[0, 0, 0], (torch.arange(8) + 0.5) * 1.5 - 0.5)


def test_the_fast_tanh_is_tanh():
    values = torch.cat([torch.linspace(-30, 30, 100_001), torch.tensor([-torch.inf, torch.inf, 0.0])])
    exact = torch.tanh(values.double())
    assert (eznet.tanh_(values.clone()).double() - exact).abs().max() < 2e-7


def test_a_shallower_eznet_keeps_the_order_of_its_blocks():
    half = eznet.shallower(0.5)
    assert [*dict.fromkeys(half)] == [*dict.fromkeys(THESIS_BLOCKS)]
    assert (len(THESIS_BLOCKS), len(half)) == (50, 27)
    assert eznet.shallower(1.0) == list(THESIS_BLOCKS)
