"""A model bundle: all that a scan needs of a trained network, in ONE .safetensors file.

The file holds the weights, the arrays of the normalization (under ``normalization.``), and, as JSON under the key
``lensray`` of its header, the architecture and its arguments, what images it takes, the normalization, the classes,
the precision and where it comes from. Nothing is ever unpickled. A bundle without its normalization is refused,
because a network trained behind one normalization and scanned behind another gives wrong scores without a word.

A bundle is named by its address, or by its name if it ships with LensRay. `read_header` needs no torch, so that a
command can check its words before it imports anything heavy.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, deserialize

from lensray import weights
from lensray.errors import InputError
from lensray.io import storage
from lensray.weights import Storage

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lensray.normalization import Normalization

METADATA_KEY = "lensray"
FORMAT = 1
PRECISIONS = ("float32", "bfloat16")
_ARRAYS = "normalization."
_SHIPPED = Path(__file__).parent / "bundles"
_SUFFIX = ".safetensors"


@dataclass(frozen=True, kw_only=True, slots=True)
class FurtherImages:
    """Images of another column, with pixels of their own size, that a network takes beside the first ones."""

    column: str
    """Column of the survey's table."""
    bands: tuple[str, ...]
    """Band names, in the order of the planes."""
    height: int
    """Rows of pixels."""
    width: int
    """Columns of pixels."""
    pixel_scale_arcsec: float
    """Side of a pixel, in arcsec."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "bands", tuple(self.bands))
        if not self.bands or min(self.height, self.width) < 1 or not self.pixel_scale_arcsec > 0:
            raise ValueError(f"a network's images need bands, a size and a pixel scale; got {self}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """The images that a network takes.

    It is given one array an image. Planes of `further` columns follow those of the first in it, each in the middle of
    a frame of the first ones' size, with zeros around (`lensray.reading.pack_planes`).
    """

    column: str = "image"
    """Column of the survey's table."""
    bands: tuple[str, ...]
    """Band names, in the order of the planes."""
    height: int
    """Rows of pixels."""
    width: int
    """Columns of pixels."""
    pixel_scale_arcsec: float
    """Side of a pixel, in arcsec."""
    max_nan_fraction: float = 0.0
    """Largest share of NaN pixels that is filled and scored."""
    further: tuple[FurtherImages, ...] = ()
    """Images of other columns."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "bands", tuple(self.bands))
        further = (f if isinstance(f, FurtherImages) else FurtherImages(**f) for f in self.further)
        object.__setattr__(self, "further", tuple(further))
        if not self.bands or min(self.height, self.width) < 1 or not self.pixel_scale_arcsec > 0:
            raise ValueError(f"a network's images need bands, a size and a pixel scale; got {self}")
        if len(set(self.columns)) != len(self.columns):
            raise ValueError(f"a network takes each column once; got {', '.join(self.columns)}")
        for part in self.further:
            if (self.height - part.height) % 2 or (self.width - part.width) % 2:
                raise ValueError(
                    f"images of {part.height}×{part.width} pixels have no middle in frames of "
                    f"{self.height}×{self.width}; both sides must differ by an even number"
                )
            if part.height > self.height or part.width > self.width:
                raise ValueError(
                    f"images of {part.height}×{part.width} pixels do not fit into frames of "
                    f"{self.height}×{self.width}; the largest images come first"
                )

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the survey's table with images, the first one's before the further ones'."""
        return self.column, *(part.column for part in self.further)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Planes (of all columns), height and width."""
        planes = len(self.bands) + sum(len(part.bands) for part in self.further)
        return planes, self.height, self.width


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """A bundle's description, without its weights."""

    architecture: str
    """Name of the network in `lensray.models`."""
    arguments: dict[str, Any]
    """What the network is built with."""
    inputs: Inputs
    """The images that it takes."""
    normalization: dict[str, Any]
    """Name and settings of the normalization."""
    classes: tuple[str, ...]
    """Names of the network's outputs, in their order."""
    positive_classes: tuple[str, ...]
    """Classes whose probabilities add up to the score."""
    precision: str
    """What the network computes in, "float32" or "bfloat16" (mixed precision)."""
    provenance: dict[str, Any]
    """Where it comes from: recipe, data, metrics, library versions."""
    sha256: str
    """SHA-256 of the file."""

    def __post_init__(self) -> None:
        check_classes(self.classes, self.positive_classes)
        for name in ("arguments", "provenance"):
            if not isinstance(getattr(self, name), dict):
                raise InputError(
                    f"the bundle's {name} are no JSON object; save it again with lensray.bundle.save"
                )
        if self.precision not in PRECISIONS:
            raise InputError(
                f"precision {self.precision!r} is unknown; it must be one of {', '.join(PRECISIONS)}"
            )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Bundle:
    """A trained network with all that a scan needs of it; fields as in `Header`."""

    architecture: str
    """Name of the network in `lensray.models`."""
    arguments: dict[str, Any]
    """What the network is built with."""
    inputs: Inputs
    """The images that it takes."""
    normalization: Normalization
    """What its images went through in training."""
    classes: tuple[str, ...]
    """Names of the network's outputs, in their order."""
    positive_classes: tuple[str, ...]
    """Classes whose probabilities add up to the score."""
    precision: str = "float32"
    """What the network computes in, "float32" or "bfloat16" (mixed precision)."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Where it comes from; what JSON can hold."""
    state: Mapping[str, Tensor]
    """The network's ``state_dict``."""
    sha256: str = ""
    """SHA-256 of the file it was loaded from."""

    def model(self) -> nn.Module:
        """The network with its weights, in evaluation mode, on the CPU.

        Raises
        ------
        InputError
            If the architecture is unknown, or weights are missing, too many or of another shape.
        """
        from lensray import models

        model = models.build(self.architecture, **self.arguments)
        try:
            model.load_state_dict(dict(self.state))
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise InputError(
                f"the bundle's weights are not those of {self.architecture!r}: {reason:.300}"
            ) from error
        return model.eval()


def check_classes(classes: tuple[str, ...], positive_classes: tuple[str, ...]) -> None:
    """Raise InputError unless the positive classes are some of the classes."""
    unknown = [name for name in positive_classes if name not in classes]
    if unknown or not positive_classes:
        raise InputError(f"{list(positive_classes)} are no classes to score; choose among {list(classes)}")


def shipped() -> list[str]:
    """Names of the bundles that ship with LensRay."""
    return sorted(path.stem for path in _SHIPPED.glob(f"*{_SUFFIX}"))


def save(bundle: Bundle, url: str, storage_type: Storage = "float32") -> str:
    """Write a bundle to one file, local or s3://, its weights in fewer bytes if asked (`lensray.weights`).

    Returns the file's SHA-256.

    Raises
    ------
    InputError
        If the weights are not those of the architecture, or the network does not take such images or give these
        classes: what cannot be loaded is not written.
    """
    from safetensors.torch import save as to_bytes

    from lensray import normalization

    _check_network(bundle)
    config, arrays = normalization.to_config(bundle.normalization)
    tensors = weights.pack({n: tensor.detach().cpu() for n, tensor in bundle.state.items()}, storage_type)
    tensors |= {_ARRAYS + name: _tensor(array) for name, array in arrays.items()}
    description = {
        "format": FORMAT,
        "architecture": bundle.architecture,
        "arguments": bundle.arguments,
        "inputs": asdict(bundle.inputs),
        "normalization": {**config, "arrays": sorted(arrays)},
        "classes": list(bundle.classes),
        "positive_classes": list(bundle.positive_classes),
        "precision": bundle.precision,
        "provenance": dict(bundle.provenance),
    }
    data = to_bytes(tensors, metadata={METADATA_KEY: json.dumps(description, allow_nan=False)})
    _header(data, url)
    storage.write_bytes(url, data)
    return hashlib.sha256(data).hexdigest()


def load(name_or_url: str) -> Bundle:
    """Read a bundle: the name of a shipped one, or an address.

    Raises
    ------
    InputError
        If there is none, or it cannot be used (see the module).
    """
    from safetensors.torch import load as from_bytes

    from lensray import normalization

    data = _read(name_or_url)
    header = _header(data, name_or_url)
    tensors = from_bytes(data)
    arrays = {
        name.removeprefix(_ARRAYS): t.numpy() for name, t in tensors.items() if name.startswith(_ARRAYS)
    }
    bundle = Bundle(
        architecture=header.architecture,
        arguments=header.arguments,
        inputs=header.inputs,
        normalization=normalization.from_config(header.normalization, arrays),
        classes=header.classes,
        positive_classes=header.positive_classes,
        precision=header.precision,
        provenance=header.provenance,
        state=weights.unpack({n: tensor for n, tensor in tensors.items() if not n.startswith(_ARRAYS)}),
        sha256=header.sha256,
    )
    try:
        _check_network(bundle)
    except InputError as error:
        raise InputError(f"{name_or_url} cannot be used: {error}") from error
    return bundle


def read_header(name_or_url: str) -> Header:
    """The description of a bundle, without torch (errors as of `load`, but for those of the network)."""
    return _header(_read(name_or_url), name_or_url)


def _read(name_or_url: str) -> bytes:
    if name_or_url in shipped():
        return (_SHIPPED / f"{name_or_url}{_SUFFIX}").read_bytes()
    bare = "/" not in name_or_url and not name_or_url.endswith(_SUFFIX)
    if bare and not storage.exists(name_or_url):
        names = ", ".join(shipped()) or "none"
        raise InputError(f"no bundle {name_or_url!r} ships with LensRay ({names} do) and no such file exists")
    return storage.read_bytes(name_or_url)


def _header(data: bytes, source: str) -> Header:
    """Check a bundle's bytes and describe it."""
    try:
        names = {name for name, _ in deserialize(data)}
    except SafetensorError as error:
        raise InputError(
            f"{source} is no .safetensors file ({error}); give a LensRay model bundle"
        ) from error
    description = _description(data, source)
    config = description.get("normalization")
    if not isinstance(config, dict) or "name" not in config:
        raise InputError(
            f"the bundle {source} lacks its normalization; save it again with lensray.bundle.save"
        )
    arrays = config.pop("arrays", [])
    missing = [name for name in arrays if _ARRAYS + name not in names]
    if missing:
        raise InputError(f"the bundle {source} lacks its normalization's arrays {missing}; save it again")
    if not any(not name.startswith(_ARRAYS) for name in names):
        raise InputError(f"the bundle {source} holds no weights; save it again with lensray.bundle.save")
    try:
        return Header(
            architecture=description["architecture"],
            arguments=description["arguments"],
            inputs=Inputs(**description["inputs"]),
            normalization=config,
            classes=tuple(description["classes"]),
            positive_classes=tuple(description["positive_classes"]),
            precision=description["precision"],
            provenance=description["provenance"],
            sha256=hashlib.sha256(data).hexdigest(),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"the bundle {source} has an incomplete description ({error}); save it again"
        ) from error


def _description(data: bytes, source: str) -> dict[str, Any]:
    """The JSON that LensRay keeps in the header: a length of 8 bytes, then the header itself."""
    size = int.from_bytes(data[:8], "little")
    metadata = json.loads(data[8 : 8 + size]).get("__metadata__") or {}
    try:
        description = json.loads(metadata[METADATA_KEY])
    except (KeyError, ValueError) as error:
        raise InputError(
            f"{source} holds weights but no LensRay description; give a LensRay model bundle"
        ) from error
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise InputError(f"the bundle {source} is not of format {FORMAT}; use the LensRay that wrote it")
    return description


def _check_network(bundle: Bundle) -> None:
    """Build the network and show it one image of zeros: its arguments, inputs and classes must agree."""
    import torch

    model = bundle.model()
    try:
        with torch.inference_mode():
            logits = model(bundle.normalization(torch.zeros(1, *bundle.inputs.shape)))
    except (RuntimeError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{bundle.architecture!r} behind its normalization does not take images of shape {bundle.inputs.shape}: {reason:.200}"
        ) from error
    if logits.shape != (1, len(bundle.classes)):
        raise InputError(
            f"{bundle.architecture!r} gives {logits.shape[-1]} outputs but the bundle names the classes "
            f"{list(bundle.classes)}"
        )


def _tensor(array: np.ndarray) -> Tensor:
    import torch

    # What came through Ray's object store cannot be written to, which torch.from_numpy warns of.
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))
