"""A cutout survey of the sources in mosaics, made on Ray: a file a fragment, by its place alone."""

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lensray.cutout_format import CutoutFormat
from lensray.cutouts import add_images, fit_cutouts, make_table, tensor_column
from lensray.distributed.extraction import make_sources
from lensray.distributed.extraction_plan import ExtractionPlan
from lensray.distributed.planning import cut_fragments
from lensray.distributed.simulate import make_parts, write_part
from lensray.distributed.stages import read_slice
from lensray.extraction.config import MakeCutoutsConfig
from lensray.extraction.mosaic_images import beyond_edges
from lensray.extraction.object_ids import with_prefix
from lensray.extraction.tile_table import read_tiles
from lensray.io import storage
from lensray.pixels import Status
from lensray.progress import Progress


@dataclass(frozen=True, kw_only=True, slots=True)
class CutSources:
    """What became of the sources in mosaics."""

    output: str
    """Address of the survey."""
    format: CutoutFormat
    """Of its first column of images."""
    statuses: Counter[str]
    """Rows by ``cut_status``."""
    padded: int
    """Rows whose frame reaches beyond the edge of the mosaic."""
    plan: ExtractionPlan
    """What was asked for."""

    def summary(self) -> str:
        """Some lines for the terminal."""
        rows, fmt = self.statuses.total(), self.format
        reasons = {reason: n for reason, n in sorted(self.statuses.items()) if reason != Status.OK}
        said = ", ".join(f"{count:,} {reason}" for reason, count in reasons.items())
        lines = [
            f"{self.output}: {rows:,} cutouts of {'×'.join(map(str, fmt.shape))} {fmt.dtype} ({', '.join(fmt.bands)}; "
            f"{fmt.pixel_scale_arcsec:.4g} arcsec pixels) from {len(self.plan.tiles):,} tiles",
        ]
        if reasons:
            lines.append(f"{sum(reasons.values()):,} have no image and are rows without one: {said}")
        if self.padded:
            lines.append(
                f"{self.padded:,} reach beyond the edge of their mosaic, with NaN pixels there (column padded)"
            )
        return "\n".join(lines)


def cut_sources(config: MakeCutoutsConfig, plan: ExtractionPlan) -> CutSources:
    """Write what is still missing of the survey (errors as of `make_sources`)."""
    make_sources(plan)
    footers = storage.read_footers(plan.sources)
    row_bytes = 2 * sum(4 * int(np.prod(fmt.shape)) for fmt in plan.formats.values())
    fragments = cut_fragments(
        [(entry.path, footer.metadata) for entry, footer in footers], row_bytes
    ).to_pylist()
    filesystem, path = storage.resolve(config.output)
    there = set(storage.list_names(filesystem, path))
    missing = [row for row in fragments if _file_name(row["fragment"]) not in there]
    total = sum(row["rows"] for row in fragments)
    done = total - sum(row["rows"] for row in missing)
    with Progress("cut", total=total, done=done, unit="cutouts") as bar:
        make_parts(missing, CutPart(config, plan), "cpu", bar)
    statuses, padded = _outcome(config.output, [_file_name(row["fragment"]) for row in fragments])
    return CutSources(
        output=config.output, format=written_format(config, plan), statuses=statuses, padded=padded, plan=plan
    )


def _file_name(fragment: int) -> str:
    return f"part-{fragment:05d}.parquet"


def written_format(config: MakeCutoutsConfig, plan: ExtractionPlan) -> CutoutFormat:
    """Format of the survey's first column: of the mosaics' pixels, or resampled."""
    cut = next(iter(plan.formats.values()))
    size = config.size_or_default()
    return replace(
        cut,
        pixel_scale_arcsec=config.pixel_scale or cut.pixel_scale_arcsec,
        shape=(len(cut.bands), size, size),
    )


class CutPart:
    """Cuts the sources of a fragment and writes them."""

    def __init__(self, config: MakeCutoutsConfig, plan: ExtractionPlan) -> None:
        self.config, self.plan = config, plan

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Write the part named by the one row of `rows`; returns its number and rows."""
        (fragment,) = rows.to_pylist()
        names = pq.read_schema(fragment["path"], filesystem=storage.resolve(self.plan.sources)[0]).names
        table = self.cutouts(read_slice(self.plan.sources, fragment, tuple(names)))
        part = {"part": fragment["fragment"], "rows": fragment["rows"]}
        return write_part(storage.join(self.config.output, _file_name(part["part"])), part, table)

    def cutouts(self, sources: pa.Table) -> pa.Table:
        """The survey's rows of some sources."""
        config, images = self.config, self.plan.images
        column, *further = self.plan.formats
        pixels, status = images(sources)
        fmt = written_format(config, self.plan)
        fitted = fit_cutouts(
            pixels[column], self.plan.formats[column], fmt.bands, fmt.shape[1:], fmt.pixel_scale_arcsec
        )
        null, ids = status != Status.OK, sources["object_id"]
        own = {"object_id", "ra", "dec", "cut_status", *(name for name in images.columns if name != "tile")}
        kept = {name: sources[name].combine_chunks() for name in sources.column_names if name not in own}
        padded = beyond_edges(
            sources, read_tiles(images.tiles).values(), column, self.plan.formats[column].shape[1]
        )
        if config.label is not None:
            kept["label"] = pa.array([config.label == "lens"] * len(null), pa.bool_())
        if config.tracer:
            kept["is_tracer"] = pa.array([True] * len(null), pa.bool_())
        table = make_table(
            fmt,
            (with_prefix(ids, config.id_prefix) if config.id_prefix else ids).combine_chunks(),
            tensor_column(fitted, null=null),
            ra=sources["ra"].combine_chunks(),
            dec=sources["dec"].combine_chunks(),
            **kept,
            cut_status=pa.array(status, pa.string()),
            padded=pa.array(padded & ~null),
        )
        for name in further:
            table = add_images(table, self.plan.formats[name], pixels[name], null=null)
        return table


def _outcome(output: str, names: list[str]) -> tuple[Counter[str], int]:
    """Rows by status, and how many are padded."""
    filesystem, path = storage.resolve(output)
    statuses: Counter[str] = Counter()
    padded = 0
    for name in names:
        table = pq.read_table(f"{path}/{name}", columns=["cut_status", "padded"], filesystem=filesystem)
        statuses.update(table["cut_status"].to_pylist())
        padded += sum(table["padded"].to_pylist())
    return statuses, padded
