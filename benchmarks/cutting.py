"""Cutouts from mosaics: how fast, against astropy's Cutout2D in a loop and against reading the file.

    python benchmarks/cutting.py

Claim: with the rows read once for all sources in them and the cutouts gathered at once, cutting is bounded by reading, at least 20 times as
fast as a loop over `astropy.nddata.Cutout2D`, and holds no more than a band of rows. Prints the cost of a tile (its
rows are read and turned into native floats, whatever is cut from them) and of a cutout apart, by a straight line through several numbers
of sources.
"""

import platform
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import numpy as np
import tyro
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import Cutout2D
from astropy.wcs import WCS

from lensray.extraction.cutting import cut
from lensray.extraction.grid import grid_of
from lensray.io.mosaics import MosaicFile, open_mosaic, read_header


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Cut stamps from simulated mosaics of noise."""

    side: int = 8000
    """Side of the mosaics, in pixels."""
    bands: int = 3
    """Mosaics that are cut."""
    size: int = 64
    """Side of a cutout."""
    sources: tuple[int, ...] = (500, 2000, 8000)
    """How many cutouts are made, one run each."""
    repeats: int = 5
    """Runs of which the median counts."""


def main(config: Config) -> None:
    """Measure and print."""
    print(f"{platform.processor() or platform.machine()}, one process; {config}")
    with tempfile.TemporaryDirectory() as folder:
        files = [write(Path(folder, f"{band}.fits"), config.side, band) for band in range(config.bands)]
        size_mb = config.bands * files[0].size / 1e6
        reading = timed(lambda: [Path(file.path).read_bytes() for file in files], config.repeats)
        print(f"reading the files whole: {size_mb / reading:,.0f} MB/s ({reading:.2f} s)")
        seconds = []
        for count in config.sources:
            x, y = places(config, count)
            seconds.append(timed(lambda x=x, y=y: cut_all(files, x, y, config.size), config.repeats))
            print(
                f"{count:,} sources: {seconds[-1]:.3f} s, {count / seconds[-1]:,.0f} sources/s of {config.bands} bands"
            )
        each, tile = np.polyfit(config.sources, seconds, 1)
        print(f"a tile {tile:.3f} s ({tile / reading:.1f} × reading it), a source {each * 1e6:.1f} µs")
        x, y = places(config, max(config.sources))
        print(
            f"memory beside the cutouts: {extra_memory(files, x, y, config.size):,.0f} MB; mosaics {size_mb:,.0f} MB"
        )
        some = slice(0, min(300, len(x)))
        loop = timed(lambda: loop_pixels(files, x[some], y[some], config.size), 3) / len(x[some])
        print(
            f"Cutout2D in a loop, mosaics in memory: {loop * 1e6:,.0f} µs a source; ratio a source {loop / each:.0f}"
        )
        header = read_header(files[0])
        grid = grid_of(header)
        assert grid is not None
        ra, dec = grid.to_sky(x, y)
        sky = timed(lambda: loop_sky(files, ra[some], dec[some], config.size), 3) / len(x[some])
        ours = timed(lambda: cut_all(files, *grid.to_pixels(ra, dec), config.size), 3) / len(x)
        print(
            f"{len(x):,} positions on the sky, from files to cutouts: {len(x) * ours:.2f} s; the loop takes {len(x) * sky:.1f} s, "
            f"mosaics in memory; ratio {sky / ours:.0f}"
        )


def write(path: Path, side: int, seed: int) -> MosaicFile:
    """A mosaic of noise with a WCS."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix, wcs.wcs.cdelt = (
        [150, 2],
        [side / 2, side / 2],
        [-0.168 / 3600, 0.168 / 3600],
    )
    pixels = np.random.default_rng(seed).standard_normal((side, side), np.float32)
    fits.PrimaryHDU(pixels, wcs.to_header()).writeto(path)
    return MosaicFile(url=str(path), path=str(path), size=path.stat().st_size)


def places(config: Config, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Random positions."""
    x, y = np.random.default_rng(count).uniform(0, config.side - 1, (2, count))
    return x, y


def cut_all(files: list[MosaicFile], x: np.ndarray, y: np.ndarray, size: int) -> np.ndarray:
    """Our way: each mosaic is read in bands of rows."""
    images = np.empty((len(x), len(files), size, size), np.float32)
    for plane, file in enumerate(files):
        with open_mosaic(file) as hdu:
            cut(hdu, x, y, size, out=images[:, plane])
    return images


def extra_memory(files: list[MosaicFile], x: np.ndarray, y: np.ndarray, size: int) -> float:
    """Peak memory of cutting beyond the cutouts themselves, in MB, in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        before, after = pool.submit(_peaks, files, x, y, size).result()
    return after - before - len(x) * len(files) * size**2 * 4 / 1e6


def _peaks(files: list[MosaicFile], x: np.ndarray, y: np.ndarray, size: int) -> tuple[float, float]:
    cut_all(files[:1], x[:1], y[:1], size)
    before = _peak_mb()
    cut_all(files, x, y, size)
    return before, _peak_mb()


def _peak_mb() -> float:
    """Largest memory of this process so far (getrusage counts that of the process which started it)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1e3


@lru_cache
def in_memory(file: MosaicFile) -> tuple[np.ndarray, WCS]:
    """A mosaic's pixels and WCS."""
    with fits.open(file.path, memmap=False) as hdus:
        image: fits.PrimaryHDU = hdus[0]  # pyright: ignore[reportAssignmentType]
        return np.asarray(image.data), WCS(image.header)


def loop_pixels(files: list[MosaicFile], x: np.ndarray, y: np.ndarray, size: int) -> list[np.ndarray]:
    """The usual way, by pixel coordinates."""
    return [
        Cutout2D(in_memory(file)[0], position, size, mode="partial", fill_value=np.nan).data
        for file in files
        for position in zip(x, y, strict=True)
    ]


def loop_sky(files: list[MosaicFile], ra: np.ndarray, dec: np.ndarray, size: int) -> list[np.ndarray]:
    """The usual way, by positions on the sky."""
    return [
        Cutout2D(
            pixels, SkyCoord(*position, unit="deg"), size, wcs=wcs, mode="partial", fill_value=np.nan
        ).data
        for pixels, wcs in map(in_memory, files)
        for position in zip(ra, dec, strict=True)
    ]


def timed(action: Callable[[], object], repeats: int) -> float:
    """Median seconds, after a first run that does not count."""
    action()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - started)
    return median(seconds)


if __name__ == "__main__":
    main(tyro.cli(Config))
