"""The steps of training: one epoch over batches, and an evaluation. Plain torch.

Images travel as stored (uint8 stays uint8); augmentation and normalization happen batch by batch on the
model's device.
"""

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from lensray.training.losses import Loss
from lensray.training.parallel import ALONE, Team

Transform = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochResult:
    """What came of one epoch."""

    loss: float
    """Mean loss of an image, over the batches that were used; NaN if there was none."""
    images: int
    """Images shown."""
    skipped: int
    """Batches without a step, because their loss or gradient was not finite."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """A network's answers on labelled images."""

    loss: float
    """Mean loss of an image."""
    accuracy: float
    """Share of images whose class has the largest logit; NaN for a regression."""
    logits: Tensor
    """Logits of shape (images, classes), float32, on the CPU."""


def train_epoch(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    loss: Loss,
    optimizer: torch.optim.Optimizer,
    *,
    normalization: Transform | None = None,
    augmentation: Transform | None = None,
    before_step: Callable[[], object] | None = None,
    max_gradient_norm: float = 10.0,
    autocast: torch.dtype | None = None,
    team: Team = ALONE,
) -> EpochResult:
    """Show the network every batch once and let the optimizer follow the gradient of the loss.

    Parameters
    ----------
    model : nn.Module
        On the device where the work is to be done; put into training mode here. Memory format
        ``torch.channels_last`` is kept if it has it.
    batches : iterable of (images, labels)
        Global batches, the same in every worker: images of any type that `normalization` takes, labels as
        `loss` takes them.
    loss : callable
        ``loss(logits, labels)``, a mean over the batch; see `lensray.training.losses`.
    optimizer : torch.optim.Optimizer
        Over the parameters of `model`.
    normalization, augmentation : callable, optional
        Applied to each batch, augmentation first.
    before_step : callable, optional
        Called before each batch, for example to set the learning rate.
    max_gradient_norm : float
        Longer gradients are shortened to this.
    autocast : torch.dtype, optional
        ``torch.bfloat16`` for mixed precision.
    team : Team
        The workers among whom each batch is divided; `model` is then ``team.wrap(model)``.

    Returns
    -------
    EpochResult
        A batch whose loss or gradient is not finite changes nothing and is counted as skipped.
    """
    model.train()
    device = _device_of(model)
    total, used, images_seen, skipped = torch.zeros((), device=device), 0, 0, 0
    for images, labels in batches:
        if before_step is not None:
            before_step()
        count, mine = len(images), team.part(len(images))
        images_seen += count
        images, labels = _prepare(images, device, augmentation, normalization, mine), labels[mine].to(device)
        optimizer.zero_grad(set_to_none=True)
        # Running statistics change in the forward pass; a NaN would stay in them for good.
        statistics = [buffer.clone() for buffer in model.buffers()]
        with _precision(device, autocast):
            # Gradients are averaged over the workers: this makes it the mean over the batch.
            value = loss(model(images), labels) * (len(labels) * team.size / count)
        value.backward()
        norm = clip_grad_norm_(model.parameters(), max_gradient_norm)
        value = team.add(value.detach()) / team.size
        if bool(torch.isfinite(value) & torch.isfinite(norm)):
            optimizer.step()
            total += value * count
            used += count
        else:
            skipped += 1
            for buffer, saved in zip(model.buffers(), statistics, strict=True):
                buffer.copy_(saved)
    return EpochResult(
        loss=float(total) / used if used else float("nan"), images=images_seen, skipped=skipped
    )


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    loss: Loss,
    *,
    normalization: Transform | None = None,
    batch_size: int = 64,
    team: Team = ALONE,
) -> Evaluation:
    """The network's logits, loss and accuracy on labelled images, in evaluation mode and float32.

    Raises
    ------
    ValueError
        If there are no images, or not as many labels as images.
    """
    if len(images) < team.size or len(images) != len(labels):
        raise ValueError(
            f"evaluation needs a label for each image; got {len(images)} images, {len(labels)} labels"
        )
    model.eval()
    device = _device_of(model)
    mine = team.part(len(images))
    parts = [
        model(_prepare(part, device, None, normalization)).float() for part in images[mine].split(batch_size)
    ]
    logits = torch.zeros(len(images), parts[0].shape[1], device=device)
    logits[mine] = torch.cat(parts)
    logits, labels = team.add(logits).cpu(), labels.cpu()
    classes = labels.ndim == 1
    return Evaluation(
        loss=float(loss(logits, labels)),
        accuracy=float((logits.argmax(1) == labels).float().mean()) if classes else float("nan"),
        logits=logits,
    )


def _device_of(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _prepare(
    images: Tensor,
    device: torch.device,
    augmentation: Transform | None,
    normalization: Transform | None,
    mine: slice = slice(None),
) -> Tensor:
    images = images.to(device)
    if augmentation is not None:
        images = augmentation(images)
    images = images[mine]
    images = images.float() if normalization is None else normalization(images)
    return images.contiguous(memory_format=torch.channels_last)


def _precision(device: torch.device, autocast: torch.dtype | None):
    return nullcontext() if autocast is None else torch.autocast(device.type, dtype=autocast)
