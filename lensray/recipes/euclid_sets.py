"""The sets of `lensray.recipes.euclid_efficientnet`: simulated objects, or those of the challenge."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from lensray.recipes.sources import SEED_STEP, SEEDS, Sources

if TYPE_CHECKING:
    import pyarrow as pa

    from lensray.recipes.euclid_efficientnet import Config
    from lensray.training.workbench import Workbench

TEST_SHARE, VALIDATION_SHARE = 0.2, 0.08
CHUNK = 128
VIS_SIZE = 200


def make_sets(config: "Config", bench: "Workbench", *, objects: int) -> tuple[list[str], str, str]:
    """Addresses of the training, validation and test set of so many objects together."""
    if config.challenge:
        return _challenge_sets(config, bench)
    test, validation = round(objects * TEST_SHARE), round(objects * VALIDATION_SHARE)
    training = _simulated(config, bench, "training", objects - test - validation, "lenses")
    return (
        [training],
        _simulated(config, bench, "validation", validation, "validation"),
        _simulated(config, bench, "test", test, "survey"),
    )


def _simulated(config: "Config", bench: "Workbench", name: str, count: int, what: str) -> str:
    """A simulated survey, its lenses spread evenly."""
    lenses = min(max(1, round(count * config.lens_fraction)), count - 1)
    seed = config.seed * SEED_STEP + SEEDS[what]

    def tables() -> Iterator["pa.Table"]:
        from lensray.simulation.euclid import euclid_table
        from lensray.simulation.table import spread_evenly

        is_lens = spread_evenly(count, lenses)
        for start in range(0, count, CHUNK):
            rows = np.arange(start, min(start + CHUNK, count), dtype=np.int64)
            yield euclid_table(rows, is_lens[rows], seed=seed, dtype="float16")

    words = {"euclid": what, "count": count, "lenses": lenses, "seed": seed}
    return bench.dataset(name, tables, words)


def _challenge_sets(config: "Config", bench: "Workbench") -> tuple[list[str], str, str]:
    """The challenge's objects, divided at random."""
    from lensray.extraction.challenge import challenge_tables, open_challenge

    challenge = open_challenge(config.challenge, config.truth)
    numbers = np.random.default_rng(config.seed).permutation(challenge.numbers)[: config.objects]
    test, validation = round(len(numbers) * TEST_SHARE), round(len(numbers) * VALIDATION_SHARE)
    parts = {
        "test": numbers[:test],
        "validation": numbers[test : test + validation],
        "training": numbers[test + validation :],
    }

    def tables(name: str) -> Callable[[], Iterator["pa.Table"]]:
        return lambda: challenge_tables(challenge, parts[name])

    words = {
        "challenge": config.challenge,
        "truth": config.truth,
        "seed": config.seed,
        "objects": len(numbers),
    }
    urls = {name: bench.dataset(name, tables(name), words | {"set": name}) for name in parts}
    return [urls["training"]], urls["validation"], urls["test"]


def more(config: "Config", bench: "Workbench") -> list[str]:
    """The surveys of ``--positives`` and ``--negatives``."""
    return Sources(config, bench, survey="euclid", size=VIS_SIZE).more()
