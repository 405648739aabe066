"""What a recipe may do: make surveys, train phases, rank a survey, and say what came of it.

A recipe is written once, against `Workbench`. `lensray.training.plain` does the work in this process;
`lensray.distributed.train` does it with Ray Train and the project's scan on a cluster.

Every step has a name and a folder of its own, and is skipped when its result is there: the same recipe with the
same words goes on where it stopped.
"""

import hashlib
import itertools
import json
import platform
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

import lensray
from lensray import bundle as bundles
from lensray import cutouts
from lensray.errors import InputError
from lensray.io import storage
from lensray.training import phases
from lensray.training.phases import Phase

# The underscore keeps readers of Parquet folders from taking it for a part.
BUNDLE, HISTORY, DATASET, CLAIM = "bundle.safetensors", "history.json", "_dataset.json", "recipe.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingJob:
    """A phase with its training set and where its results go."""

    phase: Phase
    """What is trained."""
    training: tuple[str, ...]
    """Addresses of labelled surveys."""
    validation: tuple[str, ...] = ()
    """Addresses of labelled surveys of which nothing is trained on; may be none."""
    folder: str
    """Where checkpoint, history and bundle go."""
    tensorboard: str
    """Folder of the recipe's training curves."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """What the bundle is to say about where it comes from."""

    @property
    def fingerprint(self) -> str:
        """Of all that the weights depend on."""
        return self.provenance["fingerprint"]

    @property
    def checkpoint(self) -> str:
        """Address of the checkpoint."""
        return storage.join(self.folder, "checkpoint.safetensors")


class Workbench(ABC):
    """A folder, local or s3://, in which a recipe works.

    Parameters
    ----------
    output : str
        Address of the folder.
    recipe : str
        Name of the recipe, for the bundles' provenance.
    settings : dict
        The recipe's words, as JSON.
    """

    def __init__(self, output: str, recipe: str = "", settings: dict[str, Any] | None = None) -> None:
        self.output, self.recipe, self.settings = output, recipe, settings or {}
        # The job takes the recipe's name out of its arguments.
        self.command = [sys.argv[0], recipe, *sys.argv[1:]]

    def folder(self, name: str) -> str:
        """Address of a step's folder."""
        return storage.join(self.output, name)

    def note(self, text: str) -> None:
        """Say something to whoever waits."""
        print(f"{self.recipe}: {text}", file=sys.stderr, flush=True)

    @abstractmethod
    def simulate(self, name: str, *, survey: str, count: int, lenses: int, seed: int, size: int) -> str:
        """A simulated survey of `count` cutouts, `lenses` of them lenses (float16); returns its address."""

    @abstractmethod
    def scan(self, name: str, *, cutouts: str, bundle: str, top: int = 2000, resample: bool = False) -> str:
        """Rank a survey with a bundle; returns the address of the scan's folder."""

    @abstractmethod
    def run(self, job: TrainingJob) -> None:
        """Train a phase to its bundle."""

    def dataset(self, name: str, make: Callable[[], Iterable[pa.Table]], words: dict[str, Any]) -> str:
        """A survey from tables of one cutout schema; returns its address.

        Parameters
        ----------
        name : str
            Its folder.
        make : callable
            Gives the tables; called only when the survey is not there.
        words : dict
            What it depends on, as JSON; another survey of that name is refused.
        """
        url, marker = self.folder(name), storage.join(self.folder(name), DATASET)
        wanted = _hash(words)
        if storage.exists(marker):
            if json.loads(storage.read_bytes(marker))["sha256"] == wanted:
                return url
            raise InputError(f"{url} was made with other words; choose another --output")
        if storage.exists(url):
            storage.delete_folder(url)
        tables = iter(make())
        first = next(tables, None)
        if first is None:
            raise InputError(f"there is no cutout for {name}; give more data")
        rows = cutouts.write_survey(itertools.chain([first], tables), url, cutouts.read_format(first.schema))
        storage.write_bytes(marker, _json({"words": words, "sha256": wanted, "rows": rows}))
        return url

    def train(self, phase: Phase, *, training: Sequence[str], validation: Sequence[str] = ()) -> str:
        """Train a phase on labelled surveys; returns the address of the bundle.

        Raises
        ------
        InputError
            If a survey lacks a column or a class, or is too small for a batch.
        LensRayError
            If the loss is not finite; the checkpoint of the last good epoch stays.
        """
        from lensray.training.examples import check_labels

        for urls in filter(None, (training, validation)):
            check_labels(urls, phase)
        job = TrainingJob(
            phase=phase,
            training=tuple(training),
            validation=tuple(validation),
            folder=self.folder(phase.name),
            tensorboard=self.folder("tensorboard"),
            provenance=self._provenance(phase, training, validation),
        )
        url = storage.join(job.folder, BUNDLE)
        if (
            not storage.exists(url)
            or bundles.read_header(url).provenance.get("fingerprint") != job.fingerprint
        ):
            self.run(job)
        return url

    def history(self, phase_name: str) -> list[dict[str, Any]]:
        """What was measured after each epoch of a phase that is done."""
        return json.loads(storage.read_bytes(storage.join(self.folder(phase_name), HISTORY)))

    def _provenance(self, phase: Phase, training: Sequence[str], validation: Sequence[str]) -> dict[str, Any]:
        described = phases.description(phase)
        if phase.start:
            described["start"] = bundles.read_header(phase.start).sha256
        data = {
            "training": [identity(url) for url in training],
            "validation": [identity(url) for url in validation],
        }
        return {
            "recipe": self.recipe,
            "phase": phase.name,
            "fingerprint": _hash([described, data]),
            "description": described,
            "data": data,
            "settings": self.settings,
            "command": self.command,
            "versions": versions(),
        }


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    from importlib.metadata import version

    names = ("torch", "numpy", "pyarrow", "timm", "ray")
    return {"lensray": lensray.__version__, "python": platform.python_version()} | {
        n: version(n) for n in names
    }


def identity(url: str) -> dict[str, Any]:
    """What a survey is, by the footers of its files."""
    _, root = storage.resolve(url)
    footers = [
        (entry.path.removeprefix(root).lstrip("/"), footer) for entry, footer in storage.read_footers(url)
    ]
    return {
        "rows": sum(footer.metadata.num_rows for _, footer in footers),
        "sha256": _hash([[path, footer.sha256] for path, footer in footers]),
    }


def claim(output: str, recipe: str, settings: dict[str, Any]) -> None:
    """Write into the folder whose recipe works there.

    Raises
    ------
    InputError
        If it is another's, or the same with other words, or holds files of another kind: steps of a recipe replace
        folders of their names that they did not finish.
    """
    url = storage.join(output, CLAIM)
    words = json.loads(json.dumps({"recipe": recipe, "settings": settings}))
    if storage.exists(url):
        found = json.loads(storage.read_bytes(url))
        if found["recipe"] != recipe:
            raise InputError(
                f"{output} holds a run of {found['recipe']}, not of {recipe}; choose another --output"
            )
        if found != words:
            theirs, ours = found["settings"], words["settings"]
            other = sorted(key for key in {*theirs, *ours} if theirs.get(key) != ours.get(key))
            raise InputError(
                f"{output} holds a run of {found['recipe']} with other {', '.join(other) or 'words'}; "
                "choose another --output"
            )
        return
    if storage.exists(output):
        filesystem, path = storage.resolve(output)
        if filesystem.get_file_info(path).is_file:
            raise InputError(f"{output} is a file; choose a folder for --output")
        others = [name for name in storage.list_names(filesystem, path) if not name.startswith(".")]
        if others:
            raise InputError(
                f"{output} holds {', '.join(others[:3])} and no run of this command; choose an empty or a new --output"
            )
    storage.write_bytes(url, _json(words))


def disclaim(output: str) -> None:
    """Give a folder back in which nothing was made, so that it can be used with other words."""
    if [PurePosixPath(entry.path).name for entry in storage.find_files(output, suffix="")] == [CLAIM]:
        storage.delete_file(storage.join(output, CLAIM))


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _json(content: Any) -> bytes:
    return json.dumps(content, indent=1).encode()
