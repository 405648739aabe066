"""The training set of a phase: labelled cutouts, checked and normalized once, held in memory.

Each row group of the surveys is read, its pixels are checked, brought to the network's bands and size, and normalized;
what cannot be used is left out and counted by its status. Pixels stay in memory as uint8 where the normalization gives
256 levels and as float16 elsewhere: 12 KB for a cutout of 3×64×64, so that a million of them, or the
thesis' pool of 50,000 in every worker, fit. Batches are then drawn from memory, in an order that depends on the seed
alone and not on how many workers share them.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypedDict, TypeGuard

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from lensray.errors import InputError
from lensray.io import storage, tables
from lensray.normalization import Normalization, PercentileClip
from lensray.pixels import SCORED
from lensray.reading import lacking_bands, read_formats, read_images
from lensray.training.phases import Phase

NO_LABEL = "no_label"
"""Status of a row without the label, or a target, that the phase asks for."""
MICRO_BATCH = 128
LEVELS = 255


class Part(TypedDict):
    """A row group of a survey."""

    part: int
    url: str
    path: str
    row_group: int


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Examples:
    """Labelled images in memory."""

    images: Tensor
    """Normalized images, shape (N, bands, height, width): uint8 of 256 levels of [0, 1], or float16."""
    labels: Tensor
    """Class of each, 0 or 1, int64, shape (N,); for a regression float32 of shape (N, targets)."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Rows that were left out, by status."""

    def __len__(self) -> int:
        return len(self.labels)

    def on(self, device: torch.device) -> "Examples":
        """The examples in the memory of a GPU, if half of what is free there holds them; else where they are.

        Batches are then drawn and augmented on the GPU, and nothing but their numbers travels.
        """
        if device.type != "cuda" or self.images.nbytes > torch.cuda.mem_get_info(device)[0] // 2:
            return self
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))


def to_float(images_BCHW: Tensor) -> Tensor:
    """Images of `Examples` as the network takes them."""
    images = images_BCHW.float()
    return images.div_(LEVELS) if images_BCHW.dtype == torch.uint8 else images


def parts_of(urls: Sequence[str]) -> list[Part]:
    """The row groups of some surveys, in the order of urls, files and rows."""
    parts: list[Part] = []
    for url in urls:
        for entry, footer in storage.read_footers(url):
            parts += [
                Part(part=len(parts) + group, url=url, path=entry.path, row_group=group)
                for group in range(footer.metadata.num_row_groups)
            ]
    return parts


def check_columns(urls: Sequence[str], phase: Phase) -> None:
    """Whether surveys can be training sets of a phase.

    Raises
    ------
    InputError
        If they lack the label, a target, a band or the pixel scale.
    """
    for url in urls:
        schema = storage.read_schema(url)
        _check_bands(url, schema, phase)
        missing = [name for name in wanted_columns(phase) if name not in schema.names]
        if missing:
            raise InputError(
                f"{url} has no column {', '.join(map(repr, missing))}, which phase {phase.name} learns from; "
                f"its columns are {[name for name in schema.names if not name.startswith('image')]}"
            )
        for name in wanted_columns(phase):
            kind = schema.field(name).type
            if phase.targets and not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
                raise InputError(f"column {name!r} of {url} must be a number but is {kind}")
            if not phase.targets and kind != pa.bool_():
                raise InputError(f"column {name!r} of {url} must be bool but is {kind}")


def _check_bands(url: str, schema: pa.Schema, phase: Phase) -> None:
    for part, bands in lacking_bands(schema, phase.inputs):
        raise InputError(
            f"phase {phase.name} needs the bands {list(part.bands)} but {part.column!r} of {url} has {list(bands)}"
        )


def check_labels(urls: Sequence[str], phase: Phase) -> None:
    """Whether surveys have both classes; reads the labels alone.

    Raises
    ------
    InputError
        As `check_columns`, or if a class is missing.
    """
    check_columns(urls, phase)
    if not phase.needs_both_classes:
        return
    lenses = rows = 0
    for part in parts_of(urls):
        filesystem, _ = storage.resolve(part["url"])
        with filesystem.open_input_file(part["path"]) as source, pq.ParquetFile(source) as file:
            labels = file.read_row_group(part["row_group"], columns=[phase.label])[phase.label]
        rows += len(labels) - labels.null_count
        lenses += int(pc.call_function("sum", [labels]).as_py() or 0)
    check_both_classes(lenses, rows, phase)


def check_both_classes(lenses: int, images: int, phase: Phase, left_out: str = "") -> None:
    """Raise InputError unless there are images of both classes."""
    if lenses in (0, images):
        raise InputError(
            f"phase {phase.name} needs images with {phase.label} true and false; of {images} {lenses} are true{left_out}"
        )


def wanted_columns(phase: Phase) -> tuple[str, ...]:
    """Columns with what a phase learns."""
    return phase.targets or (phase.label,)


def read_part(part: Part, phase: Phase) -> pa.Table:
    """One row group as training examples.

    Returns
    -------
    pyarrow.Table
        ``part``, ``image`` (tensor, normalized), ``label`` (list of float32, one a target, or the class) and
        ``status`` (a scored one where the row can be used).
    """
    filesystem, _ = storage.resolve(part["url"])
    with filesystem.open_input_file(part["path"]) as source, pq.ParquetFile(source) as file:
        table = file.read_row_group(
            part["row_group"],
            columns=["object_id", "ra", "dec", *phase.inputs.columns, *wanted_columns(phase)],
        )
    images, status = read_images(table, read_formats(table.schema, phase.inputs), phase.inputs)
    labels = np.column_stack([_numbers(table[name]) for name in wanted_columns(phase)])
    status = np.where(np.isfinite(labels).all(1), status, NO_LABEL).astype(object)
    return pa.table(
        {
            "part": pa.array(np.full(len(labels), part["part"])),
            "image": tables.tensor_column(_normalized(images, phase.normalization)),
            "label": pa.FixedSizeListArray.from_arrays(
                pa.array(labels.ravel(), pa.float32()), labels.shape[1]
            ),
            "status": pa.array(status, pa.string()),
        }
    )


def _numbers(column: pa.ChunkedArray) -> NDArray[np.float32]:
    """A column as numbers, NaN where it is null."""
    values = column.cast(pa.int8()) if column.type == pa.bool_() else column
    return values.cast(pa.float32()).to_numpy(zero_copy_only=False)


def _normalized(images: NDArray, normalization: Normalization) -> NDArray:
    """Images after the normalization, in the type in which they are held."""
    to_bytes = normalization.to_uint8 if _is_exact(normalization) else None
    made = np.empty(images.shape, np.uint8 if to_bytes else np.float16)
    limit = float(np.finfo(np.float16).max)
    for start in range(0, len(images), MICRO_BATCH):
        batch = torch.from_numpy(images[start : start + MICRO_BATCH].copy())
        part = to_bytes(batch) if to_bytes else normalization(batch).clamp(-limit, limit)
        made[start : start + len(part)] = part.numpy()
    return made


def _is_exact(normalization: Normalization) -> TypeGuard[PercentileClip]:
    """Whether it gives 256 levels, which uint8 holds."""
    return isinstance(normalization, PercentileClip) and normalization.quantize


def gather(blocks: Iterable[pa.Table], phase: Phase) -> Examples:
    """The examples of all row groups, in the order of the parts, from whichever order they come in.

    Raises
    ------
    InputError
        If there is none, or none of one of the classes.
    """
    found = sorted((block for block in blocks if block.num_rows), key=lambda block: block["part"][0].as_py())
    images, labels, left_out = [], [], Counter()
    for block in found:
        status = np.asarray(block["status"].to_pylist(), object)
        usable = np.isin(status, SCORED)
        left_out.update(status[~usable].tolist())
        pixels = tables.one_array(block["image"]).to_numpy_ndarray()
        images.append(torch.from_numpy(pixels[usable]))
        values = tables.one_array(block["label"]).values.to_numpy().reshape(len(status), -1)
        labels.append(torch.from_numpy(values[usable]))
    made = torch.cat(labels) if labels else torch.empty(0, 1)
    if not phase.targets:
        made = made[:, 0].long()
    examples = Examples(
        images=torch.cat(images) if images else torch.empty(0), labels=made, left_out=left_out
    )
    _check_classes(examples, phase)
    return examples


def _check_classes(examples: Examples, phase: Phase) -> None:
    counts = ", ".join(f"{count} {status}" for status, count in examples.left_out.items())
    left_out = f" (left out: {counts})" if counts else ""
    if len(examples) == 0:
        raise InputError(f"phase {phase.name} has no usable image{left_out}")
    if phase.needs_both_classes:
        check_both_classes(int((examples.labels == 1).sum()), len(examples), phase, left_out)


def read_examples(urls: Sequence[str], phase: Phase) -> Examples:
    """Read the training set of a phase, in this process (errors as of `check_columns` and `gather`)."""
    check_columns(urls, phase)
    return gather((read_part(part, phase) for part in parts_of(urls)), phase)
