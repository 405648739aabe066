"""Cutout tables of a survey with arcs painted on them, and without, of one schema."""

import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lensray import cutouts
from lensray.cutout_format import CutoutFormat
from lensray.io.tables import tensor_column
from lensray.pixels import Status
from lensray.simulation.deflectors import FAINTEST_I, Hosts, magnitude_band, measure_hosts
from lensray.simulation.injection import Injected, inject
from lensray.survey_imaging import HostSurvey

PARAMETERS = (
    "einstein_radius_arcsec", "source_offset_arcsec", "shear", "source_radius_arcsec", "deflector_axis_ratio",
    "source_mag", "magnification", "arc_mag", "arc_snr", "host_mag_i", "host_axis_ratio",
)  # fmt: skip
"""Columns of a lens's parameters, null for other cutouts."""


def columns_needed(hosts: HostSurvey) -> list[str]:
    """Columns of the survey that are read."""
    mag = f"mag_{magnitude_band(hosts.format.bands)}"
    known = [name for name in (mag, *_fwhm_columns(hosts)) if name in hosts.schema.names]
    return ["object_id", "ra", "dec", hosts.format.column, *known]


def _fwhm_columns(hosts: HostSurvey) -> list[str]:
    return [f"psf_fwhm_{band}" for band in hosts.format.bands]


def measure_table(table: pa.Table, hosts: HostSurvey, faintest_i: float = FAINTEST_I) -> Hosts:
    """Judge the galaxies of a table; a column such as ``mag_i``, of the band next to i, goes before measured magnitudes."""
    images, _ = cutouts.images_of(table, hosts.format)
    name = f"mag_{magnitude_band(hosts.format.bands)}"
    mag = _numbers(table, name) if name in table.column_names else None
    return measure_hosts(images, hosts.imaging, mag=mag, faintest_i=faintest_i)


def _psf_fwhm(table: pa.Table, hosts: HostSurvey) -> NDArray[np.float64]:
    """PSF widths (N, bands), arcsec, by the columns ``psf_fwhm_<band>`` or else the survey's."""
    known = np.broadcast_to(hosts.imaging.psf_fwhm_arcsec, (table.num_rows, len(hosts.format.bands))).copy()
    for k, name in enumerate(_fwhm_columns(hosts)):
        if name in table.column_names:
            values = _numbers(table, name)
            known[:, k] = np.where(values > 0, values, known[:, k])
    return known


def _numbers(table: pa.Table, name: str) -> NDArray[np.float64]:
    return table[name].cast(pa.float64()).to_numpy().astype(np.float64)


def inject_table(
    table: pa.Table,
    hosts: HostSurvey,
    arcs: NDArray[np.int64],
    measured: Hosts,
    *,
    seed: int,
    einstein_radius: NDArray[np.float64] | None = None,
    arc_mag: NDArray[np.float64] | None = None,
    device: str = "cpu",
) -> Injected:
    """Paint an arc on each plausible deflector of a table, as `measure_table` has it.

    Arguments as of `injected_table`; an Einstein radius and an arc's magnitude are drawn if they are not given.
    """
    images, _ = cutouts.images_of(table, hosts.format)
    return inject(
        images,
        hosts.imaging,
        seed=seed,
        indices=_indices(table["object_id"].to_pylist(), arcs),
        hosts=measured,
        psf_fwhm_arcsec=_psf_fwhm(table, hosts),
        einstein_radius=einstein_radius,
        arc_mag=arc_mag,
        device=device,
    )


def injected_table(
    table: pa.Table,
    hosts: HostSurvey,
    arcs: NDArray[np.int64],
    *,
    seed: int,
    faintest_i: float = FAINTEST_I,
    device: str = "cpu",
) -> pa.Table:
    """The plausible deflectors of a table as lenses.

    Parameters
    ----------
    table : pyarrow.Table
        Cutouts of the survey, with the columns of `columns_needed`.
    hosts : HostSurvey
        The survey (`lensray.survey_imaging.open_hosts`).
    arcs : ndarray of int64, shape (N,)
        Which arc of those that the seed has for each galaxy; not negative.
    seed : int
        Not negative. The lens depends on it, on the galaxy and on the arc's number, not on the other rows.
    faintest_i : float
        Faintest deflector, as an i magnitude.
    device : str
        Where to render.

    Returns
    -------
    pyarrow.Table
        A cutout table of those of the rows that can be lenses: ``label`` and ``is_tracer`` true, ``kind``
        ``injected``, ``host_id`` the galaxy's id, and the parameters. ``object_id`` is new: a negative number, or
        the galaxy's id with ``+lens`` and two numbers. Other columns of the survey are left out.
    """
    measured = measure_table(table, hosts, faintest_i)
    injected = inject_table(table, hosts, arcs, measured, seed=seed, device=device)
    rows = np.flatnonzero(injected.hosts.plausible)
    chosen = table.take(rows)
    ids = lens_ids(chosen["object_id"].to_pylist(), arcs[rows].tolist(), seed)
    values = {name: injected.parameters[name][rows] for name in PARAMETERS if len(rows)}
    return _table(chosen, hosts, ids, tensor_column(injected.images[rows]), True, values)


def untouched_table(table: pa.Table, hosts: HostSurvey) -> pa.Table:
    """Cutouts of the survey as non-lenses, in the schema of `injected_table`; ``kind`` is ``survey``."""
    images, status = cutouts.images_of(table, hosts.format)
    column = tensor_column(images, null=status != Status.OK)
    return _table(table, hosts, table["object_id"].to_pylist(), column, False, {})


def _table(
    table: pa.Table, hosts: HostSurvey, ids: Sequence, images: pa.Array, is_lens: bool, values: dict
) -> pa.Table:
    stored = hosts.format
    format = CutoutFormat(
        survey=stored.survey,
        bands=stored.bands,
        pixel_scale_arcsec=stored.pixel_scale_arcsec,
        shape=stored.shape,
        dtype=stored.dtype,
    )
    count = table.num_rows
    id_type = pa.int64() if pa.types.is_integer(hosts.schema.field("object_id").type) else pa.string()
    host = table["object_id"].cast(id_type).combine_chunks() if is_lens else pa.nulls(count, id_type)
    unknown = np.full(count, np.nan, np.float32)
    return cutouts.make_table(
        format,
        pa.array(ids, id_type),
        images,
        ra=table["ra"].cast(pa.float64()).combine_chunks(),
        dec=table["dec"].cast(pa.float64()).combine_chunks(),
        label=pa.array([is_lens] * count, pa.bool_()),
        is_tracer=pa.array([is_lens] * count, pa.bool_()),
        kind=pa.array(["injected" if is_lens else "survey"] * count, pa.string()),
        host_id=host,
        **{name: pa.array(values.get(name, unknown), pa.float32(), from_pandas=True) for name in PARAMETERS},
    )


def lens_ids(
    host_ids: Sequence[int] | Sequence[str], arcs: Sequence[int], seed: int
) -> list[int] | list[str]:
    """New object ids: negative numbers below -2^61 for numbers, so that none is an object of the survey.

    >>> lens_ids(["a"], [2], 7)
    ['a+lens7-2']
    """
    if all(isinstance(host, str) for host in host_ids):
        return [f"{host}+lens{seed}-{arc}" for host, arc in zip(host_ids, arcs, strict=True)]
    return [-(1 << 61) - _hash(host, arc, seed) for host, arc in zip(host_ids, arcs, strict=True)]


def _indices(host_ids: Sequence, arcs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Index of the draw of each galaxy's arc."""
    return np.array([_hash(host, arc) for host, arc in zip(host_ids, arcs.tolist(), strict=True)], np.int64)


def _hash(*words: object) -> int:
    """A number below 2^62 that depends on these words alone."""
    return int.from_bytes(hashlib.sha256(repr(words).encode()).digest()[:8], "big") >> 2
