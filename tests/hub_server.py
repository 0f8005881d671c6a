"""A hub of one data set on this machine: what the datasets library asks of one, answered from a folder."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "a" * 40


class _Hub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, *arguments: Any, name: str, folder: Path) -> None:
        self.set, self.folder = name, folder
        self.files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*")}
        super().__init__(*arguments)

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if found := re.fullmatch(rf"/datasets/{self.set}/resolve/[^/]+/(.*)", path):
            self._file(found[1])
        elif re.fullmatch(rf"/api/datasets/{self.set}(/revision/[^/]+)?", path):
            siblings = [{"rfilename": file} for file in sorted(self.files)]
            self._json({"_id": "1", "id": self.set, "sha": COMMIT, "private": False, "tags": [], "siblings": siblings})
        elif found := re.fullmatch(rf"/api/datasets/{self.set}/tree/[^/]+/?(.*)", path):
            self._listing(f"{found[1]}/" if found[1] else "")
        else:
            self._send(404, b"")

    do_HEAD = do_GET  # noqa: N815

    def _file(self, name: str) -> None:
        if name not in self.files:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
            return
        content = self.files[name]
        said = {"ETag": f'"{_hash(content)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if asked is None:
            self._send(200, content, said)
            return
        first, last = int(asked[1]), min(int(asked[2] or len(content)), len(content) - 1)
        self._send(206, content[first : last + 1], said | {"Content-Range": f"bytes {first}-{last}/{len(content)}"})

    def _listing(self, base: str) -> None:
        inside = [name for name in sorted(self.files) if name.startswith(base)]
        folders = {base + name[len(base) :].split("/")[0] for name in inside if "/" in name[len(base) :]}
        entries: list[dict[str, object]] = [
            {"type": "directory", "path": folder, "size": 0, "oid": _hash(folder.encode())} for folder in folders
        ]
        for name in inside:
            if "/" not in name[len(base) :]:
                content = self.files[name]
                entries.append({"type": "file", "path": name, "size": len(content), "oid": _hash(content)})
        self._json(entries)

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, code: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for key, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def _hash(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


@contextmanager
def serving(name: str, folder: Path) -> Iterator[str]:
    """The address of a hub that has the folder as the data set `name`, for `HF_ENDPOINT`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Hub, name=name, folder=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
