from __future__ import annotations

import hashlib
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from trilemma.data import mnist as mnist_module
from trilemma.data import open_data
from trilemma.data.download import cache_folder, fetch
from trilemma.errors import InputError


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A web server on this machine with one folder, and an empty cache."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("TRILEMMA_CACHE", str(tmp_path / "cache"))
    (tmp_path / "web").mkdir()
    web = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path / "web")))
    web.asked = []  # type: ignore[attr-defined]
    threading.Thread(target=partial(web.serve_forever, poll_interval=0.01), daemon=True).start()
    yield web, tmp_path / "web", f"http://127.0.0.1:{web.server_port}/"
    web.shutdown()
    web.server_close()


def md5(content: bytes) -> str:
    return "md5:" + hashlib.md5(content).hexdigest()


def test_the_second_mirror_is_tried_and_the_copy_kept(server):
    web, folder, url = server
    (folder / "a.bin").write_bytes(b"content" * 30_000)
    known = md5(b"content" * 30_000)
    path = fetch([f"{url}missing/a.bin", f"{url}a.bin"], known, "set/a.bin")
    assert path == cache_folder() / "set" / "a.bin"
    assert path.read_bytes() == b"content" * 30_000
    asked = len(web.asked)
    assert fetch([f"{url}a.bin"], known, "set/a.bin") == path
    assert len(web.asked) == asked


def test_another_content_is_refused_and_not_kept(server):
    _, folder, url = server
    (folder / "a.bin").write_bytes(b"tampered")
    with pytest.raises(InputError, match=r"published hash.*data\.root=PATH") as caught:
        fetch([f"{url}a.bin", f"{url}none.bin"], md5(b"content"), "set/a.bin")
    assert "404" in str(caught.value)
    assert [path for path in cache_folder().rglob("*") if path.is_file()] == []


def test_a_server_that_is_not_there(server):
    web, _, url = server
    web.shutdown()
    web.server_close()
    with pytest.raises(InputError, match=r"set/a\.bin could not be downloaded .*data\.root=PATH"):
        fetch([f"{url}a.bin"], md5(b""), "set/a.bin")


def test_mnist_comes_from_a_mirror(server, idx_bytes, monkeypatch):
    _, folder, url = server
    images = np.random.default_rng(0).integers(0, 256, (4, 28, 28), dtype=np.uint8)
    hashes = {}
    for kind, values in (("images-idx3", images), ("labels-idx1", np.arange(4, dtype=np.uint8))):
        name = f"t10k-{kind}-ubyte.gz"
        (folder / name).write_bytes(idx_bytes(values))
        hashes[name] = md5((folder / name).read_bytes())
    monkeypatch.setitem(mnist_module.MIRRORS, "mnist", (f"{url}nowhere/", url))
    monkeypatch.setitem(mnist_module.HASHES, "mnist", hashes)
    np.testing.assert_array_equal(open_data("mnist", split="test").batch(range(4))[0][..., 0], images)
