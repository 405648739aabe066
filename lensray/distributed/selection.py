"""A selection function, measured: lenses of a design are made, scanned as the survey is, and counted as found or missed.

The lenses are a cutout survey like any other, made on Ray in parts that depend on their place alone, and what scores them is
the project's scan with its ledger: a measurement that was stopped goes on with the same words.
"""

import itertools
import json
import sys
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from lensray.distributed.ledger import Ledger
from lensray.distributed.planning import ScanConfig, plan_scan
from lensray.distributed.resources import connect
from lensray.distributed.scan import scan
from lensray.distributed.selection_plan import LENSES, ON_GALAXIES, ONTO, SCAN_OF, SelectionPlan
from lensray.distributed.simulate import check_device, make_parts, write_part
from lensray.errors import InputError
from lensray.inspection.selection_report import SelectionReport, write_selection_report
from lensray.io import parquet, storage
from lensray.metrics.selection import design
from lensray.progress import Progress
from lensray.selection import TABLE, Selection, Space, write_selection
from lensray.simulation.deflectors import FAINTEST_I
from lensray.simulation.designed import (
    designed_onto_table,
    designed_table,
    rendered_widths,
    true_foreground,
)
from lensray.simulation.injected_table import columns_needed
from lensray.simulation.onto_survey import find_hosts
from lensray.survey_rows import Place, read_places
from lensray.training.workbench import claim, disclaim, versions

HOSTS = "_hosts.json"
TABLES = {LENSES: TABLE, ONTO: "selection_onto.parquet"}
WANTED_HOSTS = 1000
"""Galaxies that arcs are painted on, where the survey has as many."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuredSelection:
    """What a measurement leaves."""

    report: str
    """Address of the report."""
    lines: tuple[str, ...]
    """Its figures."""

    def summary(self) -> str:
        """What the command prints."""
        return "\n".join([*self.lines, f"report: {self.report}"])


def measure_selection(plan: SelectionPlan) -> MeasuredSelection:
    """Make lenses, scan them, and write the selection function and its report.

    Raises
    ------
    InputError
        If the folder holds something else, no galaxy can be a host, or no lens reaches the threshold.
    LensRayError
        If nothing could be scored.
    """
    started, config = time.time(), plan.config
    connect()
    check_device(config.device)
    claim(config.output, "a selection function", config.settings())
    try:
        places, statuses = _hosts(plan)
    except InputError:
        disclaim(config.output)
        raise
    _make(plan, LENSES, DesignPart(plan))
    measured = {LENSES: _scanned(plan, LENSES, plan.space)}
    _check_found(plan, measured[LENSES])
    if places:
        _make(plan, ONTO, OntoPart(plan, places))
        ranges = {name: plan.space.ranges[name] for name in ON_GALAXIES if name in plan.space.ranges}
        measured[ONTO] = _with_true_foreground(plan, _scanned(plan, ONTO, Space(ranges=ranges)))
    for name, selection in measured.items():
        write_selection(selection, config.output, TABLES[name])
    report = SelectionReport(
        lenses=measured[LENSES],
        onto=measured.get(ONTO),
        survey=plan.survey,
        meaning=plan.meaning,
        host_statuses=statuses,
        run=_run_record(plan, started),
    )
    address = write_selection_report(report, config.output)
    return MeasuredSelection(report=address, lines=tuple(report.lines()))


def _make(plan: SelectionPlan, name: str, stage: "DesignPart | OntoPart") -> None:
    """Write the parts that are missing."""
    parts = plan.parts()
    missing = [part for part in parts if not storage.exists(_part_url(plan, name, part["part"]))]
    done = plan.config.count - sum(part["rows"] for part in missing)
    with Progress(name, total=plan.config.count, done=done, unit="lenses") as bar:
        make_parts(missing, stage, plan.config.device, bar)


def _part_url(plan: SelectionPlan, name: str, part: int) -> str:
    return storage.join(plan.config.output, name, f"part-{part:05d}.parquet")


def _columns(plan: SelectionPlan, part: dict) -> dict[str, np.ndarray]:
    """Parameters of the lenses of a part."""
    varied = design(plan.space.ranges, part["rows"], seed=plan.config.seed, first=part["first"])
    if "psf_factor" in varied:
        varied["psf_factor"] = rendered_widths(varied["psf_factor"], *plan.space.ranges["psf_factor"])
    return varied | {name: np.full(part["rows"], value) for name, value in plan.space.fixed.items()}


class DesignPart:
    """Simulates one part of the lenses and writes it."""

    def __init__(self, plan: SelectionPlan) -> None:
        self.plan = plan

    def __call__(self, parts: pa.Table) -> pa.Table:
        """Write the part named by the one row of `parts`; returns its number and rows."""
        (part,) = parts.to_pylist()
        plan = self.plan
        table = designed_table(
            plan.survey,
            np.arange(part["first"], part["first"] + part["rows"], dtype=np.int64),
            _columns(plan, part),
            seed=plan.config.seed,
            size=plan.size,
            device=plan.config.device,
        )
        return write_part(_part_url(plan, LENSES, part["part"]), part, table)


class OntoPart:
    """Puts one part of the lenses onto real galaxies and writes it."""

    def __init__(self, plan: SelectionPlan, places: list[Place]) -> None:
        self.plan = plan
        self.galaxies = [(place.path, place.row_group, row) for place in places for row in place.rows]

    def __call__(self, parts: pa.Table) -> pa.Table:
        """Write the part named by the one row of `parts`; returns its number and rows."""
        (part,) = parts.to_pylist()
        plan, hosts = self.plan, self.plan.hosts
        assert hosts is not None
        numbers = np.arange(part["first"], part["first"] + part["rows"], dtype=np.int64)
        # Lenses of one galaxy follow each other: neighbours in the sequence lie far apart in the space.
        owners = numbers * len(self.galaxies) // plan.config.count
        first, last = int(owners[0]), int(owners[-1])
        groups = itertools.groupby(self.galaxies[first : last + 1], key=lambda galaxy: galaxy[:2])
        places = [
            Place(path=path, row_group=group, rows=tuple(row for _, _, row in rows))
            for (path, group), rows in groups
        ]
        table = pa.concat_tables(read_places(hosts.url, places, columns_needed(hosts)))
        columns = _columns(plan, part)
        made = designed_onto_table(
            table,
            hosts,
            owners - first,
            numbers,
            {name: columns[name] for name in ON_GALAXIES},
            seed=plan.config.seed,
            faintest_i=_faintest(plan),
            device=plan.config.device,
        )
        return write_part(_part_url(plan, ONTO, part["part"]), part, made)


def _hosts(plan: SelectionPlan) -> tuple[list[Place], dict[str, int]]:
    """Galaxies that get arcs: those that were found before, or new ones; none if none are wanted."""
    if plan.hosts is None:
        return [], {}
    url = storage.join(plan.config.output, HOSTS)
    if storage.exists(url):
        kept = json.loads(storage.read_bytes(url))
        return [Place(**{**place, "rows": tuple(place["rows"])}) for place in kept["places"]], kept[
            "statuses"
        ]
    places, statuses = find_hosts(plan.hosts, WANTED_HOSTS, seed=plan.config.seed, faintest_i=_faintest(plan))
    found = sum(len(place.rows) for place in places)
    print(
        f"{found:,} plausible deflectors among {sum(statuses.values()):,} galaxies of {plan.hosts.url}",
        file=sys.stderr,
    )
    storage.write_bytes(
        url, json.dumps({"places": [asdict(place) for place in places], "statuses": statuses}).encode()
    )
    return places, statuses


def _scanned(plan: SelectionPlan, name: str, space: Space) -> Selection:
    """Scan a folder of lenses; returns them with their scores."""
    config = plan.config
    cutouts = storage.join(config.output, name)
    schema = storage.read_schema(cutouts)
    own = ("object_id", "ra", "dec", "image")
    scanned = plan_scan(
        ScanConfig(
            cutouts=cutouts,
            bundle=config.bundle,
            output=storage.join(config.output, SCAN_OF[name]),
            keep=tuple(column for column in schema.names if column not in own),
            resample=plan.resample,
            workers=config.workers,
            gpus_per_worker=config.gpus_per_worker,
        )
    )
    scan(scanned)
    ledger = Ledger(scanned.config.output)
    parts = [ledger.part_url(fragment) for fragment in scanned.fragments["fragment"].to_pylist()]
    lenses = pa.concat_tables(parquet.read_table(url) for url in parts).sort_by("object_id")
    # Scores are float32, and so is the score of a candidate; a lens without a score, NaN, is not found.
    found = lenses["score"].to_numpy(zero_copy_only=False) >= plan.threshold
    return Selection(
        space=space,
        threshold=plan.threshold,
        lenses=lenses.append_column("found", pa.array(found)),
        provenance=_provenance(plan),
    )


def _faintest(plan: SelectionPlan) -> float:
    given = plan.config.faintest_host
    return FAINTEST_I if given is None else given


def _with_true_foreground(plan: SelectionPlan, selection: Selection) -> Selection:
    """Lenses on real galaxies with the parameters of the simulated galaxies that measure as these do."""
    names = ("measured_mag", "measured_radius", "measured_ellipticity")
    seen, place = np.unique(
        np.column_stack([selection.column(name) for name in names]), axis=0, return_inverse=True
    )
    found = true_foreground(
        dict(zip(names, seen.T, strict=True)),
        plan.survey,
        size=plan.size,
        faintest_i=_faintest(plan),
        seed=plan.config.seed,
    )
    lenses = selection.lenses
    for name, values in found.items():
        lenses = lenses.append_column(name, pa.array(values[place.reshape(-1)]))
    return replace(selection, lenses=lenses)


def _check_found(plan: SelectionPlan, selection: Selection) -> None:
    if selection.column("found").any():
        return
    scores = selection.column("score").astype(np.float64)
    highest = f"{np.nanmax(scores):.6g}" if np.isfinite(scores).any() else "none"
    raise InputError(
        f"none of {len(scores):,} lenses reaches {plan.meaning} ({plan.threshold:.6g}): the highest score is {highest}, "
        f"{np.isnan(scores).sum():,} could not be scored; give a lower --threshold"
    )


def _provenance(plan: SelectionPlan) -> dict[str, Any]:
    return {
        "bundle": {"name": plan.config.bundle, "sha256": plan.sha256},
        "survey": plan.survey.name,
        "size": plan.size,
        "pixel_scale_arcsec": plan.survey.pixel_scale_arcsec,
        "bands": list(plan.survey.bands),
        "found_is": plan.meaning,
        "seed": plan.config.seed,
        "onto": plan.config.onto,
        "versions": versions(),
        "command": sys.argv,
    }


def _run_record(plan: SelectionPlan, started: float) -> dict[str, Any]:
    """The content of ``run.json``."""
    return {
        **_provenance(plan),
        "settings": json.loads(json.dumps(asdict(plan.config))),
        "threshold": plan.threshold,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "duration_s": round(time.time() - started, 1),
    }
