from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pytest

from tests.hub_server import serving
from trilemma.data import available_splits, check, open_data, parse_reference
from trilemma.data import streams as streams_module
from trilemma.data import trees as trees_module
from trilemma.errors import InputError

KINDS = ("cat", "dog")


@pytest.fixture(autouse=True)
def quiet_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(2).integers(0, 256, (17, 4, 5, 3), dtype=np.uint8)


@pytest.fixture
def hub(tmp_path: Path, images: np.ndarray, png: Callable[..., bytes]) -> Callable[..., str]:
    """`hub:` and a folder of parquet, as the hub has them; {file: rows}."""

    def write(files: dict[str, range], labels: bool = True) -> str:
        kinds: dict[str, object] = {"picture": datasets.Image(), "n": datasets.Value("int64")}
        if labels:
            kinds["label"] = datasets.ClassLabel(names=list(KINDS))
        for file, rows in files.items():
            columns = {"picture": [{"bytes": png(images[i]), "path": None} for i in rows], "n": list(rows)}
            if labels:
                columns["label"] = [i % 2 for i in rows]
            table = datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))
            (tmp_path / "set" / "data").mkdir(parents=True, exist_ok=True)
            table.to_parquet(str(tmp_path / "set" / "data" / file))
        return f"hub:{tmp_path / 'set'}"

    return write


SPLITS = {"train-0.parquet": range(8), "train-1.parquet": range(8, 12), "test-0.parquet": range(12, 17)}


@pytest.mark.parametrize("stream", [False, True])
def test_cached_and_streamed_sets_give_the_tables_images(hub, images, monkeypatch, stream):
    name = hub(SPLITS)
    monkeypatch.setattr(trees_module, "MEMORY_LIMIT", 0)
    monkeypatch.setattr(streams_module, "BUFFER", 3)
    assert available_splits(name) == ("train", "test", "all")
    train, test, both = (open_data(name, split=split, stream=stream) for split in ("train", "test", "all"))
    assert (train.streamed, train.classes, train.split) == (stream, KINDS, "train")
    np.testing.assert_array_equal(train.batch([11, 0, 4])[0], images[[11, 0, 4]])
    assert train.batch([11, 0, 4])[1].tolist() == [1, 0, 0]
    np.testing.assert_array_equal(test.batch(range(5))[0], images[12:])
    np.testing.assert_array_equal(both.batch(range(17))[0], images)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(both)).batch([13])[0], images[[13]])
    assert open_data(name, stream=stream, size=2, channels=1).shape == (1, 2, 2)
    with pytest.raises(InputError, match=r"unknown split of hub:.* 'val'"):
        open_data(name, split="val", stream=stream)
    with pytest.raises(InputError, match=r"has its own splits"):
        open_data(name, holdout=0.1, stream=stream)


@pytest.mark.parametrize("stream", [False, True])
def test_images_are_held_out_of_the_only_split(hub, folder, images, stream):
    name = hub({"train-0.parquet": range(9), "train-1.parquet": range(9, 17)}, labels=False)
    beside = str(folder({f"{i:02d}.png": image for i, image in enumerate(images)}))
    for split in ("train", "test", "all"):
        found, expected = (open_data(data, split=split, holdout=0.3, **more) for data, more in
                           ((name, {"stream": stream}), (beside, {})))  # fmt: skip
        assert found.fingerprint() == expected.fingerprint(), "as of a folder with the same files"
    assert check(name).count == 17


def test_a_folder_of_pictures(folder, rgb):
    where = folder({f"train/{KINDS[i % 2]}/{i}.png": image for i, image in enumerate(rgb)})
    opened = open_data(f"hub:{where}")
    assert opened.classes == KINDS
    assert opened.fingerprint() == open_data(str(where)).fingerprint()


def test_names():
    for text in ("hub:mnist", "hub:user/name", "hub:./folder"):
        assert parse_reference(text) == (text, "train")
        assert parse_reference(f"{text}:test") == (text, "test")


def test_what_cannot_be_opened(hub, tmp_path, monkeypatch):
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "x.jsonl").write_text(json.dumps({"text": "a"}) + "\n")
    for name, more, message in (
        (f"hub:{tmp_path / 'words'}", {}, "no column holds images"),
        (f"hub:{tmp_path / 'none'}", {}, "cannot be opened through datasets"),
        ("hub:", {}, "expected hub:NAME"),
        ("mnist5k", {"stream": True}, r"data\.stream: is for hub:NAME"),
        ("mnist5k", {"config": "x"}, r"data\.config: is for hub:NAME"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            open_data(name, **more)
        assert "\n" not in str(caught.value)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="cannot be opened through datasets"):
        open_data("hub:nobody/nothing")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"pip install 'trilemma\[hub\]'"):
        open_data("hub:x")


SCRIPT = """
from trilemma.data import open_data, trees
cached = open_data("hub:somebody/pictures")
trees.MEMORY_LIMIT = 0
stream = open_data("hub:somebody/pictures", stream=True, size=(4, 5), channels=3)
print(stream.streamed, cached.fingerprint(), stream.fingerprint())
try:
    open_data("hub:somebody/nothing")
except Exception as error:
    print(type(error).__name__)
"""


@pytest.mark.slow
def test_a_set_of_a_served_hub(hub, tmp_path):
    """The address is read when the library is imported: in a process of its own."""
    name = hub(SPLITS)
    own = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    with serving("somebody/pictures", tmp_path / "set") as address:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False, timeout=120,
            env={**os.environ, **own, "HF_ENDPOINT": address},
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    expected = open_data(name).fingerprint()
    assert done.stdout.splitlines()[-2:] == [f"True {expected} {expected}", "InputError"]
