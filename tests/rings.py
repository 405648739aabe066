"""A training set that a tiny network learns in seconds: rings (lenses) and blobs."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from lensray import bundle, cutouts
from lensray.normalization import PercentileClip
from lensray.training.examples import Examples
from lensray.training.phases import Augmentation, Optimizer, Phase

SIZE = 16
EZNET = {"in_channels": 1, "blocks": [[6, 3, 8], [6, 3, 4]], "branching_rate": 2, "hidden": 8}


def rings_and_blobs(count, seed):
    """Images (count, 1, 16, 16) uint8, and labels, as tensors."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    radius = np.hypot(x, y)
    ring, blob = 150 * np.exp(-((radius - 5) ** 2)), 150 * np.exp(-radius / 3)
    labels = generator.integers(0, 2, count)
    images = np.where(labels[:, None, None], ring, blob) + generator.normal(50, 10, (count, SIZE, SIZE))
    return torch.from_numpy(images[:, None].clip(0, 255).astype(np.uint8)), torch.from_numpy(labels)


def examples(count, seed):
    images, labels = rings_and_blobs(count, seed)
    return Examples(images=images, labels=labels)


def phase(**changed):
    """A phase that learns the rings in a few epochs."""
    words = {
        "name": "rings",
        "architecture": "eznet",
        "arguments": EZNET,
        "inputs": bundle.Inputs(
            bands=("g",), height=SIZE, width=SIZE, pixel_scale_arcsec=0.2, max_nan_fraction=0.0
        ),
        "normalization": PercentileClip(),
        "epochs": 4,
        "batch_size": 32,
        "augmentation": Augmentation(symmetries=True),
        "optimizer": Optimizer(name="sgd", learning_rate=0.05, momentum=0.9, nesterov=True),
    }
    return Phase(**{**words, **changed})


def survey(folder, count, seed, *, files=2, row_group=32, images=None, labels=None, **columns):
    """A labelled survey of rings and blobs, float32; returns its address."""
    made, truth = rings_and_blobs(count, seed)
    fmt = cutouts.CutoutFormat(
        survey="toy", bands=("g",), pixel_scale_arcsec=0.2, shape=(1, SIZE, SIZE), dtype=np.dtype("float32")
    )
    table = cutouts.make_table(
        fmt,
        np.arange(count) + 100_000 * seed,
        made.numpy().astype(np.float32) if images is None else images,
        label=pa.array(truth.numpy() == 1) if labels is None else labels,
        **columns,
    )
    Path(folder).mkdir(parents=True, exist_ok=True)
    rows = -(-count // files)
    for number in range(files):
        part = table.slice(number * rows, rows)
        pq.write_table(part, f"{folder}/part-{number:05d}.parquet", row_group_size=row_group)
    return str(folder)
