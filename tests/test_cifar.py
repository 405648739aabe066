import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lensray.cutouts import images_of, read_format
from lensray.errors import InputError
from lensray.io import storage
from lensray.io.cifar import cifar_tables

FILES = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
PER_FILE = 30


def records(seed: int) -> np.ndarray:
    """Random pictures of all ten classes, as the file format has them."""
    generator = np.random.default_rng(seed)
    content = generator.integers(0, 256, (PER_FILE, 3073), dtype=np.uint8)
    content[:, 0] = np.arange(PER_FILE) % 10
    return content


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for seed, name in enumerate(FILES):
        (folder / name).write_bytes(records(seed).tobytes())
    (folder / "batches.meta.txt").write_text("airplane\n")
    return folder


def packed(folder: Path, url: Path) -> Path:
    with tarfile.open(url, "w:gz") as archive:
        archive.add(folder, folder.name)
    return url


def test_pixels_are_the_luma_of_the_records(folder):
    table = cifar_tables(str(folder), "train")
    assert table.num_rows == 5 * PER_FILE // 10 * 2
    assert len(set(table["object_id"].to_pylist())) == table.num_rows
    images, status = images_of(table, read_format(table.schema))
    assert set(status) == {"ok"}
    expected = []
    for seed in range(5):
        for record in records(seed)[np.isin(records(seed)[:, 0], [0, 1])]:
            red, green, blue = record[1:].reshape(3, 32, 32).astype(float)
            expected.append((record[0] == 1, 0.299 * red + 0.587 * green + 0.114 * blue))
    assert table["label"].to_pylist() == [bool(label) for label, _ in expected]
    np.testing.assert_allclose(images[:, 0], [luma for _, luma in expected], atol=0.51)


def test_archive_and_folder_give_the_same_table(folder, any_url):
    archive = packed(folder, folder.parent / "cifar-10-binary.tar.gz")
    storage.write_bytes(storage.join(any_url, archive.name), archive.read_bytes())
    local = cifar_tables(str(folder), "test", ("ship", "cat"), size=50)
    remote = cifar_tables(storage.join(any_url, archive.name), "test", ("ship", "cat"), size=50)
    assert local.equals(remote)
    assert local["class"].to_pylist() == ["cat", "ship"] * 3
    assert local["label"].to_pylist() == [True, False] * 3
    assert read_format(local.schema).shape == (1, 50, 50)


def test_enlarged_pictures_keep_their_shape(folder):
    # Smooth and so the same on a finer grid; moved by half a pixel it would differ by 10.
    content = np.zeros((1, 3073), np.uint8)
    y, x = np.mgrid[:32, :32] + 0.5
    wave = 127 + 100 * np.sin(2 * np.pi * x / 32) * np.sin(np.pi * y / 32)
    content[0, 1:] = np.tile(np.round(wave).astype(np.uint8).ravel(), 3)
    second = content.copy()
    second[0, 0] = 1
    (folder / "test_batch.bin").write_bytes(content.tobytes() + second.tobytes())
    table = cifar_tables(str(folder), "test", size=100)
    image = images_of(table, read_format(table.schema))[0][0, 0]
    y, x = (np.mgrid[:100, :100] + 0.5) * 0.32
    expected = 127 + 100 * np.sin(2 * np.pi * x / 32) * np.sin(np.pi * y / 32)
    np.testing.assert_allclose(image[8:-8, 8:-8], expected[8:-8, 8:-8], atol=2.0)


def pictures(url: str, category: str, size: int = 32, count: int = 3) -> None:
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (size, size, 3), dtype=np.uint8)
        sink = io.BytesIO()
        Image.fromarray(pixels).save(sink, "PNG")
        storage.write_bytes(storage.join(url, "train", category, f"{number:04d}.png"), sink.getvalue())


def test_folders_of_pictures_are_read(any_url):
    pictures(any_url, "airplane")
    pictures(any_url, "automobile", count=2)
    table = cifar_tables(any_url, "train")
    assert table["object_id"].to_pylist()[0] == "train/airplane/0000"
    assert table["label"].to_pylist() == [False] * 3 + [True] * 2
    assert set(table["split"].to_pylist()) == {"train"}


def test_pickled_version_is_refused(folder, tmp_path):
    for path in folder.glob("*.bin"):
        path.rename(path.with_suffix(""))
    for url in (folder, packed(folder, tmp_path / "cifar-10-python.tar.gz")):
        with pytest.raises(InputError, match="pickled"):
            cifar_tables(str(url), "train")


def test_damaged_or_missing_files_are_named(folder, tmp_path):
    archive = packed(folder, tmp_path / "cut.tar.gz")
    archive.write_bytes(archive.read_bytes()[:-2000])
    with pytest.raises(InputError, match=r"cut.tar.gz cannot be read"):
        cifar_tables(str(archive), "train")
    with pytest.raises(InputError, match="does not exist"):
        cifar_tables(str(tmp_path / "nothing.tar.gz"), "train")
    batch = folder / "data_batch_3.bin"
    batch.write_bytes(batch.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"data_batch_3.bin has 92,189 bytes"):
        cifar_tables(str(folder), "train")
    batch.write_bytes(b"\x0b" * 3073)
    with pytest.raises(InputError, match="names the class 11"):
        cifar_tables(str(folder), "train")
    batch.unlink()
    with pytest.raises(InputError, match=r"lacks data_batch_3.bin"):
        cifar_tables(str(folder), "train")


def test_missing_classes_are_named(folder, tmp_path):
    with pytest.raises(InputError, match="no class galaxy; its classes are airplane"):
        cifar_tables(str(folder), "test", ("airplane", "galaxy"))
    (folder / "test_batch.bin").write_bytes(records(0)[:1].tobytes())
    with pytest.raises(InputError, match="no test image of the class automobile"):
        cifar_tables(str(folder), "test")
    pictures(str(tmp_path / "pictures"), "airplane")
    with pytest.raises(InputError, match="lacks the class automobile; it has airplane"):
        cifar_tables(str(tmp_path / "pictures"), "train")


def test_pictures_of_another_size_or_kind_are_named(tmp_path):
    pictures(str(tmp_path), "airplane")
    pictures(str(tmp_path), "automobile", size=48)
    with pytest.raises(InputError, match=r"0000.png has 48×48 pixels"):
        cifar_tables(str(tmp_path), "train")
    (tmp_path / "train" / "airplane" / "0001.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"0001.png is no picture"):
        cifar_tables(str(tmp_path), "train")


def test_real_pictures(real_data):
    table = cifar_tables(str(real_data / "cifar2"), "train", size=100)
    images, status = images_of(table, read_format(table.schema))
    assert table.num_rows == 1000
    assert set(status) == {"ok"}
    assert sum(table["label"].to_pylist()) == 500
    # Planes stand before the sky: airplanes' pictures are the brighter ones.
    label = np.asarray(table["label"])
    assert images[~label].mean() > images[label].mean()
