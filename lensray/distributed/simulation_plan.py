"""What a simulation will write, worked out and checked before anything heavy is imported."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from lensray.errors import InputError
from lensray.io import storage
from lensray.survey import get_survey
from lensray.survey_imaging import HostSurvey, open_hosts

PART_BYTES = 64 << 20
# The underscore keeps readers of Parquet folders from taking it for a part.
PLAN = "_simulation.json"
INJECTION = "_injection.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class SimulateConfig:
    """Simulate a survey of cutouts: lenses, and the objects that are mistaken for them; or put lenses into a real one."""

    output: str
    """Folder of the survey, local or s3://; the same words go on with a stopped simulation."""
    survey: str | None = None
    """Whose depth, seeing and pixels: cosmos_acs, hsc_wide, lsst_single_epoch, lsst_coadd, euclid or des
    (default: hsc_wide; with --onto what that survey's metadata says)."""
    count: int = 20_000
    """Number of cutouts."""
    lenses: int = 100
    """How many of them are lenses (label and is_tracer are then true)."""
    seed: int = 1
    """Seed of everything that is drawn."""
    size: int = 64
    """Side of a cutout, in pixels (with --onto as in that survey)."""
    dtype: Literal["float32", "float16"] = "float32"
    """Type of the pixels as stored; float16 halves the bytes at a rounding well below the noise (with --onto as
    in that survey)."""
    device: str = "cpu"
    """Where to render: cpu or cuda."""
    onto: str | None = None
    """A survey of real cutouts with linear pixels: arcs are painted on its galaxies that could be lenses, and the
    cutouts that are no lenses are its own, drawn such that brightness alone does not tell which are which."""
    zero_point: tuple[float, ...] = ()
    """With --onto: AB magnitude of one image unit, a number a band (default: that of --survey)."""
    psf_fwhm: tuple[float, ...] = ()
    """With --onto: width of the PSF in arcsec, a number a band (default: columns psf_fwhm_BAND, or that of --survey)."""
    faintest_host: float = 23.0
    """With --onto: i magnitude of the faintest galaxy that gets an arc."""

    def __post_init__(self) -> None:
        if self.survey is not None or self.onto is None:
            get_survey(self.survey_name)
        if self.onto is None and (self.zero_point or self.psf_fwhm):
            raise InputError("--zero-point and --psf-fwhm say what the images of --onto are; give --onto")
        if self.count < 1 or not 0 <= self.lenses <= self.count:
            raise InputError(
                f"--lenses {self.lenses} of --count {self.count}: give 0 ≤ lenses ≤ count, count ≥ 1"
            )
        if not 16 <= self.size <= 1024:
            raise InputError(f"--size is {self.size}; a cutout has 16 to 1024 pixels a side")
        if self.seed < 0:
            raise InputError(f"--seed is {self.seed}; it must not be negative")

    @property
    def survey_name(self) -> str:
        """Name of the survey that is simulated."""
        return self.survey or "hsc_wide"

    def hosts(self) -> HostSurvey:
        """The survey of --onto.

        Raises
        ------
        InputError
            If there is none, or nothing can be painted onto its images.
        """
        if self.onto is None:
            raise ValueError("no survey to paint arcs onto")
        storage.check_outside(self.output, self.onto)
        return open_hosts(self.onto, self.survey, self.zero_point, self.psf_fwhm)


def plan_parts(config: SimulateConfig) -> list[dict]:
    """The parts of a survey: number, first index, rows, and which of the indices are lenses."""
    bands = len(get_survey(config.survey_name).bands)
    rows = max(1, PART_BYTES // (bands * config.size**2 * np.dtype(config.dtype).itemsize))
    lenses = lens_indices(config.count, config.lenses, config.seed)
    starts = range(0, config.count, rows)
    return [
        {
            "part": number,
            "first": first,
            "rows": min(rows, config.count - first),
            "lenses": lenses[np.searchsorted(lenses, first) : np.searchsorted(lenses, first + rows)].tolist(),
        }
        for number, first in enumerate(starts)
    ]


def lens_indices(count: int, lenses: int, seed: int) -> np.ndarray:
    """Which of `count` objects are lenses, ascending: a random choice without repetition."""
    generator = np.random.default_rng(np.random.SeedSequence([seed, count, lenses]))
    return np.sort(generator.choice(count, lenses, replace=False, shuffle=False)).astype(np.int64)


def is_claimed(config: SimulateConfig) -> bool:
    """Whether the folder holds this simulation, begun or complete; nothing is written.

    Raises
    ------
    InputError
        If the folder holds something else.
    """
    filesystem, path = storage.resolve(config.output)
    if filesystem.get_file_info(path).is_file:
        raise InputError(f"{config.output} is a file; give a folder as --output")
    url = storage.join(config.output, PLAN)
    if not storage.exists(url):
        if storage.exists(config.output) and storage.list_names(filesystem, path):
            raise InputError(f"{config.output} is not empty and holds no simulation; choose another --output")
        return False
    if json.loads(storage.read_bytes(url))["sha256"] != _hash(_settings(config)):
        raise InputError(
            f"{config.output} holds another simulation; choose another --output, or repeat its words"
        )
    return True


def claim_folder(config: SimulateConfig) -> None:
    """Write into the folder what simulation it holds (errors as of `is_claimed`)."""
    if not is_claimed(config):
        settings = _settings(config)
        words = json.dumps({"simulation": settings, "sha256": _hash(settings)}, indent=1)
        storage.write_bytes(storage.join(config.output, PLAN), words.encode())


def _settings(config: SimulateConfig) -> dict:
    """What the images depend on."""
    settings = {**json.loads(json.dumps(asdict(config))), "survey": config.survey_name}
    if config.onto is None:
        names = ("survey", "count", "lenses", "seed", "size", "dtype")
    else:
        names = ("onto", "count", "lenses", "seed", "zero_point", "psf_fwhm", "faintest_host")
        settings["onto"] = storage.resolve(config.onto)[1]
        names = (*names, "survey") if config.survey else names
    return {name: settings[name] for name in names}


def _hash(settings: dict) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def part_url(config: SimulateConfig, part: int) -> str:
    """Address of a part of the survey."""
    return storage.join(config.output, f"part-{part:05d}.parquet")
