from __future__ import annotations

import io
import json
import pickle
import tarfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import webdataset

from trilemma.data import available_splits, check, open_data, parse_reference
from trilemma.data import streams as streams_module
from trilemma.data import trees as trees_module
from trilemma.data.shards import RemoteShard
from trilemma.data.streams import order
from trilemma.errors import InputError

COUNTS = (7, 5, 1, 9)


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (sum(COUNTS), 4, 5, 3), dtype=np.uint8)


@pytest.fixture
def shards(tmp_path: Path, images: np.ndarray, png: Callable[..., bytes]) -> Path:
    """Tars as WebDataset's own writer makes them; labels i % 3, of every other shard in a .json."""
    rows = iter(range(len(images)))
    (tmp_path / "tars").mkdir()
    for number, count in enumerate(COUNTS):
        with webdataset.TarWriter(str(tmp_path / "tars" / f"{number:03d}.tar")) as writer:
            for i in (next(rows) for _ in range(count)):
                said = {"json": {"label": i % 3}} if number % 2 else {"cls": i % 3}
                writer.write({"__key__": f"s/{i:04d}", "png": png(images[i]), "txt": "words", **said})
    return tmp_path / "tars"


@pytest.fixture
def served(shards: Path, quiet: type[SimpleHTTPRequestHandler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(quiet, directory=str(shards)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/{{000..003}}.tar"
    server.shutdown()
    server.server_close()


def raw_tar(path: Path, files: dict[str, bytes]) -> str:
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return str(path)


def test_local_shards_are_files_in_any_order(shards, images, monkeypatch):
    everything = open_data(str(shards))
    assert (everything.name, everything.classes, everything.shape) == ("tars", ("0", "1", "2"), (3, 4, 5))
    np.testing.assert_array_equal(everything.batch(range(22))[0], images)
    assert everything.labels.tolist() == [i % 3 for i in range(22)]
    monkeypatch.setattr(trees_module, "MEMORY_LIMIT", 0)
    lazy = pickle.loads(pickle.dumps(open_data(f"{shards}/{{000..003}}.tar")))
    np.testing.assert_array_equal(lazy.batch([21, 0, 8])[0], images[[21, 0, 8]])
    assert (lazy.in_memory, lazy.streamed) == (False, False)
    assert lazy.fingerprint() == everything.fingerprint()
    one = open_data(f"{shards}/001.tar")
    np.testing.assert_array_equal(one.batch(range(5))[0], images[7:12])


def test_remote_shards_stream_the_same_images(served, shards, images, monkeypatch):
    small = open_data(served, holdout=0.3)
    assert small.in_memory
    monkeypatch.setattr(trees_module, "MEMORY_LIMIT", 0)
    monkeypatch.setattr(streams_module, "BUFFER", 4)
    stream = open_data(served)
    assert (stream.streamed, stream.in_memory, stream.classes) == (True, False, ("0", "1", "2"))
    assert stream.fingerprint() == open_data(str(shards)).fingerprint()
    for chosen in ([21, 3, 8, 3], [0], [20, 1]):  # backward too: its shard is read again
        np.testing.assert_array_equal(stream.batch(chosen)[0], images[chosen])
    again = pickle.loads(pickle.dumps(stream))
    np.testing.assert_array_equal(again.batch([5])[0], images[[5]])
    held, local = (open_data(name, split="test", holdout=0.3) for name in (served, str(shards)))
    assert held.fingerprint() == local.fingerprint()
    assert small.fingerprint() == open_data(str(shards), holdout=0.3).fingerprint()
    assert parse_reference(served) == (served, "train")
    assert parse_reference(f"{served}:test") == (served, "test")


def test_a_connection_that_ends_is_taken_up_again_once(shards):
    class Breaking(RemoteShard):
        breaks = 1

        def __iter__(self):
            for i, sample in enumerate(super().__iter__()):
                if i == 3 and Breaking.breaks:
                    Breaking.breaks -= 1
                    raise ConnectionResetError("idle")
                yield sample

    store = streams_module.StreamStore("x", [Breaking((shards / f"{k:03d}.tar").as_uri()) for k in range(2)])
    contents = [store.read(name) for name in store.names]
    assert len(set(contents)) == 12
    again = streams_module.StreamStore("x", store.shards)
    Breaking.breaks = 2
    with pytest.raises(InputError, match=r"x: shard 0 cannot be read \(idle\)"):
        again.read(store.names[5])


def test_an_epoch_reads_shards_forward_and_shuffles_a_buffer(monkeypatch):
    monkeypatch.setattr(streams_module, "BUFFER", 50)
    shards = np.repeat(np.arange(6), 100)
    queue = order(shards, np.random.default_rng(0))
    assert sorted(queue.tolist()) == list(range(600))
    assert queue.tolist() != order(shards, np.random.default_rng(1)).tolist()
    for start in range(0, 600, 50):
        window = queue[start : start + 50]
        assert sorted(window.tolist()) == list(range(window.min(), window.min() + 50))
        assert sorted(window.tolist()) != window.tolist()
    visited = shards[queue]
    assert (np.diff(visited) != 0).sum() == 5, "each shard once, from its beginning to its end"
    assert visited[::100].tolist() != sorted(visited[::100].tolist())


def test_split_folders_of_shards_and_unlabelled_samples(tmp_path, png, rgb):
    (tmp_path / "set" / "train").mkdir(parents=True)
    (tmp_path / "set" / "test").mkdir()
    raw_tar(tmp_path / "set" / "train" / "0.tar", {"a.PNG": png(rgb[0]), "a.cls": b"1\n", "b.png": png(rgb[1])})
    raw_tar(tmp_path / "set" / "test" / "0.tar", {"./a.png": png(rgb[2]), "a.seg.png": png(rgb[3]), "c.txt": b"no"})
    where = str(tmp_path / "set")
    assert available_splits(where) == ("train", "test", "all")
    assert len(open_data(where)) == 2
    np.testing.assert_array_equal(open_data(where, split="test").batch([0])[0], rgb[[2]])
    assert open_data(where).classes is None, "one image has no label"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.png": b"x", "a.cls": b"cat"}, "a.cls: label 'cat', expected a whole number"),
        ({"a.png": b"x", "a.cls": b"9" * 30}, "expected a whole number from 0 to 65535"),
        ({"a.png": b"x", "a.json": json.dumps({"label": -1}).encode()}, "label -1"),
        ({"a.png": b"x", "a.json": b"[" * 2000}, "nested deeper"),
        ({"readme.txt": b"x"}, "holds no images"),
    ],
)
def test_shards_that_cannot_be_used(tmp_path, files, message):
    with pytest.raises(InputError, match=message) as caught:
        open_data(raw_tar(tmp_path / "x.tar", files))
    assert "\n" not in str(caught.value)


def test_damaged_and_hostile_tars(tmp_path, shards):
    whole = (shards / "000.tar").read_bytes()
    for name, content in {
        "cut": whole[: len(whole) // 2],
        "text": b"just text",
        "header": whole[:1536] + b"\x01" * 512 + whole[2048:],  # tarfile alone would take it for the end
    }.items():
        (tmp_path / f"{name}.tar").write_bytes(content)
        with pytest.raises(InputError, match=f"{name}.tar: cannot be read as a WebDataset shard"):
            open_data(str(tmp_path / f"{name}.tar"))
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 2**40  # a header that promises more than memory
    with (tmp_path / "long.tar").open("wb") as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        file.truncate(2**32)
    with pytest.raises(InputError, match="unpacks to more than"):
        open_data(str(tmp_path / "long.tar"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pipe:cat x.tar", "would run a command"),
        ("x/{0..999999}.tar", "more than 100,000 shards"),
        ("x/{000..001}.tar", "shard 'x/000.tar' does not exist"),
        ("http://127.0.0.1:9/a.tar", "cannot be fetched"),
    ],
)
def test_names_that_cannot_be_opened(name, message):
    with pytest.raises(InputError, match=message):
        open_data(name)


def test_they_are_checked_like_files(shards, served):
    for name in (str(shards), served):
        report = check(name)
        assert (report.count, report.sizes, report.classes) == (22, {(4, 5): 22}, {"0": 8, "1": 7, "2": 7})
        assert report.ok
        assert any("data.holdout" in note for note in report.notes)
