"""Arrow columns of images, to and from NumPy.

Three encodings are read: Arrow's ``fixed_shape_tensor`` (also what is written), lists of pixels, and the
bytes of FITS, PNG or JPEG files.
"""

import numpy as np
import pyarrow as pa

from lensray.pixels import Status

PIXEL_TYPES = {
    pa.uint8(): np.uint8,
    pa.float16(): np.float16,
    pa.float32(): np.float32,
    pa.float64(): np.float32,
}

Decoded = tuple[np.ndarray, np.ndarray]


def tensor_column(images: np.ndarray, null: np.ndarray | None = None) -> pa.FixedShapeTensorArray:
    """Images as an Arrow column, without a copy if they are contiguous.

    Parameters
    ----------
    images : ndarray of uint8, float16 or float32, shape (N, bands, height, width)
    null : ndarray of bool, shape (N,), optional
        True where the row has no image.
    """
    images = np.ascontiguousarray(images)
    shape = images.shape[1:]
    values = pa.array(images.reshape(-1))
    mask = None if null is None else pa.array(null, pa.bool_())
    storage = pa.FixedSizeListArray.from_arrays(values, int(np.prod(shape)), mask=mask)
    tensor = pa.fixed_shape_tensor(values.type, shape)
    return pa.ExtensionArray.from_storage(tensor, storage)


def one_array(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """A column as one array; a copy only where it has several chunks."""
    if isinstance(column, pa.Array):
        return column
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def decode_tensors(array: pa.Array, shape: tuple[int, int, int], dtype: np.dtype) -> Decoded:
    """Images and statuses of a ``fixed_shape_tensor`` column; a view of it where the type allows."""
    tensor = array.type
    images, status = decode_lists(array.storage, tuple(tensor.shape), dtype)
    if tensor.permutation:
        images = images.transpose(0, *(axis + 1 for axis in tensor.permutation))
    return images.reshape(len(images), *shape), status


def decode_lists(array: pa.Array, shape: tuple[int, ...], dtype: np.dtype) -> Decoded:
    """Images and statuses of a column of lists of pixels, in the order of `shape` (C order).

    Rows without an image are zeros with the status ``null_image``, rows of another length zeros with
    ``wrong_shape``. A null pixel is NaN; in an image of whole numbers it makes the row ``corrupt_image``.
    """
    size = int(np.prod(shape))
    starts, lengths = _list_bounds(array)
    null = array.is_null().to_numpy(zero_copy_only=False)
    status = np.full(len(array), Status.OK, dtype=object)
    status[lengths != size] = Status.WRONG_SHAPE
    status[null] = Status.NULL_IMAGE
    good = status == Status.OK
    values, null_pixels = _pixels(array.values, dtype)
    if good.all() and (starts == starts[:1] + size * np.arange(len(starts))).all():
        first = int(starts[0]) if len(starts) else 0
        images = values[first : first + size * len(starts)].reshape(-1, *shape)
    else:
        images = np.zeros((len(array), *shape), dtype)
        for row in np.flatnonzero(good):
            images[row] = values[starts[row] : starts[row] + size].reshape(shape)
    return _without_null_pixels(images, status, starts, size, null_pixels)


def _list_bounds(array: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """First pixel and number of pixels of each row, in ``array.values``."""
    if pa.types.is_fixed_size_list(array.type):
        size = array.type.list_size
        return size * (array.offset + np.arange(len(array))), np.full(len(array), size)
    offsets = array.offsets.to_numpy()
    return offsets[:-1].astype(np.int64), np.diff(offsets)


def _pixels(values: pa.Array, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray | None]:
    """Pixels as NumPy, and where they are null (None if nowhere). Null floats are NaN."""
    if values.null_count == 0:
        return values.to_numpy(zero_copy_only=False).astype(dtype, copy=False), None
    null = values.is_null().to_numpy(zero_copy_only=False)
    if dtype.kind == "f":
        return values.to_numpy(zero_copy_only=False).astype(dtype), None
    return values.fill_null(0).to_numpy(zero_copy_only=False).astype(dtype, copy=False), null


def _without_null_pixels(
    images: np.ndarray, status: np.ndarray, starts: np.ndarray, size: int, null_pixels: np.ndarray | None
) -> Decoded:
    if null_pixels is None:
        return images, status
    images = images.copy()
    for row in np.flatnonzero(status == Status.OK):
        if null_pixels[starts[row] : starts[row] + size].any():
            images[row], status[row] = 0, Status.CORRUPT_IMAGE
    return images, status


def decode_bytes(array: pa.Array, shape: tuple[int, int, int], dtype: np.dtype) -> Decoded:
    """Images and statuses of a column of FITS, PNG or JPEG files."""
    images = np.zeros((len(array), *shape), dtype)
    status = np.full(len(array), Status.OK, dtype=object)
    for row, value in enumerate(array):
        image = _decode_row(value, shape)
        if isinstance(image, str):
            status[row] = image
        else:
            images[row] = image
    return images, status


def _decode_row(value: pa.Scalar, shape: tuple[int, int, int]) -> np.ndarray | str:
    """The image of a row, or the status that says why there is none."""
    if not value.is_valid:
        return Status.NULL_IMAGE
    # Only here, since astropy takes half a second that a command which reads tensors need not wait.
    from lensray.io.pictures import decode_image

    try:
        image = decode_image(value.as_py(), bands=shape[0])
    except Exception:
        # astropy and Pillow fail in many ways on damaged bytes, and no bad row may end a scan.
        return Status.CORRUPT_IMAGE
    return image if image.shape == shape else Status.WRONG_SHAPE
