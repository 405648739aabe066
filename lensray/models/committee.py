"""Committee: several trained networks as one, their answers fused by a logistic regression.

Each member sees the cutout as it was trained to: its bands, its size (cropped about the centre), its own normalization,
whose arrays are buffers here. Its answer is the logarithm of the odds of a lens, and the committee's is

    log odds = bias + Σ weight · log odds of the member,

so that a member that knows more counts more, members that say the same are not counted twice, and the result is
calibrated on what the weights were fitted to (`lensray.training.fusion`; stacked generalization, Wolpert 1992). The plain mean of
probabilities, the field's usual committee, has no such weights.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lensray.normalization import Normalization, from_config

LIMIT = 50.0
"""Largest log odds of a member: its float32 probability is 1 long before."""


def log_odds(logits_BK: Tensor, activation: str, positive: Sequence[int]) -> Tensor:
    """Logarithm of the odds of the positive classes, shape (batch,), float32.

    Parameters
    ----------
    logits_BK : Tensor
    activation : {"softmax", "sigmoid"}
    positive : sequence of int
        Columns whose probabilities add up to the score.

    Raises
    ------
    ValueError
        If the activation is another one, or all classes are positive.
    """
    logits_BK = logits_BK.float()
    chosen = torch.zeros(logits_BK.shape[1], dtype=torch.bool, device=logits_BK.device)
    chosen[list(positive)] = True
    if activation == "softmax" and not bool(chosen.all()):
        odds = logits_BK[:, chosen].logsumexp(1) - logits_BK[:, ~chosen].logsumexp(1)
    elif activation == "sigmoid":
        # One neuron a class: the score is that of the lens neuron, whatever the others say.
        parts = logits_BK[:, chosen]
        odds = parts[:, 0] if parts.shape[1] == 1 else torch.logit(parts.sigmoid().sum(1), eps=1e-7)
    else:
        raise ValueError(
            f"no odds follow from activation {activation!r} with the positive columns {positive}"
        )
    return odds.clamp(-LIMIT, LIMIT)


class Member(nn.Module):
    """A network with its normalization, for cutouts that may be larger and have more planes than it takes.

    Parameters
    ----------
    architecture, arguments
        As in a bundle.
    normalization : mapping
        Name and settings, as in a bundle.
    array_sizes : mapping of str to int
        Lengths of the normalization's arrays; their values come with the weights.
    planes : sequence of int
        Planes of the cutout that it takes, in its order.
    height, width : int
        Size that it takes.
    positive : sequence of int
        Its outputs whose probabilities add up to the score.
    """

    def __init__(
        self,
        *,
        architecture: str,
        arguments: Mapping[str, Any],
        normalization: Mapping[str, Any],
        array_sizes: Mapping[str, int],
        planes: Sequence[int],
        height: int,
        width: int,
        positive: Sequence[int],
    ) -> None:
        from lensray import models  # which imports this module

        super().__init__()
        self.network = models.build(architecture, **arguments)
        self.config, self.array_names = dict(normalization), sorted(array_sizes)
        self.planes, self.positive = list(planes), list(positive)
        self.height, self.width = height, width
        for name in self.array_names:
            # Ascending from above 0 to 1: a template's arrays before any are loaded.
            empty = torch.linspace(0, 1, array_sizes[name] + 1, dtype=torch.float64)[1:]
            self.register_buffer(_buffer(name), empty)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Log odds of a lens, shape (batch,)."""
        rows, columns = (
            _centred(images_BCHW.shape[2], self.height),
            _centred(images_BCHW.shape[3], self.width),
        )
        seen = images_BCHW[:, self.planes, rows, columns].contiguous()
        normalized = self.normalization()(seen).contiguous(memory_format=torch.channels_last)
        return log_odds(self.network(normalized), str(self.network.activation), self.positive)

    def normalization(self) -> Normalization:
        """Its normalization, with the arrays that were loaded."""
        arrays = {name: _array(self.get_buffer(_buffer(name))) for name in self.array_names}
        return from_config(self.config, arrays)


def _centred(size: int, wanted: int) -> slice:
    """The middle of an axis, as `lensray.resampling.crop_or_pad` takes it."""
    start = size // 2 - wanted // 2
    return slice(start, start + wanted)


def _buffer(name: str) -> str:
    return f"array_{name}"


def _array(buffer: Tensor) -> np.ndarray:
    return buffer.detach().cpu().double().numpy()


class Committee(nn.Module):
    """Members and the weights of their fusion.

    Parameters
    ----------
    members : sequence of mapping
        Keywords of each `Member`.

    Notes
    -----
    Takes cutouts as stored (`lensray.normalization.Unchanged` before it) and gives the logits of two classes, 0 for a
    non-lens and the log odds for a lens. Before the weights are fitted it is the mean of the log odds.
    """

    activation = "softmax"

    def __init__(self, members: Sequence[Mapping[str, Any]]) -> None:
        super().__init__()
        self.members = nn.ModuleList(Member(**member) for member in members)
        self.weights = nn.Parameter(torch.full((len(self.members),), 1 / len(self.members)))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Logits of shape (batch, 2)."""
        # As a sum and not a matrix product, which mixed precision would round to 8 bits.
        odds_B = (self.member_log_odds(images_BCHW) * self.weights).sum(1) + self.bias
        return torch.stack([torch.zeros_like(odds_B), odds_B], dim=1)

    def member_log_odds(self, images_BCHW: Tensor) -> Tensor:
        """Log odds of each member, shape (batch, members)."""
        return torch.stack([member(images_BCHW) for member in self.members], dim=1)
