"""The classic convolutional network that DeepLens was compared with (Lanusse et al. 2017, arXiv:1703.02642).

Four convolutions and two dense layers, all with batch normalization and ReLU: 7×7 to 32 maps, pool, 3×3 to
64, pool, 3×3 to 128 twice, pool, 1024 neurons twice, one sigmoid neuron. Its sigmoid is given as two logits, as DeepLens'
is. Convolutions keep height and width; each pool halves them, rounding down.
"""

from torch import Tensor, nn

from lensray.models.deeplens import two_classes


def _convolution(channels: int, kernels: int, kernel_size: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, kernels, kernel_size, padding=kernel_size // 2, bias=False),
        nn.BatchNorm2d(kernels),
        nn.ReLU(),
    )


def _dense(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU())


class ClassicCNN(nn.Module):
    """The baseline beside DeepLens, for images of one size.

    4.6 million parameters and 86 MFLOP for an image of 1×45×45 (two floating-point operations a
    multiplication-addition).

    Parameters
    ----------
    in_channels : int
        Bands of the image.
    classes : int
        2: one sigmoid neuron given as two logits. More: as many logits.
    size : int
        Side of the image in pixels.
    """

    activation = "softmax"

    def __init__(self, in_channels: int = 1, classes: int = 2, size: int = 45) -> None:
        super().__init__()
        self.size = size
        self.features = nn.Sequential(
            _convolution(in_channels, 32, 7),
            nn.MaxPool2d(2),
            _convolution(32, 64, 3),
            nn.MaxPool2d(2),
            _convolution(64, 128, 3),
            _convolution(128, 128, 3),
            nn.MaxPool2d(2),
            nn.Flatten(),
        )
        self.classifier = nn.Sequential(
            _dense(128 * (size // 8) ** 2, 1024),
            _dense(1024, 1024),
            nn.Linear(1024, 1 if classes == 2 else classes),
        )

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Logits of shape (batch, classes).

        Raises
        ------
        ValueError
            If the images are not of the network's size.
        """
        if images_BCHW.shape[-2:] != (self.size, self.size):
            raise ValueError(
                f"this network takes images of {self.size}×{self.size} pixels; got {tuple(images_BCHW.shape)}"
            )
        logits = self.classifier(self.features(images_BCHW))
        return two_classes(logits) if logits.shape[1] == 1 else logits
