"""A phase of training, from its first epoch, or its last checkpoint, to a bundle. Plain torch.

The same trainer runs in a notebook and in each worker of a cluster. It draws nothing from a global generator that a
checkpoint would have to keep: order, augmentation and dropout of an epoch follow from the phase's seed and the
epoch's number, so a training that was stopped ends with the weights of one that was not.
"""

import copy
import hashlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW
from torch.optim.swa_utils import AveragedModel

from lensray import augmentation, bundle, models
from lensray.bundle import Bundle
from lensray.errors import InputError, LensRayError
from lensray.metrics import classification, ranking
from lensray.metrics.probabilities import calibrated
from lensray.training import checkpoints, phases
from lensray.training.checkpoints import Checkpoint
from lensray.training.examples import Examples, to_float
from lensray.training.losses import Loss, loss_for, squared_error
from lensray.training.parallel import ALONE, Team
from lensray.training.phases import Phase
from lensray.training.sampling import paired_indices, shuffled_indices, steps_of
from lensray.training.schedules import Moment
from lensray.training.steps import EpochResult, evaluate, train_epoch

FORGIVEN_BATCHES = 0.1
"""Share of an epoch's batches whose loss may be infinite or NaN before the training stops."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far a phase is."""

    images: int
    """Images shown, over all epochs."""
    total: int
    """Images of the whole phase, if no early stop comes."""
    history: list[dict[str, Any]] | None = None
    """After the last batch of an epoch: what was measured after each epoch so far."""


class Trainer:
    """Trains one phase.

    Parameters
    ----------
    phase : Phase
    training, validation : Examples
        The validation set may be None: then the last epoch's weights are kept.
    checkpoint : str
        Address of the checkpoint file, local or S3.
    fingerprint : str
        Of the phase and its training set; a checkpoint of another is not used.
    device : torch.device
    team : Team
        The workers that train together.
    on_progress : callable
        Called now and then, by each worker.

    Raises
    ------
    InputError
        If there are fewer lenses than half a batch, or the bundle to start from has another architecture.
    """

    def __init__(
        self,
        phase: Phase,
        training: Examples,
        validation: Examples | None,
        *,
        checkpoint: str,
        fingerprint: str,
        device: torch.device | str = "cpu",
        team: Team = ALONE,
        on_progress: Callable[[Progress], None] = lambda progress: None,
    ) -> None:
        check_sizes(phase, training, team)
        self.phase, self.training, self.validation = phase, training.on(torch.device(device)), validation
        self.url, self.fingerprint = checkpoint, fingerprint
        self.device, self.team = torch.device(device), team
        self.on_progress = on_progress
        self.model = first_model(phase, training).to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.wrapped = self._wrapped()
        self.activation = str(self.model.activation)
        self.loss = self._loss()
        self.optimizer = optimizer_for(self.model, phase)
        self.average = None if phase.averaging is None else average_of(self.model, phase.averaging)
        self.best = checkpoints.copy_of(self.shown.state_dict())
        self.history: list[dict[str, Any]] = []
        found = checkpoints.load(checkpoint, fingerprint)
        if found is not None:
            checkpoints.restore(found, self.model, self.optimizer, self.average)
            self.best, self.history = dict(found.best), found.history

    def _wrapped(self) -> nn.Module:
        """The network as the team trains it."""
        return self.team.wrap(self.model)

    @property
    def shown(self) -> nn.Module:
        """The network that is validated and kept: the one that is trained, or the average over its steps."""
        return self.model if self.average is None else self.average.module

    def _loss(self) -> Loss:
        if not self.phase.targets:
            return loss_for(self.activation, self.phase.smoothing)
        scales = self.training.labels.std(0).clamp_min(1e-12).tolist()
        return lambda values, targets: squared_error(values, targets, scales)

    def run(self) -> list[dict[str, Any]]:
        """Train what is still to be trained; returns the history, a dict an epoch.

        Raises
        ------
        LensRayError
            If the loss is not finite; the checkpoint of the last good epoch stays.
        """
        while len(self.history) < self.phase.epochs and not self._stops():
            self.history.append(self._epoch(len(self.history)))
            if self.best_epoch == len(self.history) - 1:
                self.best = checkpoints.copy_of(self.shown.state_dict())
            if self.team.rank == 0:
                self._save()
            shown = sum(row["images"] for row in self.history)
            self.on_progress(Progress(images=shown, total=self._total(), history=list(self.history)))
        return self.history

    def _epoch(self, epoch: int) -> dict[str, Any]:
        started = time.monotonic()
        torch.manual_seed(_seed(self.phase.seed, epoch, self.team.rank))
        batch_size = self.phase.batch_size * self.phase.schedule.batch_factor(
            [value for _, value in self._measured()]
        )
        moment = _Clock(self, epoch, self._steps(batch_size))
        generator = torch.Generator().manual_seed(_seed(self.phase.seed, epoch, -1))
        result = self._train(self._batches(batch_size, epoch), moment, generator)
        self._check(result, epoch, moment.steps)
        seconds = time.monotonic() - started
        return {
            "epoch": epoch + 1,
            "learning_rate": moment.rate,
            "batch_size": batch_size,
            "steps": moment.steps,
            "images": result.images,
            "training_loss": result.loss,
            "skipped": result.skipped,
            "images_per_s": result.images / seconds,
            **self._measure(epoch),
            "seconds": time.monotonic() - started,
        }

    def _train(
        self,
        batches: Iterator[tuple[Tensor, Tensor]],
        before_step: Callable[[], object],
        generator: torch.Generator,
    ) -> EpochResult:
        """Show the network every batch once."""
        return train_epoch(
            self.wrapped,
            batches,
            self.loss,
            self.optimizer,
            normalization=to_float,
            augmentation=lambda images: augment(images, self.phase.augmentation, generator),
            before_step=before_step,
            autocast=torch.bfloat16 if self.phase.autocast else None,
            team=self.team,
        )

    def _check(self, result: EpochResult, epoch: int, steps: int) -> None:
        if result.skipped > FORGIVEN_BATCHES * steps or not math.isfinite(result.loss):
            raise LensRayError(
                f"phase {self.phase.name} diverged: {result.skipped} of {steps} batches of epoch {epoch + 1} had no finite "
                f"loss; the weights after {epoch} epochs are in {self.url}; lower the learning rate and start anew"
            )

    def _measure(self, epoch: int) -> dict[str, float]:
        """Metrics of the validation set; none without one, or between validations."""
        due = (epoch + 1) % self.phase.validate_every == 0 or epoch + 1 == self.phase.epochs
        if self.validation is None or not due:
            return {}
        found = evaluate(
            self.shown,
            self.validation.images,
            self.validation.labels,
            self.loss,
            normalization=to_float,
            team=self.team,
        )
        measured = {"validation_loss": found.loss}
        if self.phase.targets:
            errors = (found.logits - self.validation.labels).square().mean(0).sqrt().tolist()
            return measured | {
                f"rmse_{name}": value for name, value in zip(self.phase.targets, errors, strict=True)
            }
        if not bool(torch.isfinite(found.logits).all()):
            return measured | {"accuracy": found.accuracy}
        scores = self._scores(found.logits)
        is_lens = self.validation.labels.numpy() == 1
        return measured | {
            "accuracy": found.accuracy,
            "auroc": classification.auroc(scores, is_lens),
            "ranking_performance": ranking.ranking_performance(scores, is_lens),
            "recall": ranking.recall_at(scores, is_lens, self.phase.inspection_depth),
            "tpr10": classification.tpr10(scores, is_lens),
            "tpr0": classification.tpr0(scores, is_lens),
        }

    def _scores(self, logits: Tensor) -> np.ndarray:
        positive = [self.phase.classes.index(name) for name in self.phase.positive_classes]
        return models.probabilities(logits, self.activation)[:, positive].sum(1).numpy()

    def _measured(self) -> list[tuple[int, float]]:
        """Place and monitored metric of the epochs that were validated."""
        found = ((place, monitored(row, self.phase)) for place, row in enumerate(self.history))
        return [(place, value) for place, value in found if value is not None]

    def _stops(self) -> bool:
        """Whether the best epoch lies too far back."""
        if self.phase.patience is None or self.validation is None or not self.history:
            return False
        since = max(self.best_epoch, self.phase.patient_until - 1)
        return len(self.history) - 1 - since >= self.phase.patience

    def _batches(self, batch_size: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        for rows in self._rows(batch_size, epoch):
            yield self.training.images[rows], self.training.labels[rows]

    def _rows(self, batch_size: int, epoch: int) -> Iterator[Tensor]:
        """Rows of the training set in each global batch."""
        count, seed = len(self.training), self.phase.seed
        if self.phase.sampling == "shuffled":
            order = shuffled_indices(count, batch_size, seed=seed, epoch=epoch, repeats=self.phase.repeats)
            yield from map(torch.from_numpy, order)
            return
        labels = self.training.labels.cpu()
        lenses, others = torch.nonzero(labels == 1)[:, 0], torch.nonzero(labels == 0)[:, 0]
        pairs = paired_indices(
            len(lenses), len(others), batch_size, seed=seed, epoch=epoch, repeats=self.phase.repeats
        )
        for positive, negative in pairs:
            # Classes alternate, so that every worker's part of a batch holds both.
            yield torch.stack([lenses[positive], others[negative]], dim=1).flatten()

    def _steps(self, batch_size: int) -> int:
        return steps_of(self._per_epoch(), batch_size)

    def _per_epoch(self) -> int:
        """Images that an epoch shows."""
        if self.phase.sampling == "shuffled":
            return len(self.training) * self.phase.repeats
        return 2 * int((self.training.labels == 1).sum()) * self.phase.repeats

    def _total(self) -> int:
        return self._per_epoch() * self.phase.epochs

    def _save(self) -> None:
        checkpoints.save(
            Checkpoint(
                fingerprint=self.fingerprint,
                model=self.model.state_dict(),
                average={} if self.average is None else self.average.state_dict(),
                best=self.best,
                optimizer=checkpoints.moments_of(self.optimizer),
                history=self.history,
            ),
            self.url,
        )

    @property
    def best_epoch(self) -> int:
        """Place in the history of the epoch whose weights the bundle gets."""
        last, measured = len(self.history) - 1, self._measured()
        if self.phase.keep == "last" or self.validation is None or not measured:
            return last
        return max(measured, key=lambda found: (found[1], found[0]))[0]

    def calibration(self) -> dict[str, Any] | None:
        """Platt's calibration of the best weights by the validation set; None where its classes or scores allow none.

        Every worker of the team must ask for it.
        """
        if self.validation is None or self.phase.targets:
            return None
        model = copy.deepcopy(self.shown)
        model.load_state_dict(self.best)
        found = evaluate(
            model,
            self.validation.images,
            self.validation.labels,
            self.loss,
            normalization=to_float,
            team=self.team,
        )
        scores, is_lens = self._scores(found.logits), self.validation.labels.numpy() == 1
        if not np.isfinite(scores).all() or is_lens.all() or not is_lens.any():
            return None
        return calibrated(np.clip(scores, 0, 1), is_lens, seed=self.phase.seed)

    def bundle(self, provenance: dict[str, Any]) -> Bundle:
        """The best weights with all that a scan needs."""
        phase = self.phase
        return Bundle(
            architecture=phase.architecture,
            arguments=phase.arguments,
            inputs=phase.inputs,
            normalization=phase.normalization,
            classes=phase.targets or phase.classes,
            positive_classes=phase.targets[:1] or phase.positive_classes,
            precision=phase.precision,
            provenance=provenance,
            state=self.best,
        )


class _Clock:
    """Before each step: sets the learning rate, averages the weights, and tells, once a second, how far it is."""

    def __init__(self, trainer: Trainer, epoch: int, steps: int) -> None:
        self.trainer, self.epoch, self.steps = trainer, epoch, steps
        self.done = 0
        self.rate = float("nan")
        self._told = time.monotonic()

    def __call__(self) -> None:
        trainer = self.trainer
        before = sum(row["steps"] for row in trainer.history)
        factor = trainer.phase.schedule.factor(
            Moment(
                epoch=self.epoch,
                epochs=trainer.phase.epochs,
                step=before + self.done,
                steps_per_epoch=self.steps,
                history=[value for _, value in trainer._measured()],
            )
        )
        self.rate = trainer.phase.optimizer.learning_rate * factor
        for group in trainer.optimizer.param_groups:
            group["lr"] = self.rate * group["multiplier"]
        if trainer.average is not None:
            trainer.average.update_parameters(trainer.model)
        self._tell()
        self.done += 1

    def _tell(self) -> None:
        now = time.monotonic()
        if now - self._told > 1:
            self._told = now
            trainer = self.trainer
            shown = sum(row["images"] for row in trainer.history)
            shown += trainer._per_epoch() * self.done // self.steps
            trainer.on_progress(Progress(images=shown, total=trainer._total()))


def check_sizes(phase: Phase, training: Examples, team: Team = ALONE) -> None:
    """Raise InputError unless the training set makes full batches for every worker."""
    if phase.batch_size < 2 * team.size:
        raise InputError(
            f"phase {phase.name}: a batch of {phase.batch_size} cannot be shared by {team.size} workers; "
            "give a larger batch or fewer workers"
        )
    if phase.sampling == "paired":
        lenses, wanted = int((training.labels == 1).sum()), phase.batch_size // 2
        if lenses * phase.repeats < wanted:
            raise InputError(
                f"phase {phase.name}: {lenses} images with {phase.label} true are fewer than the {wanted} of one batch; "
                "give more lenses or a smaller batch"
            )
    elif len(training) * phase.repeats < phase.batch_size:
        raise InputError(
            f"phase {phase.name}: {len(training)} images are fewer than one batch of {phase.batch_size}"
        )


def first_model(phase: Phase, training: Examples) -> nn.Module:
    """The network before its first step: fresh weights, or those of the bundle to start from.

    A regression network has the buffers ``offset`` and ``scale``, of one value a target, which turn its last
    linear layer's output into the targets' units; they are set to the training set's mean and scatter.

    Raises
    ------
    InputError
        If the bundle to start from has another architecture, or weights of other shapes.
    """
    torch.manual_seed(_seed(phase.seed, -1, -1))
    model = models.build(phase.architecture, **phase.arguments)
    if phase.targets:
        model.get_buffer("offset").copy_(training.labels.mean(0))
        model.get_buffer("scale").copy_(training.labels.std(0).clamp_min(1e-12))
    if not phase.start:
        return model
    start = bundle.load(phase.start)
    if start.architecture != phase.architecture:
        raise InputError(
            f"phase {phase.name} trains {phase.architecture!r} but {phase.start} holds {start.architecture!r}; "
            "start from a bundle of the same architecture, or from none"
        )
    taken = {name: value for name, value in start.state.items() if not name.startswith(phase.fresh or "\0")}
    try:
        missing = model.load_state_dict(taken, strict=False)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"the weights of {phase.start} do not fit phase {phase.name}: {reason:.200}"
        ) from error
    unknown = [
        *missing.unexpected_keys,
        *(n for n in missing.missing_keys if not n.startswith(phase.fresh or "\0")),
    ]
    if unknown:
        raise InputError(f"the weights of {phase.start} do not fit phase {phase.name}: {unknown[:3]}")
    return model


def optimizer_for(model: nn.Module, phase: Phase) -> torch.optim.Optimizer:
    """The phase's optimizer, with a group of parameters for each factor on the learning rate."""
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        factors = [f for prefix, f in phase.optimizer.multipliers.items() if name.startswith(prefix)]
        groups.setdefault(factors[0] if factors else 1.0, []).append(parameter)
    given = [{"params": parameters, "multiplier": factor} for factor, parameters in groups.items()]
    settings = phase.optimizer
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.name == "sgd":
        return SGD(given, rate, settings.momentum, weight_decay=decay, nesterov=settings.nesterov)
    betas = (settings.momentum or 0.9, 0.999)
    return (Adam if settings.name == "adam" else AdamW)(given, rate, betas, weight_decay=decay)


def average_of(model: nn.Module, steps: int) -> AveragedModel:
    """The exponential average of a network's weights and batch statistics over about so many steps.

    Of the first steps over fewer, so that the fresh weights are soon forgotten.
    """

    def follow(averaged: Any, current: Any, count: Any) -> None:
        weight = max(1 / steps, 9 / (10 + int(count)))
        for mean, value in zip(averaged, current, strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, weight)
            else:
                mean.copy_(value)

    return AveragedModel(model, multi_avg_fn=follow, use_buffers=True)


def augment(images_BCHW: Tensor, how: phases.Augmentation, generator: torch.Generator) -> Tensor:
    """A batch of `Examples.images` as one showing of it."""
    made = images_BCHW
    if how.symmetries:
        made = augmentation.random_symmetries(made, generator)
    if how.max_shift:
        made = augmentation.random_shifts(made, how.max_shift, generator)
    if how.max_zoom is not None:
        made = augmentation.random_rotations(made, how.max_zoom, generator)
    if how.crop is not None:
        cropped = augmentation.random_crops(made, how.crop, generator)
        cropped = cropped.round().to(made.dtype) if made.dtype == torch.uint8 else cropped.to(made.dtype)
        chosen = torch.rand(len(made), generator=generator).to(made.device) < 0.5
        made = torch.where(chosen[:, None, None, None], cropped, made)
    return made


def monitored(row: dict[str, Any], phase: Phase) -> float | None:
    """The metric of an epoch that says how good it is, larger is better; None if it was not validated."""
    of_loss = phase.monitor == "loss" or phase.targets
    value = row.get("validation_loss") if of_loss else row.get(phase.monitor)
    if value is None:
        return -math.inf if "validation_loss" in row else None
    value = -value if of_loss else value
    return value if math.isfinite(value) else -math.inf


def _seed(*numbers: int) -> int:
    """A seed from numbers, the same on every machine."""
    return int.from_bytes(hashlib.sha256(repr(numbers).encode()).digest()[:7], "little")
