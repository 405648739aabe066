"""EZnet for g, r, i cutouts of the HSC Wide survey, trained on simulated cutouts: the bundle ``eznet_hsc``.

    python -m lensray.recipes.eznet_hsc --output runs/eznet_hsc

Network, normalization and optimization are those of Pourrahmani (2019), chapter 4: EZnet, percentile
clip at 0.5% stored as uint8, negative learning, the 8 symmetries of the square, stochastic gradient
descent with Nesterov momentum 0.9 and weight decay 1e-4, a learning rate that falls to a tenth at 60%
and to a hundredth at 88% of the training (the thesis: epochs 150 and 220 of 250).

Departures: the positives are simulated lenses (the thesis had 50 real ones and images generated from
them), many more and so in fewer epochs; each image is also shifted by up to two pixels.

Seeds: 1 for the training set, 2 for the validation set. The demo's survey has seed 2026.
"""

import json
import math
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

import lensray
from lensray import bundle, models
from lensray.augmentation import random_shifts, random_symmetries
from lensray.command_line import run_job
from lensray.metrics import classification, ranking
from lensray.models import probabilities
from lensray.normalization import PercentileClip
from lensray.simulation import simulate
from lensray.survey import HSC_WIDE
from lensray.training.losses import loss_for
from lensray.training.sampling import paired_batches
from lensray.training.steps import evaluate, train_epoch

NORMALIZATION = PercentileClip(percent=0.5)
SIZE = 64
CHUNK = 2048
DROPS = (0.6, 0.88)


@dataclass(frozen=True, kw_only=True, slots=True)
class EznetHsc:
    """Train EZnet on simulated HSC cutouts."""

    output: str
    """Local folder for data, checkpoints and the bundle; the same words go on with a stopped training."""
    lenses: int = 12_000
    """Simulated lenses in the training set; one epoch shows each once."""
    non_lenses: int = 50_000
    """Size of the pool from which each lens' companion is drawn."""
    validation: int = 10_000
    """Cutouts of the validation set, one lens in ten."""
    epochs: int = 16
    """Passes through the lenses."""
    batch_size: int = 64
    """Images in a mini-batch, half of them lenses."""
    learning_rate: float = 0.1
    """Initial learning rate."""
    seed: int = 1
    """Seed of data, weights and draws."""


def main(config: EznetHsc) -> None:
    """Simulate, train, measure, and write the bundle."""
    folder = Path(config.output)
    folder.mkdir(parents=True, exist_ok=True)
    positives = _images(folder / "lenses.npy", config.lenses, lens_every=1, seed=config.seed)
    negatives = _images(folder / "non_lenses.npy", config.non_lenses, lens_every=0, seed=config.seed + 100)
    validation = _images(folder / "validation.npy", config.validation, lens_every=10, seed=config.seed + 1)
    torch.manual_seed(config.seed)
    model = models.build("eznet", in_channels=len(HSC_WIDE.bands)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=config.learning_rate, momentum=0.9, nesterov=True, weight_decay=1e-4
    )
    start = _restore(folder, model, optimizer)
    measured: dict[str, float] = {}
    for epoch in range(start, config.epochs):
        measured = _epoch(config, epoch, model, optimizer, positives, negatives, validation)
        print(json.dumps(measured), flush=True)
        _keep(folder, epoch + 1, model, optimizer)
    _write_bundle(config, model, measured or _measure(model, validation))


def _epoch(
    config: EznetHsc,
    epoch: int,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    positives: torch.Tensor,
    negatives: torch.Tensor,
    validation: torch.Tensor,
) -> dict[str, float]:
    started = time.monotonic()
    generator = torch.Generator().manual_seed(config.seed * 1000 + epoch)
    for group in optimizer.param_groups:
        group["lr"] = _learning_rate(config, epoch)
    result = train_epoch(
        model,
        paired_batches(positives, negatives, config.batch_size, seed=config.seed, epoch=epoch),
        loss_for("sigmoid"),
        optimizer,
        normalization=NORMALIZATION,
        augmentation=lambda images: random_shifts(random_symmetries(images, generator), 2, generator),
    )
    seconds = time.monotonic() - started
    return {
        "epoch": epoch + 1,
        "learning_rate": _learning_rate(config, epoch),
        "training_loss": round(result.loss, 5),
        "images_per_s": round(result.images / seconds, 1),
        **_measure(model, validation),
    }


def _learning_rate(config: EznetHsc, epoch: int) -> float:
    """The initial rate, a tenth of it after each drop."""
    return config.learning_rate * math.prod(0.1 if epoch >= drop * config.epochs else 1.0 for drop in DROPS)


def _measure(model: torch.nn.Module, validation: torch.Tensor) -> dict[str, float]:
    """How well the network ranks the validation set, one lens in ten."""
    is_lens = np.arange(len(validation)) % 10 == 0
    result = evaluate(
        model,
        validation,
        torch.from_numpy(is_lens.astype(np.int64)),
        loss_for("sigmoid"),
        normalization=NORMALIZATION,
    )
    scores = probabilities(result.logits, "sigmoid")[:, 1].numpy()
    return {
        "validation_loss": round(result.loss, 5),
        "ranking_performance": round(ranking.ranking_performance(scores, is_lens), 5),
        "tpr10": round(classification.tpr10(scores, is_lens), 4),
        "tpr0": round(classification.tpr0(scores, is_lens), 4),
    }


def _images(path: Path, count: int, *, lens_every: int, seed: int) -> torch.Tensor:
    """Simulated cutouts as uint8 after the percentile clip; every `lens_every`-th is a lens (0: none)."""
    if not path.exists():
        images = np.empty((count, len(HSC_WIDE.bands), SIZE, SIZE), np.uint8)
        for first in range(0, count, CHUNK):
            indices = np.arange(first, min(first + CHUNK, count), dtype=np.int64)
            is_lens = indices % lens_every == 0 if lens_every else np.zeros(len(indices), bool)
            drawn = simulate(HSC_WIDE, indices, is_lens, seed=seed, size=SIZE)
            images[first : first + len(indices)] = NORMALIZATION.to_uint8(drawn.images).numpy()
        temporary = path.with_suffix(".tmp.npy")
        np.save(temporary, images)
        temporary.rename(path)
    return torch.from_numpy(np.load(path))


def _keep(folder: Path, epochs: int, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Checkpoint after `epochs` epochs: weights and momenta, without pickling."""
    tensors = {f"model.{name}": tensor.contiguous() for name, tensor in model.state_dict().items()}
    for i, state in optimizer.state_dict()["state"].items():
        tensors[f"momentum.{i}"] = state["momentum_buffer"].contiguous()
    tensors["epochs"] = torch.tensor(epochs)
    save_file(tensors, folder / "checkpoint.tmp")
    (folder / "checkpoint.tmp").rename(folder / "checkpoint.safetensors")


def _restore(folder: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Load the checkpoint, if there is one; returns how many epochs are done."""
    if not (folder / "checkpoint.safetensors").exists():
        return 0
    tensors = load_file(folder / "checkpoint.safetensors")
    model.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
    state = optimizer.state_dict()
    momenta = {k.removeprefix("momentum."): v for k, v in tensors.items() if k.startswith("momentum.")}
    state["state"] = {int(i): {"momentum_buffer": v} for i, v in momenta.items()}
    optimizer.load_state_dict(state)
    return int(tensors["epochs"])


def _write_bundle(config: EznetHsc, model: torch.nn.Module, measured: dict[str, float]) -> None:
    url = str(Path(config.output) / "eznet_hsc.safetensors")
    bundle.save(
        bundle.Bundle(
            architecture="eznet",
            arguments={"in_channels": len(HSC_WIDE.bands)},
            inputs=bundle.Inputs(
                column="image",
                bands=HSC_WIDE.bands,
                height=SIZE,
                width=SIZE,
                pixel_scale_arcsec=HSC_WIDE.pixel_scale_arcsec,
                max_nan_fraction=0.05,
            ),
            normalization=NORMALIZATION,
            classes=("non-lens", "lens"),
            positive_classes=("lens",),
            precision="float32",
            provenance={
                "recipe": "eznet_hsc",
                "settings": {key: value for key, value in asdict(config).items() if key != "output"},
                "data": "simulated, lensray.simulation with HSC_WIDE",
                "metrics": measured,
                "measured_on": f"{config.validation} simulated cutouts, one lens in ten, seed {config.seed + 1}",
                "versions": {
                    "lensray": lensray.__version__,
                    "torch": torch.__version__,
                    "python": platform.python_version(),
                },
            },
            state=model.state_dict(),
        ),
        url,
    )
    print(f"bundle: {url}")


if __name__ == "__main__":
    run_job(main, EznetHsc)
