"""The end of a scan: the ranked candidates, the metrics, the record of the run and the report.

Nothing here sorts the survey: `lensray.distributed.passes` finds the candidates and the exact ranks.
"""

import json
import platform
import time
from collections import Counter
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import torch

import lensray
from lensray import catalogs, cutouts
from lensray.bundle import Bundle
from lensray.distributed import passes
from lensray.distributed.ledger import Ledger
from lensray.distributed.planning import ScanPlan, calibration_of, known_lenses_of, settings_of
from lensray.distributed.stages import read_slice
from lensray.errors import LensRayError
from lensray.inspection.report import ReportData, write_report
from lensray.io import storage
from lensray.known_lenses import KnownLenses, match_known
from lensray.metrics.scan_metrics import ScanMetrics, scan_metrics
from lensray.metrics.truth import TruthCounts, TruthScores
from lensray.pixels import SCORED, Status
from lensray.reading import ImageReader

PACKAGES = ("ray", "torch", "numpy", "pyarrow", "astropy", "scipy", "safetensors")


@dataclass(frozen=True, kw_only=True, slots=True)
class ScanResult:
    """What came of a scan."""

    run: dict[str, Any]
    """The content of ``run.json``."""
    metrics: dict[str, Any] | None
    """The content of ``metrics.json``; None where the survey has neither tracers nor labels."""
    report: str
    """Address of the report."""

    def summary(self) -> str:
        """A few lines for the terminal."""
        run = self.run
        lines = [
            f"{run['rows']:,} cutouts, {run['rows_scored']:,} scored, {run['rows'] - run['rows_scored']:,} with a "
            f"reason why not{_reasons(run['invalid'])}",
            _rate(run),
        ]
        if self.metrics and self.metrics["ranking_performance"] is not None:
            top = ", ".join(
                f"{found} in the top {depth}" for depth, found in self.metrics["tracers_in_top"].items()
            )
            lines.append(
                f"ranking performance {self.metrics['ranking_performance']:.4f} "
                f"({self.metrics['measured_on']['ranking_performance']}){'; ' if top else ''}{top}"
            )
        if run.get("known_lenses"):
            lines.append(_known(run["known_lenses"]))
        if not run["rows_scored"]:
            lines.append("nothing was scored: see the reasons above, and docs/formats.md for what they mean")
        if run["invalid"].get("failed") or run["invalid"].get("unreadable"):
            lines.append("the same command tries the failed and unreadable rows again")
        return "\n".join([*lines, f"report: {self.report}"])


def _rate(run: dict[str, Any]) -> str:
    if not run["rows_this_run"]:
        return "all fragments had been scored before; ranked again"
    return f"{run['cutouts_per_s']:,.0f} cutouts/s over {run['scoring_s']:,.1f} s ({run['actors']} actors, {run['device']})"


def _known(known: dict[str, Any]) -> str:
    left_out = f", {known['left_out']:,} rows without a position left out" if known["left_out"] else ""
    return (
        f"{known['candidates_known']:,} of {known['candidates']:,} candidates are within {known['radius_arcsec']:g} arcsec of a "
        f"known lens ({known['lenses']:,} of {known['table']}{left_out})"
    )


def _reasons(invalid: dict[str, int]) -> str:
    return f" ({', '.join(f'{count:,} {reason}' for reason, count in invalid.items())})" if invalid else ""


def finish(
    plan: ScanPlan, bundle: Bundle, ledger: Ledger, *, started: float, command: list[str]
) -> ScanResult:
    """Rank, measure and report a scan whose fragments are all done.

    Raises
    ------
    LensRayError
        If a fragment has no done-marker.
    """
    fragments = plan.fragments["fragment"].to_pylist()
    missing = set(fragments) - ledger.done()
    if missing:
        raise LensRayError(f"{len(missing)} of {len(fragments)} fragments are not done")
    parts = [(fragment, ledger.part_url(fragment)) for fragment in fragments]
    first = passes.merged(passes.map_chunks(passes.first_pass, parts, plan.config.top))
    top = first.top.table()
    counts = first.truth.counts(extra=top["score"].to_numpy())
    for counted in passes.map_chunks(passes.second_pass, parts, ray.put(counts)):
        counts.merge(counted)
    metrics = scan_metrics(first.truth, counts, lens_rate=plan.config.lens_rate)
    known = known_lenses_of(plan.config)
    candidates = candidate_table(plan, top, first.top.origins(), counts, known)
    run = run_record(plan, bundle, first.statuses, ledger.sessions(), started, command)
    run["known_lenses"] = known_record(known, plan.config.known_radius, candidates)
    return write_outputs(plan, bundle, candidates, metrics, first.truth, run)


# --- candidates -----------------------------------------------------------------------------------------


def candidate_table(
    plan: ScanPlan, top: pa.Table, origins: pa.Table, counts: TruthCounts, known: KnownLenses | None = None
) -> pa.Table:
    """The candidates in their rank's order, with ordinality, probability, known lenses, and the image as the survey stores it."""
    names = ["rank", "object_id", "ra", "dec", "score", *plan.columns[3:]]
    names += [name for name in top.column_names if name.startswith("score_")]
    table = catalogs.with_ordinality(top.select(names), counts.ordinality(top["score"].to_numpy()))
    calibration = calibration_of(plan.config, plan.header)
    if calibration is not None:
        found = calibration.probabilities(top["score"].to_numpy(), plan.config.lens_rate)
        table = catalogs.with_probability(table, found)
    if known is not None:
        table = match_known(table, known, plan.config.known_radius)
    metadata = cutouts.cutout_schema(plan.format).metadata
    return table.append_column("image", candidate_images(plan, origins)).replace_schema_metadata(metadata)


def candidate_images(plan: ScanPlan, origins: pa.Table) -> pa.Array:
    """Pixels of the candidates, read again from the survey (the scan itself carries none)."""
    images = np.zeros((origins.num_rows, *plan.format.shape), plan.format.dtype)
    fragments, rows = origins["fragment"].to_numpy(), origins["row"].to_numpy()
    numbers = np.unique(fragments)
    plan_rows = plan.fragments.take(pa.array(numbers)).to_pylist()
    wanted = [(row, rows[fragments == row["fragment"]].tolist()) for row in plan_rows]
    for pairs in passes.map_chunks(_read_images, wanted, plan.survey, plan.images, plan.format.column):
        for number, pixels in pairs:
            images[fragments == number] = pixels
    return cutouts.tensor_column(images)


def _read_images(
    wanted: list[tuple[dict, list[int]]], survey: str, images: ImageReader, column: str
) -> list[tuple[int, np.ndarray]]:
    """(fragment, images of its wanted rows) of some fragments."""
    found = []
    for fragment, rows in wanted:
        table = read_slice(survey, fragment, images.columns).take(pa.array(rows)).combine_chunks()
        found.append((fragment["fragment"], images(table)[0][column].copy()))
    return found


def known_record(
    known: KnownLenses | None, radius_arcsec: float, candidates: pa.Table
) -> dict[str, Any] | None:
    """What ``run.json`` says of known lenses; None where no list was given."""
    if known is None:
        return None
    return {
        "table": known.url,
        "sha256": known.sha256,
        "lenses": len(known.ra),
        "left_out": known.left_out,
        "radius_arcsec": radius_arcsec,
        "candidates": candidates.num_rows,
        "candidates_known": candidates.num_rows - candidates["known_lens"].null_count,
    }


# --- records --------------------------------------------------------------------------------------------


def run_record(
    plan: ScanPlan,
    bundle: Bundle,
    statuses: Counter[str],
    sessions: list[dict],
    started: float,
    command: list[str],
) -> dict[str, Any]:
    """The content of ``run.json``."""
    if statuses.total() != plan.rows:
        raise LensRayError(
            f"{statuses.total():,} rows came out of {plan.rows:,}; please report this as a bug"
        )
    scored = sum(statuses[name] for name in SCORED)
    invalid = {reason: n for reason, n in sorted(statuses.items()) if reason not in SCORED}
    return {
        "rows": plan.rows,
        "rows_scored": scored,
        "rows_filled_nan": statuses[Status.FILLED_NAN],
        "invalid": invalid,
        "fragments": plan.fragments.num_rows,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "duration_s": round(time.time() - started, 3),
        **scoring_record(sessions, started),
        "device": _device(sessions),
        "survey": {
            "cutouts": plan.survey,
            **({"images": plan.config.images} if plan.config.images else {}),
            "survey": plan.format.survey,
            "bands": list(plan.format.bands),
            "pixel_scale_arcsec": plan.format.pixel_scale_arcsec,
            "shape": list(plan.format.shape),
            "dtype": str(plan.format.dtype),
            "sha256": plan.identity["input"],
        },
        "bundle": {
            "name": plan.config.bundle,
            "sha256": bundle.sha256,
            "architecture": bundle.architecture,
            "normalization": plan.header.normalization,
            "precision": bundle.precision,
            "classes": list(bundle.classes),
            "positive_classes": list(plan.config.classes or bundle.positive_classes),
            "provenance": dict(bundle.provenance),
        },
        "settings": settings_of(plan.config),
        "fingerprint": plan.fingerprint,
        "versions": {
            "lensray": lensray.__version__,
            "python": platform.python_version(),
            **{name: version(name) for name in PACKAGES},
        },
        "command": command,
    }


def scoring_record(sessions: list[dict], started: float) -> dict[str, Any]:
    """Time and rate of scoring, over the sessions that came to their end (a killed one leaves no time)."""
    rows = sum(session["rows"] for session in sessions)
    seconds = sum(session["scoring_s"] for session in sessions)
    return {
        "sessions": len(sessions),
        "scoring_s": round(seconds, 3),
        "cutouts_per_s": round(rows / seconds, 1) if rows else None,
        "rows_this_run": sum(session["rows"] for session in sessions if session["started"] == started),
        "actors": sessions[-1]["actors"] if sessions else 0,
    }


def _device(sessions: list[dict]) -> str:
    """What scored, by the last session."""
    if not sessions or not sessions[-1]["gpus"]:
        return f"CPU, {platform.machine()}"
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "GPU"


def write_outputs(
    plan: ScanPlan,
    bundle: Bundle,
    candidates: pa.Table,
    metrics: ScanMetrics | None,
    truth: TruthScores,
    run: dict[str, Any],
) -> ScanResult:
    """Write candidates, metrics, report and, last, the record of the run."""
    output = plan.config.output
    catalogs.write_candidates(candidates, output)
    if metrics is not None:
        storage.write_bytes(storage.join(output, "metrics.json"), _json(metrics.to_json()))
    report = write_report(
        output,
        ReportData(
            run=run,
            metrics=metrics,
            candidates=candidates,
            histogram=truth.histogram,
            bands=plan.format.bands,
            bundle=bundle,
        ),
    )
    storage.write_bytes(storage.join(output, "run.json"), _json(run))
    return ScanResult(run=run, metrics=metrics.to_json() if metrics else None, report=report)


def _json(content: dict[str, Any]) -> bytes:
    return json.dumps(content, indent=1, allow_nan=False).encode()
