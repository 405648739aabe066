"""A recipe's sets on the user's own survey: arcs on its galaxies, and nothing in common between training and validation."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import surveys

from lensray import cutouts
from lensray.errors import InputError
from lensray.recipes import eznet_hsc
from lensray.recipes.config import RecipeConfig
from lensray.recipes.outcome import run_recipe
from lensray.recipes.sources import Sources
from lensray.simulation.table import simulated_table
from lensray.survey import HSC_WIDE
from lensray.training.plain import PlainWorkbench

COUNT = 240


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    """HSC cutouts whose positions tell one galaxy from another; six are known lenses."""
    url = str(tmp_path_factory.mktemp("user") / "survey")
    table = simulated_table(HSC_WIDE, np.arange(COUNT), np.arange(COUNT) % 40 == 3, seed=9)
    table = table.set_column(table.column_names.index("ra"), "ra", pa.array(np.arange(COUNT) / 1000))
    table = table.select(["object_id", "ra", "dec", "image", "is_tracer"])
    cutouts.write_survey([table], url, cutouts.read_format(table.schema), row_group_bytes=4 << 20)
    return url


def sources(survey, folder):
    config = RecipeConfig(output=str(folder), cutouts=survey, seed=2)
    bench = PlainWorkbench(config.output, "sources", config.settings())
    return Sources(config, bench, survey="hsc_wide", size=64)


def galaxies_of(url):
    """The survey's numbers of the galaxies of a set, by their positions, and its labels."""
    table = pq.read_table(url)
    return np.rint(table["ra"].to_numpy() * 1000).astype(int).tolist(), table["label"].to_pylist()


def test_training_and_validation_have_no_galaxy_in_common(survey, tmp_path):
    made = sources(survey, tmp_path)
    lenses, labels = galaxies_of(made.lenses("lenses", 12))
    assert labels == [True] * 12
    others, labels = galaxies_of(made.non_lenses("non_lenses", 20))
    assert labels == [False] * 20
    random, labels = galaxies_of(made.random_of("random", survey, 15))
    assert labels == [False] * 15
    validation, labels = galaxies_of(made.validation("validation", 20))
    assert sorted(labels) == [False] * 18 + [True] * 2
    assert not {*lenses, *others, *random} & set(validation)
    known = set(range(3, COUNT, 40))
    assert not {*lenses, *others, *random, *validation} & known
    assert made.survey("survey", 1000, 10) == survey


def test_non_lenses_are_fewer_where_the_survey_is_small(survey, tmp_path):
    others, _ = galaxies_of(sources(survey, tmp_path).non_lenses("non_lenses", 5000))
    # Half of the training share, so that there is a choice.
    assert len(others) == int(COUNT * 0.8 / 2)
    assert len(set(others)) == len(others)


def test_stretched_or_unknown_images_are_refused(tmp_path):
    stretched = surveys.toy_survey(tmp_path / "bytes", 20, files=1, dtype="uint8")
    with pytest.raises(InputError, match="the pixels are uint8"):
        sources(stretched, tmp_path / "a").lenses("lenses", 2)
    unknown = surveys.toy_survey(tmp_path / "toy", 20, files=1)
    with pytest.raises(InputError, match=r"make_cutouts\.py"):
        sources(unknown, tmp_path / "b").lenses("lenses", 2)


@pytest.mark.slow
def test_a_recipe_trains_on_the_users_survey_and_ranks_it(survey, tmp_path):
    config = eznet_hsc.Config(output=str(tmp_path / "run"), scale="smoke", cutouts=survey)
    bench = PlainWorkbench(config.output, "eznet_hsc", config.settings())
    result = run_recipe(eznet_hsc, config, bench)
    candidates = pq.read_table(tmp_path / "run" / "ranking" / "candidates.parquet")
    assert candidates.num_rows == COUNT
    assert candidates["is_tracer"].to_numpy().sum() == 6
    assert result.lines[0].startswith("mine: ranking_performance")
