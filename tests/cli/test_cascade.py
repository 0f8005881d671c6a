"""A cascade on the command line: trained as two runs, sampled, taken up, evaluated and reported as one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.cli.conftest import RECIPE
from trilemma.samplers import Sampler

Command = Callable[..., Any]


def test_from_two_recipes_to_a_report(
    command: Command, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small = {**RECIPE, "data": {"name": str(data), "size": 4, "resize": "area"}}
    large = {**RECIPE, "data": {"name": str(data)}, "learner": {**RECIPE["learner"], "low": 4, "low_noise": 3}}
    large["network"] = {**RECIPE["network"], "upsampler": True, "low_time": True}
    for name, values in (("small", small), ("large", large)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(values))
        assert command("train", f"{name}.yaml").code == 0
    chain = "runs/small+runs/large"

    generate, batches = Sampler.generate, 0

    def broken(self: Sampler, seeds: Any, labels: Any = None) -> np.ndarray:
        nonlocal batches
        batches += 1
        if batches == 3:  # the upsampler's second batch
            raise KeyboardInterrupt
        return generate(self, seeds, labels)

    monkeypatch.setattr(Sampler, "generate", broken)
    assert command("sample", chain, "-n", 10, "--out", "cut.npz", "--low-noise", 2).code == 130
    parts = Path("cut.npz.parts")
    assert len(list(parts.glob("part-*"))) == 1
    monkeypatch.setattr(Sampler, "generate", generate)
    result = command(
        "sample", chain, "-n", 10, "--out", "cut.npz", "--low-noise", 2, "--picture", "all.png", "--strip", "way.png"
    )
    assert result.code == 0 and "Ancestral, all 6 steps + Ancestral, all 6 steps, low noise 2" in result.out
    assert "12 network evaluations each" in result.out and not parts.exists()
    assert all(Image.open(name).size[0] > 8 for name in ("all.png", "way.png"))
    assert np.load("cut.npz")["arr_0"].shape == (10, 8, 8, 1)

    flags = ("--metrics", "frechet_distance,network_evaluations,multiply_adds", "--features", "pixels")
    result = command("evaluate", chain, "-n", 12, "--steps", 3, *flags)
    assert result.code == 0, result.err
    place = next(Path("runs/large/evaluations").glob("*.json"))
    found = json.loads(place.read_text())
    assert found["metrics"]["network_evaluations"] == 6 and found["subject"]["path"] == chain
    assert found["sampler"]["low"]["sampler"]["steps"] == 3

    result = command("report", "runs/large")
    assert result.code == 0, result.err
    page = Path("runs/large/report.html").read_text()
    again = re.search(r"trilemma evaluate runs/small\+runs/large --weights .*", page)
    assert again is not None and "--steps 3" in again[0] and "--sampler ancestral" in again[0]
    assert command("report", chain).code == 0
    assert command("evaluate", "cut.npz+runs/large", "-n", 2).code != 0

    for _ in range(2):
        result = command("sweep", chain, "-n", 5, "--steps", "2,3", *flags)
        assert result.code == 0, result.err
        (page,) = Path("runs/large/sweeps").glob("steps-*.html")
        assert f"page: {page}" in result.out and not Path(chain).exists()


@pytest.mark.parametrize("verb", ["sample", "evaluate"])
def test_stages_that_do_not_fit_are_one_line(verb: str, command: Command, run: Path) -> None:
    code, _, err = command(verb, f"{run}+{run}")
    assert code == 2 and err.count("\n") == 1 and "is no upsampler" in err
