"""Which galaxies can be lenses: known light is measured as what it is, and judged for the right reason."""

from collections import Counter

import numpy as np
import pytest
from galaxies import galaxy

from lensray.simulation import simulate
from lensray.simulation.deflectors import HostStatus, background, measure_hosts
from lensray.survey import COSMOS_ACS, DES, HSC_WIDE


@pytest.mark.parametrize("angle", [-1.2, 0.0, 0.5, 1.4])
def test_centre_shape_and_magnitude_are_those_of_the_galaxy(angle):
    image = galaxy(axis_ratio=0.65, angle=angle, x=0.15, y=-0.1, radius=0.9)
    host = measure_hosts(image, HSC_WIDE)
    assert host.status[0] == HostStatus.PLAUSIBLE
    assert (host.x[0], host.y[0]) == pytest.approx((0.15, -0.1), abs=0.04)
    assert host.axis_ratio[0] == pytest.approx(0.65, abs=0.08)
    assert (host.angle[0] - angle + np.pi / 2) % np.pi - np.pi / 2 == pytest.approx(0, abs=0.08)
    # Isophotes leave out the wings: 0.2 to 0.4 mag of a de Vaucouleurs profile.
    assert 0.0 < host.i_mag[0] - 19.5 < 0.5
    assert host.sky_sigma[0] == pytest.approx(HSC_WIDE.sky_sigma, rel=0.25)


def test_a_magnitude_of_a_catalogue_goes_before_the_image():
    image = np.concatenate([galaxy(), galaxy()])
    host = measure_hosts(image, HSC_WIDE, mag=np.array([20.5, np.nan]))
    assert host.i_mag[0] == 20.5
    assert host.i_mag[1] == measure_hosts(galaxy(), HSC_WIDE).i_mag[0]


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"mag": (30.0, 30.0, 30.0)}, HostStatus.NO_OBJECT),
        ({"x": 4.5, "radius": 0.3, "index": 0.5}, HostStatus.NO_OBJECT),
        ({"x": 2.5}, HostStatus.OFF_CENTRE),
        ({"x": 0.7}, HostStatus.OFF_CENTRE),
        ({"mag": (25.6, 24.1, 23.5), "radius": 0.5}, HostStatus.TOO_FAINT),
        ({"mag": (15.0, 14.0, 13.5)}, HostStatus.TOO_BRIGHT),
        ({"radius": 0.01}, HostStatus.STAR),
        ({"radius": 6.0, "mag": (19.0, 17.8, 17.2), "index": 1.0}, HostStatus.TOO_LARGE),
        ({"axis_ratio": 0.2, "index": 1.0}, HostStatus.ELONGATED),
        ({"mag": (20.0, 19.7, 19.5)}, HostStatus.BLUE),
        ({"index": 0.5, "radius": 1.4}, HostStatus.DIFFUSE),
    ],
)
def test_other_objects_are_left_out_for_the_right_reason(changed, status):
    assert measure_hosts(galaxy(**changed), HSC_WIDE).status[0] == status


def test_a_companion_and_an_unusable_cutout_are_left_out():
    pair = galaxy() + galaxy(x=1.3, mag=(22.0, 20.8, 20.3), radius=0.4, noise=0.0)
    # For whatever reason is found first.
    assert not measure_hosts(pair, HSC_WIDE).plausible[0]
    padded = galaxy(COSMOS_ACS, mag=(20.5,), radius=0.3)
    padded[:, :, :20] = 0.0
    assert measure_hosts(padded, COSMOS_ACS).status[0] == HostStatus.PADDED
    holed = galaxy()
    holed[:, :, :, 50:] = np.nan
    assert measure_hosts(holed, HSC_WIDE).status[0] == "nan"
    holed = galaxy()
    holed[:, 1, 5:8, 9:14] = np.nan
    assert measure_hosts(holed, HSC_WIDE).plausible[0]


@pytest.mark.parametrize(("survey", "size"), [(HSC_WIDE, 64), (DES, 64)])
def test_mostly_early_types_are_chosen_from_a_survey(survey, size):
    drawn = simulate(survey, np.arange(300), np.zeros(300, bool), seed=11, size=size)
    chosen = measure_hosts(drawn.images.numpy(), survey).plausible
    share = Counter(drawn.kind[chosen].tolist())
    early = drawn.kind == "elliptical"
    assert (chosen & early).sum() > 0.5 * early.sum()
    # Artefacts, too, are on early types.
    assert share["elliptical"] + share["artefact"] > 0.65 * chosen.sum()
    assert share["star"] + share["merger"] <= 0.04 * chosen.sum()


def test_the_sky_is_measured_beside_a_bright_neighbour():
    image = np.random.default_rng(0).normal(5.0, 2.0, (2, 64, 64))
    image[:, :30, :] += 100.0
    level, sigma = background(image)
    assert level == pytest.approx([5.0, 5.0], abs=0.4)
    assert sigma == pytest.approx([2.0, 2.0], rel=0.15)
