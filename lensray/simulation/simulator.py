"""Draw, render and observe: simulated cutouts by index.

Cutout ``index`` of a seed is always the same, whatever else is simulated with it: its parameters come from
``SeedSequence([seed, index])`` and its noise from a second stream of the same, both drawn on the CPU, also
where a GPU renders. Parameters of the draw are the same to the bit; pixels are up to rounding, 1e-6 of the
brightest pixel, since the vector units round a batch's last elements differently from the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lensray.simulation import contaminants
from lensray.simulation.imaging import noise_sigma
from lensray.simulation.population import UNIFORMS, draw_scene
from lensray.simulation.rendering import MICRO_BATCH, as_tensor, render
from lensray.simulation.scene import Scene
from lensray.survey import Survey


@dataclass(frozen=True, kw_only=True, slots=True)
class Simulated:
    """Simulated cutouts."""

    images: Tensor
    """Float32 pixels in the survey's image units, shape (N, bands, size, size), on the device asked for."""
    kind: NDArray[np.str_]
    """``lens`` or the kind of non-lens, shape (N,)."""
    parameters: dict[str, NDArray[np.float32]]
    """Parameters by name, shape (N,), NaN where one does not apply."""

    @classmethod
    def joined(cls, parts: "Sequence[Simulated]") -> "Simulated":
        """One batch of several, at least one."""
        return cls(
            images=torch.cat([part.images for part in parts]),
            kind=np.concatenate([part.kind for part in parts]),
            parameters={
                name: np.concatenate([part.parameters[name] for part in parts])
                for name in parts[0].parameters
            },
        )


def simulate(
    survey: Survey,
    indices: NDArray[np.int64],
    is_lens: NDArray[np.bool_],
    *,
    seed: int,
    size: int = 64,
    device: str | torch.device = "cpu",
) -> Simulated:
    """Simulate cutouts of lenses and non-lenses.

    Parameters
    ----------
    survey : Survey
        The imaging to imitate.
    indices : ndarray of int64, shape (N,)
        Which cutouts of the endless simulated survey of this seed; not negative.
    is_lens : ndarray of bool, shape (N,)
        Whether each is a lens.
    seed : int
        Not negative. Together with an index, its class, the survey and the size it fixes a cutout.
    size : int
        Side of a cutout in pixels.
    device : str or torch.device
        Where to render.

    Returns
    -------
    Simulated
        In the order of `indices`. ``mag_<band>`` is the magnitude of the main object (of a lens: the
        foreground), ``source_mag`` and ``arc_mag`` those of the source in the first band before and after lensing.

    Notes
    -----
    A lens whose arc nobody can see is not a lens to whoever grades it (Collett 2015, ApJ 811, 20, asks for
    multiple images, a resolved separation, a magnification of 3 and a signal-to-noise of 20). Here multiple
    images and magnification hold by the source's place, the separation by the least Einstein radius, and the
    signal-to-noise, 80 (`rendering.ARC_SNR`), by the source's magnitude: that is drawn from number counts cut
    at the faintest that still reaches it, which is the same as to draw from the full counts and reject invisible
    arcs. The signal-to-noise is that of the best linear filter, ``sqrt(Σ arc² / σ²)``, where ``σ²`` counts the
    sky, the photons of all other light, and the square of a tenth of that light, which nobody can subtract.
    Collett's 20, spread over a ring of tens of PSF areas, shows nothing to the eye.
    """
    indices, is_lens = np.asarray(indices, np.int64), np.asarray(is_lens, bool)
    if indices.shape != is_lens.shape or indices.ndim != 1:
        raise ValueError(f"indices {indices.shape} and is_lens {is_lens.shape} must be vectors of one length")
    parts = [
        _simulate_batch(
            survey,
            indices[start : start + MICRO_BATCH],
            is_lens[start : start + MICRO_BATCH],
            seed,
            size,
            device,
        )
        for start in range(0, max(len(indices), 1), MICRO_BATCH)
    ]
    return Simulated.joined(parts)


def _simulate_batch(
    survey: Survey,
    indices: NDArray[np.int64],
    is_lens: NDArray[np.bool_],
    seed: int,
    size: int,
    device: str | torch.device,
) -> Simulated:
    uniforms, noise = random_numbers(indices, seed, (len(survey.bands), size, size))
    scene = draw_scene(survey, size, is_lens, uniforms)
    clean, lensing = render(scene, survey, size, torch.device(device))
    images = observe(clean, noise, scene, survey)
    parameters = {name: values.astype(np.float32) for name, values in {**scene.parameters, **lensing}.items()}
    return Simulated(images=images, kind=scene.kind, parameters=parameters)


def random_numbers(indices: NDArray[np.int64], seed: int, shape: tuple[int, ...]) -> tuple[NDArray, Tensor]:
    """Uniforms (N, UNIFORMS) and standard normal noise (N, *shape), each row from its index alone."""
    uniforms = np.empty((len(indices), UNIFORMS))
    noise = torch.empty((len(indices), *shape))
    generator = torch.Generator()
    for row, index in enumerate(indices.tolist()):
        sequence = np.random.SeedSequence([seed, index])
        uniforms[row] = np.random.Generator(np.random.PCG64(sequence)).random(UNIFORMS)
        generator.manual_seed(int(sequence.generate_state(1, np.uint64)[0]) >> 1)
        torch.randn(shape, generator=generator, out=noise[row])
    return uniforms, noise


def observe(
    clean: Tensor,
    noise: Tensor,
    scene: Scene,
    survey: Survey,
    sky_factor: NDArray[np.float64] | None = None,
) -> Tensor:
    """Add noise, then what the detector does; `sky_factor` (N,) multiplies the survey's noise of the sky."""
    artefacts, size = scene.artefacts, clean.shape[-1]
    sky, gain, full = (torch.tensor(v).to(clean) for v in (survey.sky_sigma, survey.gain, survey.saturation))
    if sky_factor is not None:
        sky = sky * as_tensor(sky_factor, clean.device)[:, None]
    sigma = noise_sigma(clean, sky, gain)
    for row, owner in enumerate(artefacts.owner.tolist()):
        scale = contaminants.noise_scale(artefacts, row, size)
        if scale is not None:
            sigma[owner] *= as_tensor(scale, clean.device)
    images = clean + sigma * noise.to(clean.device)
    saturated = (images > full[:, None, None]).flatten(1).any(1)
    for owner in torch.nonzero(saturated)[:, 0].tolist():
        image = contaminants.saturate(images[owner].cpu().numpy(), survey.saturation)
        images[owner] = as_tensor(image, clean.device)
    for row, owner in enumerate(artefacts.owner.tolist()):
        image = contaminants.put_on(images[owner].cpu().numpy(), artefacts, row, survey)
        images[owner] = as_tensor(image, clean.device)
    return images
