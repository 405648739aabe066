"""How fast a `Scorer` is, against the plain way and against what the machine's arithmetic allows.

The claim: with normalization, LensFlow and EZnet score at least 1.5 times as many images a second on a CPU as the
plain way does, with the same numbers: the network as its paper has it, float32, contiguous, batches of 256, no
micro-batches. The second ratio compares the floating-point operations that the network is paid for with the
machine's rate in large matrix products. Medians of repeats that alternate between the two.

    python benchmarks/scorer.py [--threads 2] [--bundle FILE] [--device cuda]

With ``--bundle`` the trained network is measured, and its scores in bfloat16 are compared with those in float32:
they may replace these if Spearman's rank correlation is at least 0.9999 and the top 1% are the same.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import torch
from scipy.stats import rankdata
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lensray import models
from lensray.bundle import Bundle, Inputs, load
from lensray.cutouts import tensor_column
from lensray.models import eznet, lensflow
from lensray.normalization import HistogramTransform, PercentileClip, dim_galaxy_template
from lensray.scoring import Scorer

PLAIN_BATCH = 256
GOAL = 1.5


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    print(describe(device))
    peaks = {dtype: matrix_product_rate(device, dtype) for dtype in (torch.float32, torch.bfloat16)}
    for dtype, rate in peaks.items():
        print(f"matrix products, {dtype}: {rate / 1e9:.0f} GFLOP/s")
    bundles = [load(arguments.bundle)] if arguments.bundle else [untrained("lensflow"), untrained("eznet")]
    for bundle in bundles:
        measure(bundle, device, arguments, peaks)
        if arguments.bundle:
            compare_precisions(bundle, device, arguments)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--count", type=int, default=512, help="images in the table")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--micro-batch", type=int, default=None)
    parser.add_argument("--bundle", help="a trained bundle: its name or address")
    return parser.parse_args()


def describe(device: torch.device) -> str:
    """Hardware and settings, for the record."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    return f"{name}, torch {torch.__version__}, {torch.get_num_threads()} threads, device {device}"


def processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def untrained(name: str) -> Bundle:
    """A network with random weights: as fast as a trained one, though with less to tell."""
    torch.manual_seed(0)
    model = models.build(name)
    bands, size = (("F814W",), lensflow.SIZE) if name == "lensflow" else (("g", "r", "i"), 64)
    normalization = HistogramTransform(dim_galaxy_template()) if name == "lensflow" else PercentileClip()
    # Running statistics of such images, without which an untrained EZnet gives all of them one score.
    images = torch.from_numpy(noise_images(64, (len(bands), size, size)))
    with torch.no_grad():
        for _ in range(30):
            model(normalization(images))
    return Bundle(
        architecture=name,
        arguments={},
        inputs=Inputs(bands=bands, height=size, width=size, pixel_scale_arcsec=0.168),
        normalization=normalization,
        classes=("non-lens", "lens"),
        positive_classes=("lens",),
        state=model.state_dict(),
    )


def measure(
    bundle: Bundle, device: torch.device, arguments: argparse.Namespace, peaks: dict[torch.dtype, float]
) -> None:
    """Rates of the plain way and of the scorer, in turns, and how far their scores differ."""
    images = noise_images(arguments.count, bundle.inputs.shape)
    table = pa.table({"image": tensor_column(images)})
    plain = plain_way(bundle, device)
    ways: dict[str, Callable[[], np.ndarray]] = {"plain": lambda: plain(images)}
    for precision in ("float32", "bfloat16"):
        scorer = Scorer(
            replace(bundle, precision=precision), device=device, micro_batch=arguments.micro_batch
        )
        ways[f"Scorer {precision}"] = lambda scorer=scorer: scorer(table)["score"].to_numpy()
    scores = {name: way() for name, way in ways.items()}
    rates = alternate(ways, arguments.repeats, len(images))
    flops = flops_an_image(bundle)
    print(f"\n{bundle.architecture}: {flops / 1e6:.0f} MFLOP an image, {images.dtype} {images.shape[1:]}")
    for name, rate in rates.items():
        difference = np.abs(scores[name] - scores["plain"]).max()
        peak = peaks[torch.bfloat16 if name.endswith("bfloat16") else torch.float32]
        print(
            f"  {name:16s} {rate:8.0f} images/s   {rate / rates['plain']:5.2f} × plain   {rate * flops / peak:5.2f} of the "
            f"matrix-product rate   scores differ by {difference:.1e} (they span {np.ptp(scores[name]):.1e})"
        )
    ratio = rates["Scorer float32"] / rates["plain"]
    print(f"  float32 ratio {ratio:.2f}, goal {GOAL}: {'reached' if ratio >= GOAL else 'MISSED'}")


def plain_way(bundle: Bundle, device: torch.device) -> Callable[[np.ndarray], np.ndarray]:
    """The network as its paper has it, over batches of 256 contiguous float32 images."""
    model = bundle.model().to(device)
    positive = bundle.classes.index(bundle.positive_classes[0])

    @torch.inference_mode()
    def score(images: np.ndarray) -> np.ndarray:
        parts = []
        for start in range(0, len(images), PLAIN_BATCH):
            batch = torch.from_numpy(images[start : start + PLAIN_BATCH]).to(device)
            logits = published(model, bundle.normalization(batch))
            parts.append(models.probabilities(logits, str(model.activation))[:, positive].cpu())
        return torch.cat(parts).numpy()

    return score


def published(model: nn.Module, images: Tensor) -> Tensor:
    """Logits without what LensRay's networks do to be faster: torch's tanh, and tanh before pooling as in Table 2.1."""
    if isinstance(model, lensflow.LensFlow):
        for convolution, pool, tanh in (stage.children() for stage in model.features):
            images = pool(tanh(convolution(images)))
        return model.classifier(images)
    with patch.object(eznet, "tanh_", torch.tanh_):
        return model(images)


def noise_images(count: int, shape: tuple[int, int, int]) -> np.ndarray:
    """A galaxy on noise, float32: as slow to normalize as a survey's images."""
    generator = np.random.default_rng(0)
    y, x = np.mgrid[: shape[1], : shape[2]]
    galaxy = 50 * np.exp(-np.hypot(x - shape[2] / 2, y - shape[1] / 2) / 4)
    return (galaxy + generator.normal(size=(count, *shape))).astype(np.float32)


def alternate(ways: dict[str, Callable[[], np.ndarray]], repeats: int, count: int) -> dict[str, float]:
    """Median rate of each way in images a second; the ways take turns, so that a busy machine slows all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    return {name: count / statistics.median(times) for name, times in seconds.items()}


def flops_an_image(bundle: Bundle) -> float:
    """Floating-point operations of convolutions and linear layers."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        bundle.model()(torch.zeros(1, *bundle.inputs.shape))
    return counter.get_total_flops()


def matrix_product_rate(
    device: torch.device, dtype: torch.dtype, size: int = 2048, repeats: int = 7
) -> float:
    """Floating-point operations a second in products of large matrices, the best of some repeats."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.float32).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        (a @ b)[0, 0].item()
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)


def compare_precisions(bundle: Bundle, device: torch.device, arguments: argparse.Namespace) -> None:
    """Whether bfloat16 ranks as float32 does, on the benchmark's images."""
    table = pa.table({"image": tensor_column(noise_images(4 * arguments.count, bundle.inputs.shape))})
    exact, fast = (
        Scorer(replace(bundle, precision=precision), device=device)(table)["score"].to_numpy()
        for precision in ("float32", "bfloat16")
    )
    top = max(1, len(exact) // 100)
    same = len(set(np.argsort(-exact)[:top]) & set(np.argsort(-fast)[:top])) / top
    correlation = np.corrcoef(rankdata(exact), rankdata(fast))[0, 1]
    verdict = "may be used" if correlation >= 0.9999 and same == 1 else "NOT to be used"
    print(f"  bfloat16: Spearman {correlation:.6f}, {same:.0%} of the top 1% the same: {verdict}")


if __name__ == "__main__":
    main()
