import copy
import math

import numpy as np
import pytest
import torch
from rings import EZNET, rings_and_blobs
from torch import nn

from lensray import augmentation, models
from lensray.normalization import PercentileClip
from lensray.training.losses import loss_for, sigmoid_cross_entropy, softmax_cross_entropy
from lensray.training.sampling import paired_indices, shuffled_indices
from lensray.training.steps import evaluate, train_epoch


def pairs_of(images, labels, batch_size, *, seed, epoch):
    """Mini-batches of pairs."""
    lenses, others = (torch.nonzero(labels == value)[:, 0] for value in (1, 0))
    for positive, negative in paired_indices(len(lenses), len(others), batch_size, seed=seed, epoch=epoch):
        rows = torch.cat([lenses[positive], others[negative]])
        yield images[rows], labels[rows]


def test_sigmoid_cross_entropy_is_its_formula():
    logits = torch.tensor([[2.0, -1.0], [0.5, 3.0]])
    p = 1 / (1 + np.exp(-logits.numpy()))
    terms = [-math.log(p[0, 0]), -math.log(1 - p[0, 1]), -math.log(1 - p[1, 0]), -math.log(p[1, 1])]
    assert sigmoid_cross_entropy(logits, torch.tensor([0, 1])).item() == pytest.approx(
        np.mean(terms), rel=1e-5
    )


def test_softmax_cross_entropy_is_its_formula():
    logits = torch.tensor([[2.0, -1.0], [0.5, 3.0]])
    terms = [math.log(1 + math.exp(-3)), math.log(1 + math.exp(-2.5))]
    assert softmax_cross_entropy(logits, torch.tensor([0, 1])).item() == pytest.approx(
        np.mean(terms), rel=1e-5
    )


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_the_smoothed_loss_is_least_at_the_smoothed_probability(activation):
    loss = loss_for(activation, smoothing=0.2)
    steps = torch.linspace(-6, 6, 1201)
    logits = torch.stack([-steps, steps], dim=1)
    values = torch.stack([loss(row[None], torch.tensor([1])) for row in logits])
    best = models.probabilities(logits[values.argmin()][None], activation)[0, 1]
    assert best.item() == pytest.approx(0.9, abs=5e-3)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_losses_and_their_gradients_are_finite_for_any_finite_logits(activation):
    logits = torch.tensor([[1e4, -1e4], [-1e4, 1e4], [0.0, 0.0]], requires_grad=True)
    value = loss_for(activation)(logits, torch.tensor([1, 1, 0]))
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(logits.grad).all()


def test_an_unknown_activation_or_smoothing_is_refused():
    with pytest.raises(ValueError, match="activation"):
        loss_for("relu")
    with pytest.raises(ValueError, match="smoothing"):
        loss_for("softmax", smoothing=1.0)


def test_every_positive_occurs_once_an_epoch_beside_a_negative():
    pairs = list(paired_indices(53, 1000, 16, seed=1, epoch=4))
    assert [len(p) for p, _ in pairs] == [8, 8, 8, 8, 7, 7, 7]
    assert all(len(p) == len(n) for p, n in pairs)
    assert sorted(np.concatenate([p for p, _ in pairs])) == list(range(53))
    negatives = np.concatenate([n for _, n in pairs])
    assert len(set(negatives.tolist())) == 53
    assert negatives.max() > 500


@pytest.mark.parametrize("repeats", [1, 3])
def test_an_epoch_goes_through_the_positives_as_often_as_told_in_batches_of_nearly_one_size(repeats):
    pairs = list(paired_indices(11, 100, 8, seed=2, epoch=0, repeats=repeats))
    positives = np.concatenate([p for p, _ in pairs])
    assert (np.bincount(positives, minlength=11) == repeats).all()
    assert len(pairs) == -(-11 * repeats // 4)
    sizes = [len(p) for p, _ in pairs]
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= 4


def test_a_shuffled_epoch_shows_every_image_once_in_another_order_each_time():
    batches = [list(shuffled_indices(50, 16, seed=1, epoch=epoch)) for epoch in (0, 1)]
    assert [[len(batch) for batch in epoch] for epoch in batches] == [[13, 13, 12, 12]] * 2
    first, second = (np.concatenate(epoch) for epoch in batches)
    assert sorted(first) == sorted(second) == list(range(50))
    assert (first != second).any()


def test_negatives_are_drawn_anew_each_epoch_and_depend_on_the_seed_alone():
    def drawn(seed, epoch):
        return np.concatenate([n for _, n in paired_indices(100, 50_000, 32, seed=seed, epoch=epoch)])

    assert (drawn(1, 0) == drawn(1, 0)).all()
    assert len(set(drawn(1, 0)) & set(drawn(1, 1))) < 10
    assert len(set(drawn(1, 0)) & set(drawn(2, 0))) < 10


def test_a_small_pool_is_gone_through_evenly():
    negatives = np.concatenate([n for _, n in paired_indices(25, 10, 8, seed=0, epoch=0)])
    counts = np.bincount(negatives, minlength=10)
    assert counts.min() >= 2
    assert counts.max() <= 3


@pytest.mark.parametrize(("positives", "negatives", "batch"), [(0, 5, 8), (5, 0, 8), (5, 5, 7), (5, 5, 0)])
def test_pairs_that_cannot_be_made_are_refused(positives, negatives, batch):
    with pytest.raises(ValueError, match=r"classes|even"):
        next(paired_indices(positives, negatives, batch, seed=0, epoch=0))


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
def test_training_learns_to_tell_rings_from_blobs(autocast):
    torch.manual_seed(0)
    images, labels = rings_and_blobs(400, seed=1)
    held_out, truth = rings_and_blobs(200, seed=2)
    model = models.build("eznet", **EZNET).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    loss, clip, generator = loss_for("sigmoid"), PercentileClip(), torch.Generator().manual_seed(0)
    before = evaluate(model, held_out, truth, loss, normalization=clip)
    results = [
        train_epoch(
            model,
            pairs_of(images, labels, 32, seed=1, epoch=epoch),
            loss,
            optimizer,
            normalization=clip,
            augmentation=lambda batch: augmentation.random_symmetries(batch, generator),
            autocast=autocast,
        )
        for epoch in range(6)
    ]
    after = evaluate(model, held_out, truth, loss, normalization=clip)
    assert results[-1].loss < results[0].loss / 2
    assert after.loss < before.loss / 2
    assert after.accuracy > 0.95
    assert results[0].images == 2 * int((labels == 1).sum())
    assert [r.skipped for r in results] == [0] * 6


def test_training_is_the_same_for_the_same_seed():
    def trained():
        torch.manual_seed(0)
        images, labels = rings_and_blobs(64, seed=1)
        model = models.build("eznet", **EZNET)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        batches = pairs_of(images, labels, 16, seed=3, epoch=0)
        train_epoch(model, batches, loss_for("sigmoid"), optimizer, normalization=PercentileClip())
        return model.state_dict()

    first, second = trained(), trained()
    assert all(torch.equal(first[name], second[name]) for name in first)


class Straight(nn.Module):
    activation = "sigmoid"

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, images):
        return self.linear(images.flatten(1))


def test_a_batch_that_is_not_finite_changes_nothing_and_is_counted():
    model = Straight()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    bad = torch.zeros(3, 1, 2, 2)
    bad[1, 0, 0, 0] = torch.inf
    before = copy.deepcopy(model.state_dict())
    result = train_epoch(model, [(bad, torch.tensor([0, 1, 0]))], loss_for("sigmoid"), optimizer)
    assert (result.skipped, result.images) == (1, 3)
    assert math.isnan(result.loss)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not optimizer.state
    good = torch.rand(3, 1, 2, 2)
    mixed = [(bad, torch.tensor([0, 1, 0])), (good, torch.tensor([1, 0, 1]))]
    result = train_epoch(model, mixed, loss_for("sigmoid"), optimizer)
    assert result.skipped == 1
    assert math.isfinite(result.loss)
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())


def test_a_batch_that_is_not_finite_leaves_running_statistics_as_they_are():
    model = models.build("eznet", **EZNET)
    before = copy.deepcopy(model.state_dict())
    bad = torch.full((4, 1, 16, 16), torch.nan)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    result = train_epoch(model, [(bad, torch.tensor([0, 1, 0, 1]))], loss_for("sigmoid"), optimizer)
    assert result.skipped == 1
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_long_gradients_are_shortened():
    model = Straight()
    start = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    # The same image with both labels: one of them is wrong whatever the weights.
    batch = (1e3 * torch.ones(2, 1, 2, 2), torch.tensor([0, 1]))
    train_epoch(model, [batch], loss_for("sigmoid"), optimizer, max_gradient_norm=0.5)
    step = torch.cat([(value - start[name]).flatten() for name, value in model.state_dict().items()])
    assert step.norm().item() == pytest.approx(0.5, rel=1e-3)


def test_the_learning_rate_is_set_before_every_batch():
    model, rates = Straight(), [0.0, 0.0, 0.1]
    start = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)

    def set_rate():
        optimizer.param_groups[0]["lr"] = rates.pop(0)

    batch = (torch.rand(2, 1, 2, 2), torch.tensor([0, 1]))
    train_epoch(model, [batch] * 2, loss_for("sigmoid"), optimizer, before_step=set_rate)
    assert all(torch.equal(start[name], value) for name, value in model.state_dict().items())
    train_epoch(model, [batch], loss_for("sigmoid"), optimizer, before_step=set_rate)
    assert not torch.equal(start["linear.weight"], model.linear.weight)


def test_evaluation_leaves_the_network_as_it_is_and_is_the_same_for_any_batch_size():
    model = models.build("eznet", **EZNET)
    images, labels = rings_and_blobs(50, seed=5)
    before = copy.deepcopy(model.state_dict())
    results = [
        evaluate(model, images, labels, loss_for("sigmoid"), normalization=PercentileClip(), batch_size=size)
        for size in (1, 7, 64)
    ]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    for result in results[1:]:
        torch.testing.assert_close(result.logits, results[0].logits, rtol=1e-4, atol=1e-5)
        assert result.loss == pytest.approx(results[0].loss, rel=1e-4)
    expected = (results[0].logits.argmax(1) == labels).float().mean().item()
    assert results[0].accuracy == pytest.approx(expected)


def test_evaluation_without_images_is_refused():
    with pytest.raises(ValueError, match="label for each image"):
        evaluate(Straight(), torch.zeros(0, 1, 2, 2), torch.zeros(0, dtype=torch.int64), loss_for("sigmoid"))
