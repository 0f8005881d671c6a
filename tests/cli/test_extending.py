"""docs/extending.md: every example runs as it stands, and is used as the page says."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.contracts import test_objectives, test_samplers
from tests.contracts.made import make, unclipped
from trilemma import registry as room

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "extending.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^## A\w? ([^\n]*)\n\n```python\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL)
FILES = {f"{title.replace(' ', '_')}.py": code for title, code in EXAMPLES}
PLUGINS = [word for file in FILES for word in ("--plugin", file)]

Command = Callable[..., Any]


@pytest.fixture(autouse=True)
def _written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forget: Callable[[], None]) -> None:
    monkeypatch.chdir(tmp_path)
    for file, code in FILES.items():
        (tmp_path / file).write_text(code, encoding="utf-8")


def test_every_example_is_short() -> None:
    assert list(FILES) == ["sampler.py", "objective.py", "network.py", "metric.py", "data_set.py"]
    assert [file for file, code in FILES.items() if len(code.splitlines()) >= 25] == []


def test_they_keep_their_contracts() -> None:
    for file in ("sampler.py", "objective.py"):
        room.load_plugin(file)
    for sampler_s in test_samplers.CONTRACT:
        sampler_s(unclipped("midpoint"))
    for objective_s in test_objectives.CONTRACT:
        objective_s(make("objective", "huber"))


def test_a_run_of_all_of_them(command: Command, tmp_path: Path) -> None:
    recipe = {
        "learner": {"name": "denoising", "objective": {"name": "huber", "delta": 0.5}, "conditional": True},
        "schedule": {"name": "cosine", "steps": 20},
        "network": {"name": "stack", "width": 8},
        "data": {"name": "discs"},
        "sampling": {"sampler": "midpoint", "steps": 5},
        "training": {"steps": 3, "batch": 8, "grid_every": 0},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(recipe))
    trained = command("train", "mine.yaml", "--out", "run", *PLUGINS)
    assert trained.code == 0, trained.err
    assert yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())["requires"] == {
        "objective": {"huber": "plugin objective.py"},
        "network": {"stack": "plugin network.py"},
        "data": {"discs": "plugin data_set.py"},
        "sampler": {"midpoint": "plugin sampler.py"},
    }
    measured = command(
        *("evaluate", "run", "-n", 8, "--features", "pixels", "--metrics", "spread", "--reference", "discs:test"),
        *("--out", "e.json", "--label", "mine"),
    )
    assert measured.code == 0 and "mine" in measured.out, measured.err
    assert json.loads((tmp_path / "e.json").read_text())["metrics"]["spread"] > 0
