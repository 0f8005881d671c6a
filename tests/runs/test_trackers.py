"""Other trackers: what they are given is what is logged; a run goes on in its own; none ends a training."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from trilemma.errors import InputError
from trilemma.jobs import train
from trilemma.runs import Run, trackers
from trilemma.runs.trackers import flat

Write = Callable[..., Path]
Outcome = Callable[[Path], dict[str, Any]]

SHORT = {"steps": 2, "grid_every": 1, "log_every": 1, "validate_every": 0, "warmup": 0}


class Recorded:
    """A tracker that keeps what it is given, as Accelerate's are given it."""

    begun: list[Recorded]

    def __init__(self, path: Path, known: str | None):
        self.known, self.id, self.accelerate = known, known or "first", self
        self.config: dict[str, Any] | None = None
        self.figures: list[tuple[int, dict[str, float]]] = []
        self.pictures: list[tuple[int, str, bytes]] = []
        self.finished = False
        type(self).begun.append(self)

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.config = values

    def log(self, values: dict[str, float], step: int) -> None:
        self.figures.append((step, values))

    def picture(self, name: str, file: Path, step: int) -> None:
        self.pictures.append((step, name, file.read_bytes()))

    def finish(self) -> None:
        self.finished = True


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[Recorded]:
    Recorded.begun = []
    monkeypatch.setitem(trackers.TRACKERS, "wandb", Recorded)
    return Recorded.begun


def log_of(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.path / "log.jsonl").read_text().splitlines()]


def test_is_given_the_recipe_the_figures_and_the_pictures(begun: list[Recorded], write_recipe: Write, tmp_path: Path):
    run = train(write_recipe(training=SHORT), out=tmp_path / "run", track=["wandb"])
    (tracker,) = begun
    assert tracker.known is None and tracker.finished
    assert tracker.config == flat(run.recipe.model_dump(mode="json"))
    assert tracker.config["training.steps"] == 2 and tracker.config["schedule.name"] == "cosine"
    lines = log_of(run)
    assert [{"step": step, **figures} for step, figures in tracker.figures] == [
        {key: value for key, value in line.items() if value is not None} for line in lines
    ]
    assert tracker.pictures == [
        (step, name, (run.path / "samples" / f"{name}-{step:08d}.png").read_bytes())
        for step in (1, 2)
        for name in ("grid", "strip")
    ]


def test_a_resumed_run_goes_on_in_its_own(begun: list[Recorded], write_recipe: Write, tmp_path: Path) -> None:
    recipe = write_recipe(training=SHORT)
    train(recipe, out=tmp_path / "run", track=["wandb"])
    train(recipe, out=tmp_path / "run", overrides=["training.steps=3"], resume=True)
    first, second = begun
    assert first.known is None and second.known == first.id and second.config is None
    assert [step for step, _ in second.figures] == [3]


def test_a_failing_one_is_said_once_and_training_is_the_same(
    begun: list[Recorded],
    write_recipe: Write,
    outcome: Outcome,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route\nto host")

    recipe = write_recipe(training=SHORT)
    train(recipe, out=tmp_path / "without")
    monkeypatch.setattr(Recorded, "log", fail)
    capsys.readouterr()
    train(recipe, out=tmp_path / "with", track=["wandb"])
    said = [line for line in capsys.readouterr().out.splitlines() if "warning" in line]
    assert said == ["warning: track wandb: no route to host; the training goes on without it"]
    assert outcome(tmp_path / "with") == outcome(tmp_path / "without")


@pytest.mark.parametrize("text", ["[]", "{", '{"\\u001b[31mx\\nerror: all is lost": "7"}'])
def test_a_damaged_file_ends_no_training_and_steers_no_terminal(
    text: str, begun: list[Recorded], write_recipe: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(training=SHORT)
    run = train(recipe, out=tmp_path / "run", track=["wandb"])
    (run.path / "trackers.json").write_text(text)
    train(recipe, out=tmp_path / "run", overrides=["training.steps=3"], resume=True, track=["wandb"])
    said = capsys.readouterr().out
    assert "warning: " in said and "\x1b[31m" not in said
    assert not any(line.startswith("error:") for line in said.splitlines())
    assert [step for step, _ in begun[-1].figures] == [3]


@pytest.mark.parametrize(
    ("names", "missing", "message"),
    [
        (["wandbb"], False, "unknown tracker 'wandbb': did you mean 'wandb'"),
        (["mlflow"], True, r"track 'mlflow': the package mlflow is not installed; pip install 'trilemma\[track\]'"),
    ],
)
def test_is_refused_before_anything_is_written(
    names: list[str], missing: bool, message: str, write_recipe: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if missing:
        monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=message):
        train(write_recipe(), out=tmp_path / "run", track=names)
    assert not (tmp_path / "run").exists()


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / "grid.png")
    return tmp_path / "grid.png"


def records(content: bytes) -> Iterator[bytes]:
    """The records of a file of wandb's: LevelDB's log format, after a header of 7 bytes."""
    place, whole = 7, b""
    while place < len(content):
        if 2**15 - place % 2**15 < 7:
            place += 2**15 - place % 2**15
            continue
        length, kind = struct.unpack_from("<HB", content, place + 4)
        whole += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # all of a record, or the last of it
            yield whole
            whole = b""


def test_wandb_offline(grid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By wandb itself, read back from the file that it would send."""
    wandb = pytest.importorskip("wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    from trilemma.machine.devices import process_state

    process_state()
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    tracked = trackers.Trackers(tmp_path, ["wandb"], {"training": {"steps": 5}})
    tracked.write({"loss": 0.5}, 3)
    tracked.picture("grid", grid, 3)
    tracked.close()
    wandb.teardown()  # its own process, which writes the file, has ended
    known = json.loads((tmp_path / "trackers.json").read_text())["wandb"]
    (written,) = tmp_path.glob(f"wandb/offline-run-*-{known}/run-{known}.wandb")
    config, history = {}, {}
    for record in map(Record.FromString, records(written.read_bytes())):
        config |= {item.key: item.value_json for item in record.config.update}
        history |= {item.key or ".".join(item.nested_key): item.value_json for item in record.history.item}
    assert config["training.steps"] == "5"
    assert history["loss"] == "0.5" and history["_step"] == "3"
    (picture,) = written.parent.glob("files/media/images/grid_3_*.png")
    assert np.array_equal(np.asarray(Image.open(picture).convert("L")), np.asarray(Image.open(grid)))


def test_mlflow_in_a_folder(grid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By MLflow itself, and gone on with by the run's id."""
    mlflow = pytest.importorskip("mlflow")
    from trilemma.machine.devices import process_state

    process_state()
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    for step, names in ((3, ["mlflow"]), (4, [])):
        tracked = trackers.Trackers(tmp_path, names, {"training": {"steps": step}})
        tracked.write({"loss": 0.5 * step}, step)
        tracked.picture("grid", grid, step)
        tracked.close()
    client = mlflow.MlflowClient()
    run = client.get_run(json.loads((tmp_path / "trackers.json").read_text())["mlflow"])
    assert run.data.params == {"training.steps": "3"} and run.info.status == "FINISHED"
    assert [(one.step, one.value) for one in client.get_metric_history(run.info.run_id, "loss")] == [(3, 1.5), (4, 2.0)]
    assert [one.path for one in client.list_artifacts(run.info.run_id, "grid")] == ["grid/grid.png"]
