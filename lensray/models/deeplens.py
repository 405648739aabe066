"""CMU DeepLens: a pre-activated bottleneck residual network of 46 layers (Lanusse et al. 2017, arXiv:1703.02642).

A 7×7 convolution to 32 maps with batch normalization and ELU, then five groups of three residual blocks. A
block applies batch normalization, ELU and a convolution three times (1×1 to half of its output's
maps, 3×3, 1×1 to all of them) and adds the result to its input. The first block of groups two to five halves height and
width; there the activated input goes to the sum by a 1×1 convolution of stride 2. The maps' means go to one
sigmoid neuron. 1 + 5 · 3 · 3 = 46 convolutions, not counting the four of the shortcuts.

As in the authors' public code, the very first block takes its input as it is, which is activated already, and nothing
stands between the last sum and the mean. The code leaves open, and we choose: the stride is that of the block's
first convolution; convolutions that a batch normalization follows have no bias.

The one sigmoid neuron ``x`` is given as two logits ``(0, x)`` with a softmax, which is the same: the
probability of a lens is ``e^x / (1 + e^x)``. So the network is trained and scanned as any other of two classes.
"""

from torch import Tensor, nn

WIDTHS: tuple[int, ...] = (32, 64, 128, 256, 512)
"""Maps that the blocks of each group put out."""
BLOCKS_PER_GROUP = 3


def two_classes(lens_logit_B1: Tensor) -> Tensor:
    """Logits (batch, 2) of non-lens and lens, whose softmax is the sigmoid of one neuron."""
    return nn.functional.pad(lens_logit_B1, (1, 0))


class Bottleneck(nn.Module):
    """Three pre-activated convolutions beside a shortcut.

    Parameters
    ----------
    channels, outputs : int
        Maps of the input and of the output.
    stride : int
        2 halves height and width.
    activated : bool
        Whether the input has been normalized and activated already.
    """

    def __init__(self, channels: int, outputs: int, stride: int = 1, activated: bool = False) -> None:
        super().__init__()
        inner = outputs // 2
        self.activation = nn.Identity() if activated else _normalized_elu(channels)
        self.residual = nn.Sequential(
            nn.Conv2d(channels, inner, 1, stride=stride, bias=False),
            _normalized_elu(inner),
            nn.Conv2d(inner, inner, 3, padding=1, bias=False),
            _normalized_elu(inner),
            nn.Conv2d(inner, outputs, 1),
        )
        same = stride == 1 and channels == outputs
        self.shortcut = None if same else nn.Conv2d(channels, outputs, 1, stride=stride)

    def forward(self, maps_BCHW: Tensor) -> Tensor:
        """The input plus what the three convolutions make of it."""
        activated = self.activation(maps_BCHW)
        shortcut = maps_BCHW if self.shortcut is None else self.shortcut(activated)
        return shortcut + self.residual(activated)


def _normalized_elu(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ELU())


class DeepLens(nn.Module):
    """DeepLens' network, for images of any size (its authors' and the LSST mocks have 45×45 pixels).

    3.5 million parameters; 232 MFLOP for an image of 1×45×45 (two floating-point operations a
    multiplication-addition).

    Parameters
    ----------
    in_channels : int
        Bands of the image.
    classes : int
        2: one sigmoid neuron given as two logits. More: as many logits.
    widths : sequence of int
        Maps that the blocks of each group put out.
    """

    activation = "softmax"

    def __init__(self, in_channels: int = 1, classes: int = 2, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, widths[0], 7, padding=3, bias=False), _normalized_elu(widths[0])
        )
        blocks: list[nn.Module] = []
        channels = widths[0]
        for group, width in enumerate(widths):
            for block in range(BLOCKS_PER_GROUP):
                stride = 2 if block == 0 and group > 0 else 1
                blocks.append(Bottleneck(channels, width, stride, activated=group == block == 0))
                channels = width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1 if classes == 2 else classes)
        )

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Logits of shape (batch, classes)."""
        logits = self.head(self.blocks(self.stem(images_BCHW)))
        return two_classes(logits) if logits.shape[1] == 1 else logits
