from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from test_bundle import small_bundle
from torch import nn

from lensray import bundle as bundles
from lensray import models
from lensray.cutouts import tensor_column
from lensray.errors import InputError
from lensray.pixels import Status
from lensray.scoring import NON_FINITE_SCORE, Scorer

# A row for each reason that the reading stage may give.
REASONS = [Status.NULL_IMAGE, Status.NAN, Status.MASKED, Status.DUPLICATE_OBJECT_ID, Status.FAILED]


def cutouts(count=23, dtype=np.float32, seed=0, **columns):
    generator = np.random.default_rng(seed)
    images = (40 * generator.random((count, 2, 12, 12)) ** 3 + 5 * generator.random((count, 2, 1, 1))).astype(
        dtype
    )
    table = {"object_id": np.arange(count), "ra": np.linspace(0, 1, count), "dec": np.zeros(count), **columns}
    return pa.table({**table, "image": tensor_column(images)}), images


def obvious_scores(bundle, images, positive=("lens",)):
    """One image at a time through normalization and network."""
    model = bundle.model()
    index = [bundle.classes.index(name) for name in positive]
    with torch.inference_mode():
        rows = [model(bundle.normalization(torch.from_numpy(image[None].copy()))) for image in images]
    return models.probabilities(torch.cat(rows), str(model.activation))[:, index].sum(1).numpy()


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32])
@pytest.mark.parametrize("micro_batch", [1, 7, None])
def test_scores_are_those_of_one_image_at_a_time(dtype, micro_batch):
    bundle = small_bundle()
    table, images = cutouts(dtype=dtype)
    scored = Scorer(bundle, device="cpu", micro_batch=micro_batch)(table)
    scores = scored["score"].to_numpy()
    np.testing.assert_allclose(scores, obvious_scores(bundle, images), atol=1e-5)
    assert scores.std() > 1e-4
    assert scored["score"].type == pa.float32()
    assert scored["status"].to_pylist() == ["ok"] * 23


def test_the_same_table_gives_the_same_bytes():
    table, _ = cutouts(200)
    first, second = (Scorer(small_bundle(), device="cpu")(table) for _ in range(2))
    assert first.equals(second)


def test_kept_columns_come_back_in_order_and_the_image_does_not():
    table, _ = cutouts(mag_i=np.arange(23.0))
    scored = Scorer(small_bundle(), device="cpu")(table)
    assert scored.column_names == ["object_id", "ra", "dec", "mag_i", "score", "status"]
    assert scored.select(["object_id", "ra", "dec", "mag_i"]).equals(
        table.select(["object_id", "ra", "dec", "mag_i"])
    )


def test_rows_with_a_reason_are_not_scored_and_the_others_are():
    status = ["ok", *REASONS, "filled_nan", None] * 3
    table, images = cutouts(len(status), status=status)
    scored = Scorer(small_bundle(), device="cpu", micro_batch=4)(table)
    usable = np.array([s in ("ok", "filled_nan") for s in status])
    assert scored["status"].to_pylist() == status
    assert (np.array(scored["score"].is_valid()) == usable).all()
    scores = scored["score"].to_numpy()[usable]
    np.testing.assert_allclose(scores, obvious_scores(small_bundle(), images[usable]), atol=1e-5)


def test_a_row_without_an_image_gets_a_status_though_none_was_given():
    table, images = cutouts(5)
    nulls = tensor_column(images, null=np.array([False, True, False, False, False]))
    scored = Scorer(small_bundle(), device="cpu")(table.set_column(3, "image", nulls))
    assert scored["status"].to_pylist() == ["ok", "null_image", "ok", "ok", "ok"]
    assert scored["score"].null_count == 1


@pytest.mark.parametrize("status", [[], ["failed"] * 6])
def test_a_table_with_nothing_to_score_comes_back_whole(status):
    table, _ = cutouts(6, status=["ok"] * 6)
    table = table.set_column(3, "status", pa.array(status or ["ok"] * 6)) if status else table.slice(0, 0)
    scored = Scorer(small_bundle(), device="cpu")(table)
    assert scored.num_rows == len(status)
    assert scored["score"].null_count == len(status)
    assert scored.schema.field("score").type == pa.float32()


def test_a_slice_and_chunks_of_a_table_are_scored_alike():
    table, _ = cutouts(30)
    whole = Scorer(small_bundle(), device="cpu")(table)["score"].to_numpy()
    scorer = Scorer(small_bundle(), device="cpu")
    np.testing.assert_allclose(scorer(table.slice(11, 9))["score"].to_numpy(), whole[11:20], atol=1e-6)
    chunked = pa.concat_tables([table.slice(0, 4), table.slice(4, 26)])
    np.testing.assert_allclose(scorer(chunked)["score"].to_numpy(), whole, atol=1e-6)


@pytest.mark.parametrize("images", [np.zeros((3, 2, 12, 10), np.float32), np.zeros((3, 1, 12, 12), np.uint8)])
def test_images_of_another_shape_are_refused(images):
    with pytest.raises(ValueError, match=r"made for \(2, 12, 12\)"):
        Scorer(small_bundle(), device="cpu")(pa.table({"image": tensor_column(images)}))


def test_several_classes_add_up_and_are_shown_singly():
    arguments = {**small_bundle().arguments, "classes": 3}
    classes = ("non-lens", "quad", "ring")
    state = models.build("eznet", **arguments).state_dict()
    bundle = small_bundle(
        arguments=arguments, classes=classes, positive_classes=("quad", "ring"), state=state
    )
    table, images = cutouts()
    scored = Scorer(bundle, device="cpu")(table)
    assert scored.column_names[3:] == ["score", "score_non-lens", "score_quad", "score_ring", "status"]
    np.testing.assert_allclose(
        scored["score"].to_numpy(), obvious_scores(bundle, images, ("quad", "ring")), atol=1e-5
    )
    chosen = Scorer(bundle, device="cpu", positive_classes=["ring"])(table)
    np.testing.assert_array_equal(chosen["score"].to_numpy(), scored["score_ring"].to_numpy())
    with pytest.raises(InputError, match="spiral"):
        Scorer(bundle, device="cpu", positive_classes=["spiral"])


class Touchy(nn.Module):
    """Runs out of memory above `limit` images, and gives a chosen image a chosen logit."""

    activation = "sigmoid"

    def __init__(self, limit=10**9, error=None, logit=float("nan")):
        super().__init__()
        self.limit, self.error, self.logit = limit, error, logit
        self.batches = []

    def forward(self, images):
        self.batches.append(len(images))
        if len(images) > self.limit:
            raise self.error
        sums = images.sum((1, 2, 3))
        return torch.stack([-sums, torch.where(images[:, 0, 0, 0] == 1, self.logit, sums / 100)], dim=1)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_micro_batches_halve_until_they_fit_and_no_row_is_lost(error):
    table, _ = cutouts(37)
    scorer = Scorer(small_bundle(), device="cpu", micro_batch=16)
    scorer._model = Touchy()
    expected = scorer(table)
    scorer._model = touchy = Touchy(limit=5, error=error)
    assert scorer(table).equals(expected)
    assert touchy.batches[:3] == [16, 8, 4]
    assert scorer.micro_batch == 4
    touchy.batches.clear()
    scorer(table)
    assert max(touchy.batches) == 4


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("out of memory"), RuntimeError("shapes do not match")]
)
def test_what_smaller_batches_cannot_mend_is_raised(error):
    table, _ = cutouts(4)
    scorer = Scorer(small_bundle(), device="cpu")
    scorer._model = Touchy(limit=0, error=error)
    with pytest.raises(RuntimeError, match=str(error)):
        scorer(table)


@pytest.mark.parametrize("logit", [float("nan"), float("inf"), float("-inf")])
def test_a_score_that_is_not_finite_becomes_a_status(logit):
    table, images = cutouts(9)
    images[4, 0] = 0
    images[4, 0, 0, 0] = 50
    images[[0, 1, 2, 3, 5, 6, 7, 8], :, 0, 0] = 0
    scorer = Scorer(small_bundle(), device="cpu")
    scorer._model = Touchy(logit=logit)
    scored = scorer(table.set_column(3, "image", tensor_column(images)))
    assert scored["status"].to_pylist() == ["ok"] * 4 + [NON_FINITE_SCORE] + ["ok"] * 4
    assert scored["score"].is_null().to_pylist() == [i == 4 for i in range(9)]


def test_bfloat16_only_where_the_bundle_says_so():
    table, images = cutouts(40)
    exact = obvious_scores(small_bundle(), images)
    mixed = Scorer(small_bundle(precision="bfloat16"), device="cpu")(table)["score"].to_numpy()
    difference = np.abs(mixed - exact).max()
    assert 1e-6 < difference < 2e-2


def test_a_bundle_is_taken_by_its_address(tmp_path):
    url = str(tmp_path / "model.safetensors")
    bundles.save(small_bundle(), url)
    table, _ = cutouts()
    assert Scorer(url, device="cpu")(table).equals(Scorer(small_bundle(), device="cpu")(table))


def test_threads_are_those_asked_for():
    before = torch.get_num_threads()
    try:
        Scorer(small_bundle(), device="cpu", threads=1)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_gpu_gives_the_scores_of_the_cpu(dtype):
    table, images = cutouts(1000, dtype=dtype)
    scored = Scorer(replace(small_bundle()), device="cuda", micro_batch=64)(table)
    np.testing.assert_allclose(scored["score"].to_numpy(), obvious_scores(small_bundle(), images), atol=1e-5)
