"""What training minimizes: cross-entropies that agree with how a network's logits become probabilities.

A loss takes logits of shape (batch, classes) and labels (batch,), the number of each image's class, and
gives the mean over the batch. Both work on logits, so that no probability of 0 or 1 overflows, and in float32
whatever the precision of the network.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch.nn.functional as F
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]


def softmax_cross_entropy(logits_BK: Tensor, labels_B: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of mutually exclusive classes, with optional label smoothing."""
    return F.cross_entropy(logits_BK.float(), labels_B, label_smoothing=smoothing)


def sigmoid_cross_entropy(logits_BK: Tensor, labels_B: Tensor, smoothing: float = 0.0) -> Tensor:
    """Binary cross-entropy of one sigmoid neuron a class, averaged over classes (EZnet's pair).

    With smoothing ``s`` the target of the true class is ``1 - s + s / K`` and that of the others ``s / K``.
    """
    classes = logits_BK.shape[1]
    targets = F.one_hot(labels_B, classes).float() * (1 - smoothing) + smoothing / classes
    return F.binary_cross_entropy_with_logits(logits_BK.float(), targets)


def squared_error(values_BK: Tensor, targets_BK: Tensor, scales: Sequence[float]) -> Tensor:
    """Mean squared error of a regression, each target in units of its scale (its scatter in the training set)."""
    return F.mse_loss(values_BK.float() / (unit := values_BK.new_tensor(scales)), targets_BK.float() / unit)


def loss_for(activation: str, smoothing: float = 0.0) -> Loss:
    """The loss of a network with this activation, "softmax" or "sigmoid".

    Examples
    --------
    >>> import torch
    >>> loss = loss_for("sigmoid")
    >>> round(loss(torch.zeros(3, 2), torch.tensor([0, 1, 1])).item(), 4)
    0.6931
    """
    if not 0 <= smoothing < 1:
        raise ValueError(f"label smoothing must lie in [0, 1); got {smoothing}")
    losses = {"softmax": softmax_cross_entropy, "sigmoid": sigmoid_cross_entropy}
    if activation not in losses:
        raise ValueError(f'activation is {activation!r}; it must be "softmax" or "sigmoid"')
    return partial(losses[activation], smoothing=smoothing)
