"""Stamps to a cutout survey: bands named, brought to one pixel scale and size, with positions and labels.

A stamp that cannot be read stays a row, with a null image that a scan gives a status; NaN pixels stay NaN for
the same reason.
"""

from collections.abc import Iterator
from itertools import chain

import numpy as np
import pyarrow as pa

from lensray.cutouts import (
    CutoutFormat,
    fit_cutouts,
    make_table,
    tensor_column,
    without_pixel_scale,
    write_survey,
)
from lensray.errors import InputError
from lensray.extraction.config import MadeSurvey, MakeCutoutsConfig
from lensray.extraction.object_ids import refuse_known_ids
from lensray.extraction.stamp_files import Layout, Stamp, find_stamps, read_stamps
from lensray.survey import SURVEYS

BATCH_BYTES = 16 << 20
SAME_SCALE = 0.01


class _Target:
    """The format that all stamps are brought to, fixed by the options and the first readable stamp."""

    def __init__(self, config: MakeCutoutsConfig, first: Stamp) -> None:
        assert first.planes is not None
        self.config = config
        self.input_bands = _band_names(config, len(first.planes))
        self.scale = self.input_scale(first)
        resampled = config.pixel_scale is not None and self.scale is not None
        self.format = CutoutFormat(
            survey=config.survey,
            bands=config.keep_bands or self.input_bands,
            # Any number serves as long as none is resampled; it is not written.
            pixel_scale_arcsec=config.pixel_scale or self.scale or 1.0,
            shape=(len(config.keep_bands or self.input_bands), *_size(config, first.planes, self.scale)),
            dtype=np.dtype(np.uint8 if first.planes.dtype == np.uint8 and not resampled else np.float32),
        )
        self.scale_known = (config.pixel_scale or self.scale) is not None

    def input_scale(self, stamp: Stamp) -> float | None:
        """Pixel scale of a stamp, in arcsec."""
        known = SURVEYS.get(self.config.survey)
        of_survey = known.pixel_scale_arcsec if known else None
        return self.config.input_pixel_scale or stamp.pixel_scale_arcsec or of_survey

    def fit(self, stamp: Stamp) -> np.ndarray:
        """The stamp's image in the survey's format, shape (bands, height, width)."""
        planes = stamp.planes
        assert planes is not None
        if len(planes) != len(self.input_bands):
            raise InputError(
                f"{stamp.file} has {len(planes)} planes but the bands are {', '.join(self.input_bands)}; name one a plane"
            )
        if (
            self.config.size is None
            and self.config.pixel_scale is None
            and planes.shape[1:] != self.format.shape[1:]
        ):
            raise InputError(
                f"{stamp.file} has {planes.shape[1]}×{planes.shape[2]} pixels but the first stamp "
                f"{self.format.shape[1]}×{self.format.shape[2]}; pass --size"
            )
        given = CutoutFormat(
            bands=self.input_bands,
            pixel_scale_arcsec=self._scale_of(stamp),
            shape=planes.shape,  # pyright: ignore[reportArgumentType]
        )
        size = (self.format.shape[1], self.format.shape[2])
        image = fit_cutouts(planes[None], given, self.format.bands, size, self.format.pixel_scale_arcsec)[0]
        if not np.can_cast(image.dtype, self.format.dtype):
            raise InputError(
                f"{stamp.file} has other pixels than bytes, unlike the first stamp; make them two surveys"
            )
        return image.astype(self.format.dtype, copy=False)

    def _scale_of(self, stamp: Stamp) -> float:
        wanted, scale = self.config.pixel_scale, self.input_scale(stamp)
        if scale is None:
            if wanted is not None:
                raise InputError(
                    f"{stamp.file} does not tell its pixel scale; pass --input-pixel-scale (arcsec)"
                )
            return self.format.pixel_scale_arcsec
        if wanted is None and abs(scale / self.format.pixel_scale_arcsec - 1) > SAME_SCALE:
            raise InputError(
                f"{stamp.file} has {scale:.4g} arcsec pixels but the first stamp {self.format.pixel_scale_arcsec:.4g}; "
                "pass --pixel-scale to bring them to one"
            )
        return scale if wanted is not None else self.format.pixel_scale_arcsec


def _band_names(config: MakeCutoutsConfig, planes: int) -> tuple[str, ...]:
    known = SURVEYS.get(config.survey)
    of_survey = known.bands if known and len(known.bands) == planes else ()
    names = config.bands or of_survey or tuple(f"band_{i + 1}" for i in range(planes))
    missing = [band for band in config.keep_bands if band not in names]
    if missing:
        raise InputError(f"--keep-bands names {', '.join(missing)}, but the bands are {', '.join(names)}")
    return names


def _size(config: MakeCutoutsConfig, planes: np.ndarray, scale: float | None) -> tuple[int, int]:
    """Height and width of the survey's cutouts; without --size the field of view stays that of the first."""
    if config.size is not None:
        return config.size, config.size
    zoom = scale / config.pixel_scale if scale and config.pixel_scale else 1.0
    return max(1, round(planes.shape[1] * zoom)), max(1, round(planes.shape[2] * zoom))


def make_survey(config: MakeCutoutsConfig) -> MadeSurvey:
    """Write the stamps' survey; nothing is left if it fails.

    Raises
    ------
    InputError
        If there are no stamps, none can be read, they do not fit together, or an object id is in the survey
        that they are added to.
    """
    layout = Layout(
        bands=config.bands,
        hdus=config.hdus,
        each_hdu=config.each_hdu,
        stack=config.stack,
        dataset=config.dataset,
    )
    files = find_stamps(config.stamps, config.bands)
    stamps = chain.from_iterable(read_stamps(entry, layout) for entry in files)
    waiting, first = _until_readable(stamps)
    target = _Target(config, first)
    problems: list[str] = []
    tables = _tables(chain(waiting, [first], stamps), target, problems)
    if config.append:
        tables = refuse_known_ids(tables, config.output)
    rows = write_survey(tables, config.output, target.format, append=config.append)
    return MadeSurvey(
        format=target.format,
        rows=rows,
        unreadable=len(problems),
        first_problem=problems[0] if problems else None,
        pixel_scale_known=target.scale_known,
    )


def _until_readable(stamps: Iterator[Stamp]) -> tuple[list[Stamp], Stamp]:
    """The stamps before the first that can be read, and that one."""
    unreadable: list[Stamp] = []
    for stamp in stamps:
        if stamp.planes is not None:
            return unreadable, stamp
        unreadable.append(stamp)
    if not unreadable:
        raise InputError("the stamps hold no object; give files with at least one image")
    first = unreadable[0]
    raise InputError(
        f"none of {len(unreadable)} stamps can be read; the first, {first.file}: {first.problem}"
    )


def _tables(stamps: Iterator[Stamp], target: _Target, problems: list[str]) -> Iterator[pa.Table]:
    """Tables of a bounded number of stamps; says in `problems` which could not be read."""
    rows = max(1, BATCH_BYTES // (int(np.prod(target.format.shape)) * target.format.dtype.itemsize))
    batch: list[Stamp] = []
    images: list[np.ndarray] = []
    for stamp in stamps:
        if stamp.planes is None:
            problems.append(f"{stamp.file}: {stamp.problem}")
        batch.append(stamp)
        blank = np.zeros(target.format.shape, target.format.dtype)
        images.append(blank if stamp.planes is None else target.fit(stamp))
        if len(batch) == rows:
            yield _table(batch, images, target)
            batch, images = [], []
    if batch:
        yield _table(batch, images, target)


def _table(batch: list[Stamp], images: list[np.ndarray], target: _Target) -> pa.Table:
    config, count = target.config, len(batch)
    label = None if config.label is None else config.label == "lens"
    table = make_table(
        target.format,
        [config.id_prefix + stamp.name for stamp in batch],
        tensor_column(np.stack(images), null=np.array([stamp.planes is None for stamp in batch])),
        ra=pa.array([stamp.ra for stamp in batch], pa.float64()),
        dec=pa.array([stamp.dec for stamp in batch], pa.float64()),
        label=pa.array([label] * count, pa.bool_()),
        is_tracer=pa.array([config.tracer] * count, pa.bool_()),
        file=pa.array([stamp.file for stamp in batch], pa.string()),
    )
    return table if target.scale_known else without_pixel_scale(table)
