"""Batch normalization when predicting: which statistics it uses, and the fix for those that do not fit.

Saied, Syvis & Crettenand found their network poor with the statistics that it had learnt, and much better when it
normalized by those of the batch that it was shown (their method 2). A score then depends on the other images of its
batch, so it changes with the batch's size and order, and a single image cannot be scored alike. What they meant is
that the learnt statistics are not those of the images to be scored. The fix is to take them from these images, once:
`reestimate` shows the network a sample of the target survey, without labels, and gives a bundle whose scores
depend on nothing but the image.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from lensray import models
from lensray.bundle import Bundle
from lensray.errors import InputError
from lensray.models.efficientnet import NormAct

BATCH_SIZE = 64
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
"""Batches of the report's figure."""


def reestimate(bundle: Bundle, images: Tensor, batch_size: int = BATCH_SIZE) -> Bundle:
    """A bundle whose batch normalization has the statistics of a sample of the images that it is to score.

    Parameters
    ----------
    bundle : Bundle
        Of a network with batch normalization.
    images : Tensor, shape (N, *bundle.inputs.shape)
        As a scorer takes them, before the normalization; hundreds, drawn at random from the survey. Labels are
        not needed.
    batch_size : int
        Images at once; means and variances of the batches are averaged.

    Returns
    -------
    Bundle
        With other running statistics and the same weights, which no longer uses those of the batch; to be saved.

    Raises
    ------
    InputError
        If the network has no batch normalization, or there are fewer than two images.
    """
    if len(images) < 2:
        raise InputError(f"statistics need at least two images; got {len(images)}")
    arguments = bundle.arguments
    if "batch_statistics" in arguments:
        arguments = {**arguments, "batch_statistics": False}
    adapted = replace(bundle, arguments=arguments, sha256="")
    model = adapted.model()
    parts = torch.tensor_split(images, -(-len(images) // batch_size))
    forget_and_observe(model, (bundle.normalization(part) for part in parts))
    provenance = {**bundle.provenance, "batch_statistics_of": f"{len(images)} images of the target survey"}
    provenance.pop("calibration", None)  # of other scores
    return replace(adapted, state=model.state_dict(), provenance=provenance)


@torch.inference_mode()
def forget_and_observe(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replace the running statistics of a network by the averages over normalized batches, in place."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    if not norms:
        raise InputError("the network has no batch normalization whose statistics could be taken anew")
    momentum = [norm.momentum for norm in norms]
    model.eval()
    for module in model.modules():
        if isinstance(module, NormAct):
            module.train()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # every batch counts alike
        norm.train()
    for batch in batches:
        model(batch.contiguous(memory_format=torch.channels_last))
    for norm, before in zip(norms, momentum, strict=True):
        norm.momentum = before
    model.eval()


def use_batch_statistics(model: nn.Module, use: bool) -> None:
    """Normalize by the batch's statistics when predicting, or by the running ones; in place."""
    for module in model.modules():
        if isinstance(module, NormAct):
            module.batch_statistics = use


@torch.inference_mode()
def scores_by(model: nn.Module, images: Tensor, batch_size: int, *, batch_statistics: bool) -> np.ndarray:
    """Probability of the second class of normalized images, in batches of one size, in their order.

    Parameters
    ----------
    model : nn.Module
        On the CPU or a GPU.
    images : Tensor, shape (N, planes, height, width)
        Normalized, of any type.
    batch_size : int
        The last batch is filled up with the first images, so that all have this size.
    batch_statistics : bool
        Normalize by the statistics of each batch.
    """
    model.eval()
    use_batch_statistics(model, batch_statistics)
    device = next(model.parameters()).device
    rows = torch.arange(-(-len(images) // batch_size) * batch_size) % len(images)
    logits = [
        model(images[part].to(device).float().contiguous(memory_format=torch.channels_last)).float().cpu()
        for part in rows.split(batch_size)
    ]
    probabilities = models.probabilities(torch.cat(logits)[: len(images)], str(model.activation))
    use_batch_statistics(model, False)
    return probabilities[:, 1].numpy()


def auroc_by_batch_size(
    model: nn.Module, images: Tensor, is_lens: np.ndarray, sizes: Sequence[int] = BATCH_SIZES, seed: int = 0
) -> dict[int, float]:
    """AUROC against the number of images in a batch, normalized by the statistics of each batch.

    The figure that the report asks for. Images come in one random order, so that a batch holds both classes as
    the set does.
    """
    from lensray.metrics.classification import auroc

    order = np.random.default_rng(seed).permutation(len(images))
    shuffled, truth = images[torch.from_numpy(order)], np.asarray(is_lens, bool)[order]
    usable = [size for size in sizes if size <= len(images)]
    return {size: auroc(scores_by(model, shuffled, size, batch_statistics=True), truth) for size in usable}
