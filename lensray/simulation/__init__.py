"""LensCrafter: simulated lenses and realistic non-lenses, on CPU or GPU.

`simulate` gives cutouts of a survey by index. Its parts, from the bottom: `light` and `mass` (profiles and
deflections), `imaging` (PSF and noise), `lenses` (lens systems from explicit parameters), `draws`,
`photometry`, `galaxies` and `population` (what is drawn), `scene` (the tables between drawing and rendering),
`rendering`, `contaminants` (detector and satellites), `simulator` (all together).
"""

from lensray.simulation.simulator import Simulated, simulate

__all__ = ["Simulated", "simulate"]
