"""A package installed beside trilemma: what its entry points name is used from the command line as trilemma's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

HERE = Path(__file__).parent / "example_package"

COMMANDS = """
import sys
from trilemma.cli import main
for line in sys.stdin:
    sys.argv = ["trilemma", *line.split()]
    print("$", line.strip(), flush=True)
    try:
        main()
    except SystemExit as end:
        assert not end.code, end.code
"""


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """The environment of a process beside whose trilemma the package is installed, as pip would have done it."""
    project = tomllib.loads((HERE / "pyproject.toml").read_text())["project"]
    about = tmp_path / "site" / f"trilemma_example-{project['version']}.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = project["entry-points"].items()
    lines = [line for group, points in groups for line in (f"[{group}]", *map(" = ".join, points.items()))]
    (about / "entry_points.txt").write_text("\n".join(lines))
    places = [str(HERE / "src"), str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, places)), "COLUMNS": "160"}


def run(code: str, lines: str, environment: dict[str, str], folder: Path) -> str:
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, input=lines, env=environment, cwd=folder, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_its_parts_are_named_listed_and_written_down(installed: dict[str, str], tmp_path: Path) -> None:
    recipe = {
        "schedule": {"name": "cosine", "steps": 8},
        "network": {"name": "unet", "base_channels": 8, "multipliers": [1], "blocks": 1, "attention": []},
        "data": {"name": "stripes"},
        "sampling": {"sampler": "late", "steps": 4},
        "training": {"steps": 2, "batch": 8, "grid_every": 0},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(recipe))
    lines = """data check stripes
        train mine.yaml --out run
        sample run -n 3 --sampler late --share 0.25 --out s.npz
        evaluate s.npz --reference stripes:test --features pixels --metrics brightness --out e.json
        list"""
    said = run(COMMANDS, lines, installed, tmp_path)
    assert "80" in said.partition("$ train")[0]
    assert yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())["requires"] == {
        "data": {"stripes": "package trilemma-example"},
        "sampler": {"late": "package trilemma-example"},
    }
    assert json.loads((tmp_path / "s.npz.record.json").read_text())["sampler"]["share"] == 0.25
    assert json.loads((tmp_path / "e.json").read_text())["metrics"]["brightness"] > 0
    listed = [line.split() for line in said.partition("$ list")[2].splitlines() if "package trilemma-example" in line]
    assert [line[0] for line in listed] == ["late", "brightness", "stripes"]


LISTING = """
import sys
from trilemma.cli import main
sys.argv = ["trilemma", *sys.stdin.read().split()]
try:
    main()
except SystemExit:
    pass
print("imported", sorted(name for name in ("torch", "trilemma_example.samplers", "scipy") if name in sys.modules))
"""


@pytest.mark.parametrize("command", ["list", "list samplers", "--help"])
def test_listing_imports_neither_torch_nor_packages(installed: dict[str, str], tmp_path: Path, command: str) -> None:
    said = run(LISTING, command, installed, tmp_path)
    assert said.splitlines()[-1] == "imported []"
    assert "list" in command or "Generate images" in said
    if "list" in command:
        described = {line.split()[0]: line for line in said.splitlines() if "package trilemma-example" in line}
        assert "DDIM that draws until this `share`" in described["late"]
        assert command != "list" or "how far the mean of the features is" in described["brightness"]
    assert "samplers" not in command or "share=0.5" in said
