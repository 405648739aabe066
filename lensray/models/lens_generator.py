"""LensGenerator: a generator of lens images and EZnet as its critic (Pourrahmani 2019, sections 3.1 and 4.3, Figure 3.1).

Both learn together, as in DCGAN (Radford et al. 2015, arXiv:1511.06434): the generator makes images of a
vector of 64 random numbers by four transposed convolutions; EZnet learns to tell them from real ones; the generator
learns to be taken for real.

The thesis gives the latent vector, the four blocks, the size of the images and the critic. We choose: the first block
goes from 1×1 to an eighth of the image, the others double the size (kernel 4, stride 2, which leaves no checkerboard);
128, 64 and 32 maps, batch normalization and ReLU between the blocks; a sigmoid at the end, because images
that were clipped at percentiles lie in [0, 1].
"""

import itertools
from typing import Any, cast

import torch
from torch import Tensor, nn

from lensray.models.eznet import EZNet

BLOCKS = 4
SMALLEST = 2 ** (BLOCKS - 1)
SKY = -2.5
"""First bias of the last layer: a pixel of 0.08."""


class LensGenerator(nn.Module):
    """A generator of images and the network that judges them.

    Parameters
    ----------
    in_channels : int
        Bands of an image.
    size : int
        Its height and width in pixels, a multiple of 8.
    latent : int
        Random numbers that an image is made of.
    maps : int
        Feature maps before the last block; each block before it has twice as many.
    critic : dict, optional
        Arguments of `EZNet` beside the bands.

    Notes
    -----
    As a network it is the critic: ``forward`` takes images and gives the logits of "generated" and "real".
    """

    activation = "sigmoid"

    def __init__(
        self,
        in_channels: int = 3,
        size: int = 64,
        latent: int = 64,
        maps: int = 32,
        critic: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if size < SMALLEST or size % SMALLEST:
            raise ValueError(f"LensGenerator makes images whose side is a multiple of {SMALLEST}; got {size}")
        if min(in_channels, latent, maps) < 1:
            raise ValueError("LensGenerator needs at least one band, one latent number and one map")
        self.latent = latent
        widths = [maps << block for block in range(BLOCKS - 1)][::-1]
        layers: list[nn.Module] = [
            nn.ConvTranspose2d(latent, widths[0], size // SMALLEST, bias=False),
            *_normalized(widths[0]),
        ]
        for wide, narrow in itertools.pairwise(widths):
            layers += [nn.ConvTranspose2d(wide, narrow, 4, 2, 1, bias=False), *_normalized(narrow)]
        layers += [nn.ConvTranspose2d(widths[-1], in_channels, 4, 2, 1), nn.Sigmoid()]
        self.generator = nn.Sequential(*layers)
        self.critic = EZNet(in_channels=in_channels, classes=2, **critic or {})
        for layer in self.generator:
            if isinstance(layer, nn.ConvTranspose2d):
                # DCGAN's first weights.
                nn.init.normal_(layer.weight, 0.0, 0.02)
        # Most of a clipped image is sky, near zero: begin dark.
        nn.init.constant_(cast(Tensor, cast(nn.ConvTranspose2d, self.generator[-2]).bias), SKY)

    def generate(self, latents_BZ: Tensor) -> Tensor:
        """Images in [0, 1] of shape (batch, bands, size, size), from normal random numbers of shape (batch, latent)."""
        return self.generator(latents_BZ[:, :, None, None])

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Logits of "generated" and "real", shape (batch, 2)."""
        return self.critic(images_BCHW)


def _normalized(maps: int) -> tuple[nn.Module, nn.Module]:
    return nn.BatchNorm2d(maps), nn.ReLU(inplace=True)


@torch.inference_mode()
def generate(model: LensGenerator, count: int, seed: int, batch_size: int = 64) -> Tensor:
    """Make `count` images on the CPU, float32; the same for the same seed."""
    model.eval()
    random = torch.Generator().manual_seed(seed)
    latents = torch.randn(count, model.latent, generator=random)
    device = next(model.parameters()).device
    return torch.cat([model.generate(part.to(device)).float().cpu() for part in latents.split(batch_size)])
