"""Euclid with both instruments: the same simulated objects in VIS at 0.1 arcsec and in NISP at 0.3.

One sky is drawn for the bands of both, and each instrument records it with its own pixels, PSF and noise. The
frames have the sizes of the second lens finding challenge, 200×200 and 60×60 pixels (20 and 18 arcsec), and by
default nine in ten objects are lenses, as there.

Sources are as bright as `lensray.simulation.simulate` makes them, seen with VIS; NISP has to see what it can of these
arcs, through a PSF three times as wide. Weaknesses beside those of `lensray.simulation.population`: the PSF's width
scatters as if there were an atmosphere, an artefact (a trail, an edge) lies in the two frames at the same
fraction of their sides, and the colours go on from r - i (`lensray.simulation.photometry`).
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from lensray import cutouts
from lensray.bundle import FurtherImages, Inputs
from lensray.simulation.population import draw_scene
from lensray.simulation.rendering import MICRO_BATCH, render
from lensray.simulation.scene import Scene
from lensray.simulation.simulator import observe, random_numbers
from lensray.survey import EUCLID, EUCLID_NISP, Survey

VIS_SIZE, NISP_SIZE = 200, 60
LENS_FRACTION = 0.9
"""Share of lenses in the second lens finding challenge."""
# Added to the seed for the noise of NISP.
_NISP_NOISE = 1 << 41

INPUTS = Inputs(
    column="image",
    bands=EUCLID.bands,
    height=VIS_SIZE,
    width=VIS_SIZE,
    pixel_scale_arcsec=EUCLID.pixel_scale_arcsec,
    max_nan_fraction=0.05,
    further=(
        FurtherImages(
            column="image_nisp",
            bands=EUCLID_NISP.bands,
            height=NISP_SIZE,
            width=NISP_SIZE,
            pixel_scale_arcsec=EUCLID_NISP.pixel_scale_arcsec,
        ),
    ),
)
"""The images of such a survey as a network takes them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SimulatedPair:
    """Simulated objects as both instruments see them."""

    vis: Tensor
    """Shape (N, 1, 200, 200), in image units of `EUCLID`."""
    nisp: Tensor
    """Shape (N, 3, 60, 60), in image units of `EUCLID_NISP`."""
    kind: NDArray[np.str_]
    """``lens`` or the kind of non-lens, shape (N,)."""
    parameters: dict[str, NDArray[np.float32]]
    """Parameters by name, shape (N,), NaN where one does not apply; arcs are measured in VIS."""


def simulate_euclid(
    indices: NDArray[np.int64], is_lens: NDArray[np.bool_], *, seed: int, device: str | torch.device = "cpu"
) -> SimulatedPair:
    """Simulate objects of Euclid; parameters as of `lensray.simulation.simulate`."""
    indices, is_lens = np.asarray(indices, np.int64), np.asarray(is_lens, bool)
    parts = [
        _simulate_batch(
            indices[start : start + MICRO_BATCH], is_lens[start : start + MICRO_BATCH], seed, device
        )
        for start in range(0, max(len(indices), 1), MICRO_BATCH)
    ]
    return SimulatedPair(
        vis=torch.cat([part.vis for part in parts]),
        nisp=torch.cat([part.nisp for part in parts]),
        kind=np.concatenate([part.kind for part in parts]),
        parameters={
            name: np.concatenate([part.parameters[name] for part in parts]) for name in parts[0].parameters
        },
    )


def _simulate_batch(
    indices: NDArray[np.int64], is_lens: NDArray[np.bool_], seed: int, device: str | torch.device
) -> SimulatedPair:
    uniforms, vis_noise = random_numbers(indices, seed, (len(EUCLID.bands), VIS_SIZE, VIS_SIZE))
    _, nisp_noise = random_numbers(
        indices, seed + _NISP_NOISE, (len(EUCLID_NISP.bands), NISP_SIZE, NISP_SIZE)
    )
    both = _both_instruments()
    scene = draw_scene(both, VIS_SIZE, is_lens, uniforms)
    first = _bands_of(scene, both, EUCLID)
    clean, lensing = render(first, EUCLID, VIS_SIZE, torch.device(device))
    vis = observe(clean, vis_noise, first, EUCLID)
    second = _bands_of(scene, both, EUCLID_NISP)
    clean, _ = render(second, EUCLID_NISP, NISP_SIZE, torch.device(device), source_mag=lensing["source_mag"])
    nisp = observe(clean, nisp_noise, second, EUCLID_NISP)
    parameters = {name: values.astype(np.float32) for name, values in {**scene.parameters, **lensing}.items()}
    return SimulatedPair(vis=vis, nisp=nisp, kind=scene.kind, parameters=parameters)


def _both_instruments() -> Survey:
    """All bands with the geometry of VIS: what a sky is drawn for."""
    names = ("bands", "zero_point_mag", "psf_fwhm_arcsec", "limiting_mag", "sky_sigma", "gain", "saturation")
    return replace(
        EUCLID,
        name="euclid_both",
        **{name: getattr(EUCLID, name) + getattr(EUCLID_NISP, name) for name in names},
    )


def _bands_of(scene: Scene, both: Survey, instrument: Survey) -> Scene:
    """The sky in the bands of one instrument; sources' colours stay relative to the first band of both."""
    bands = [both.bands.index(band) for band in instrument.bands]
    components = [replace(table, mag=table.mag[:, bands]) for table in scene.components]
    artefacts = scene.artefacts
    hit = artefacts.columns["band"] - bands[0]  # a cosmic ray hits one band of both instruments
    return replace(
        scene,
        components=components,
        systems=replace(scene.systems, colour=scene.systems.colour[:, bands]),
        stars=replace(scene.stars, mag=scene.stars.mag[:, bands]),
        artefacts=replace(artefacts, columns={**artefacts.columns, "band": hit}),
    )


def formats(
    dtype: Literal["float32", "float16"] = "float32",
) -> tuple[cutouts.CutoutFormat, cutouts.CutoutFormat]:
    """Formats of the columns ``image`` and ``image_nisp``."""
    made = []
    for instrument, size, column in ((EUCLID, VIS_SIZE, "image"), (EUCLID_NISP, NISP_SIZE, "image_nisp")):
        made.append(
            cutouts.CutoutFormat(
                survey=EUCLID.name,
                bands=instrument.bands,
                pixel_scale_arcsec=instrument.pixel_scale_arcsec,
                shape=(len(instrument.bands), size, size),
                dtype=np.dtype(dtype),
                column=column,
            )
        )
    return made[0], made[1]


def euclid_table(
    indices: NDArray[np.int64],
    is_lens: NDArray[np.bool_],
    *,
    seed: int,
    dtype: Literal["float32", "float16"] = "float32",
    device: str = "cpu",
) -> pa.Table:
    """Simulated objects as a cutout table with the columns ``image`` and ``image_nisp`` and the drawn truth.

    Parameters
    ----------
    indices : ndarray of int64, shape (N,)
        Places in the survey; an object depends on its place, its class and the seed alone.
    is_lens : ndarray of bool, shape (N,)
    seed : int
    dtype : {"float32", "float16"}
        Type of the pixels; values beyond the type's range are clipped to it.
    device : str
    """
    drawn = simulate_euclid(indices, is_lens, seed=seed, device=device)
    vis, nisp = formats(dtype)
    columns = {
        name: pa.array(values, pa.float32(), from_pandas=True) for name, values in drawn.parameters.items()
    }
    table = cutouts.make_table(
        vis,
        indices,
        _stored(drawn.vis, dtype),
        label=pa.array(is_lens),
        kind=pa.array(list(drawn.kind), pa.string()),
        **columns,
    )
    return cutouts.add_images(table, nisp, _stored(drawn.nisp, dtype))


def _stored(images: Tensor, dtype: Literal["float32", "float16"]) -> NDArray:
    limit = np.finfo(dtype).max
    return np.clip(images.cpu().numpy(), -limit, limit).astype(dtype)
