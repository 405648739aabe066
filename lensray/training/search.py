"""Search spaces: which settings of a phase may vary, between what, and a phase with settings of its own.

A setting is named by its field of `Phase`, with dots into what the field holds: ``batch_size``,
``optimizer.learning_rate``, ``augmentation.max_zoom``, ``arguments.branching_rate``. A name that ends in ``*`` is a factor on
what the field holds: with ``optimizer`` one of several, ``optimizer.learning_rate*`` fits them all.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

from lensray.errors import InputError
from lensray.training.phases import Phase

if TYPE_CHECKING:
    from lensray.training.workbench import Workbench

Value = float | int | str | bool
FACTOR = "*"


@dataclass(frozen=True, kw_only=True, slots=True)
class Range:
    """Numbers from `low` to `high`."""

    low: float
    """Smallest value."""
    high: float
    """Largest value."""
    log: bool = False
    """Draw uniformly in the logarithm."""
    whole: bool = False
    """Whole numbers only."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several things, each with a name for the table of results."""

    of: Mapping[str, Any]
    """What may be chosen, by name."""


Dimension = Range | Choice
Space = Mapping[str, Dimension]


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchSets:
    """Labelled surveys of a search, by their addresses."""

    training: Sequence[str]
    """Trained on."""
    validation: Sequence[str]
    """Ranked by each trial."""
    test: Sequence[str] = ()
    """Never seen by the search."""
    start: str = ""
    """Bundle from which every trial starts, if not from fresh weights."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tunable:
    """What a recipe lets be searched."""

    phase: Phase
    """The phase with the recipe's own settings."""
    space: Space
    """Its settings that may vary."""
    sets: "Callable[[Workbench], SearchSets]"
    """Makes the images."""


def changed(phase: Phase, values: Mapping[str, Value], space: Space) -> Phase:
    """A phase with some of its settings as drawn from a space.

    Parameters
    ----------
    phase : Phase
    values : mapping
        Numbers, or names of choices, by setting.
    space : Space
        What the names of choices mean.

    Raises
    ------
    InputError
        If a setting does not exist, or the phase cannot have the value.
    """
    # Factors last: they apply to what the others have set.
    for name in sorted(values, key=lambda name: (name.endswith(FACTOR), name)):
        dimension, value = space[name], values[name]
        meant = dimension.of[str(value)] if isinstance(dimension, Choice) else value
        phase = _with(phase, name, meant)
    return phase


def _with(holder: Any, name: str, value: Any) -> Any:
    """A dataclass or dict with one setting changed, at any depth."""
    head, _, rest = name.partition(".")
    key = head.removesuffix(FACTOR)
    held = _held(holder, key)
    if rest:
        value = _with(held, rest, value)
    elif head.endswith(FACTOR):
        value = held * value
    try:
        return {**holder, key: value} if isinstance(holder, Mapping) else replace(holder, **{key: value})
    except (ValueError, TypeError) as error:
        raise InputError(f"{name} cannot be {value!r}: {error}") from error


def _held(holder: Any, key: str) -> Any:
    if isinstance(holder, Mapping):
        # Arguments that the phase leaves at their defaults are not in it.
        return holder.get(key)
    if not is_dataclass(holder) or key not in {one.name for one in fields(holder)}:
        raise KeyError(key)
    return getattr(holder, key)


def check_space(phase: Phase, space: Space) -> None:
    """Raise InputError unless a phase has all settings of a space, and can have their values."""
    for name, dimension in space.items():
        if isinstance(dimension, Range) and not (
            math.isfinite(dimension.low) and math.isfinite(dimension.high) and dimension.low < dimension.high
        ):
            raise InputError(
                f"--space {name}: {dimension.low:g}..{dimension.high:g} is no range; give LOW..HIGH with LOW < HIGH"
            )
        if isinstance(dimension, Range) and dimension.log and dimension.low <= 0:
            raise InputError(f"--space {name}: a logarithmic range begins above 0; got {dimension.low:g}")
        try:
            for value in _ends(dimension):
                _check_network(changed(phase, {name: value}, space), name, value)
        except KeyError as error:
            raise InputError(f"a phase of training has no setting {error} ({name})") from None


def _check_network(phase: Phase, name: str, value: Value) -> None:
    """Raise InputError unless a phase's network can be built; without its weights."""
    import torch

    from lensray import models

    try:
        with torch.device("meta"):
            models.build(phase.architecture, **phase.arguments)
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise InputError(
            f"--space {name}: {phase.architecture} cannot be built with {value}: {error}"
        ) from error


def _ends(dimension: Dimension) -> Iterable[Value]:
    if isinstance(dimension, Choice):
        return list(dimension.of)
    return (_number(dimension, dimension.low), _number(dimension, dimension.high))


def _number(dimension: Range, value: float) -> float | int:
    return round(value) if dimension.whole else float(value)


def narrowed(space: Space, words: Iterable[str]) -> dict[str, Dimension]:
    """A space with the dimensions that a user named, and no others.

    Parameters
    ----------
    space : Space
        The recipe's.
    words : iterable of str
        ``NAME`` alone, ``NAME=LOW..HIGH`` for numbers, or ``NAME=A,B,C`` for some of the recipe's choices or, where the
        recipe has numbers, for these numbers; none for all of the recipe's space.

    Raises
    ------
    InputError
        If the recipe does not search a setting of that name, or the words make no sense.

    Examples
    --------
    >>> space = {"batch_size": Choice({"32": 32, "64": 64}), "optimizer.learning_rate": Range(low=1e-4, high=1e-1, log=True)}
    >>> narrowed(space, ["optimizer.learning_rate=0.001..0.01"])
    {'optimizer.learning_rate': Range(low=0.001, high=0.01, log=True, whole=False)}
    """
    taken: dict[str, Dimension] = {}
    for word in words:
        name, given, text = word.partition("=")
        if name not in space:
            raise InputError(f"--space {name}: the recipe searches {', '.join(space)}")
        taken[name] = _read(name, text, space[name]) if given else space[name]
    return taken or dict(space)


def _read(name: str, text: str, known: Dimension) -> Dimension:
    if isinstance(known, Choice):
        chosen = text.split(",")
        unknown = [one for one in chosen if one not in known.of]
        if unknown:
            raise InputError(
                f"--space {name}={text}: {', '.join(unknown)} is not among {', '.join(known.of)}"
            )
        return Choice({one: known.of[one] for one in chosen})
    kind: Callable[[str], float | int] = int if known.whole else float
    low, between, high = text.partition("..")
    try:
        if between:
            return replace(known, low=kind(low), high=kind(high))
        return Choice({one: kind(one) for one in text.split(",")})
    except ValueError:
        raise InputError(
            f"--space {name}={text}: give {'whole ' if known.whole else ''}numbers as LOW..HIGH or A,B,C"
        ) from None


def sizes_around(batch_size: int) -> dict[str, int]:
    """Half a batch size, itself and its double, by their names."""
    return {str(size): size for size in (max(2, batch_size // 4 * 2), batch_size, 2 * batch_size)}


def own_values(phase: Phase, space: Space) -> dict[str, Value]:
    """The point of a space where the phase is as it is; settings that lie outside the space are left out."""
    found: dict[str, Value] = {}
    for name, dimension in space.items():
        if name.endswith(FACTOR):
            value: Any = 1.0
        else:
            value = phase
            for key in name.split("."):
                value = _held(value, key)
        if isinstance(dimension, Choice):
            names = [one for one, meant in dimension.of.items() if meant == value]
            if names:
                found[name] = names[0]
        elif isinstance(value, int | float) and dimension.low <= value <= dimension.high:
            found[name] = _number(dimension, value)
    return found
