"""Training from every kind of source: resumed bit for bit, shared by processes, with images held out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
import webdataset

from trilemma.data import open_data, pack
from trilemma.data import streams as streams_module
from trilemma.data import trees as trees_module
from trilemma.evaluations import evaluate
from trilemma.jobs import train
from trilemma.jobs.subjects import open_like
from trilemma.process import png, to_model, to_uint8
from trilemma.runs.build import open_images
from trilemma.training import Batches

STREAMED = ("hub streamed", "tars streamed")
SOURCES = ("folder", "zip", "npz", "hub", "tars", *STREAMED)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def made(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, Any]]]:
    """The same 24 labelled images as each kind of source: its `data` section."""
    place = tmp_path_factory.mktemp("sources")
    images, labels = open_data(str(data)).batch(range(24))
    assert labels is not None
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = place / "folder" / str(label) / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(image))
    pack(str(place / "folder"), place / "set.zip")
    kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(num_classes=4)}
    (place / "tars").mkdir()
    (place / "hub").mkdir()
    for part in range(3):
        rows = range(8 * part, 8 * part + 8)
        columns = {"image": [{"bytes": png(images[i]), "path": None} for i in rows], "label": labels[rows].tolist()}
        table = datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))
        table.to_parquet(str(place / "hub" / f"train-{part}.parquet"))
        with webdataset.TarWriter(str(place / "tars" / f"{part}.tar")) as writer:
            for i in rows:
                writer.write({"__key__": f"{i:02d}", "png": png(images[i]), "cls": int(labels[i])})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(place / "tars")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub = f"hub:{place / 'hub'}"
    yield {
        "folder": {"name": str(place / "folder")},
        "zip": {"name": str(place / "set.zip")},
        "npz": {"name": str(data)},
        "hub": {"name": hub},
        "hub streamed": {"name": hub, "stream": True},
        "tars": {"name": str(place / "tars")},
        "tars streamed": {"name": f"http://127.0.0.1:{server.server_port}/{{0..2}}.tar"},
    }
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def _larger_than_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(trees_module, "MEMORY_LIMIT", 0)
    monkeypatch.setattr(streams_module, "BUFFER", 5)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    datasets.disable_progress_bars()


@pytest.mark.parametrize("kind", ["zip", *STREAMED])
def test_a_run_resumes_bit_for_bit(
    kind: str,
    made: dict[str, dict[str, Any]],
    write_recipe: Callable[..., Path],
    outcome: Callable[[Path], dict[str, Any]],
    tmp_path: Path,
) -> None:
    images = {"size": 8, "channels": 1, "holdout": 0.3, "validation_split": "test"}
    training = {"steps": 3, "validate_every": 0, "checkpoint_every": 2}
    recipe = write_recipe(data={**images, **made[kind]}, training=training)
    train(recipe, out=tmp_path / "whole")
    train(recipe, overrides=["training.steps=2"], out=tmp_path / "halves")
    train(recipe, overrides=["training.steps=3"], out=tmp_path / "halves", resume=True)
    one, two = outcome(tmp_path / "whole"), outcome(tmp_path / "halves")
    assert one.keys() == two.keys()
    assert [key for key in one if key != "state" and one[key] != two[key]] == []


@pytest.mark.parametrize("kind", SOURCES)
def test_batches_are_a_function_of_the_step(kind: str, made: dict[str, dict[str, Any]]) -> None:
    """Two processes have the halves of what one has, each from a source of its own, from whatever step they begin."""

    def batches(**share: int) -> Batches:
        source = open_data(**made[kind], size=8, channels=1)
        assert source.streamed == (kind in STREAMED)
        return Batches(source, to_model, batch=6, seed=3, **share)

    whole = batches()
    seen = [whole[step] for step in range(9)]
    shares = [batches(rank=rank, processes=2) for rank in range(2)]
    late = batches()
    for step, batch in list(enumerate(seen))[5:]:
        assert torch.equal(torch.cat([share[step].images for share in shares]), batch.images)
        assert torch.equal(torch.cat([share[step].labels for share in shares]), batch.labels)
        assert torch.equal(late[step].images, batch.images)
    images, _ = open_data(**made["npz"]).batch(range(24))
    epoch = torch.cat([batch.images for batch in seen[:4]])
    assert sorted(map(bytes, images)) == sorted(bytes(to_uint8(image[None])) for image in epoch)
    for step, batch in enumerate(whole.loader(2, 4, workers=2), start=2):
        assert torch.equal(batch.images, seen[step].images)


def test_held_out_images_are_the_run_s_test_split(
    made: dict[str, dict[str, Any]], write_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    section = {**made["folder"], "holdout": 0.3, "validation_split": "test"}
    run = train(write_recipe(data=section, training={"steps": 3, "validation_images": 3}), out=tmp_path / "run")
    sides = {split: open_data(made["folder"]["name"], split=split, holdout=0.3) for split in ("train", "test")}
    assert 0 < len(sides["test"]) < len(sides["train"])
    for split, side in sides.items():
        assert open_images(run.recipe, split).fingerprint() == side.fingerprint()
        reference = f"{made['folder']['name']}/:{split}"  # the same folder, written another way
        assert open_like(run, reference, None).fingerprint() == side.fingerprint()
        found = evaluate(run, reference, metrics=["frechet_distance"], features="pixels", n=80, batch=40)
        assert found.reference.sha256 == side.fingerprint()
