"""What a selection function is measured with, worked out and checked before anything heavy is imported."""

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

from lensray import bundle as bundles
from lensray.cutout_format import CutoutFormat
from lensray.distributed.planning import ScanConfig, plan_scan
from lensray.errors import InputError
from lensray.io import parquet, storage
from lensray.selection import Space, space
from lensray.survey import SURVEYS, Survey, get_survey
from lensray.survey_imaging import HostSurvey, imaging_of, open_hosts

LENSES, ONTO = "lenses", "onto"
"""Folders of the simulated lenses and of those on real galaxies; their scans are beside them."""
ON_GALAXIES = ("arc_mag", "einstein_radius")
"""Parameters that can be chosen for an arc on a real galaxy."""
SCAN_OF = {LENSES: "scan", ONTO: "scan_onto"}
FREE = ("output", "threshold", "scan", "inspected", "device", "workers", "gpus_per_worker")
"""Words that change neither lenses nor scores."""
INSPECTED = 1000
"""Candidates that are inspected unless a number is given."""
PART = 2048
"""Lenses a file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SelectionConfig:
    """Measure a selection function: how probable it is that a search finds a lens of given parameters."""

    output: str
    """Folder for lenses, scores, selection function and report, local or s3://; the same words go on with it."""
    bundle: str = "eznet_hsc"
    """Model bundle of the search: the name of a shipped one, or a .safetensors file, local or s3://."""
    survey: str | None = None
    """Whose depth, seeing and pixels the simulated lenses have (default: the survey with the bundle's bands and pixels; with --onto what
    that survey's metadata says)."""
    count: int = 32_768
    """Lenses that are made."""
    threshold: float | None = None
    """Score from which on a lens counts as found (default: 0.5, or what --scan says)."""
    scan: str | None = None
    """Output folder of a scan with the same bundle: a lens is found if it would be among its first --inspected candidates."""
    inspected: int | None = None
    """With --scan: how many candidates people look at (default: 1000); planted tracers are not counted."""
    ranges: tuple[str, ...] = ()
    """What varies, if not the default: NAME=LOW..HIGH, or NAME=VALUE for a parameter that does not vary. Names: foreground_mag, arc_mag,
    effective_radius, sersic_index, einstein_radius, ellipticity, psf_factor, noise_factor."""
    seed: int = 1
    """Seed of design, draws and noise."""
    onto: str | None = None
    """A survey of real cutouts with linear pixels: as many arcs are painted on its galaxies too, and compared with the simulated lenses."""
    zero_point: tuple[float, ...] = ()
    """With --onto: AB magnitude of one image unit, a number a band (default: that of --survey)."""
    psf_fwhm: tuple[float, ...] = ()
    """With --onto: width of the PSF in arcsec, a number a band (default: columns psf_fwhm_BAND, or that of --survey)."""
    faintest_host: float | None = None
    """With --onto: i magnitude of the faintest galaxy that gets an arc (default: 23)."""
    resample: bool = False
    """Fit cutouts of another pixel scale or size to the bundle's, as scan_survey.py does."""
    device: str = "cpu"
    """Where to render: cpu or cuda."""
    workers: int | None = None
    """Scoring actors (default: one a GPU, or one a CPU core where there is no GPU)."""
    gpus_per_worker: float | None = None
    """GPUs an actor (default: 1 where the cluster has GPUs, else 0)."""

    def __post_init__(self) -> None:
        if not self.output:
            raise InputError("--output is empty; give an address")
        if self.count < 100:
            raise InputError(f"--count is {self.count}; a selection function needs at least 100 lenses")
        if self.seed < 0:
            raise InputError(f"--seed is {self.seed}; it must not be negative")
        if self.inspected is not None and self.scan is None:
            raise InputError("--inspected is a depth of a scan; give --scan")
        if self.inspected is not None and self.inspected < 1:
            raise InputError(f"--inspected is {self.inspected}; it must be at least 1")
        if self.threshold is not None and self.scan is not None:
            raise InputError("--threshold and --scan both say what is found; give one of them")
        if self.threshold is not None and not 0 < self.threshold <= 1:
            raise InputError(f"--threshold is {self.threshold}; scores lie in (0, 1]")
        if self.onto is None and (self.zero_point or self.psf_fwhm or self.faintest_host is not None):
            raise InputError(
                "--zero-point, --psf-fwhm and --faintest-host are about the galaxies of --onto; give --onto"
            )

    def settings(self) -> dict[str, Any]:
        """The words that the lenses and their scores depend on."""
        words = json.loads(json.dumps(asdict(self)))
        return {name: value for name, value in words.items() if name not in FREE}


@dataclass(frozen=True, kw_only=True, slots=True)
class SelectionPlan:
    """A checked measurement."""

    config: SelectionConfig
    """The words it was asked for with."""
    survey: Survey
    """What the lenses are imaged with."""
    size: int
    """Side of a cutout, pixels."""
    space: Space
    """Which parameters vary."""
    resample: bool
    """Whether cutouts are fitted to the bundle's."""
    threshold: float
    """Score from which on a lens is found."""
    meaning: str
    """What that threshold is."""
    hosts: HostSurvey | None
    """Real galaxies, if there are any."""
    sha256: str
    """Hash of the bundle."""

    def parts(self) -> list[dict[str, int]]:
        """The files of lenses: number, first lens and how many."""
        starts = range(0, self.config.count, PART)
        return [
            {"part": number, "first": first, "rows": min(PART, self.config.count - first)}
            for number, first in enumerate(starts)
        ]


def plan_selection(config: SelectionConfig) -> SelectionPlan:
    """Work out and check a measurement; no pixel is read.

    Raises
    ------
    InputError
        If the bundle cannot score such lenses, a parameter is out of the simulator's range, or --scan is no scan of this
        bundle with so many candidates.
    """
    header = bundles.read_header(config.bundle)
    if header.inputs.further:
        raise InputError(
            f"the bundle {config.bundle} takes images of two instruments, of which lenses cannot be simulated here yet; give one "
            "that takes one image"
        )
    threshold, meaning = _threshold(config, header)
    hosts = None
    if config.onto is None:
        survey = _survey_for(config, header.inputs)
        ratio = header.inputs.pixel_scale_arcsec / survey.pixel_scale_arcsec
        size = round(header.inputs.height * ratio)
        resample = config.resample or size != header.inputs.height
    else:
        storage.check_outside(config.output, config.onto)
        hosts = open_hosts(config.onto, config.survey, config.zero_point, config.psf_fwhm)
        # Its messages say what a survey lacks.
        plan_scan(
            ScanConfig(
                cutouts=config.onto, bundle=config.bundle, output=config.output, resample=config.resample
            )
        )
        survey, size, resample = hosts.imaging, min(hosts.format.shape[1:]), config.resample
    # What the network sees of a cutout, which may be larger.
    seen = min(size * survey.pixel_scale_arcsec, header.inputs.height * header.inputs.pixel_scale_arcsec)
    varied = space(config.ranges, seen, survey.pixel_scale_arcsec)
    if hosts is not None and not set(ON_GALAXIES) & set(varied.ranges):
        raise InputError(
            f"with --onto {' or '.join(ON_GALAXIES)} must vary; give a range of one of them as --ranges"
        )
    return SelectionPlan(
        config=config,
        survey=survey,
        size=size,
        space=varied,
        resample=resample,
        threshold=threshold,
        meaning=meaning,
        hosts=hosts,
        sha256=header.sha256,
    )


def _survey_for(config: SelectionConfig, inputs: bundles.Inputs) -> Survey:
    """The survey that is imitated, in the bundle's bands."""
    name = config.survey or _only_one(config, inputs)
    known = get_survey(name)
    stored = CutoutFormat(
        survey=known.name, bands=inputs.bands, pixel_scale_arcsec=known.pixel_scale_arcsec, shape=inputs.shape
    )
    return imaging_of(stored, known.name)


def _only_one(config: SelectionConfig, inputs: bundles.Inputs) -> str:
    of_bands = [survey for survey in SURVEYS.values() if set(inputs.bands) <= set(survey.bands)]
    alike = [
        s for s in of_bands if math.isclose(s.pixel_scale_arcsec, inputs.pixel_scale_arcsec, rel_tol=0.01)
    ]
    if not of_bands:
        raise InputError(
            f"lenses for the bundle {config.bundle} cannot be simulated: no survey that is known has its band "
            f"{', '.join(inputs.bands)}"
        )
    found = alike or of_bands
    if len(found) == 1:
        return found[0].name
    names = ", ".join(survey.name for survey in found)
    raise InputError(
        f"the bundle {config.bundle} takes {', '.join(inputs.bands)} at {inputs.pixel_scale_arcsec:g} arcsec a pixel; say with --survey "
        f"whose depth and seeing the lenses shall have: {names}"
    )


def _threshold(config: SelectionConfig, header: bundles.Header) -> tuple[float, str]:
    """Score from which on a lens is found, and what it is."""
    if config.scan is None:
        return (
            (0.5, "a score of 0.5")
            if config.threshold is None
            else (
                config.threshold,
                f"a score of {config.threshold:g}",
            )
        )
    run, candidates = (storage.join(config.scan, name) for name in ("run.json", "candidates.parquet"))
    if not storage.exists(run) or not storage.exists(candidates):
        raise InputError(
            f"{config.scan} holds no finished scan; give the --output of a scan_survey.py that has ended"
        )
    sha256 = json.loads(storage.read_bytes(run))["bundle"]["sha256"]
    if sha256 != header.sha256:
        raise InputError(
            f"{config.scan} was scanned with another bundle than {config.bundle}; give that one as --bundle"
        )
    wanted = config.inspected or INSPECTED
    table = parquet.read_table(candidates)
    scores = table["score"].to_numpy()
    if "is_tracer" in table.column_names:
        # They were planted: nobody is shown them, and they take no candidate's place.
        scores = scores[~table["is_tracer"].fill_null(False).to_numpy(zero_copy_only=False)]
    if len(scores) < wanted:
        raise InputError(
            f"{config.scan} lists {len(scores):,} candidates and {wanted:,} are to be inspected; scan again with the same words and a "
            f"larger --top (nothing is scored anew), or give fewer --inspected"
        )
    # In the order of their rank.
    return float(scores[wanted - 1]), f"the score of candidate {wanted:,} of {config.scan}"
