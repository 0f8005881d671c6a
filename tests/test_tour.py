"""The README's code, run: every line as printed, in order, at smoke size. A line without a promise here, or a block of
another kind, fails: nothing is printed that goes unrun."""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import trilemma as tl
from trilemma.data import SOURCES, MemorySet
from trilemma.evaluations import evaluating, speed
from trilemma.jobs import gradient_noise, network_costs, sweeping, training
from trilemma.recipes import files

Command = Callable[..., Any]

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"^```(\w*\n.*?)^```$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
KINDS = {"shell": "\ntrilemma ", "python": "python\n", "refused": "\n$ trilemma ", "make": "\nmake "}
"""How a block of each kind begins, after its fence."""

PROMISES = {
    "list": r"^ *samplers *$",
    "train": r"^trained to step 2: (\S+)",
    "train --dry-run": r"^# parameters: [\d,]+(?s:.*)^# time: (?s:.*)^# memory: ",
    "recipe": r"^learner:",
    "sample": r"^samples: (\S+)$",
    "evaluate": r"^evaluation: (\S+)$",
    "measure": r"^ +\S+.*: [\d.]+",
    "sweep": r"^page: (\S+)$",
    "compare": r"better, worse: 2 standard errors",
    "stats": r"^statistics: (\S+)$",
    "data check": r"damaged +none",
    "data pack": r"^packed: (\S+)",
    "report": r"^report: (\S+)$",
    "schedule": r"^picture: (\S+)$",
    "nll": r"total, a bound on(?s:.*)^likelihood: (\S+)$",
    "codec": r"root mean square error(?s:.*)^codec: (\S+)$",
    "invert": r"reconstruction error(?s:.*)^encodings: (\S+)$",
    "interpolate": r"^picture: (\S+)$",
    "gradient-noise": r"^ vlb +importance(?s:.*)^gradient noise: (\S+)$",
    "network": r"forward and backward(?s:.*)^drawing: (\S+)$",
    "import": r"^imported: (\S+)",
    "export": r"^exported: (\S+)$",
}
"""What each command says where it has done what it is there for; what stands in parentheses is a path that exists."""

WRITES = ("--out", "--picture", "--strip", "--svg")
"""Options that name what a command writes."""

SMALL: dict[str, Any] = {"base_channels": 8, "channels": 8, "hidden": 16, "blocks": 1, "attention": []}
"""What networks, discriminators, encoders and schedules are at smoke size, where a recipe names it."""


def shrunk(values: Any) -> Any:
    """What a recipe says, at smoke size: two steps of eight images, small networks, two steps of sampling."""
    learner, network = small(values["learner"]), small(values["network"])
    if network["name"] == "unet":
        network |= {"multipliers": [1], "patch": 4 if network.get("patch", 1) > 1 else 1}
    training = {"steps": 2, "batch": 8, "warmup": 0, "validation_images": 8, "validate_every": 2, "grid_every": 2}
    sampling = {"precision": "fp32"} | ({"steps": 2} if learner.get("name", "denoising") == "denoising" else {})
    changes = {"training": {**training, "precision": "fp32"}, "sampling": sampling, "evaluate": {"n": 20}}
    return {
        **values,
        **{"learner": learner, "network": network, "schedule": small(values.get("schedule"))},
        **{key: {**named(values.get(key) or {}), **change} for key, change in changes.items()},
    }


def small(part: Any) -> Any:
    if not isinstance(part, dict):
        return part
    return {key: SMALL[key] if key in SMALL else small(value) for key, value in part.items()}


def named(section: Any) -> Any:
    return {"sampler": section} if isinstance(section, str) else section


def drawn(name: str, count: int = 200) -> Any:
    """A source of the same name, kind and classes as one that would be downloaded: noise."""
    source = SOURCES[name]
    depth, height, width = source.outline.shape

    @functools.wraps(source)
    def opened(split: str, *, root: str | None = None) -> MemorySet:
        images = np.random.default_rng(0).integers(0, 256, (count, height, width, depth), dtype=np.uint8)
        return MemorySet(images, np.arange(count) % 10, name=name, split=split, classes=source.outline.classes)

    return opened


@pytest.fixture
def at_smoke_size(half_the_digits: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder of its own, every recipe shrunk as it is read; half of the embedded digits; noise for what would be
    downloaded; sweeps of 20 images; whatever is timed or averaged over batches timed once, averaged over two; networks
    not weighed before they are trained."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(files, "parse", lambda values, parse=files.parse: parse(shrunk(values)))
    for name in ("mnist", "cifar10"):
        monkeypatch.setitem(SOURCES._parts, name, drawn(name))
    monkeypatch.setattr(sweeping, "IMAGES", 20)
    monkeypatch.setattr(evaluating, "IMAGES", 40)
    monkeypatch.setattr(speed, "measure", functools.partial(speed.measure, repeats=1, warmup=0))
    monkeypatch.setattr(network_costs, "REPEATS", 1)
    monkeypatch.setattr(training, "check_memory", lambda *_: None)
    monkeypatch.setattr(gradient_noise, "_fill", lambda *_: None)
    average = gradient_noise._measure
    monkeypatch.setattr(gradient_noise, "_measure", lambda *given: average(*given[:-1], 2))


@pytest.fixture
def placeholders(at_smoke_size: None) -> None:
    """What the tour's lines call by a made-up name: 30 pictures of 48×48 in three class folders, a UNet of diffusers,
    another run."""
    pictures = np.random.default_rng(0).integers(0, 256, (30, 48, 48, 3), dtype=np.uint8)
    for folder in ("path/to/images", "products"):
        for i, picture in enumerate(pictures):
            place = Path(folder, ("bags", "hats", "shoes")[i % 3], f"{i}.png")
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(place)
    diffusers = pytest.importorskip("diffusers")
    channels = {"in_channels": 3, "out_channels": 3, "block_out_channels": [8], "norm_num_groups": 4}
    levels = {"down_block_types": ["DownBlock2D"], "up_block_types": ["UpBlock2D"], "layers_per_block": 1}
    unet = diffusers.UNet2DModel(sample_size=32, **channels, **levels)
    diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler(20)).save_pretrained("path/to/unet-folder")
    tl.train("digits-200", out="runs/other")


def blocks(kind: str) -> list[str]:
    found = [block.partition("\n")[2] for block in BLOCKS if block.startswith(KINDS[kind])]
    assert found, f"README has no {kind}"
    return found


def commands(line: str) -> Iterator[tuple[list[str], str | None]]:
    """The commands of a line of shell, as words, and the file that each one's output goes to."""
    words = shlex.split(line, comments=True)
    ends = [i for i, word in enumerate(words) if word == "&&"]
    for begin, end in zip([-1, *ends], [*ends, len(words)], strict=True):
        command, place = words[begin + 1 : end], None
        if ">" in command:
            command, (place,) = command[: command.index(">")], command[command.index(">") + 1 :]
        assert command[0] == "trilemma", line
        yield command[1:], place


class MyNet(nn.Module):
    """Any module: forward(x, t)."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = nn.Conv2d(2, 1, 3, padding=1)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return self.inside(torch.cat([x, (t / 128)[:, None, None, None].expand_as(x)], 1))


def test_every_block_is_known() -> None:
    assert len(BLOCKS) == sum(len(blocks(kind)) for kind in KINDS) >= 5


def test_the_tour_runs_line_by_line(placeholders: None, command: Command) -> None:
    for block in blocks("shell"):
        for line in block.splitlines():
            for words, place in commands(line):
                done = command(*words)
                assert done.code == 0, f"{line}\n{done.err}"
                if place is not None:
                    Path(place).write_text(done.out, encoding="utf-8")
                what = [word for word in words if word in ("--dry-run", "check", "pack")]
                promise = PROMISES[" ".join([words[0], *what])]
                said = re.search(promise, done.out, re.MULTILINE)
                assert said, f"{line}\n{done.out}"
                written = [word for option, word in pairwise(words) if option in WRITES]
                for path in (*said.groups(), *written):
                    assert Path(path).exists(), f"{line}: {path}"
    sevens = np.load("sevens.npz")
    assert sevens["arr_0"].shape == (100, 28, 28, 1) and set(sevens["arr_1"]) == {7}
    pytest.importorskip("diffusers").DDPMPipeline.from_pretrained("exported")


def test_the_python_runs(at_smoke_size: None, capsys: pytest.CaptureFixture[str]) -> None:
    """And what `import trilemma` says is the README's."""
    names: dict[str, Any] = {"MyNet": MyNet}
    for block in blocks("python"):
        exec(block, names)
    said = capsys.readouterr().out
    assert all(re.search(words, said, re.MULTILINE) for words in (r"^2 [\d.]+$", r"^ *FD-1k: ", r"recall: "))
    assert len(names["samples"].images) == 64 and Path("runs/mine/recipe.yaml").exists()
    shown = str(tl.__doc__).split("\n\n")[2]
    assert all(re.sub(r"  #.*", "", line) in "\n".join(blocks("python")) for line in shown.splitlines())


def test_what_is_refused_is_refused_so(command: Command) -> None:
    for block in blocks("refused"):
        asked, expected = block.removeprefix("$ ").splitlines()
        ((words, _),) = commands(asked)
        found = command(*words)
        assert found.code == 2 and found.err.startswith(expected.partition("…")[0])


def test_what_make_is_asked_for_is_there() -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for block in blocks("make"):
        for line in block.splitlines():
            assert shlex.split(line, comments=True)[1] in targets
