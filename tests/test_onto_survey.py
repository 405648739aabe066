"""Training sets on a user's survey: lenses and non-lenses of like brightness, from real cutouts that are left as they are."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import surveys
from galaxies import galaxy
from sklearn.metrics import roc_auc_score

from lensray import cutouts
from lensray.errors import InputError
from lensray.extraction.config import MakeCutoutsConfig
from lensray.extraction.stamps import make_survey
from lensray.simulation import onto_survey
from lensray.simulation.brightness import brightness_features, draw_weighted, matched_draw, overlap_weights
from lensray.simulation.injected_table import injected_table, lens_ids
from lensray.simulation.table import simulated_table
from lensray.survey import DES, HSC_WIDE
from lensray.survey_imaging import open_hosts
from lensray.survey_rows import choose_rows, sample_rows

RADII_ARCSEC = (0.5, 1.0, 2.0, 3.0)
SIMULATED = 600


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    """Simulated DES cutouts in several row groups, ten of them known lenses."""
    url = str(tmp_path_factory.mktemp("hosts") / "survey")
    table = simulated_table(DES, np.arange(SIMULATED), np.arange(SIMULATED) % 60 == 7, seed=5, size=48)
    kept = ["object_id", "ra", "dec", "image", "label", "is_tracer", "kind"]
    format = cutouts.read_format(table.schema)
    cutouts.write_survey([table.select(kept)], url, format, rows_per_file=350, row_group_bytes=2 << 20)
    return url


@pytest.fixture(scope="module")
def plan(survey):
    return onto_survey.plan_injection(open_hosts(survey), count=150, lenses=50, seed=3)


@pytest.fixture(scope="module")
def injected(survey, plan):
    return pa.concat_tables(onto_survey.planned_table(open_hosts(survey), p, seed=3) for p in plan.places)


def made(url, **words):
    return pa.concat_tables(onto_survey.injected_survey(open_hosts(url), **words))


def pixels(table):
    return cutouts.images_of(table, cutouts.read_format(table.schema))[0]


def fluxes(images, pixel_scale):
    """Total and aperture fluxes of each band, and of all, shape (N, bands + 1, 5): the test's own measure."""
    axes = [(np.arange(n) - (n - 1) / 2) * pixel_scale for n in images.shape[2:]]
    distance = np.hypot(axes[0][:, None], axes[1])
    images = np.concatenate([images, images.sum(1, keepdims=True)], axis=1)
    inside = [distance <= radius for radius in (*RADII_ARCSEC, np.inf)]
    return np.stack([np.nansum(images * region, axis=(2, 3)) for region in inside], axis=2)


def brightness_aurocs(lenses, others, pixel_scale):
    """AUROC of each flux between two sets of images, by scikit-learn."""
    measured = fluxes(np.concatenate([lenses, others]), pixel_scale)
    labels = np.arange(len(measured)) < len(lenses)
    return np.array([roc_auc_score(labels, flux) for flux in measured.reshape(len(labels), -1).T])


def aurocs_of(table):
    images, is_lens = pixels(table), table["label"].to_numpy()
    scale = cutouts.read_format(table.schema).pixel_scale_arcsec
    return brightness_aurocs(images[is_lens], images[~is_lens], scale)


def naive_aurocs(url, count):
    """The control: arcs on random plausible galaxies against random cutouts."""
    hosts = open_hosts(url)
    first, second = (
        sample_rows(url, count, seed=s, columns=["object_id", "ra", "dec", "image"]) for s in (1, 2)
    )
    lenses = injected_table(first, hosts, np.zeros(first.num_rows, np.int64), seed=1)
    return brightness_aurocs(pixels(lenses), pixels(second), hosts.format.pixel_scale_arcsec)


def test_brightness_alone_does_not_separate_lenses_from_non_lenses(survey, injected):
    assert injected["label"].to_numpy().sum() == 50
    assert injected.num_rows == 150
    areas = aurocs_of(injected)
    assert 0.4 < areas.min() <= areas.max() < 0.6


def test_naive_injection_is_given_away_by_brightness(survey):
    assert np.abs(naive_aurocs(survey, 200) - 0.5).max() > 0.15


def test_the_plan_says_how_well_brightness_tells_them_apart(plan):
    assert plan.brightness_auroc is not None
    assert abs(plan.brightness_auroc - 0.5) < 0.1
    assert plan.statuses["plausible"] > 50
    assert sum(place.count for place in plan.places) == 150


def test_non_lenses_are_the_surveys_own_and_no_hosts(survey, injected):
    is_lens = injected["label"].to_numpy()
    stored = pq.read_table(survey)
    row = {name: k for k, name in enumerate(stored["object_id"].to_pylist())}
    known = set(np.asarray(stored["object_id"])[stored["label"].to_numpy()].tolist())
    ids = np.array(injected["object_id"].to_pylist())
    hosts = np.array(injected["host_id"].to_pylist())[is_lens]
    assert len(set(ids.tolist())) == len(ids)
    assert not set(ids[~is_lens].tolist()) & (set(hosts.tolist()) | known)
    assert not set(hosts.tolist()) & known
    assert (ids[is_lens] < 0).all()
    before = pixels(stored)
    untouched = before[[row[i] for i in ids[~is_lens].tolist()]]
    assert pixels(injected)[~is_lens].tobytes() == untouched.tobytes()
    changed = pixels(injected)[is_lens] - before[[row[i] for i in hosts.tolist()]]
    assert (np.abs(changed).max((1, 2, 3)) > 0).all()


def test_lenses_have_parameters_and_others_have_none(injected):
    is_lens = injected["label"].to_numpy()
    assert injected["is_tracer"].to_pylist() == is_lens.tolist()
    assert set(injected["kind"].to_pylist()) == {"injected", "survey"}
    for name in ("einstein_radius_arcsec", "source_mag", "arc_snr", "host_mag_i", "host_id"):
        assert injected[name].is_valid().to_numpy().tolist() == is_lens.tolist()
    radii = injected["einstein_radius_arcsec"].to_numpy()[is_lens]
    assert 0.6 < radii.min() <= radii.max() < 3.1


def test_the_seed_chooses(survey):
    first, again, other = (made(survey, count=30, lenses=10, seed=s) for s in (1, 1, 2))
    assert again.equals(first)
    assert set(other["object_id"].to_pylist()) != set(first["object_id"].to_pylist())


def test_a_lens_follows_from_its_host_and_the_number_of_its_arc(survey, plan, injected):
    place = next(place for place in plan.places if place.hosts)
    alone = replace(place, others=(), hosts=place.hosts[:1], arcs=place.arcs[:1])
    lens = onto_survey.planned_table(open_hosts(survey), alone, seed=3)
    same = injected.filter(pc.equal(injected["object_id"], lens["object_id"][0]))
    assert lens.num_rows == same.num_rows == 1
    assert pixels(lens) == pytest.approx(pixels(same), abs=1e-4 * float(pixels(same).max()))


def test_shares_of_a_survey_have_no_object_in_common(survey):
    low, high = (made(survey, count=30, lenses=10, seed=3, share=s) for s in ((0.0, 0.3), (0.3, 1.0)))
    objects = [
        {*t["host_id"].to_pylist(), *t.filter(pc.invert(t["label"]))["object_id"].to_pylist()} - {None}
        for t in (low, high)
    ]
    assert not objects[0] & objects[1]
    rows = sum(len(place.rows) for place in choose_rows(survey, SIMULATED, seed=0, share=(0.0, 0.3)))
    assert rows == pytest.approx(0.3 * (SIMULATED - 10), abs=4 * np.sqrt(0.21 * SIMULATED))


def test_columns_of_the_survey_say_seeing_and_magnitude(tmp_path):
    images = np.repeat(galaxy(DES, mag=(20.6, 19.1, 18.5), radius=1.0), 2, axis=0)
    format = surveys.cutout_format(size=64, pixel_scale=DES.pixel_scale_arcsec)
    table = cutouts.make_table(
        format, ["a", "b"], images, mag_i=pa.array([19.0, None]), psf_fwhm_i=pa.array([0.6, None])
    )
    cutouts.write_survey([table], str(tmp_path / "s"), format)
    hosts = open_hosts(str(tmp_path / "s"), "des")
    stored = pq.read_table(tmp_path / "s")
    made = injected_table(stored, hosts, np.zeros(2, np.int64), seed=1)
    assert made["host_mag_i"][0].as_py() == 19.0
    assert made["host_mag_i"][1].as_py() == pytest.approx(18.7, abs=0.4)
    assert made["object_id"].to_pylist() == lens_ids(["a", "b"], [0, 0], 1)
    # A narrower PSF makes a sharper arc.
    arcs = pixels(made)[:, 2] - images[:, 2]
    assert arcs[0].max() / arcs[0].sum() > 1.1 * arcs[1].max() / arcs[1].sum()


def test_hosts_that_are_few_carry_several_arcs_but_not_any_number(tmp_path):
    images = np.concatenate([galaxy(seed=k) for k in range(2)] + [galaxy(seed=9, index=0.5, radius=1.4)] * 20)
    format = cutouts.CutoutFormat(
        survey="hsc_wide",
        bands=HSC_WIDE.bands,
        pixel_scale_arcsec=0.168,
        shape=(3, 64, 64),
        dtype=np.dtype("f4"),
    )
    url = str(tmp_path / "s")
    cutouts.write_survey([cutouts.make_table(format, np.arange(22), images)], url, format)
    table = made(url, count=30, lenses=15, seed=0)
    lenses = table.filter(table["label"])
    assert set(lenses["host_id"].to_pylist()) <= {0, 1}
    assert len(set(lenses["einstein_radius_arcsec"].to_pylist())) == 15
    with pytest.raises(InputError, match="at most 50 arcs"):
        made(url, count=150, lenses=101, seed=0)
    with pytest.raises(InputError, match="usable cutouts that are no hosts, and 30 are wanted"):
        made(url, count=40, lenses=10, seed=0)


def test_a_draw_matches_what_two_classes_have_in_common():
    generator = np.random.default_rng(0)
    lenses, others = generator.normal(0.7, 1.0, (400, 2)), generator.normal(0.0, 1.2, (1500, 2))
    drawn = matched_draw(lenses, np.arange(400), others, lenses=100, others=300, seed=1)
    assert len(drawn.chosen) == 100
    assert len(drawn.others) == 300
    assert not set(drawn.chosen.tolist()) & set(drawn.others.tolist())
    labels = np.repeat([True, False], [100, 300])
    for column in range(2):
        values = np.concatenate([lenses[drawn.chosen, column], others[drawn.others, column]])
        assert roc_auc_score(labels, values) == pytest.approx(0.5, abs=0.05)
        everything = np.concatenate([lenses[:, column], others[:, column]])
        assert roc_auc_score(np.repeat([True, False], [400, 1500]), everything) > 0.65


def test_overlap_weights_even_out_the_mean_ranks():
    generator = np.random.default_rng(1)
    lenses, others = generator.normal(0.5, 1.0, (300, 1)), generator.normal(0.0, 1.0, (3000, 1))
    mine, theirs = overlap_weights(lenses, others)
    mean = [np.average(v[:, 0], weights=w) for v, w in ((lenses, mine), (others, theirs))]
    assert mean[0] == pytest.approx(mean[1], abs=0.03)
    assert mean[0] == pytest.approx(0.25, abs=0.2)


def test_weighted_draws_have_their_chances():
    weights = np.array([0.0, 1.0, 2.0, 3.0, 50.0])
    generator = np.random.default_rng(0)
    drawn = np.bincount(
        np.concatenate([draw_weighted(weights, 2, generator) for _ in range(3000)]), minlength=5
    )
    # The last one always, one in six, two in six and three in six of the others.
    assert drawn / 3000 == pytest.approx([0, 1 / 6, 2 / 6, 3 / 6, 1], abs=0.03)


def test_brightness_is_measured_where_there_are_pixels():
    image = np.zeros((2, 1, 21, 21), np.float32)
    image[0, 0, 10, 10] = 49.0
    image[1] = np.nan
    image[1, 0, 0, :] = 2.0
    features = brightness_features(image, (3.0,))
    area = np.hypot(*np.indices((21, 21)) - 10.0) <= 3
    assert features[0] == pytest.approx([49 / 441, 49.0, 0.0, 1.0, 49 / area.sum()], abs=0.01)
    assert features[1, :3] == pytest.approx([2.0, 2.0, 0.0])
    assert np.isnan(features[1, 3:]).all()


@pytest.fixture(scope="module")
def real_des(real_data, tmp_path_factory):
    url = str(tmp_path_factory.mktemp("real") / "des")
    words = {"survey": "des", "input_pixel_scale": 0.263, "stack": True, "bands": ("g", "r", "i")}
    make_survey(MakeCutoutsConfig(stamps=(f"{real_data}/des_objects/{{band}}.fits",), output=url, **words))
    return url


def test_brightness_alone_does_not_separate_lenses_on_real_galaxies(real_des):
    """46 real DES galaxies leave 8 + 8 of like brightness; six draws together have an error of 0.05."""
    drawn = [made(real_des, count=16, lenses=8, seed=seed) for seed in range(6)]
    areas = aurocs_of(pa.concat_tables(drawn))
    assert 0.4 < areas.min() <= areas.max() < 0.6
    assert naive_aurocs(real_des, 46).max() > 0.6


def test_a_survey_without_equals_of_its_only_host_says_so(real_data, tmp_path):
    """Of 110 COSMOS stamps one shows an early type, and none of the others is as bright."""
    stamps = (f"{real_data}/cosmos_hst/real_galaxy_images_*.fits",)
    words = {"survey": "cosmos_acs", "bands": ("F814W",), "each_hdu": True, "size": 64}
    make_survey(MakeCutoutsConfig(stamps=stamps, output=str(tmp_path / "cosmos"), **words))
    plan = onto_survey.plan_injection(open_hosts(str(tmp_path / "cosmos")), count=20, lenses=10, seed=1)
    assert plan.statuses["plausible"] == 1
    assert plan.brightness_auroc is not None
    assert plan.brightness_auroc > 0.9
