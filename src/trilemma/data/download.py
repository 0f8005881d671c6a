"""Files from the web, checked against their published hashes and kept in the user's cache folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from trilemma.errors import InputError


def cache_folder() -> Path:
    """Where downloads are kept: `$TRILEMMA_CACHE`, or the system's cache folder for trilemma."""
    import pooch

    chosen = os.environ.get("TRILEMMA_CACHE")
    return Path(chosen) if chosen else Path(pooch.os_cache("trilemma"))


def fetch(urls: Sequence[str], known_hash: str, file: str) -> Path:
    """The local copy of a file, downloaded from the first of `urls` that delivers what `known_hash` promises.

    Args:
        urls: mirrors of one file, tried in order.
        known_hash: `md5:` or `sha256:` and the digest.
        file: name below `cache_folder()`, such as `mnist/train-images-idx3-ubyte.gz`. A copy with the right hash is
            used as it is.

    Raises:
        InputError: no mirror delivered the file; nothing is kept. The message gives each reason and the remedy.
    """
    import pooch

    target = cache_folder() / file
    reasons = []
    for url in urls:
        bar = _Bar(target.name)
        try:
            downloader = pooch.HTTPDownloader(progressbar=bar, chunk_size=2**16)
            found = pooch.retrieve(
                url, known_hash, fname=target.name, path=target.parent, downloader=downloader, progressbar=False
            )
        except (OSError, ValueError) as error:
            reasons.append(f"{url}: {_reason(error)}")
        else:
            return Path(found)
        finally:
            bar.close()
    raise InputError(
        f"{file} could not be downloaded ({'; '.join(reasons)}); "
        "fetch it by other means and give the folder it lies in, as data.root=PATH"
    )


def _reason(error: Exception) -> str:
    if not isinstance(error, OSError):
        return "its content does not have the published hash"
    text = " ".join(str(error).split())
    return text if 0 < len(text) <= 120 else type(error).__name__


class _Bar:
    """A rich progress bar with the four members that pooch drives."""

    def __init__(self, title: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

        columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._progress.add_task(title, total=None)
        self._total = 0.0
        self._shown = False

    @property
    def total(self) -> float:
        return self._total

    @total.setter
    def total(self, value: float) -> None:
        self._total, self._shown = value, True
        self._progress.start()
        self._progress.update(self._task, total=value)

    def update(self, count: float) -> None:
        self._progress.update(self._task, advance=count)

    def reset(self) -> None:
        self._progress.reset(self._task)

    def close(self) -> None:
        if self._shown:
            self._shown = False
            self._progress.stop()
