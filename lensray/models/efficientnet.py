"""EfficientNet (Tan & Le 2019) for images of one or several resolutions, by timm: first and last layer replaced.

Two ways to show VIS at 0.1 arcsec and NISP at 0.3 arcsec to one network. `EfficientNetStack` is the way of Saied,
Syvis & Crettenand ("Machine Learning: Gravitational Lens Finding", EPFL): the smaller images are interpolated to
the size of the largest and stacked with them as further channels. `EfficientNetBranches` has a backbone a
resolution, at that resolution, and joins their features before the classifier, as the winner of the second lens
finding challenge did. Any other timm network of features can stand in for EfficientNet-B0.

The input is packed (`lensray.reading.pack_planes`): smaller images lie in the middle of frames of zeros, and are taken
out again here. The last layer gives one number x for two classes, returned as the logits (0, x): their softmax is the
sigmoid of x, and their cross-entropy the ``log(1 + exp(∓x))`` of the report's appendix.

Weights start at random. `load_pretrained` fills them with those of another training, from a file or by timm's
download; what a bundle stores is the result, so pretraining is no argument of the network.
"""

from collections.abc import Mapping, Sequence
from io import BytesIO
from pickle import UnpicklingError
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lensray.errors import InputError
from lensray.io import storage

TIMM = "timm"
"""Source of pretrained weights: timm's own download."""
EUCLID_PLANES = ((1, 200), (3, 60))
PROBE_SECONDS = 10


class NormAct(nn.Module):
    """Batch normalization and activation, where timm has one module for both.

    Two modules, so that workers can share the statistics of a batch, and so that `batch_statistics` can keep the
    normalization as it is in training: by mean and variance of the batch at hand. One value a channel (one small image)
    has no variance; the running statistics stand in for it.
    """

    def __init__(self, norm: nn.BatchNorm2d, activation: nn.Module, batch_statistics: bool) -> None:
        super().__init__()
        self.norm = norm
        self.activation = activation
        self.batch_statistics = batch_statistics

    def forward(self, maps_BCHW: Tensor) -> Tensor:
        """Normalized and activated maps."""
        norm = self.norm
        values = maps_BCHW.numel() // maps_BCHW.shape[1]
        if self.batch_statistics and not self.training and values > 1:
            normalized = F.batch_norm(maps_BCHW, None, None, norm.weight, norm.bias, True, 0.0, norm.eps)
        else:
            normalized = norm(maps_BCHW)
        return self.activation(normalized)


def make_backbone(name: str, bands: int, batch_statistics: bool = False, **arguments: Any) -> nn.Module:
    """An untrained timm network that gives a vector of features an image, shape (batch, features).

    Raises
    ------
    InputError
        If timm knows no network of that name.
    """
    return _split_norms(_timm_network(name, bands, **arguments), batch_statistics)


def _timm_network(name: str, bands: int, **arguments: Any) -> nn.Module:
    import timm

    if not timm.is_model(name):
        raise InputError(f"timm knows no network {name!r}; try efficientnet_b0 or efficientnet_b3")
    return timm.create_model(name, pretrained=False, in_chans=bands, num_classes=0, **arguments)


def _split_norms(network: nn.Module, batch_statistics: bool) -> nn.Module:
    """Replace timm's modules of normalization and activation by `NormAct`."""
    from timm.layers.norm_act import BatchNormAct2d

    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, BatchNormAct2d):
                old: Any = child
                norm = nn.BatchNorm2d(old.num_features, old.eps, old.momentum)
                norm.load_state_dict(child.state_dict())
                setattr(module, name, NormAct(norm, old.act, batch_statistics))
    return network


class _EfficientNet(nn.Module):
    """What both ways share: taking the planes apart, and the last layer.

    Parameters
    ----------
    planes : sequence of (int, int)
        Bands, and height and width, of each resolution, the largest first.
    classes : int
        Classes; the first one's logit is zero.
    backbone : str
        Name of the network in timm.
    dropout : float
        Share of the features that is dropped in training, before the last layer.
    drop_path : float
        Share of the residual branches that is dropped in training.
    batch_statistics : bool
        Normalize by the statistics of the batch also when predicting. A score then depends on the other images
        of its batch (`depends_on_batch`).
    """

    activation = "softmax"

    def __init__(
        self,
        planes: Sequence[Sequence[int]] = EUCLID_PLANES,
        classes: int = 2,
        backbone: str = "efficientnet_b0",
        dropout: float = 0.2,
        drop_path: float = 0.0,
        batch_statistics: bool = False,
    ) -> None:
        super().__init__()
        self.planes = [(int(bands), int(size)) for bands, size in planes]
        self.backbone = backbone
        self.depends_on_batch = batch_statistics
        self.bands = self._bands_of_backbones()
        self.backbones = nn.ModuleList(
            make_backbone(backbone, bands, batch_statistics, drop_path_rate=drop_path) for bands in self.bands
        )
        features = sum(int(network.num_features) for network in self.backbones)  # type: ignore[arg-type]
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(features, classes - 1))

    def _bands_of_backbones(self) -> list[int]:
        """Bands that each backbone takes."""
        raise NotImplementedError

    def _parts(self, images_BCHW: Tensor) -> list[Tensor]:
        """Images of each resolution, the smaller ones cut out of their frames."""
        height, width = images_BCHW.shape[-2:]
        parts, first = [], 0
        for bands, size in self.planes:
            top, left = (height - size) // 2, (width - size) // 2
            parts.append(images_BCHW[:, first : first + bands, top : top + size, left : left + size])
            first += bands
        return parts

    def _logits(self, features_BF: Tensor) -> Tensor:
        logits = self.classifier(features_BF)
        return torch.cat([torch.zeros_like(logits[:, :1]), logits], dim=1)


class EfficientNetStack(_EfficientNet):
    """One backbone for all bands, the smaller images interpolated to the size of the largest.

    Notes
    -----
    They are stretched over the whole frame, as in the report: 60 NISP pixels are 18 arcsec and 200 VIS pixels 20, so
    the bands are out of register by a tenth of the distance from the centre.
    """

    def _bands_of_backbones(self) -> list[int]:
        return [sum(bands for bands, _ in self.planes)]

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Logits of shape (batch, classes)."""
        first, *others = self._parts(images_BCHW)
        size = first.shape[-2:]
        others = [F.interpolate(part, size=size, mode="bilinear", align_corners=False) for part in others]
        stacked = torch.cat([first, *others], dim=1).contiguous(memory_format=torch.channels_last)
        return self._logits(self.backbones[0](stacked))


class EfficientNetBranches(_EfficientNet):
    """A backbone for each resolution; their features are joined before the last layer."""

    def _bands_of_backbones(self) -> list[int]:
        return [bands for bands, _ in self.planes]

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Logits of shape (batch, classes)."""
        parts = [part.contiguous(memory_format=torch.channels_last) for part in self._parts(images_BCHW)]
        features = [network(part) for network, part in zip(self.backbones, parts, strict=True)]
        return self._logits(torch.cat(features, dim=1))


def reset_batch_norm(model: nn.Module) -> None:
    """Forget what batch normalization learnt, statistics and affine weights alike (the report's method 1)."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()


def load_pretrained(model: _EfficientNet, source: str) -> None:
    """Fill the backbones with weights of a network trained on other images; the last layer stays as it is.

    Parameters
    ----------
    model : EfficientNetStack or EfficientNetBranches
    source : str
        ``timm`` for timm's download, or the address of a ``.safetensors`` or ``.pth`` file of the timm network's
        ``state_dict``. Nothing but tensors is read of it.

    Raises
    ------
    InputError
        If the download is not reachable, or the weights are not those of the network.

    Notes
    -----
    The kernels of the first convolution are made for three bands; timm's `adapt_input_conv` repeats them over
    the bands that there are, scaled by three over their number (for one band it adds them).
    """
    weights = _download(model.backbone) if source == TIMM else _read_weights(source)
    for network, bands in zip(model.backbones, model.bands, strict=True):
        filled = _timm_network(model.backbone, bands)
        try:
            filled.load_state_dict(_adapted(weights, filled, bands))
        except (RuntimeError, KeyError, NotImplementedError) as error:
            reason = " ".join(str(error).split())
            raise InputError(
                f"{source} does not hold the weights of {model.backbone}: {reason:.200}"
            ) from error
        network.load_state_dict(_split_norms(filled, False).state_dict())


def _adapted(weights: Mapping[str, Tensor], network: nn.Module, bands: int) -> dict[str, Tensor]:
    """Weights without their last layer, and with a first one for other bands."""
    from timm.models import adapt_input_conv

    config: Any = network.pretrained_cfg
    kept = {name: w for name, w in weights.items() if not name.startswith(f"{config['classifier']}.")}
    first = f"{config['first_conv']}.weight"
    return kept | {first: adapt_input_conv(bands, kept[first])}


def _read_weights(source: str) -> Mapping[str, Tensor]:
    """A ``state_dict`` from a file, as tensors alone."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    data = storage.read_bytes(source)
    try:
        if source.endswith(".safetensors"):
            return load(data)
        content = torch.load(BytesIO(data), map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError, UnpicklingError) as error:
        raise InputError(
            f"{source} holds no weights that can be read ({' '.join(str(error).split()):.100}); give a .safetensors file, "
            "or a .pth file of tensors alone"
        ) from error
    return content.get("state_dict", content)


def _download(backbone: str) -> Mapping[str, Tensor]:
    """The weights that timm keeps on the Hugging Face hub, or in this machine's cache of it."""
    import timm

    _check_reachable(backbone)
    try:
        return timm.create_model(backbone, pretrained=True).state_dict()
    except Exception as error:
        # Errors of the hub, of the network and of timm have no common class.
        raise _unreachable(backbone, error) from error


def _check_reachable(backbone: str) -> None:
    """Ask once whether the hub answers, unless it is not needed: timm itself tries for a minute."""
    import huggingface_hub
    import timm

    repository = str(timm.get_pretrained_cfg_value(backbone, "hf_hub_id"))
    cached = (
        huggingface_hub.try_to_load_from_cache(repository, name)
        for name in ("model.safetensors", "pytorch_model.bin")
    )
    if any(isinstance(path, str) for path in cached):
        return
    try:
        huggingface_hub.get_session().head(huggingface_hub.constants.ENDPOINT, timeout=PROBE_SECONDS)
    except Exception as error:
        # The class depends on the HTTP library that the hub's client uses.
        raise _unreachable(backbone, error) from error


def _unreachable(backbone: str, error: Exception) -> InputError:
    return InputError(
        f"timm's weights of {backbone} cannot be downloaded from here ({' '.join(str(error).split()):.80}); give a file of "
        "them instead, or no pretrained weights"
    )
