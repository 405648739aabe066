"""EZnet for g, r, i cutouts of the HSC Wide survey, trained on simulated cutouts: the bundle ``eznet_hsc``.

    python -m lensray.recipes.eznet_hsc --output runs/eznet_hsc

Network, normalization and sampling are those of Pourrahmani (2019), chapter 4: EZnet, percentile clip at
0.5% stored as uint8, negative learning, the 8 symmetries of the square, weight decay 1e-4.

Departures: the positives are simulated lenses (the thesis had 50 real ones and images generated from
them), many more and so in a few epochs instead of 250; for so few steps AdamW under a one-cycle schedule
replaces gradient descent with momentum; each image is also shifted by up to two pixels; the forward
pass of the training runs in bfloat16.

Seeds: 1 and 101 for the training set, 2 for the validation set. Surveys of ``jobs/simulate_survey.py`` are drawn
from seeds of their own (`lensray.simulation.table.SURVEY_SEEDS`), so that none holds an image of these.

Duration: 48 minutes on one core of an AMD Zen 4 (2 minutes of simulation, then 16 epochs at about 125 images/s).

Result on the validation set (5,000 cutouts, one lens in ten): ranking performance 0.991; with fewer than ten
false positives 73% of the lenses. These are simulated lenses with visible arcs among simulated galaxies:
on real images expect less, and measure it with tracers.
"""

import json
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR

import lensray
from lensray import bundle, models
from lensray.augmentation import random_shifts, random_symmetries
from lensray.command_line import run_job
from lensray.errors import InputError
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
WARM_UP = 0.15


@dataclass(frozen=True, kw_only=True, slots=True)
class EznetHsc:
    """Train EZnet on simulated HSC cutouts."""

    output: str
    """Local folder for data, checkpoints and the bundle; the same words go on with a stopped training."""
    lenses: int = 10_000
    """Simulated lenses in the training set; one epoch shows each once."""
    non_lenses: int = 40_000
    """Size of the pool from which each lens' companion is drawn."""
    validation: int = 5_000
    """Cutouts of the validation set, one lens in ten."""
    epochs: int = 16
    """Passes through the lenses."""
    batch_size: int = 64
    """Images in a mini-batch, half of them lenses."""
    learning_rate: float = 0.003
    """Highest learning rate of the one-cycle schedule."""
    seed: int = 1
    """Seed of data, weights and draws."""
    threads: int = 1
    """CPU threads of torch."""


def main(config: EznetHsc) -> None:
    """Simulate, train, measure, and write the bundle."""
    folder = Path(config.output)
    folder.mkdir(parents=True, exist_ok=True)
    _claim(folder, config)
    positives = _images(folder / "lenses.npy", config.lenses, lens_every=1, seed=config.seed)
    negatives = _images(folder / "non_lenses.npy", config.non_lenses, lens_every=0, seed=config.seed + 100)
    validation = _images(folder / "validation.npy", config.validation, lens_every=10, seed=config.seed + 1)
    torch.manual_seed(config.seed)
    torch.set_num_threads(config.threads)
    model = models.build("eznet", in_channels=len(HSC_WIDE.bands)).to(memory_format=torch.channels_last)
    optimizer = AdamW(model.parameters(), lr=config.learning_rate, weight_decay=1e-4)
    steps = -(-config.lenses // (config.batch_size // 2))
    schedule = OneCycleLR(
        optimizer, config.learning_rate, total_steps=config.epochs * steps, pct_start=WARM_UP
    )
    start = _restore(folder, model, optimizer, schedule)
    measured: dict[str, float] = {}
    for epoch in range(start, config.epochs):
        measured = _epoch(config, epoch, model, optimizer, schedule, positives, negatives, validation)
        print(json.dumps(measured), flush=True)
        _keep(folder, epoch + 1, model, optimizer, schedule)
    _write_bundle(config, model, measured or _measure(model, validation))


def _claim(folder: Path, config: EznetHsc) -> None:
    """Refuse to go on with a training of other words."""
    words = json.dumps(
        {key: value for key, value in asdict(config).items() if key not in ("output", "threads")}
    )
    path = folder / "settings.json"
    if path.exists() and path.read_text() != words:
        raise InputError(f"{folder} holds a training with other settings; choose another --output")
    path.write_text(words)


def _epoch(
    config: EznetHsc,
    epoch: int,
    model: torch.nn.Module,
    optimizer: Optimizer,
    schedule: LRScheduler,
    positives: torch.Tensor,
    negatives: torch.Tensor,
    validation: torch.Tensor,
) -> dict[str, float]:
    started = time.monotonic()
    generator = torch.Generator().manual_seed(config.seed * 1000 + epoch)
    result = train_epoch(
        model,
        paired_batches(positives, negatives, config.batch_size, seed=config.seed, epoch=epoch),
        loss_for("sigmoid"),
        optimizer,
        normalization=NORMALIZATION,
        augmentation=lambda images: random_shifts(random_symmetries(images, generator), 2, generator),
        after_step=schedule.step,
        autocast=torch.bfloat16,
    )
    seconds = time.monotonic() - started
    return {
        "epoch": epoch + 1,
        "learning_rate": float(schedule.get_last_lr()[0]),
        "training_loss": round(result.loss, 5),
        "images_per_s": round(result.images / seconds, 1),
        **_measure(model, validation),
    }


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


def _keep(
    folder: Path, epochs: int, model: torch.nn.Module, optimizer: Optimizer, schedule: LRScheduler
) -> None:
    """Checkpoint after `epochs` epochs: weights and moments, without pickling."""
    tensors = {f"model.{name}": tensor.contiguous() for name, tensor in model.state_dict().items()}
    for i, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i}.{name}": tensor.contiguous() for name, tensor in state.items()}
    tensors["epochs"], tensors["steps"] = torch.tensor(epochs), torch.tensor(schedule.last_epoch)
    save_file(tensors, folder / "checkpoint.tmp")
    (folder / "checkpoint.tmp").rename(folder / "checkpoint.safetensors")


def _restore(folder: Path, model: torch.nn.Module, optimizer: Optimizer, schedule: LRScheduler) -> int:
    """Load the checkpoint, if there is one; returns how many epochs are done."""
    if not (folder / "checkpoint.safetensors").exists():
        return 0
    tensors = load_file(folder / "checkpoint.safetensors")
    model.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
    state = optimizer.state_dict()
    for key, value in tensors.items():
        kind, _, rest = key.partition(".")
        if kind == "optimizer":
            number, _, name = rest.partition(".")
            state["state"].setdefault(int(number), {})[name] = value
    optimizer.load_state_dict(state)
    schedule.last_epoch = int(tensors["steps"]) - 1
    schedule.step()
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
