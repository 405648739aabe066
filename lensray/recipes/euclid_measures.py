"""What the networks of `lensray.recipes.euclid_efficientnet` are worth by each way to normalize their batches."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from lensray.inspection.training_records import Evaluation
    from lensray.training.examples import Examples
    from lensray.training.phases import Phase
    from lensray.training.workbench import Workbench

METHOD_2_BATCH = 8
"""Images in a batch when the report predicts by method 2."""
SAMPLE = 512
"""Images from which batch statistics are taken anew."""
SCORED_AT_ONCE = 64


class Measured:
    """What the trained networks are worth on the test set."""

    def __init__(self, bench: "Workbench", bundles: Mapping[str, str], test: str, phase: "Phase") -> None:
        from lensray.training.examples import read_examples

        self.bench, self.bundles = bench, bundles
        self.examples: Examples = read_examples([test], phase)
        self.is_lens = self.examples.labels.numpy() == 1
        self.curves: dict[str, dict[int, float]] = {}
        self.fixed: dict[str, float] = {}

    def evaluations(self) -> "list[Evaluation]":
        """Every network by both methods and with statistics taken anew, and the average of all."""
        found, running = [], []
        for name, url in self.bundles.items():
            evaluated = self._of_network(name, url)
            running.append(evaluated[0].scores)
            found += evaluated
        if len(running) > 1:
            found.append(self._evaluation(f"average of {len(running)}", np.mean(running, axis=0)))
        self.fixed |= {one.model: one.values["auroc"] for one in found if "batches" not in one.model}
        self._write()
        return found

    def _of_network(self, name: str, url: str) -> "list[Evaluation]":
        from lensray import bundle
        from lensray.training import batch_statistics

        model = bundle.load(url).model()
        images, order = self.examples.images, np.random.default_rng(0).permutation(len(self.is_lens))
        running = batch_statistics.scores_by(model, images, SCORED_AT_ONCE, batch_statistics=False)
        by_batch = np.empty_like(running)
        by_batch[order] = batch_statistics.scores_by(
            model, images[order], min(METHOD_2_BATCH, len(order)), batch_statistics=True
        )
        self.curves[name] = batch_statistics.auroc_by_batch_size(model, images, self.is_lens)
        sample = images[order[:SAMPLE]]
        batch_statistics.forget_and_observe(model, (part.float() for part in sample.split(SCORED_AT_ONCE)))
        anew = batch_statistics.scores_by(model, images, SCORED_AT_ONCE, batch_statistics=False)
        return [
            self._evaluation(f"{name}, running statistics", running),
            self._evaluation(f"{name}, batches of {METHOD_2_BATCH} (method 2)", by_batch),
            self._evaluation(f"{name}, statistics taken anew", anew),
        ]

    def _evaluation(self, model: str, scores: np.ndarray) -> "Evaluation":
        from lensray.inspection.training_records import Evaluation

        return Evaluation(model=model, data="test set", scores=scores, is_lens=self.is_lens)

    def _write(self) -> None:
        from lensray.inspection.batch_size_figure import batch_size_figure
        from lensray.inspection.figures import png
        from lensray.io import storage

        numbers = {"auroc_by_batch_size": self.curves, "auroc": self.fixed, "images": len(self.is_lens)}
        storage.write_bytes(self.bench.folder("batch_size.json"), json.dumps(numbers, indent=1).encode())
        storage.write_bytes(
            self.bench.folder("batch_size.png"), png(batch_size_figure(self.curves, self.fixed))
        )

    def notes(self) -> Sequence[str]:
        """What the report is to say beside the figures."""
        curves = "; ".join(
            f"{name}: " + ", ".join(f"{size}: {value:.3f}" for size, value in values.items())
            for name, values in self.curves.items()
        )
        return (
            f"AUROC by the number of images in a batch whose statistics normalize it (batch_size.png): {curves}.",
            "With the statistics of a batch a score depends on the other images of the batch; statistics taken anew from "
            "the images to be scored do not have this fault.",
        )


def adapted(bench: "Workbench", url: str, survey: str, *, seed: int) -> str:
    """The bundle with the batch statistics of the survey that is to be ranked."""
    import torch

    from lensray import bundle
    from lensray.io import storage
    from lensray.pixels import SCORED
    from lensray.reading import read_formats, read_images
    from lensray.survey_rows import sample_rows
    from lensray.training.batch_statistics import reestimate

    target = storage.join(bench.folder("adapted"), "bundle.safetensors")
    if storage.exists(target):
        return target
    trained = bundle.load(url)
    sample = sample_rows(survey, SAMPLE, seed=seed, exclude_lenses=False)
    images, status = read_images(sample, read_formats(sample.schema, trained.inputs), trained.inputs)
    bundle.save(reestimate(trained, torch.from_numpy(images[np.isin(status, SCORED)])), target)
    return target
