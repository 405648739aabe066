"""The contact sheet of arcs on real galaxies: each lens stands beside its own host."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from galaxies import galaxy
from PIL import Image

from lensray import cutouts
from lensray.inspection.injection_figure import injection_figure, pairs_of
from lensray.simulation.onto_survey import injected_survey
from lensray.survey import HSC_WIDE
from lensray.survey_imaging import open_hosts
from lensray.training.sets import row_groups

SCRIPT = Path(__file__).parent.parent / "examples" / "injected_arcs.py"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Addresses of six galaxies, and of a set with three lenses on them."""
    folder = tmp_path_factory.mktemp("sheet")
    format = cutouts.CutoutFormat(
        survey="hsc_wide",
        bands=HSC_WIDE.bands,
        pixel_scale_arcsec=HSC_WIDE.pixel_scale_arcsec,
        shape=(3, 64, 64),
        dtype=np.dtype("float32"),
    )
    images = np.concatenate(
        [galaxy(seed=k, mag=(21.0 + k / 5, 19.5 + k / 5, 19.0 + k / 5)) for k in range(6)]
    )
    cutouts.write_survey([cutouts.make_table(format, np.arange(6), images)], str(folder / "s"), format)
    table = pa.concat_tables(injected_survey(open_hosts(str(folder / "s")), count=5, lenses=3, seed=1))
    cutouts.write_survey([table], str(folder / "i"), cutouts.read_format(table.schema))
    return folder / "s", folder / "i"


def test_each_lens_stands_beside_its_host(folders):
    survey, injected = (pa.concat_tables(row_groups(str(folder))) for folder in folders)
    lenses = injected.filter(injected["label"])
    stored, _ = cutouts.images_of(survey, cutouts.read_format(survey.schema))
    pairs = list(pairs_of(survey, injected))
    assert len(pairs) == 3
    for pair, host, radius in zip(
        pairs, lenses["host_id"].to_pylist(), lenses["einstein_radius_arcsec"].to_pylist(), strict=True
    ):
        assert np.array_equal(pair.before, stored[host])
        assert (pair.after - pair.before).sum() > 0
        assert f"{radius:.2f}" in pair.title
    small = next(pairs_of(survey, injected, width_arcsec=20 * HSC_WIDE.pixel_scale_arcsec))
    assert np.array_equal(small.before, pairs[0].before[:, 22:42, 22:42])


def test_the_figure_has_every_pair(folders):
    survey, injected = (pa.concat_tables(row_groups(str(folder))) for folder in folders)
    pairs = list(pairs_of(survey, injected))
    (axes,) = injection_figure(pairs, columns=2).axes
    assert len(axes.images) == 3
    assert {text.get_text() for text in axes.texts} == {pair.title for pair in pairs}
    assert len({tuple(image.get_extent()) for image in axes.images}) == 3


def test_the_example_draws_a_picture(folders, tmp_path, monkeypatch, capsys):
    survey, injected = map(str, folders)
    words = ["--surveys", survey, "--injected", injected, "--output", str(tmp_path / "a.png")]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *words])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert stop.value.code in (0, None)
    assert "3 pairs" in capsys.readouterr().out
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.width > 3 * picture.height
