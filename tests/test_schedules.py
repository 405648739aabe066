"""Learning rates and batch sizes over a phase, against torch's own schedulers."""

import math

import pytest
import torch

from lensray.training.schedules import Constant, InverseTime, Moment, OneCycle, OnPlateau, Steps


def moment(step=0, *, epoch=0, epochs=10, steps_per_epoch=7, history=()):
    return Moment(epoch=epoch, epochs=epochs, step=step, steps_per_epoch=steps_per_epoch, history=history)


def rates_of(scheduler, optimizer, count):
    """The rates that one of torch's schedulers gives, before each of `count` steps."""
    rates = []
    for _ in range(count):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.fixture
def optimizer():
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)


def test_steps_are_those_of_multi_step_lr(optimizer):
    torchs = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[3, 7], gamma=0.1)
    expected = rates_of(torchs, optimizer, 10)
    ours = [Steps(at=(3, 7)).factor(moment(7 * epoch, epoch=epoch)) for epoch in range(10)]
    assert ours == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("warm_up", [0.15, 0.5])
def test_one_cycle_is_torchs_up_to_the_step_at_which_each_ends(optimizer, warm_up):
    total = 20_000
    torchs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=1.0,
        total_steps=total,
        pct_start=warm_up,
        div_factor=25,
        final_div_factor=1e5 / 25,
        cycle_momentum=False,
    )
    expected = rates_of(torchs, optimizer, total)
    cycle = OneCycle(warm_up=warm_up)
    for step in range(0, total, 97):
        ours = cycle.factor(moment(step, epochs=100, steps_per_epoch=total // 100))
        # torch reaches both ends one step sooner.
        assert ours == pytest.approx(expected[step], abs=5e-4)
    assert cycle.factor(moment(0, epochs=100, steps_per_epoch=200)) == pytest.approx(1 / 25)
    assert cycle.factor(moment(total, epochs=100, steps_per_epoch=200)) == pytest.approx(1e-5)


def test_inverse_time_is_its_formula():
    schedule = InverseTime(decay=1e-2)
    assert [schedule.factor(moment(step)) for step in (0, 1, 100)] == pytest.approx([1, 1 / 1.01, 0.5])


def test_a_constant_rate_and_batch_stay():
    assert Constant().factor(moment(99, epoch=9, history=(0.5,) * 9)) == 1.0
    assert Constant().batch_factor((0.5,) * 9) == 1


def test_on_plateau_lowers_the_rate_and_raises_the_batch_from_8_to_128_in_two_stalls():
    schedule = OnPlateau(patience=2, by=0.3, batch_growth=4, max_batch_factor=16)
    history = [0.70, 0.80, 0.79, 0.80, 0.81, 0.81, 0.80, 0.82, 0.8, 0.8]
    rates = [schedule.factor(moment(history=history[:epoch])) for epoch in range(len(history) + 1)]
    batches = [8 * schedule.batch_factor(history[:epoch]) for epoch in range(len(history) + 1)]
    assert rates == pytest.approx([1.0] * 4 + [0.3] * 3 + [0.09] * 3 + [0.027])
    assert batches == [8] * 4 + [32] * 3 + [128] * 4


def test_on_plateau_falls_when_torchs_reduce_on_plateau_does(optimizer):
    history = [0.5, 0.6, 0.6, 0.55, 0.7, 0.1, 0.2, 0.3, 0.3, 0.9, 0.9, 0.9]
    # torch's patience counts the epochs that are forgiven, ours those that are a stall.
    torchs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode="max", factor=0.3, patience=1, threshold=0
    )
    expected = []
    for value in history:
        torchs.step(value)
        expected.append(optimizer.param_groups[0]["lr"])
    schedule = OnPlateau(patience=2, by=0.3)
    ours = [schedule.factor(moment(history=history[: epoch + 1])) for epoch in range(len(history))]
    assert ours == pytest.approx(expected)


def test_an_epoch_that_could_not_be_measured_counts_as_no_best():
    schedule = OnPlateau(patience=2, by=0.5)
    assert schedule.factor(moment(history=[0.6, -math.inf, -math.inf])) == 0.5
