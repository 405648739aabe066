"""Several workers that train one network as one would: the same global batches, the same loss curve.

Every worker draws the same global batch and the same augmentation, and takes its own part of both; gradients
are averaged with the weights of the parts, and batch normalization takes its statistics from the global batch.
So one worker and eight differ by rounding alone (dropout, whose masks differ, excepted).
"""

from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as dist_nn
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True, kw_only=True, slots=True)
class Team:
    """The workers that train together."""

    rank: int = 0
    """Number of this worker."""
    size: int = 1
    """How many there are."""

    @classmethod
    def here(cls) -> "Team":
        """The team that this process belongs to, by torch's process group."""
        if dist.is_available() and dist.is_initialized():
            return cls(rank=dist.get_rank(), size=dist.get_world_size())
        return cls()

    def part(self, count: int) -> slice:
        """This worker's part of `count` rows; the parts of all workers make the whole."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def add(self, value: Tensor) -> Tensor:
        """Sum of a tensor over the workers, in place."""
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def wrap(self, model: nn.Module) -> nn.Module:
        """A network whose gradients and batch statistics are those of the global batch."""
        if self.size == 1:
            return model
        return DistributedDataParallel(self.share_statistics(model), broadcast_buffers=False)

    def share_statistics(self, model: nn.Module) -> nn.Module:
        """A network whose batch statistics alone are those of the global batch."""
        return model if self.size == 1 else _with_global_statistics(model)


ALONE = Team()


class _GlobalStatistics(_BatchNorm):
    """Batch normalization over the batches of all workers; `torch.nn.SyncBatchNorm` does it on GPUs alone.

    Parameters, running statistics and the result in evaluation mode are those of torch's own.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalize what has channels along its second axis."""
        if not self.training:
            return super().forward(input)
        values = input.float()
        others = (0, *range(2, values.ndim))
        over = (slice(None), *(None,) * (values.ndim - 2))
        count = values.new_full((1,), values.numel() // values.shape[1])
        sums = torch.cat([values.sum(others), values.square().sum(others), count])
        sums = dist_nn.all_reduce(sums)
        channels, count = values.shape[1], sums[-1].detach()
        mean = sums[:channels] / count
        variance = (sums[channels : 2 * channels] / count - mean.square()).clamp_min(0.0)
        self._remember(mean.detach(), variance.detach() * count / (count - 1).clamp_min(1))
        scaled = (values - mean[over]) * (variance + self.eps).rsqrt()[over]
        if self.affine:
            scaled = scaled * self.weight[over] + self.bias[over]
        return scaled.to(input.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)


class GlobalBatchNorm1d(_GlobalStatistics, nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d` over the batches of all workers."""


class GlobalBatchNorm2d(_GlobalStatistics, nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` over the batches of all workers."""


_GLOBAL = {nn.BatchNorm1d: GlobalBatchNorm1d, nn.BatchNorm2d: GlobalBatchNorm2d}


def _with_global_statistics(model: nn.Module) -> nn.Module:
    """The network with its batch normalizations over all workers; parameters stay the same objects."""
    if next(model.parameters()).device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, _BatchNorm) and type(child) in _GLOBAL:
                setattr(module, name, _global(child))
    return model


def _global(norm: _BatchNorm) -> _GlobalStatistics:
    kind = _GLOBAL[type(norm)]
    made = kind(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    made.load_state_dict(norm.state_dict())
    if norm.affine:
        made.weight, made.bias = norm.weight, norm.bias
    return made.train(norm.training)
