"""Small surveys and bundles for tests: blobs with and without an arc, and a network that needs no training."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from lensray import bundle, cutouts, models
from lensray.normalization import PercentileClip

BANDS = ("g", "r", "i")
PIXEL_SCALE = 0.168
BLOCKS = ((4, 3, 16), (4, 3, 8), (4, 1, 1))


def cutout_format(size: int = 32, bands=BANDS, dtype="float32", pixel_scale: float = PIXEL_SCALE):
    return cutouts.CutoutFormat(
        survey="toy",
        bands=bands,
        pixel_scale_arcsec=pixel_scale,
        shape=(len(bands), size, size),
        dtype=np.dtype(dtype),
    )


def toy_images(count: int, size: int = 32, bands: int = 3, seed: int = 0) -> np.ndarray:
    """Noise with a blob in the middle; every image differs."""
    generator = np.random.default_rng(seed)
    grid = np.arange(size) - (size - 1) / 2
    blob = np.exp(-(grid[:, None] ** 2 + grid**2) / (2 * (size / 10) ** 2))
    brightness = generator.uniform(2, 30, (count, bands, 1, 1))
    return (generator.standard_normal((count, bands, size, size)) + brightness * blob).astype(np.float32)


def toy_bundle(
    url: str | Path, *, size: int = 32, bands=BANDS, blocks=BLOCKS, seed: int = 0, **inputs
) -> str:
    """An untrained EZnet, saved as a bundle; returns its address."""
    torch.manual_seed(seed)
    arguments = {"in_channels": len(bands), "blocks": [list(block) for block in blocks], "hidden": 8}
    model = models.build("eznet", **arguments)
    # Untrained outputs lie close together; spread them, so that an order is worth the name.
    with torch.no_grad():
        model.head[-1].weight.mul_(20)
    wanted = {
        "column": "image",
        "bands": bands,
        "height": size,
        "width": size,
        "pixel_scale_arcsec": PIXEL_SCALE,
    }
    bundle.save(
        bundle.Bundle(
            architecture="eznet",
            arguments=arguments,
            inputs=bundle.Inputs(**{**wanted, **inputs}),
            normalization=PercentileClip(),
            classes=("non-lens", "lens"),
            positive_classes=("lens",),
            precision="float32",
            provenance={"recipe": "toy"},
            state=model.state_dict(),
        ),
        str(url),
    )
    return str(url)


def toy_survey(
    folder: str | Path, count: int, *, files: int = 3, row_group: int = 20, tracers: int = 5, **format
) -> str:
    """A survey of `count` blobs in `files` files; the first `tracers` rows of the first file are tracers."""
    fmt = cutout_format(**format)
    images = toy_images(count, fmt.shape[1], fmt.shape[0])
    if fmt.dtype == np.uint8:
        images = PercentileClip().to_uint8(torch.from_numpy(images)).numpy()
    table = cutouts.make_table(
        fmt,
        np.arange(count),
        images.astype(fmt.dtype),
        ra=np.linspace(0, 360, count, endpoint=False),
        dec=np.linspace(-90, 90, count),
        is_tracer=pa.array(np.arange(count) < tracers),
        mag_i=pa.array(np.linspace(18, 24, count).astype(np.float32)),
    )
    Path(folder).mkdir(parents=True, exist_ok=True)
    rows = -(-count // files)
    for number in range(files):
        pq.write_table(
            table.slice(number * rows, rows), f"{folder}/part-{number:05d}.parquet", row_group_size=row_group
        )
    return str(folder)


def scores_of(output: str | Path) -> pa.Table:
    """All scores of a scan, in the order of its fragments."""
    paths = sorted(Path(output, "scores").glob("part-*.parquet"))
    return pa.concat_tables([pq.read_table(path) for path in paths])


class NoAttempts:
    """Attempts of a process that never dies."""

    def begin(self, stage, fragment):
        return 1

    def end(self, stage, fragment):
        pass

    def give_up(self, stage, fragment):
        pass
