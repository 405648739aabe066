"""EZnet: a chain of small blocks, each connected to the few before it (Pourrahmani 2019, section 4.5).

A block applies batch normalization, tanh and a convolution to its input, and appends the result to that
input. The oldest feature maps are then dropped, so that the next block sees the outputs of the last
`branching_rate` blocks (the image counts as the block before the first), and all maps are resized to
the next block's height and width (Figure 3.5 of the thesis).

The thesis leaves open and we choose:

- branching rate 5, "same" padding and 64 neurons in the first linear layer: 0.31 million parameters and
  110 MFLOP for an image of 3×64×64 (two floating-point operations a multiplication-addition);
- resizing is bilinear, but a mean over pixels where the size shrinks to less than half (8×8 to 1×1 in
  the thesis' table), because bilinear interpolation would look at 2×2 of the 64 pixels only;
- tanh between the two linear layers.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Block = tuple[int, int, int]

#: Table 4.2 of the thesis: (number of kernels, kernel size, output height and width) of each block.
THESIS_BLOCKS: tuple[Block, ...] = (
    (16, 5, 50),
    (12, 4, 40),
    (12, 3, 32),
    (12, 3, 24),
    *[(12, 3, 16)] * 6,
    *[(12, 3, 12)] * 10,
    *[(12, 3, 8)] * 20,
    *[(32, 1, 1)] * 10,
)


def resize(maps_BCHW: Tensor, size: int) -> Tensor:
    """Feature maps interpolated to ``size × size``; returned as they are when they have that size."""
    height, width = maps_BCHW.shape[-2:]
    if (height, width) == (size, size):
        return maps_BCHW
    if min(height, width) > 2 * size:
        return F.adaptive_avg_pool2d(maps_BCHW, size)
    return F.interpolate(maps_BCHW, size=(size, size), mode="bilinear", align_corners=False)


class EZBlock(nn.Module):
    """One block: batch normalization, tanh, convolution; append to the input, drop the oldest, resize."""

    def __init__(self, channels: int, kernels: int, kernel_size: int, dropped: int, size: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, kernels, kernel_size, padding="same")
        self.dropped = dropped
        self.size = size

    def forward(self, maps_BCHW: Tensor) -> Tensor:
        """Maps of the next block's input, of height and width `size`."""
        # In place: batch normalization's output is needed by nothing but the tanh.
        new = self.conv(self.norm(maps_BCHW).tanh_())
        return resize(torch.cat([maps_BCHW[:, self.dropped :], new], dim=1), self.size)


class EZNet(nn.Module):
    """EZnet with two linear layers at its end and one sigmoid neuron a class.

    Parameters
    ----------
    in_channels : int
        Bands of the image.
    classes : int
        Output neurons; the thesis has two (non-lens, lens).
    blocks : sequence of (int, int, int)
        Number of kernels, kernel size, and output height and width of each block.
    branching_rate : int
        How many blocks back a block sees; at least 1.
    hidden : int
        Neurons of the first linear layer.

    Notes
    -----
    Images of any size are taken; the first block's resizing absorbs it. Those of the thesis have 64×64.
    """

    activation = "sigmoid"

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 2,
        blocks: Sequence[Sequence[int]] = THESIS_BLOCKS,
        branching_rate: int = 5,
        hidden: int = 64,
    ) -> None:
        super().__init__()
        if branching_rate < 1 or not blocks:
            raise ValueError(f"EZNet needs a branching rate of at least 1 and a block; got {branching_rate}, {blocks}")
        groups = [in_channels]
        self.blocks = nn.Sequential()
        for kernels, kernel_size, size in blocks:
            kept = [*groups, kernels][-branching_rate:]
            dropped = sum(groups) + kernels - sum(kept)
            self.blocks.append(EZBlock(sum(groups), kernels, kernel_size, dropped, size))
            groups = kept
        features = sum(groups) * blocks[-1][2] ** 2
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(features, hidden), nn.Tanh(), nn.Linear(hidden, classes))

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Logits of shape (batch, classes)."""
        return self.head(self.blocks(images_BCHW))
