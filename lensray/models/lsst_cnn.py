"""The network of 17 layers for LSST mocks (Ramachandra et al. 2017, github.com/hep-cce/ml_classification_studies).

Input, convolution, ReLU, convolution, ReLU, pool, dropout, convolution, ReLU, pool, dropout, flatten, dense, ReLU, dropout,
dense, softmax. The widths are those of the authors' trained file: 3×3 convolutions to 32, 32 and 64 maps, of
which the first alone keeps height and width, 64 neurons, dropout of 0.25, 0.25 and 0.5. That file has one
more convolution to 64 maps after the third, which `extra_convolution` adds.

With the activation "linear" the same layers regress parameters of the lens; the buffers ``offset`` and ``scale``, one
value an output, bring the last layer's numbers, which are about one, into the parameters' units.
"""

import torch
from torch import Tensor, nn

SIZE = 45


class LsstCNN(nn.Module):
    """The 17 layers, for images of one size.

    0.36 million parameters and 49 MFLOP for an image of 1×45×45 (two floating-point operations a
    multiplication-addition).

    Parameters
    ----------
    in_channels : int
        Bands of the image.
    classes : int
        Output neurons: classes, or quantities to regress.
    size : int
        Side of the image in pixels.
    extra_convolution : bool
        A fourth convolution (3×3 to 64 maps) and ReLU before the second pool.
    activation : str
        "softmax" for classes, "linear" for a regression.
    dropout : float
        Share of the last layer's neurons that is left out in training; of maps half of it.
    """

    def __init__(
        self,
        in_channels: int = 1,
        classes: int = 2,
        size: int = SIZE,
        extra_convolution: bool = False,
        activation: str = "softmax",
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if activation not in ("softmax", "linear"):
            raise ValueError(f'LsstCNN ends in "softmax" or "linear"; got {activation!r}')
        self.activation = activation
        self.size = size
        if activation == "linear":
            self.register_buffer("offset", torch.zeros(classes))
            self.register_buffer("scale", torch.ones(classes))
        convolutions: list[nn.Module] = [nn.Conv2d(32, 64, 3), nn.ReLU()]
        if extra_convolution:
            convolutions += [nn.Conv2d(64, 64, 3), nn.ReLU()]
        side = ((size - 2) // 2 - (4 if extra_convolution else 2)) // 2
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Dropout(dropout / 2),
            *convolutions,
            nn.MaxPool2d(2),
            nn.Dropout(dropout / 2),
            nn.Flatten(),
            nn.Linear(64 * side**2, 64),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(64, classes),
        )

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Logits, or regressed quantities, of shape (batch, classes).

        Raises
        ------
        ValueError
            If the images are not of the network's size.
        """
        if images_BCHW.shape[-2:] != (self.size, self.size):
            raise ValueError(
                f"this network takes images of {self.size}×{self.size} pixels; got {tuple(images_BCHW.shape)}"
            )
        outputs = self.layers(images_BCHW)
        if self.activation == "linear":
            return outputs * self.get_buffer("scale") + self.get_buffer("offset")
        return outputs
