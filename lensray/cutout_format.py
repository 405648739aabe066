"""What the images of a survey are: read from its schema, and written into it (see `lensray.cutouts`)."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from lensray.errors import InputError
from lensray.io import tables

METADATA_KEY = b"lensray.survey"


@dataclass(frozen=True, kw_only=True, slots=True)
class CutoutFormat:
    """What the images of a survey are."""

    survey: str = "unknown"
    """Name of the survey, for people."""
    bands: tuple[str, ...]
    """Band names, in the order of the planes."""
    pixel_scale_arcsec: float
    """Side of a pixel, in arcsec."""
    shape: tuple[int, int, int]
    """Bands, height and width."""
    dtype: np.dtype = np.dtype(np.float32)  # noqa: RUF009  (immutable)
    """Type of the decoded pixels: uint8, float16 or float32."""
    encoding: Literal["tensor", "list", "bytes"] = "tensor"
    """How the column holds the pixels."""
    column: str = "image"
    """Name of the column."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "bands", tuple(self.bands))
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        object.__setattr__(self, "dtype", np.dtype(self.dtype))
        if len(self.bands) != self.shape[0]:
            raise InputError(
                f"the images in {self.column!r} have {self.shape[0]} planes but {len(self.bands)} bands are "
                f"named ({', '.join(self.bands)}); name one band a plane with --bands"
            )
        if len(set(self.bands)) != len(self.bands):
            raise InputError(f"the bands {', '.join(self.bands)} are not all different; name each plane once")
        if not (np.isfinite(self.pixel_scale_arcsec) and self.pixel_scale_arcsec > 0):
            raise InputError(
                f"the pixel scale is {self.pixel_scale_arcsec} arcsec; give a positive --pixel-scale"
            )


def read_format(
    schema: pa.Schema,
    column: str = "image",
    bands: Sequence[str] | None = None,
    pixel_scale_arcsec: float | None = None,
    image_shape: Sequence[int] | None = None,
) -> CutoutFormat:
    """The format of a survey's images, from its schema; arguments stand in for, or correct, its metadata.

    Parameters
    ----------
    schema : pyarrow.Schema
    column : str
        Name of the column of images.
    bands : sequence of str, optional
        Band names of the planes.
    pixel_scale_arcsec : float, optional
    image_shape : sequence of int, optional
        Bands, height and width, for lists and bytes without a ``shape`` in the metadata.

    Raises
    ------
    InputError
        If a column is missing or of a wrong type, or bands, pixel scale or shape are not known.
    """
    _check_columns(schema, column)
    described = stored_description(schema, column)
    encoding, dtype, shape = _image_type(schema.field(column).type, column)
    shape = shape or _shape(image_shape or described.get("shape"), column)
    bands = bands or described.get("bands")
    scale = pixel_scale_arcsec or described.get("pixel_scale_arcsec")
    if not bands or not scale:
        raise InputError(
            f"the survey does not say the bands and pixel scale of {column!r} (metadata key lensray.survey); "
            f"pass --bands (one a plane, {shape[0]} here) and --pixel-scale (arcsec)"
        )
    return CutoutFormat(
        survey=str(described.get("survey", "unknown")),
        bands=tuple(str(band) for band in bands),
        pixel_scale_arcsec=float(scale),
        shape=shape,
        dtype=dtype,
        encoding=encoding,
        column=column,
    )


def _check_columns(schema: pa.Schema, column: str) -> None:
    missing = [name for name in ("object_id", "ra", "dec", column) if name not in schema.names]
    if missing:
        raise InputError(
            f"the survey lacks the column {', '.join(missing)}; it has {', '.join(schema.names) or 'none'}: "
            "rename or add it (ra and dec may be null)"
        )
    kind = schema.field("object_id").type
    if not (pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise InputError(
            f"column 'object_id' must be an integer or a string but is {kind}; write it as one of these"
        )
    for name in ("ra", "dec"):
        kind = schema.field(name).type
        if not (pa.types.is_float32(kind) or pa.types.is_float64(kind) or pa.types.is_null(kind)):
            raise InputError(f"column {name!r} must be float64 (degrees) but is {kind}; write it as float64")


def stored_description(schema: pa.Schema, column: str = "image") -> dict[str, Any]:
    """What the metadata says of a column: survey, bands, pixel scale and shape, as far as it does.

    Raises
    ------
    InputError
        If the metadata is damaged.
    """
    text = (schema.metadata or {}).get(METADATA_KEY)
    if text is None:
        return {}
    try:
        content = json.loads(text)
        described = content if column == "image" else {"survey": content.get("survey", "unknown")}
        described = {**described, **content.get("images", {}).get(column, {})}
        float(described.get("pixel_scale_arcsec") or 1)
        [str(band) for band in described.get("bands") or ()]
    except (ValueError, TypeError, AttributeError):
        raise InputError(
            "the survey's metadata key lensray.survey is damaged (it must be JSON with survey, bands and "
            "pixel_scale_arcsec); write it again, or drop it and pass --bands and --pixel-scale"
        ) from None
    return described


def _image_type(
    kind: pa.DataType, column: str
) -> tuple[Literal["tensor", "list", "bytes"], np.dtype, tuple[int, int, int] | None]:
    """Encoding, pixel type and (of tensors) shape of a column's type."""
    if isinstance(kind, pa.FixedShapeTensorType):
        shape = list(kind.shape)
        if kind.permutation:
            shape = [shape[axis] for axis in kind.permutation]
        return "tensor", _pixel_type(kind.value_type, column), _shape(shape, column)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return "list", _pixel_type(kind.value_type, column), None
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return "bytes", np.dtype(np.float32), None
    raise InputError(
        f"column {column!r} must hold images (fixed_shape_tensor, lists of pixels, or FITS, PNG or JPEG bytes) but "
        f"is {kind}; write it as fixed_shape_tensor"
    )


def _pixel_type(kind: pa.DataType, column: str) -> np.dtype:
    if kind not in tables.PIXEL_TYPES:
        raise InputError(
            f"the pixels of column {column!r} are {kind}; write them as uint8, float16 or float32"
        )
    return np.dtype(tables.PIXEL_TYPES[kind])


def _shape(shape: Sequence[int] | None, column: str) -> tuple[int, int, int]:
    """Bands, height and width; an image of two dimensions has one band."""
    if shape is None:
        raise InputError(
            f"the survey does not say the shape of {column!r}; pass --image-shape BANDS HEIGHT WIDTH, or add "
            "'shape' to its metadata key lensray.survey"
        )
    numbers = tuple(int(n) for n in shape)
    if len(numbers) == 2:
        numbers = (1, *numbers)
    if len(numbers) != 3 or min(numbers) < 1:
        raise InputError(
            f"the images in {column!r} have the shape {tuple(shape)}; they must be bands × height × width"
        )
    return numbers


def cutout_schema(
    format: CutoutFormat, id_type: pa.DataType | None = None, extra: Iterable[pa.Field] = ()
) -> pa.Schema:
    """The schema of a survey of this format.

    Parameters
    ----------
    format : CutoutFormat
    id_type : pyarrow.DataType, optional
        Type of ``object_id``; int64 by default.
    extra : iterable of pyarrow.Field
        Further columns, after the image.
    """
    fields = [
        pa.field("object_id", id_type or pa.int64()),
        pa.field("ra", pa.float64()),
        pa.field("dec", pa.float64()),
        pa.field(format.column, _arrow_type(format)),
        *extra,
    ]
    described: dict[str, Any] = {
        "survey": format.survey,
        "bands": list(format.bands),
        "pixel_scale_arcsec": format.pixel_scale_arcsec,
    }
    if format.encoding != "tensor":
        described["shape"] = list(format.shape)
    return pa.schema(fields, metadata={METADATA_KEY: json.dumps(described).encode()})


def _arrow_type(format: CutoutFormat) -> pa.DataType:
    pixel = pa.from_numpy_dtype(format.dtype)
    if format.encoding == "tensor":
        return pa.fixed_shape_tensor(pixel, format.shape)
    return pa.list_(pixel) if format.encoding == "list" else pa.binary()
