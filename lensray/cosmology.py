"""Einstein radii from velocity dispersions, in the flat ΛCDM of H0 = 70 km/s/Mpc and Ωm = 0.3."""

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

SPEED_OF_LIGHT_KM_S = 299_792.458
OMEGA_M = 0.3
_STEPS = 4096
_HIGHEST_REDSHIFT = 12.0


@lru_cache(maxsize=1)
def _comoving_distances() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Redshifts and their comoving distances in units of the Hubble distance (trapezium, good to 1e-6)."""
    redshifts = np.linspace(0.0, _HIGHEST_REDSHIFT, _STEPS)
    slope = 1 / np.sqrt(OMEGA_M * (1 + redshifts) ** 3 + 1 - OMEGA_M)
    steps = np.diff(redshifts) * (slope[1:] + slope[:-1]) / 2
    return redshifts, np.concatenate([[0.0], np.cumsum(steps)])


def einstein_radius_arcsec(
    velocity_dispersion_km_s: ArrayLike, lens_redshift: ArrayLike, source_redshift: float
) -> NDArray[np.float64]:
    """Einstein radius of a singular isothermal sphere, ``4π (σ/c)² D_ls / D_s``, arcsec.

    The ratio of the distances does not depend on H0. It is 0 for a lens behind the source.

    Examples
    --------
    >>> einstein_radius_arcsec([200.0, 300.0], 0.35, source_redshift=2.0).round(3).tolist()
    [0.847, 1.906]
    """
    sigma, redshift = np.broadcast_arrays(velocity_dispersion_km_s, lens_redshift)
    distance = np.interp(redshift, *_comoving_distances())
    source = np.interp(source_redshift, *_comoving_distances())
    ratio = np.maximum(1.0 - distance / source, 0.0)
    return np.degrees(4 * np.pi * (sigma / SPEED_OF_LIGHT_KM_S) ** 2 * ratio) * 3600
