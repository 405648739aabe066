"""A bundle on labelled images: scores, truth and the pixels for the examples."""

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lensray import bundle as bundles
from lensray.errors import InputError
from lensray.inspection.training_records import Evaluation
from lensray.io import tables
from lensray.pixels import SCORED
from lensray.reading import read_formats, read_images
from lensray.scoring import Scorer
from lensray.training.sets import row_groups

MAX_IMAGES = 5_000
"""Cutouts whose pixels are kept for the examples."""


def evaluate_bundle(
    bundle: str,
    surveys: Sequence[str],
    *,
    model: str = "",
    data: str = "",
    kind: Literal["simulated", "real"] = "simulated",
    label: str = "label",
    symmetries: bool = False,
) -> Evaluation:
    """Score labelled surveys with a bundle.

    Parameters
    ----------
    bundle : str
        Name or address.
    surveys : sequence of str
        With the bool column `label`; rows without it, or with an image that cannot be scored, are left out.
    model, data : str
        What the report calls them; by default the bundle's phase and the surveys' addresses.
    kind : {"simulated", "real"}
    label : str
    symmetries : bool
        Average the score over the eight symmetries of the square.

    Raises
    ------
    InputError
        If the label is missing, or has one class alone.
    """
    scorer = Scorer(bundles.load(bundle))
    images, scores, truth = [], [], []
    for pixels, labels in labelled_images(surveys, scorer.bundle.inputs, label):
        images.append(pixels[:, : len(scorer.bundle.inputs.bands)])
        truth.append(labels)
        scores.append(_scores(scorer, pixels, symmetries))
    is_lens = np.concatenate(truth) if truth else np.zeros(0, bool)
    if is_lens.all() or not is_lens.any():
        raise InputError(f"{', '.join(surveys)}: an evaluation needs {label} true and false; all are alike")
    provenance = scorer.bundle.provenance
    return Evaluation(
        model=model or str(provenance.get("phase") or bundle),
        data=data or ", ".join(PurePosixPath(url).name for url in surveys),
        kind=kind,
        scores=np.concatenate(scores),
        is_lens=is_lens,
        images=np.concatenate(images) if len(is_lens) <= MAX_IMAGES else None,
        bands=scorer.bundle.inputs.bands,
    )


def _scores(scorer: Scorer, images: NDArray, symmetries: bool) -> NDArray[np.float32]:
    positive = [scorer.bundle.classes.index(name) for name in scorer.positive_classes]
    views = _views(images) if symmetries else [images]
    rows = np.arange(len(images))
    return np.mean([scorer.probabilities(view, rows)[:, positive].sum(1) for view in views], axis=0)


def _views(images: NDArray) -> list[NDArray]:
    turned = [images, images.swapaxes(-1, -2)]
    return [
        np.ascontiguousarray(view[..., ::up, ::left]) for view in turned for up in (1, -1) for left in (1, -1)
    ]


def labelled_images(
    surveys: Sequence[str], inputs: bundles.Inputs, label: str
) -> Iterator[tuple[NDArray, NDArray[np.bool_]]]:
    """Images that can be scored and their labels, a row group at a time."""
    for survey in surveys:
        for table in row_groups(survey):
            if label not in table.column_names:
                raise InputError(f"{survey} has no column {label!r}, which says which cutouts are lenses")
            yield _usable(table, inputs, label)


def _usable(table: pa.Table, inputs: bundles.Inputs, label: str) -> tuple[NDArray, NDArray[np.bool_]]:
    images, status = read_images(table, read_formats(table.schema, inputs), inputs)
    usable = np.isin(status, SCORED) & table[label].is_valid().to_numpy()
    return images[usable], tables.one_array(table[label].fill_null(False)).to_numpy(zero_copy_only=False)[
        usable
    ]
