"""A model bundle applied to a table of cutouts: pixels in, one score a row out.

Pixels travel as stored to the device (uint8 stays uint8), are normalized there, and only scores come back. The work
is cut into micro-batches: on a CPU a larger batch spends its time in page faults and leaves the caches, on a GPU a
smaller one leaves it idle. A `Scorer` is a plain callable; Ray's actors hold one each.
"""

import logging
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from lensray import models
from lensray.bundle import Bundle, check_classes, load
from lensray.io import tables
from lensray.pixels import SCORED, Status
from lensray.reading import read_formats, read_images

NON_FINITE_SCORE = "non_finite_score"
"""Status of a row for which the network gave NaN or infinity."""

# Images a micro-batch. On one Zen 4 core LensFlow scores 257 images/s in micro-batches of 16, 240 in 64, EZnet 411 and
# 440; in batches of 256 and without channels_last it is 119 and 204. A GPU takes what its memory holds.
CPU_MICRO_BATCH_PER_THREAD = 16
CUDA_MICRO_BATCH = 4096


log = logging.getLogger(__name__)


class Scorer:
    """Scores tables of cutouts with a bundle.

    Parameters
    ----------
    bundle : Bundle or str
        The bundle, its address, or the name of a shipped one.
    device : str or torch.device, optional
        By default CUDA where it is available, else the CPU.
    micro_batch : int, optional
        Images that go through the network at once. It is halved, for good, whenever memory runs out.
    threads : int, optional
        CPU threads of torch, of the whole process.
    positive_classes : sequence of str, optional
        Classes whose probabilities add up to the score; by default the bundle's.

    Raises
    ------
    InputError
        If the bundle cannot be used, or has no such classes.

    Notes
    -----
    The same table gives the same bytes on the same kind of machine with the same micro-batch and threads.
    """

    def __init__(
        self,
        bundle: Bundle | str,
        device: str | torch.device | None = None,
        micro_batch: int | None = None,
        threads: int | None = None,
        positive_classes: Sequence[str] | None = None,
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self.bundle = load(bundle) if isinstance(bundle, str) else bundle
        self.positive_classes = tuple(positive_classes or self.bundle.positive_classes)
        check_classes(self.bundle.classes, self.positive_classes)
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        on_cuda = self.device.type == "cuda"
        by_threads = CPU_MICRO_BATCH_PER_THREAD * torch.get_num_threads()
        self.micro_batch = micro_batch or (CUDA_MICRO_BATCH if on_cuda else by_threads)
        model = self.bundle.model()
        self._activation = str(model.activation)
        if getattr(model, "depends_on_batch", False):
            log.warning(
                "this bundle normalizes by the statistics of each micro-batch (of %d): a score depends on the other "
                "images of its batch; take the statistics of the survey once (lensray.training.batch_statistics)",
                self.micro_batch,
            )
        self._model = model.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._feed: _Feed = _PinnedFeed(self.device) if on_cuda else _feed_cpu

    def __call__(self, table: pa.Table) -> pa.Table:
        """Scores of a table of cutouts.

        Parameters
        ----------
        table : pyarrow.Table
            The bundle's image column as ``fixed_shape_tensor`` of the bundle's shape, optionally ``status``, and
            any other columns. Without a status a row is ``ok``. For a bundle that takes several columns of images,
            these as a survey has them (they are then checked and fitted), or packed (`reading.pack_planes`) in the first.

        Returns
        -------
        pyarrow.Table
            The same rows without the image, with ``score`` (float32, null where there is none) and ``status``;
            where the bundle has more than two classes, with ``score_<class>`` for each. Rows whose status is
            neither ``ok`` nor ``filled_nan`` are not scored.

        Raises
        ------
        ValueError
            If the images are not of the bundle's shape.
        """
        images, status = self._images(table)
        rows = np.flatnonzero(np.isin(status, SCORED))
        probabilities = np.full((len(status), len(self.bundle.classes)), np.nan, np.float32)
        probabilities[rows] = self.probabilities(images, rows)
        failed = rows[np.isnan(probabilities[rows]).any(1)]
        status[failed] = NON_FINITE_SCORE
        return self._scored(table, probabilities, status)

    def probabilities(self, images: NDArray, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """Class probabilities of some rows of `images`, shape (rows, classes); NaN where a logit is not finite."""
        parts, start = [], 0
        while start < len(rows):
            part = rows[start : start + self.micro_batch]
            try:
                parts.append(self._forward(self._feed(images, part)))
                start += len(part)
                continue
            except (RuntimeError, MemoryError) as error:
                if len(part) == 1 or not _is_out_of_memory(error):
                    raise
            # Outside of the handler, whose traceback holds the tensors that are to be freed.
            self.micro_batch = len(part) // 2
            _free_memory(self.device)
        if not parts:
            return np.empty((0, len(self.bundle.classes)), np.float32)
        return torch.cat(parts).cpu().numpy()

    @torch.inference_mode()
    def _forward(self, images_BCHW: Tensor) -> Tensor:
        normalized = self.bundle.normalization(images_BCHW).contiguous(memory_format=torch.channels_last)
        mixed = self.bundle.precision == "bfloat16"
        exact = torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=mixed
        )
        with exact, torch.autocast(self.device.type, torch.bfloat16, enabled=mixed):
            logits = self._model(normalized).float()
        finite = torch.isfinite(logits).all(1, keepdim=True)
        return models.probabilities(logits, self._activation).where(finite, torch.nan)

    def _images(self, table: pa.Table) -> tuple[NDArray, NDArray[np.object_]]:
        """Images and statuses, the images a view of the table where it can be."""
        inputs = self.bundle.inputs
        if inputs.further and set(inputs.columns) <= set(table.column_names):
            images, status = read_images(table, read_formats(table.schema, inputs), inputs)
        else:
            images, status = self._packed_images(table)
        if "status" in table.column_names:
            given = np.asarray(table.column("status").to_pylist(), object)
            status = np.where(np.isin(given, SCORED) & (status != Status.OK), status, given)
        return images, status

    def _packed_images(self, table: pa.Table) -> tuple[NDArray, NDArray[np.object_]]:
        """Images that are of the bundle's shape already, as a scan's reading stage gives them."""
        column = tables.one_array(table.column(self.bundle.inputs.column))
        shape = self.bundle.inputs.shape
        stored = tuple(getattr(column.type, "shape", ()))
        stored = tuple(
            stored[axis] for axis in getattr(column.type, "permutation", None) or range(len(stored))
        )
        if stored != shape:
            raise ValueError(
                f"the images have the shape {stored} but the bundle was made for {shape}; fit them first"
            )
        return tables.decode_tensors(column, shape, column.type.value_type.to_pandas_dtype())

    def _scored(
        self, table: pa.Table, probabilities: NDArray[np.float32], status: NDArray[np.object_]
    ) -> pa.Table:
        positive = [self.bundle.classes.index(name) for name in self.positive_classes]
        columns = {"score": probabilities[:, positive].sum(1)}
        if len(self.bundle.classes) > 2:
            columns |= {f"score_{name}": probabilities[:, k] for k, name in enumerate(self.bundle.classes)}
        kept = [n for n in table.column_names if n not in (*self.bundle.inputs.columns, "status", *columns)]
        scored = table.select(kept)
        for name, values in columns.items():
            scored = scored.append_column(name, pa.array(values, pa.float32(), from_pandas=True))
        return scored.append_column("status", pa.array(status, pa.string()))


class _Feed(Protocol):
    """Brings some rows of the images to the device of the model."""

    def __call__(self, images: NDArray, rows: NDArray[np.intp]) -> Tensor: ...


def _feed_cpu(images: NDArray, rows: NDArray[np.intp]) -> Tensor:
    # A copy of the micro-batch alone: Arrow's memory is read-only, and torch has no such tensors.
    return torch.from_numpy(images[rows])


class _PinnedFeed:
    """Copies to a GPU in a stream of their own, so that one micro-batch travels while another is computed.

    Two buffers of page-locked memory take turns; one is filled again when its last copy has left it.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._buffers: list[Tensor | None] = [None, None]
        self._copied = [torch.cuda.Event(), torch.cuda.Event()]
        self._turn = 0

    def __call__(self, images: NDArray, rows: NDArray[np.intp]) -> Tensor:
        self._turn ^= 1
        self._copied[self._turn].synchronize()
        pinned = self._buffer(images, len(rows))
        np.take(images, rows, axis=0, out=pinned.numpy(), mode="clip")
        with torch.cuda.stream(self._stream):
            moved = pinned.to(self._device, non_blocking=True)
            self._copied[self._turn].record(self._stream)
        computing = torch.cuda.current_stream(self._device)
        computing.wait_event(self._copied[self._turn])
        # Its memory must not be given away while the computing stream reads it.
        moved.record_stream(computing)
        return moved

    def _buffer(self, images: NDArray, count: int) -> Tensor:
        dtype = torch.from_numpy(np.empty(0, images.dtype)).dtype
        buffer = self._buffers[self._turn]
        if (
            buffer is None
            or len(buffer) < count
            or buffer.dtype != dtype
            or buffer.shape[1:] != images.shape[1:]
        ):
            buffer = torch.empty((count, *images.shape[1:]), dtype=dtype, pin_memory=True)
            self._buffers[self._turn] = buffer
        return buffer[:count]


def _is_out_of_memory(error: Exception) -> bool:
    text = str(error).lower()
    signs = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(sign in text for sign in signs)


def _free_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
