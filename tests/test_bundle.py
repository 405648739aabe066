import hashlib
import json
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as to_bytes

from lensray import bundle as bundles
from lensray import models
from lensray.bundle import Bundle, Inputs
from lensray.errors import InputError
from lensray.normalization import HistogramTransform, PercentileClip, dim_galaxy_template

SMALL = {"in_channels": 2, "blocks": [[4, 3, 8], [4, 3, 4]], "branching_rate": 2, "hidden": 6}


def small_bundle(normalization=None, **changes):
    torch.manual_seed(3)
    bundle = Bundle(
        architecture="eznet",
        arguments=SMALL,
        inputs=Inputs(bands=("g", "r"), height=12, width=12, pixel_scale_arcsec=0.168, max_nan_fraction=0.1),
        normalization=normalization or PercentileClip(percent=2),
        classes=("non-lens", "lens"),
        positive_classes=("lens",),
        provenance={"recipe": "test", "metrics": {"auroc": 0.5}},
        state=models.build("eznet", **SMALL).state_dict(),
    )
    return replace(bundle, **changes)


def rewritten(data, change_description=None, change_tensors=None):
    """A bundle's bytes with its description or tensors changed behind LensRay's back."""
    size = int.from_bytes(data[:8], "little")
    description = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["lensray"])
    tensors = load_tensors(data)
    if change_description:
        change_description(description)
    if change_tensors:
        change_tensors(tensors)
    return to_bytes(tensors, metadata={"lensray": json.dumps(description)})


@pytest.mark.parametrize(
    "normalization", [PercentileClip(percent=2), HistogramTransform(dim_galaxy_template(20))]
)
def test_a_bundle_comes_back_as_it_was_saved(tmp_path, normalization):
    bundle = small_bundle(normalization)
    url = str(tmp_path / "model.safetensors")
    sha256 = bundles.save(bundle, url)
    loaded = bundles.load(url)
    for name in (
        "architecture",
        "arguments",
        "inputs",
        "classes",
        "positive_classes",
        "precision",
        "provenance",
    ):
        assert getattr(loaded, name) == getattr(bundle, name), name
    assert (
        loaded.sha256 == sha256 == hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()
    )
    assert loaded.state.keys() == bundle.state.keys()
    images = torch.rand(3, 2, 12, 12)
    assert torch.equal(loaded.normalization(images), normalization(images))
    with torch.inference_mode():
        assert torch.equal(loaded.model()(images), bundle.model()(images))
    assert not loaded.model().training


def test_saving_twice_gives_the_same_bytes(tmp_path):
    first, second = (
        bundles.save(small_bundle(), str(tmp_path / name)) for name in ("a.safetensors", "b.safetensors")
    )
    assert first == second


def test_the_header_is_that_of_the_bundle(tmp_path):
    url = str(tmp_path / "model.safetensors")
    sha256 = bundles.save(small_bundle(), url)
    header = bundles.read_header(url)
    assert header.sha256 == sha256
    assert header.inputs == small_bundle().inputs
    assert header.inputs.shape == (2, 12, 12)
    assert header.normalization == {"name": "percentile_clip", "percent": 2, "quantize": True}
    assert (header.classes, header.positive_classes) == (("non-lens", "lens"), ("lens",))


def test_reading_a_header_imports_no_torch(tmp_path):
    url = str(tmp_path / "model.safetensors")
    bundles.save(small_bundle(), url)
    code = "import sys; from lensray import bundle; bundle.read_header(sys.argv[1]); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, url], check=True)


@pytest.mark.parametrize("read", [bundles.read_header, bundles.load])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no .safetensors file"),
        (b"\x80\x04\x95 a pickle", "no .safetensors file"),
        (to_bytes({"w": torch.zeros(2)}), "no LensRay description"),
        (to_bytes({"w": torch.zeros(2)}, metadata={"lensray": "not json"}), "no LensRay description"),
        (to_bytes({"w": torch.zeros(2)}, metadata={"lensray": '{"format": 99}'}), "not of format 1"),
        (to_bytes({"w": torch.zeros(2)}, metadata={"lensray": '{"format": 1}'}), "lacks its normalization"),
    ],
)
def test_a_file_that_is_no_bundle_is_refused_in_one_line(tmp_path, read, content, reason):
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    with pytest.raises(InputError, match=reason) as caught:
        read(str(file))
    assert "\n" not in str(caught.value)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("read", [bundles.read_header, bundles.load])
@pytest.mark.parametrize(
    ("change_description", "change_tensors", "reason"),
    [
        (lambda d: d.pop("normalization"), None, "lacks its normalization"),
        (None, lambda t: t.pop("normalization.values"), r"lacks its normalization's arrays \['values'\]"),
        (None, lambda t: [t.pop(k) for k in list(t) if not k.startswith("normalization.")], "no weights"),
        (lambda d: d.pop("inputs"), None, "description.*inputs"),
        (lambda d: d["inputs"].pop("bands"), None, "description.*bands"),
        (lambda d: d.update(precision="float8"), None, "precision"),
        (lambda d: d.update(positive_classes=["spiral"]), None, "spiral"),
        (lambda d: d.update(positive_classes=[]), None, "no classes to score"),
    ],
)
def test_an_incomplete_bundle_is_refused_without_torch(
    tmp_path, read, change_description, change_tensors, reason
):
    file = tmp_path / "model.safetensors"
    bundles.save(small_bundle(HistogramTransform(dim_galaxy_template(20))), str(file))
    file.write_bytes(rewritten(file.read_bytes(), change_description, change_tensors))
    with pytest.raises(InputError, match=reason) as caught:
        read(str(file))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change_description", "change_tensors", "reason"),
    [
        (lambda d: d.update(architecture="resnet"), None, "unknown architecture 'resnet'"),
        (lambda d: d["arguments"].update(depth=3), None, "does not take"),
        (lambda d: d["arguments"].update(hidden=7), None, "weights are not those"),
        (None, lambda t: t.pop("head.1.weight"), r"head\.1\.weight"),
        (lambda d: d["inputs"].update(bands=["g", "r", "i"]), None, "does not take images of shape"),
        (lambda d: d.update(classes=["star", "galaxy", "lens"]), None, "gives 2 outputs"),
        (lambda d: d["normalization"].update(name="magic"), None, "unknown normalization 'magic'"),
    ],
)
def test_a_bundle_whose_parts_do_not_fit_is_refused(tmp_path, change_description, change_tensors, reason):
    file = tmp_path / "model.safetensors"
    bundles.save(small_bundle(), str(file))
    file.write_bytes(rewritten(file.read_bytes(), change_description, change_tensors))
    with pytest.raises(InputError, match=reason) as caught:
        bundles.load(str(file))
    assert "\n" not in str(caught.value)


def test_a_truncated_bundle_is_refused(tmp_path):
    file = tmp_path / "model.safetensors"
    bundles.save(small_bundle(), str(file))
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(InputError, match=r"no \.safetensors file"):
        bundles.read_header(str(file))


@pytest.mark.parametrize(
    "changes",
    [{"state": {}}, {"classes": ("lens",)}, {"precision": "int4"}, {"positive_classes": ("spiral",)}],
    ids=lambda c: next(iter(c)),
)
def test_a_bundle_that_could_not_be_loaded_is_not_written(tmp_path, changes):
    url = tmp_path / "model.safetensors"
    with pytest.raises(InputError):
        bundles.save(small_bundle(**changes), str(url))
    assert not url.exists()


def test_a_name_that_does_not_ship_is_answered_with_those_that_do():
    with pytest.raises(InputError, match="ships with LensRay"):
        bundles.load("eznet_mars")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError):
        bundles.load(str(tmp_path / "missing.safetensors"))


def test_the_shipped_bundles_are_small_and_name_no_folder():
    files = list(bundles._SHIPPED.glob("*.safetensors"))
    assert sum(file.stat().st_size for file in files) <= 25_000_000
    for file in files:
        said = json.dumps(bundles.read_header(file.stem).provenance)
        assert not re.search(r"/(home|tmp|root|work|Users)/", said)


@pytest.mark.parametrize("name", bundles.shipped())
def test_a_shipped_bundle_scores_an_image(name):
    bundle = bundles.load(name)
    header = bundles.read_header(name)
    assert header.sha256 == bundle.sha256
    image = torch.from_numpy(np.random.default_rng(0).random((1, *bundle.inputs.shape), np.float32))
    with torch.inference_mode():
        logits = bundle.model()(bundle.normalization(image))
    assert torch.isfinite(logits).all()
