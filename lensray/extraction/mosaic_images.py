"""The pixels of sources, cut out of their tiles as a scan asks for them."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from lensray.cutout_format import CutoutFormat
from lensray.errors import LensRayError
from lensray.extraction.cutting import cut, first_pixels
from lensray.extraction.tile_table import read_tiles
from lensray.extraction.tiles import SurveyedTile
from lensray.io.explain import first_line
from lensray.io.mosaics import check_reachable, open_mosaic
from lensray.pixels import Status

log = logging.getLogger(__name__)


def pixel_columns(column: str) -> tuple[str, str]:
    """Columns of a table of sources with their pixel coordinates in the mosaics of a column of images."""
    return (f"x_{column}", f"y_{column}")


@dataclass(frozen=True, kw_only=True, slots=True)
class MosaicImages:
    """Images cut out of the tiles of a survey.

    Calling it with a table of sources (see `lensray.extraction.sources`) gives the images of each column, shape (N, bands, size, size), and
    the status of each row, as `lensray.reading.decode_images` does of stored images.
    """

    tiles: str
    """Address of the table of tiles."""
    formats: Mapping[str, CutoutFormat]
    """Bands and size of each column of images."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the sources that it needs."""
        return ("tile", "cut_status", *(name for column in self.formats for name in pixel_columns(column)))

    def __call__(self, table: pa.Table) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Images and statuses of some sources.

        Raises
        ------
        LensRayError
            If the storage cannot be reached; a damaged file is the status of its sources.
        """
        status = np.asarray(table["cut_status"].to_pylist(), object)
        images = {
            column: np.zeros((len(status), *fmt.shape), np.float32) for column, fmt in self.formats.items()
        }
        names = np.asarray(table["tile"].to_pylist(), object)
        tiles = read_tiles(self.tiles)
        for name in dict.fromkeys(names[status == Status.OK]):
            rows = np.flatnonzero((names == name) & (status == Status.OK))
            sources = table.take(pa.array(rows))
            if not (
                self._cut(sources, tiles[name], images, rows) or self._cut(sources, tiles[name], images, rows)
            ):
                status[rows] = Status.UNREADABLE
        return images, status

    def _cut(
        self, sources: pa.Table, tile: SurveyedTile, images: Mapping[str, np.ndarray], rows: np.ndarray
    ) -> bool:
        """Whether a tile's sources could be cut; damage counts when it comes twice."""
        try:
            self._cut_tile(sources, tile, images, rows)
        except (OSError, ValueError) as error:
            self._check_reachable(tile)
            log.error("tile %s cannot be read: %s", tile.tile.name, error)
            return False
        return True

    def _cut_tile(
        self, sources: pa.Table, tile: SurveyedTile, images: Mapping[str, np.ndarray], rows: np.ndarray
    ) -> None:
        for column, fmt in self.formats.items():
            x, y = (sources[name].to_numpy() for name in pixel_columns(column))
            for plane, band in enumerate(fmt.bands):
                with open_mosaic(tile.tile.files[band]) as hdu:
                    # A slice is a view that is cut into; other rows are put there by a copy.
                    if len(rows) == len(images[column]):
                        cut(hdu, x, y, fmt.shape[1], out=images[column][:, plane])
                    else:
                        images[column][rows, plane] = cut(hdu, x, y, fmt.shape[1])

    def _check_reachable(self, tile: SurveyedTile) -> None:
        """Tell damaged files, which the scan passes over, from storage that fails, which stops it."""
        for fmt in self.formats.values():
            for band in fmt.bands:
                try:
                    check_reachable(tile.tile.files[band])
                except OSError as error:
                    raise LensRayError(
                        f"{tile.tile.files[band].path} cannot be reached: {first_line(error)}"
                    ) from error


def beyond_edges(sources: pa.Table, tiles: Iterable[SurveyedTile], column: str, size: int) -> np.ndarray:
    """Which sources' cutouts reach beyond the edges of their mosaic, shape (N,)."""
    shapes = {tile.tile.name: tile.grids[column].shape for tile in tiles if column in tile.grids}
    height, width = (
        np.array([shapes.get(name, (0, 0)) for name in sources["tile"].to_pylist()]).reshape(-1, 2).T
    )
    x, y = (np.nan_to_num(sources[name].to_numpy(zero_copy_only=False)) for name in pixel_columns(column))
    left, bottom = first_pixels(x, size), first_pixels(y, size)
    return (left < 0) | (bottom < 0) | (left + size > width) | (bottom + size > height)
