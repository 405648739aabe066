"""LensFlow: three convolutions and four linear layers (Pourrahmani et al. 2018, arXiv:1705.05857).

The layers are those of Table 2.1 of the thesis (Pourrahmani 2019) and of LensFlow's notebook, which agree;
the running text differs in two places (an average pooling before the net, linear neurons without ReLU) and
is not followed. 8.75 million parameters, 293 MFLOP an image (two floating-point operations a
multiplication-addition).

Departure in the order of work, not in the numbers: the largest pixel of each 2×2 is taken before tanh.
tanh is monotonic, so its maximum is that of its argument, and a quarter of the evaluations is left.
"""

from collections import OrderedDict

from torch import Tensor, nn

SIZE = 100


def _convolution(channels: int, kernels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, kernels, 5), nn.MaxPool2d(2), nn.Tanh())


def _linear(inputs: int, outputs: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, outputs), nn.ReLU(), nn.Dropout(dropout))


class LensFlow(nn.Module):
    """LensFlow's network, for images of 100×100 pixels.

    Parameters
    ----------
    in_channels : int
        Bands of the image; LensFlow has one (F814W).
    classes : int
        Output neurons before the softmax.
    dropout : float
        Share of the neurons of each linear layer that is left out in training.
    """

    activation = "softmax"

    def __init__(self, in_channels: int = 1, classes: int = 2, dropout: float = 0.5) -> None:
        super().__init__()
        self.features = nn.Sequential(
            _convolution(in_channels, 30), _convolution(30, 60), _convolution(60, 90)
        )
        self.classifier = nn.Sequential(
            OrderedDict(
                flatten=nn.Flatten(),
                linear1=_linear(90 * 9 * 9, 1000, dropout),
                linear2=_linear(1000, 800, dropout),
                linear3=_linear(800, 600, dropout),
                output=nn.Linear(600, classes),
            )
        )

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Logits of shape (batch, classes).

        Raises
        ------
        ValueError
            If the images are not 100×100 pixels.
        """
        if images_BCHW.shape[-2:] != (SIZE, SIZE):
            raise ValueError(f"LensFlow takes images of {SIZE}×{SIZE} pixels; got {tuple(images_BCHW.shape)}")
        return self.classifier(self.features(images_BCHW))
