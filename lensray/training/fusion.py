"""A committee of trained bundles as one bundle, with a fusion that is learned and calibrated.

The members answer labelled cutouts on which none of them was trained; `lensray.metrics.stacking` fits the weights of
their log odds, and measures what that gains over the plain mean. `lensray.models.committee` is the network.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from lensray import bundle as bundles
from lensray import normalization
from lensray.bundle import Bundle, Inputs
from lensray.errors import InputError
from lensray.metrics import stacking
from lensray.metrics.stacking import FusionReport
from lensray.models.committee import Committee
from lensray.resampling import SAME_SCALE
from lensray.training.evaluation import labelled_images

BATCH = 64


def fuse_committee(
    bundle_urls: Sequence[str],
    images: ArrayLike,
    labels: ArrayLike,
    *,
    device: torch.device | str = "cpu",
    seed: int = 0,
    provenance: Mapping[str, Any] | None = None,
) -> tuple[Bundle, FusionReport]:
    """Make one bundle of several.

    Parameters
    ----------
    bundle_urls : sequence of str
        Names or addresses of at least two bundles that take the same bands at the same pixel scale.
    images : array_like, shape (N, bands, height, width)
        Cutouts as stored, of `committee_inputs`, on which no member was trained.
    labels : array_like of bool, shape (N,)
        True where the cutout holds a lens.
    device : torch.device or str
    seed : int
        Of the folds and of the bootstrap.
    provenance : mapping, optional
        What the bundle is to say of where it comes from, beside its members and the report.

    Returns
    -------
    bundle : Bundle
        Of the architecture "committee"; `lensray.bundle.save` writes it.
    report : FusionReport

    Raises
    ------
    InputError
        If the members do not take the same cutouts, or there are too few of a class to cross-validate.
    """
    bundled = [bundles.load(url) for url in bundle_urls]
    inputs = committee_inputs(bundled)
    committee = committee_of(bundled, inputs).to(device)
    mixed = all(one.precision == "bfloat16" for one in bundled)
    names = _names(bundle_urls)
    odds_NM = member_log_odds(committee, np.asarray(images), mixed=mixed)
    lens = np.asarray(labels, bool)
    _check_counts(odds_NM, lens)
    fusion = stacking.fit(odds_NM, lens)
    report = stacking.measure(names, odds_NM, lens, fusion, seed=seed)
    with torch.no_grad():
        committee.weights.copy_(torch.from_numpy(fusion.weights))
        committee.bias.fill_(fusion.bias)
    made = Bundle(
        architecture="committee",
        arguments={"members": [_member(one, inputs) for one in bundled]},
        inputs=inputs,
        normalization=normalization.Unchanged(),
        classes=("non-lens", "lens"),
        positive_classes=("lens",),
        precision="bfloat16" if mixed else "float32",
        provenance={
            **(provenance or {}),
            "members": [
                {"name": name, "sha256": one.sha256, "architecture": one.architecture}
                for name, one in zip(names, bundled, strict=True)
            ],
            "fusion": report.to_json(),
        },
        state={name: value.cpu() for name, value in committee.state_dict().items()},
    )
    return made, report


def fuse_surveys(
    bundle_urls: Sequence[str],
    surveys: Sequence[str],
    url: str,
    *,
    label: str = "label",
    device: torch.device | str = "cpu",
    seed: int = 0,
    provenance: Mapping[str, Any] | None = None,
) -> FusionReport:
    """Fuse bundles on labelled surveys and write the committee's bundle to `url`; arguments and errors as of `fuse_committee`.

    Rows without a label, or with an image that cannot be scored, are left out.
    """
    inputs = committee_inputs([bundles.load(one) for one in bundle_urls])
    images, labels = zip(*labelled_images(surveys, inputs, label), strict=True)
    made, report = fuse_committee(
        bundle_urls,
        np.concatenate(images),
        np.concatenate(labels),
        device=device,
        seed=seed,
        provenance={**(provenance or {}), "surveys": list(surveys)},
    )
    bundles.save(made, url)
    return report


def _names(urls: Sequence[str]) -> list[str]:
    """The end of each address that tells it from the others."""
    parts = [url.removesuffix(".safetensors").split("/") for url in urls]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    raise InputError(f"a bundle is named twice in the committee of {', '.join(urls)}; name each once")


def _check_counts(odds_NM: NDArray, is_lens: NDArray[np.bool_]) -> None:
    usable = is_lens[np.isfinite(odds_NM).all(1)]
    lenses, others = int(usable.sum()), int((~usable).sum())
    if min(lenses, others) < stacking.FOLDS:
        raise InputError(
            f"a fusion is fitted on at least {stacking.FOLDS} lenses and as many non-lenses; got {lenses} and {others} "
            "that every member answers"
        )


# --- the members ----------------------------------------------------------------------------------------


def committee_inputs(members: Sequence[Bundle]) -> Inputs:
    """The cutouts that all members can be given: those of the largest.

    Raises
    ------
    InputError
        If there are fewer than two members, one regresses, or they differ in column, bands, pixel scale, or (with
        images of further columns) in size.
    """
    if len(members) < 2:
        raise InputError(f"a committee has two members or more; got {len(members)} bundle")
    first = members[0].inputs
    for one in members:
        _check_alike(one, first)
    return Inputs(
        column=first.column,
        bands=first.bands,
        height=max(one.inputs.height for one in members),
        width=max(one.inputs.width for one in members),
        pixel_scale_arcsec=first.pixel_scale_arcsec,
        max_nan_fraction=min(one.inputs.max_nan_fraction for one in members),
        further=first.further,
    )


def _check_alike(one: Bundle, first: Inputs) -> None:
    inputs, name = one.inputs, one.architecture
    if str(getattr(one.model(), "activation", "")) not in ("softmax", "sigmoid"):
        raise InputError(f"a member of a committee tells lenses from non-lenses, which {name!r} does not")
    if inputs.column != first.column or set(inputs.bands) != set(first.bands):
        raise InputError(
            f"the members of a committee take the same cutouts; {name!r} takes {', '.join(inputs.bands)} of "
            f"{inputs.column!r}, the first takes {', '.join(first.bands)} of {first.column!r}"
        )
    if abs(inputs.pixel_scale_arcsec / first.pixel_scale_arcsec - 1) > SAME_SCALE:
        raise InputError(
            f"the members of a committee take one pixel scale; {name!r} takes {inputs.pixel_scale_arcsec} arcsec, the "
            f"first {first.pixel_scale_arcsec}"
        )
    packed = inputs.further or first.further
    if packed and (inputs.further, inputs.bands, inputs.shape) != (first.further, first.bands, first.shape):
        raise InputError(
            "members that take images of several columns must take the same ones, of the same size"
        )


def _member(one: Bundle, inputs: Inputs) -> dict[str, Any]:
    """Keywords of a committee's member."""
    config, arrays = normalization.to_config(one.normalization)
    further = range(len(inputs.bands), inputs.shape[0])
    return {
        "architecture": one.architecture,
        "arguments": one.arguments,
        "normalization": config,
        "array_sizes": {name: len(values) for name, values in arrays.items()},
        "planes": [*(inputs.bands.index(band) for band in one.inputs.bands), *further],
        "height": one.inputs.height,
        "width": one.inputs.width,
        "positive": [one.classes.index(name) for name in one.positive_classes],
    }


def committee_of(members: Sequence[Bundle], inputs: Inputs) -> Committee:
    """The network with its members' weights and normalizations, not yet fused, in evaluation mode."""
    committee = Committee([_member(one, inputs) for one in members])
    for made, one in zip(committee.members, members, strict=True):
        _, arrays = normalization.to_config(one.normalization)
        state = {f"network.{name}": value for name, value in one.state.items()}
        state |= {
            f"array_{name}": torch.from_numpy(values.astype(np.float64)) for name, values in arrays.items()
        }
        made.load_state_dict(state)
    return committee.eval()


@torch.inference_mode()
def member_log_odds(committee: Committee, images: NDArray, *, mixed: bool = False) -> NDArray[np.float64]:
    """Log odds of each member, shape (N, members); NaN where a network gave none.

    Parameters
    ----------
    committee : Committee
    images : ndarray, shape (N, planes, height, width)
    mixed : bool
        Compute in bfloat16 mixed precision, as a scan of such a bundle does.
    """
    device = committee.weights.device
    parts = []
    for start in range(0, len(images), BATCH):
        batch = torch.from_numpy(np.array(images[start : start + BATCH])).to(device).float()
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
            parts.append(committee.member_log_odds(batch).double().cpu())
    return torch.cat(parts).numpy() if parts else np.empty((0, len(committee.members)))
