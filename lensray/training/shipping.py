"""A trained bundle made ready to be shipped: its weights in as few bytes as leave the ranks of a survey as they are.

    python -m lensray.training.shipping --bundle runs/eznet/mine/bundle.safetensors --survey runs/eznet/validation \
        --storage float16 --output lensray/bundles/eznet_hsc.safetensors

The survey is scored with the bundle as it is and as it is to be stored; ranks agree where Spearman's correlation is
at least 0.999 and nine in ten of the first hundredth are the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from lensray import bundle as bundles
from lensray.command_line import run_job
from lensray.errors import InputError
from lensray.pixels import SCORED
from lensray.reading import read_formats, read_images
from lensray.scoring import Scorer
from lensray.training.sets import row_groups
from lensray.weights import Storage, pack, unpack

LEAST_CORRELATION, LEAST_OVERLAP = 0.999, 0.9


@dataclass(frozen=True, kw_only=True, slots=True)
class ShipConfig:
    """Store a bundle in fewer bytes, if the ranks of a survey bear it."""

    bundle: str
    """The bundle."""
    survey: str
    """Cutouts on which the ranks are compared."""
    output: str
    """File to write."""
    storage: Storage = "float16"
    """What the weights are stored in."""


def main(config: ShipConfig) -> None:
    """Compare, and write."""
    whole = bundles.load(config.bundle)
    small = replace(whole, state=unpack(pack(whole.state, config.storage)))
    correlation, overlap = agreement(_scores(whole, config.survey), _scores(small, config.survey))
    found = f"Spearman {correlation:.5f}, {overlap:.1%} of the first hundredth in common"
    if correlation < LEAST_CORRELATION or overlap < LEAST_OVERLAP:
        raise InputError(f"{config.storage} changes the ranks of {config.survey}: {found}; store more bytes")
    shipped = {"storage": config.storage, "rank_correlation": correlation, "top_overlap": overlap}
    made = replace(whole, provenance={**without_folders(whole.provenance), "shipped": shipped})
    bundles.save(made, config.output, config.storage)
    print(f"{config.output}: {found}")


def without_folders(value: Any) -> Any:
    """Provenance with the last part alone of every address: where files lay is of no use to others.

    >>> without_folders({"command": ["jobs/train.py", "--cifar", "s3://bucket/cifar"], "seed": 1})
    {'command': ['train.py', '--cifar', 'cifar'], 'seed': 1}
    """
    if isinstance(value, Mapping):
        return {name: without_folders(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [without_folders(part) for part in value]
    return PurePosixPath(value).name if isinstance(value, str) and "/" in value else value


def agreement(first: NDArray[np.floating], second: NDArray[np.floating]) -> tuple[float, float]:
    """Spearman's correlation of two rankings, and the part of their first hundredth (at least ten) in common."""
    depth = max(10, len(first) // 100)
    tops = [set(np.argsort(-scores, kind="stable")[:depth].tolist()) for scores in (first, second)]
    return float(np.asarray(spearmanr(first, second))[0]), len(tops[0] & tops[1]) / depth


def _scores(bundle: bundles.Bundle, survey: str) -> NDArray[np.float32]:
    scorer, found = Scorer(bundle), []
    for table in row_groups(survey):
        images, status = read_images(table, read_formats(table.schema, bundle.inputs), bundle.inputs)
        found.append(scorer.probabilities(images, np.flatnonzero(np.isin(status, SCORED))))
    positive = [bundle.classes.index(name) for name in bundle.positive_classes]
    return np.concatenate(found)[:, positive].sum(1)


if __name__ == "__main__":
    run_job(main, ShipConfig)
