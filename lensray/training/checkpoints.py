"""Checkpoints of a training: weights, the optimizer's moments and the history, in one .safetensors file.

A checkpoint is written after each epoch, over the last one and all at once, to disk or S3. Nothing is pickled. It
names the phase and the training set that it belongs to, so that a training never goes on from another's.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor, nn

from lensray.errors import LensRayError
from lensray.io import storage

_MODEL, _AVERAGE, _BEST, _OPTIMIZER = "model.", "average.", "best.", "optimizer."


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Checkpoint:
    """A training after some epochs."""

    fingerprint: str
    """Of the phase and its training set."""
    model: Mapping[str, Tensor]
    """Weights after the last epoch."""
    average: Mapping[str, Tensor]
    """Their average over the last steps; empty if none is kept."""
    best: Mapping[str, Tensor]
    """Weights of the best epoch so far."""
    optimizer: Mapping[int, Mapping[str, Tensor]]
    """Moments of each parameter, by its number."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """What was measured after each epoch."""


def save(checkpoint: Checkpoint, url: str) -> None:
    """Write a checkpoint over the one that is there."""
    tensors = {_MODEL + name: value for name, value in checkpoint.model.items()}
    tensors |= {_AVERAGE + name: value for name, value in checkpoint.average.items()}
    tensors |= {_BEST + name: value for name, value in checkpoint.best.items()}
    for number, moments in checkpoint.optimizer.items():
        tensors |= {f"{_OPTIMIZER}{number}.{name}": value for name, value in moments.items()}
    metadata = {"fingerprint": checkpoint.fingerprint, "history": json.dumps(checkpoint.history)}
    flat = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    storage.write_bytes(url, tensors_to_bytes(flat, metadata=metadata))


def load(url: str, fingerprint: str) -> Checkpoint | None:
    """The checkpoint of this training; None if there is none, or it is another training's.

    Raises
    ------
    LensRayError
        If the file is damaged.
    """
    if not storage.exists(url):
        return None
    data = storage.read_bytes(url)
    try:
        tensors = tensors_from_bytes(data)
    except SafetensorError as error:
        raise LensRayError(f"the checkpoint {url} is damaged ({error}); delete it to train anew") from error
    size = int.from_bytes(data[:8], "little")
    metadata = json.loads(data[8 : 8 + size])["__metadata__"]
    if metadata["fingerprint"] != fingerprint:
        return None
    optimizer: dict[int, dict[str, Tensor]] = {}
    for name, value in _with_prefix(tensors, _OPTIMIZER).items():
        number, _, moment = name.partition(".")
        optimizer.setdefault(int(number), {})[moment] = value
    return Checkpoint(
        fingerprint=fingerprint,
        model=_with_prefix(tensors, _MODEL),
        average=_with_prefix(tensors, _AVERAGE),
        best=_with_prefix(tensors, _BEST),
        optimizer=optimizer,
        history=json.loads(metadata["history"]),
    )


def _with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def moments_of(optimizer: torch.optim.Optimizer) -> dict[int, dict[str, Tensor]]:
    """The optimizer's moments as tensors."""
    return {
        number: {name: torch.as_tensor(value) for name, value in state.items() if value is not None}
        for number, state in optimizer.state_dict()["state"].items()
    }


def restore(
    checkpoint: Checkpoint,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: nn.Module | None = None,
) -> None:
    """Put weights, their average and moments back."""
    model.load_state_dict(dict(checkpoint.model))
    if average is not None:
        average.load_state_dict(dict(checkpoint.average))
    state = optimizer.state_dict()
    state["state"] = {number: dict(moments) for number, moments in checkpoint.optimizer.items()}
    optimizer.load_state_dict(state)


def copy_of(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights that training does not change any more, on the CPU."""
    return {name: value.detach().cpu().clone() for name, value in state.items()}
