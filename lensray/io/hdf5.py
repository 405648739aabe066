"""Images in HDF5 files."""

import io

import h5py
import numpy as np

_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def is_hdf5(data: bytes) -> bool:
    """Whether bytes are an HDF5 file."""
    return data.startswith(_SIGNATURE)


def read_dataset(data: bytes, name: str | None = None) -> np.ndarray:
    """A dataset of an HDF5 file's bytes.

    Parameters
    ----------
    data : bytes
    name : str, optional
        Path of the dataset; may be left out where only one has two dimensions or more.

    Raises
    ------
    ValueError
        If there is no such dataset, or several could be meant.
    """
    with h5py.File(io.BytesIO(data), "r") as file:
        names: list[str] = []
        file.visititems(lambda path, item: names.append(path) if _is_image(item) else None)
        if name is None and len(names) == 1:
            name = names[0]
        if name not in names:
            raise ValueError(f"of its images ({', '.join(names) or 'none'}) name one with --dataset")
        return np.asarray(file[name])


def _is_image(item: object) -> bool:
    return isinstance(item, h5py.Dataset) and item.ndim >= 2 and item.dtype.kind in "fiu"
