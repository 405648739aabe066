"""Weights in fewer bytes: half precision, or integers of eight bits with a scale for each row.

A network computes in the precision that its bundle names, whatever its weights are stored in. Storing them in half precision
rounds them by 5e-4 at most, relatively; in eight bits by half a 127th of the largest weight of their row, which
the sum over thousands of inputs averages out in a wide linear layer. Whether a network bears it is measured, not
assumed: `lensray.training.shipping` compares the ranks of a survey.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

Storage = Literal["float32", "float16", "int8"]
SCALE = "scale."
"""Begins the names of the scales of weights that are stored as integers."""
LARGE = 10_000
"""Weights of a tensor from which on eight bits are worth their scales."""
_LEVELS = 127


def pack(state: Mapping[str, Tensor], storage: Storage) -> dict[str, Tensor]:
    """Weights as they are stored.

    Parameters
    ----------
    state : mapping of str to Tensor
        A network's ``state_dict``.
    storage : {"float32", "float16", "int8"}
        With ``int8``, tensors of two or more axes and `LARGE` or more weights become integers, and all others half
        precision. Tensors of integers stay as they are.

    Raises
    ------
    ValueError
        If a weight is too large for half precision.
    """
    packed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if not tensor.is_floating_point() or storage == "float32":
            packed[name] = tensor.contiguous()
        elif storage == "int8" and tensor.ndim > 1 and tensor.numel() >= LARGE:
            packed |= _integers(name, tensor.float())
        else:
            half = tensor.half()
            if not bool(half.isfinite().all()):
                raise ValueError(f"{name} has weights beyond half precision; store the bundle in float32")
            packed[name] = half.contiguous()
    return packed


def _integers(name: str, tensor: Tensor) -> dict[str, Tensor]:
    import torch

    rows = tensor.flatten(1)
    scale = rows.abs().amax(1, keepdim=True).clamp_min(1e-30) / _LEVELS
    levels = (rows / scale).round().to(torch.int8).view(tensor.shape)
    return {name: levels.contiguous(), SCALE + name: scale[:, 0].contiguous()}


def unpack(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The ``state_dict`` of `pack`'s result: integers times their scales; half precision stays what it is."""
    state = {}
    for name, tensor in stored.items():
        if name.startswith(SCALE):
            continue
        scale = stored.get(SCALE + name)
        if scale is not None:
            tensor = (tensor.float().flatten(1) * scale[:, None]).view(tensor.shape)
        state[name] = tensor
    return state
