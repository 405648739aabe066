"""Training of a generator against its critic (Goodfellow et al. 2014, arXiv:1406.2661), for `lens_generator`.

A mini-batch bundles real images with as many generated ones, and one pass through the critic serves both: the critic
follows the gradient of its cross-entropy, the generator that of the cross-entropy of its images being called real
(the form that does not vanish where the critic is sure). Real and generated images are turned and shifted alike before the
critic sees them, which lets tens of real images do (Zhao et al. 2020, arXiv:2006.10738). What is kept is
the average of the generator's weights over the last steps.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor, nn

from lensray.metrics.diversity import nearest
from lensray.models.lens_generator import LensGenerator, generate
from lensray.training.examples import to_float
from lensray.training.losses import Loss
from lensray.training.parallel import Team
from lensray.training.phases import AdversarialPhase
from lensray.training.steps import EpochResult, Transform
from lensray.training.trainer import Trainer, augment

WATCHED = 64
"""Images, generated and real, by which collapse is noticed."""


class AdversarialTrainer(Trainer):
    """Trains an `AdversarialPhase`; parameters and errors as of `Trainer`.

    After each epoch the diversity of some generated images is measured: their typical distance to the nearest
    other one, in units of that of real ones. When it falls below the phase's least, the generator has collapsed: the phase
    ends, and its bundle gets the weights of the last epoch that was still diverse.
    """

    def _wrapped(self) -> nn.Module:
        return self.team.share_statistics(self.model)

    def _train(
        self,
        batches: Iterator[tuple[Tensor, Tensor]],
        before_step: Callable[[], object],
        generator: torch.Generator,
    ) -> EpochResult:
        result, self.generator_loss = adversarial_epoch(
            cast(LensGenerator, self.wrapped),
            (images for images, _ in batches),
            self.loss,
            self.optimizer,
            generator,
            augmentation=lambda images: augment(images, self.phase.augmentation, generator),
            before_step=before_step,
            autocast=torch.bfloat16 if self.phase.autocast else None,
            team=self.team,
        )
        return result

    def _measure(self, epoch: int) -> dict[str, float]:
        # As many as there are real ones: the nearest of many is nearer than the nearest of few.
        count = min(WATCHED, len(self.training))
        made = generate(cast(LensGenerator, self.shown), count, seed=self.phase.seed)
        measured = {"generator_loss": self.generator_loss}
        return measured | {"diversity": self._typical_distance(made) / self._distance_of_real}

    @cached_property
    def _distance_of_real(self) -> float:
        chosen = torch.randperm(len(self.training), generator=torch.Generator().manual_seed(self.phase.seed))
        real = to_float(self.training.images[chosen[:WATCHED].to(self.training.images.device)]).cpu()
        return max(self._typical_distance(real), 1e-6)

    @staticmethod
    def _typical_distance(images: Tensor) -> float:
        found, _ = nearest(images.numpy())
        return float(torch.from_numpy(found).median()) if len(found) else 0.0

    @property
    def _floor(self) -> float:
        return cast(AdversarialPhase, self.phase).least_diversity

    def _is_good(self, row: dict[str, Any]) -> bool:
        return math.isfinite(row["diversity"]) and row["diversity"] >= self._floor

    def _stops(self) -> bool:
        """Whether the generator was diverse and has collapsed."""
        good = [self._is_good(row) for row in self.history]
        return any(good) and not good[-1]

    def calibration(self) -> None:
        """None: the critic's answer is no probability of a lens."""

    @property
    def best_epoch(self) -> int:
        """Place in the history of the last epoch that was diverse; of the last, while none was."""
        good = [place for place, row in enumerate(self.history) if self._is_good(row)]
        return good[-1] if good else len(self.history) - 1


def adversarial_epoch(
    model: LensGenerator,
    batches: Iterable[Tensor],
    loss: Loss,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    *,
    augmentation: Transform,
    before_step: Callable[[], object],
    max_gradient_norm: float = 10.0,
    autocast: torch.dtype | None = None,
    team: Team,
) -> tuple[EpochResult, float]:
    """Show every batch of real images once, each beside as many generated ones.

    Parameters
    ----------
    model : LensGenerator
    batches : iterable of Tensor
        Global batches of real images, as `lensray.training.examples.Examples` has them.
    loss : callable
        ``loss(logits, labels)`` with the labels 0 (generated) and 1 (real).
    optimizer : torch.optim.Optimizer
        Over the parameters of both networks.
    generator : torch.Generator
        Draws the latent numbers.
    augmentation : callable
        Applied to real and generated images together; gradients pass it.
    before_step, max_gradient_norm, autocast, team
        As of `lensray.training.steps.train_epoch`.

    Returns
    -------
    EpochResult
        Of the critic's loss.
    float
        Mean of the generator's loss.
    """
    model.train()
    device = next(model.parameters()).device
    makers, critics = list(model.generator.parameters()), list(model.critic.parameters())
    totals, used, seen, skipped = torch.zeros(2, device=device), 0, 0, 0
    for batch in batches:
        before_step()
        count, mine = len(batch), team.part(len(batch))
        seen += count
        latents = torch.randn(count, model.latent, generator=generator)[mine].to(device)
        labels = torch.tensor([1, 0], device=device).repeat_interleave(len(latents))
        buffers = [buffer.clone() for buffer in model.buffers()]
        with torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
            real = to_float(batch.to(device))
            made = torch.zeros_like(real)
            made[mine] = model.generate(latents).float()
            # Whole batches, so that every worker draws the same numbers.
            shown = [augmentation(images)[mine] for images in (real, made)]
            logits = model(torch.cat(shown))
            share = len(latents) / count
            told = loss(logits, labels) * share
            fooled = loss(logits[len(latents) :], torch.ones_like(labels[len(latents) :])) * share
        gradients = [
            *torch.autograd.grad(told, critics, retain_graph=True),
            *torch.autograd.grad(fooled, makers),
        ]
        for parameter, gradient in zip([*critics, *makers], gradients, strict=True):
            parameter.grad = team.add(gradient)
        norms = [nn.utils.clip_grad_norm_(group, max_gradient_norm) for group in (critics, makers)]
        values = team.add(torch.stack([told.detach(), fooled.detach()]))
        if bool(torch.isfinite(values).all() & torch.isfinite(torch.stack(norms)).all()):
            optimizer.step()
            totals += values * count
            used += count
        else:
            skipped += 1
            for buffer, saved in zip(model.buffers(), buffers, strict=True):
                buffer.copy_(saved)
    critic, maker = (totals / used).tolist() if used else (math.nan, math.nan)
    return EpochResult(loss=critic, images=seen, skipped=skipped), maker
