"""A survey ranked in one loop, without a cluster: for the plain workbench.

It writes what a recipe reads of a scan (candidates with their pixels, and the metrics), with the same scorer and the
same metrics as `lensray.distributed.scan`; it writes no ledger and no report, and cannot be resumed.
"""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lensray import bundle as bundles
from lensray import catalogs
from lensray.cutout_format import METADATA_KEY
from lensray.errors import InputError
from lensray.io import storage, tables
from lensray.metrics.scan_metrics import scan_metrics
from lensray.metrics.truth import TruthScores
from lensray.progress import Progress
from lensray.reading import read_formats, read_images
from lensray.scoring import Scorer
from lensray.survey_rows import TRUTH_COLUMNS
from lensray.training.examples import parts_of
from lensray.training.sets import row_groups


def scan(survey: str, bundle: str, output: str, *, top: int, resample: bool) -> None:
    """Score a survey; write ``candidates.parquet``, ``candidates.csv`` and ``metrics.json``."""
    scorer = Scorer(bundles.load(bundle))
    best, truth, seen = catalogs.TopK(top), TruthScores(), []
    with Progress("scan", total=len(parts_of([survey])), unit="row groups") as bar:
        for number, stored in enumerate(row_groups(survey)):
            scored = _score(stored, scorer, resample)
            best.add(scored, fragment=number)
            truth.add(scored["score"].to_numpy(), **_truth(scored))
            seen.append(scored.drop_columns(["image"]))
            bar.advance(1)
    _write(output, best, truth, seen)


def _score(stored: pa.Table, scorer: Scorer, resample: bool) -> pa.Table:
    """The rows with their score, and their image as stored."""
    inputs = scorer.bundle.inputs
    formats = read_formats(stored.schema, inputs)
    fmt = formats[inputs.column]
    same = fmt.shape[1:] == (inputs.height, inputs.width)
    if (
        not (same and np.isclose(fmt.pixel_scale_arcsec, inputs.pixel_scale_arcsec, rtol=0.01))
        and not resample
    ):
        raise InputError(
            "the survey's cutouts have another size or pixel scale than the bundle's; resample them"
        )
    images, status = read_images(stored, formats, inputs)
    names = ["object_id", "ra", "dec", *(name for name in TRUTH_COLUMNS if name in stored.column_names)]
    table = stored.select(names).append_column("status", pa.array(status, pa.string()))
    scored = scorer(table.append_column(inputs.column, tables.tensor_column(images)))
    return scored.append_column(
        stored.schema.field(inputs.column), stored[inputs.column]
    ).replace_schema_metadata({METADATA_KEY: stored.schema.metadata[METADATA_KEY]})


def _truth(scored: pa.Table) -> dict[str, Any]:
    return {
        name: scored[name].to_numpy(zero_copy_only=False)
        for name in TRUTH_COLUMNS
        if name in scored.column_names
    }


def _write(output: str, best: catalogs.TopK, truth: TruthScores, seen: list[pa.Table]) -> None:
    candidates = best.table()
    counts = truth.counts(extra=candidates["score"].to_numpy())
    for number, scored in enumerate(seen):
        counts.add(scored["score"].to_numpy(), **_truth(scored))
        with storage.atomic_output(storage.join(output, "scores", f"part-{number:06d}.parquet")) as file:
            pq.write_table(scored, file)
    metrics = scan_metrics(truth, counts)
    ranked = catalogs.with_ordinality(candidates, counts.ordinality(candidates["score"].to_numpy()))
    catalogs.write_candidates(ranked, output)
    content = metrics.to_json() if metrics else {}
    storage.write_bytes(storage.join(output, "metrics.json"), json.dumps(content, indent=1).encode())
