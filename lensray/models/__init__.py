"""Networks, by name: `build` makes one, `probabilities` turns its output into class probabilities.

A network is an ``nn.Module`` from images of shape (batch, bands, height, width) to logits of shape
(batch, classes), with the attribute `activation` ("softmax" or "sigmoid"), which says how the logits become
probabilities; with the activation "linear" it regresses, and its outputs are no probabilities. Its constructor
takes keywords that JSON can hold, so that a bundle can rebuild it.
"""

from typing import Any

import torch
from torch import Tensor, nn

from lensray.errors import InputError
from lensray.models.classic_cnn import ClassicCNN
from lensray.models.committee import Committee
from lensray.models.deeplens import DeepLens
from lensray.models.efficientnet import EfficientNetBranches, EfficientNetStack
from lensray.models.eznet import EZNet
from lensray.models.lens_generator import LensGenerator
from lensray.models.lensflow import LensFlow
from lensray.models.lsst_cnn import LsstCNN

__all__ = [
    "ClassicCNN",
    "Committee",
    "DeepLens",
    "EZNet",
    "LensFlow",
    "LensGenerator",
    "LsstCNN",
    "build",
    "names",
    "probabilities",
]

_NETWORKS: dict[str, type[nn.Module]] = {
    "classic_cnn": ClassicCNN,
    "committee": Committee,
    "deeplens": DeepLens,
    "efficientnet_branches": EfficientNetBranches,
    "efficientnet_stack": EfficientNetStack,
    "eznet": EZNet,
    "lens_generator": LensGenerator,
    "lensflow": LensFlow,
    "lsst_cnn": LsstCNN,
}


def names() -> list[str]:
    """Names of the networks that `build` knows."""
    return sorted(_NETWORKS)


def build(name: str, **arguments: Any) -> nn.Module:
    """Make an untrained network.

    Raises
    ------
    InputError
        If the name is unknown, or the network does not take these arguments.
    """
    if name not in _NETWORKS:
        raise InputError(f"unknown architecture {name!r}; known are {', '.join(names())}")
    try:
        return _NETWORKS[name](**arguments)
    except TypeError as error:
        raise InputError(f"architecture {name!r} does not take {arguments}: {error}") from error


def probabilities(logits_BK: Tensor, activation: str) -> Tensor:
    """Class probabilities in float32, shape (batch, classes).

    With "softmax" a row adds up to one; with "sigmoid" every class has a probability of its own.
    """
    logits_BK = logits_BK.float()
    if activation == "softmax":
        return torch.softmax(logits_BK, dim=1)
    if activation == "sigmoid":
        return torch.sigmoid(logits_BK)
    raise ValueError(f'activation is {activation!r}; it must be "softmax" or "sigmoid"')
