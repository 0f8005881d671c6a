"""The drawing of a network shows every part once, where it belongs, and nothing over anything else."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from itertools import combinations, pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
from torch import nn

from trilemma.errors import InputError
from trilemma.jobs.network_costs import Anatomy, anatomy, resolve
from trilemma.networks import UNet
from trilemma.networks.trunk import Layer
from trilemma.report.network_drawing import draw_network, write_drawing

SVG = "{http://www.w3.org/2000/svg}"
UNETS = (
    *("ddpm-cifar10", "cifar10-deep", "cifar10-4-double", "cifar10-biggan", "cifar10-combined"),
    *("imagenet256-adm", "mnist-conditional", "demo"),
)
OTHERS = ("mnist-classifier", "mnist-refinenet")


@cache
def taken_apart(name: str) -> Anatomy:
    return anatomy(resolve(name))


@cache
def drawn(name: str) -> ElementTree.Element:
    """The drawing, as far as any reader of XML gets."""
    return ElementTree.fromstring(draw_network(taken_apart(name)))


def unet(name: str) -> UNet:
    network = taken_apart(name).network
    assert isinstance(network, UNet)
    return network


def boxes(name: str) -> dict[str, tuple[float, float, float, float]]:
    """The corners of every module's box."""
    found = {}
    for group in drawn(name).iter(f"{SVG}g"):
        x, y, width, height = (float(group.find(f"{SVG}rect").get(key)) for key in ("x", "y", "width", "height"))  # type: ignore[union-attr,arg-type]
        found[str(group.get("data-module"))] = (x, y, x + width, y + height)
    return found


def skips(name: str) -> list[tuple[float, float, float]]:
    """The lines from trunk to decoder: x of both ends, and their height."""
    lines = [line for line in drawn(name).iter(f"{SVG}polyline") if line.get("class") == "skip"]
    ends = [[tuple(map(float, point.split(","))) for point in str(line.get("points")).split()] for line in lines]
    assert all(len(each) == 2 and each[0][1] == each[1][1] for each in ends), "a skip that is not level"
    return [(a[0], b[0], a[1]) for a, b in ends]


def texts(name: str) -> list[ElementTree.Element]:
    return list(drawn(name).iter(f"{SVG}text"))


@pytest.mark.parametrize("name", UNETS)
class TestUNet:
    def test_shows_every_part_once(self, name: str) -> None:
        network = unet(name)
        parts = {key for key, module in network.named_modules() if isinstance(module, Layer)}
        parts |= {key for key, _ in network.named_modules() if re.fullmatch(r"(.*\.)?resample|trunk\.middle\.\d", key)}
        parts |= {"trunk.stem", "head"} | ({"trunk.bottom"} if network.trunk.bottom is not None else set())
        shown = Counter(str(group.get("data-module")) for group in drawn(name).iter(f"{SVG}g"))
        assert shown == Counter(parts)

    def test_skips_join_what_the_network_joins(self, name: str) -> None:
        """As many as the trunk keeps, each from a box of the trunk to one of the decoder at its side; and what it says
        it adds is what the decoder's block takes beside what comes from below."""
        network, calls, places = unet(name), taken_apart(name).calls, boxes(name)
        lines = skips(name)
        assert len(lines) == len(network.trunk.kept)
        kept = []
        for start, end, y in lines:
            (source,) = [key for key, (_, top, right, bottom) in places.items() if right == start and top < y < bottom]
            (target,) = [key for key, (left, top, _, bottom) in places.items() if left == end and top < y < bottom]
            assert source.startswith("trunk.") and target.startswith("decoder.")
            below = "trunk.middle." + str(len(network.trunk.middle) - 1)
            decoder = [key for key in calls if re.fullmatch(r"decoder\.\d+\.(layers\.\d+|resample)", key)]
            before = dict(pairwise([below, *decoder]))
            (previous,) = [first for first, second in before.items() if second == target]
            assert calls[target].inputs[0] == calls[previous].outputs[0] + calls[source].outputs[0]
            assert calls[target].inputs[1:] == calls[source].outputs[1:]
            kept.append(calls[source].outputs[0])
        assert Counter(kept) == Counter(network.trunk.kept)
        assert Counter(t.text for t in texts(name) if re.fullmatch(r"\+\d+", t.text or "")) >= Counter(
            f"+{channels}" for channels in kept
        )

    def test_boxes_say_channels_and_attention(self, name: str) -> None:
        calls, network = taken_apart(name).calls, unet(name)
        for group in drawn(name).iter(f"{SVG}g"):
            key = str(group.get("data-module"))
            said = [text.text for text in group.iter(f"{SVG}text")]
            assert said[1].lstrip("+") == str(calls[key].outputs[0]), key  # type: ignore[union-attr]
            module = network.get_submodule(key)
            heads = module.attention.heads if isinstance(module, Layer) and module.attention is not None else None
            assert said[2:] == ([] if heads is None else [f"A {heads}"]), key

    def test_boxes_stand_at_their_resolution(self, name: str) -> None:
        """Every box is in the band whose label is its output's size (the middle's and what is joined there too)."""
        calls, places = taken_apart(name).calls, boxes(name)
        bands = [r for r in drawn(name).findall(f"{SVG}rect") if r.get("x") == "0"]
        sizes = [t for t in texts(name) if re.fullmatch(r"\d+×\d+", t.text or "")]
        assert len(bands) == len(sizes) == len(unet(name).sizes)
        for band, size in zip(bands, sizes, strict=True):
            top, height = float(band.get("y", "")), float(band.get("height", ""))
            inside = [key for key, (_, a, _, b) in places.items() if top <= a and b <= top + height]
            assert inside
            assert {"×".join(map(str, calls[key].outputs[1:])) for key in inside} == {size.text}

    def test_nothing_lies_over_anything_else(self, name: str) -> None:
        places = boxes(name)
        for (a, first), (b, second) in combinations(places.items(), 2):
            apart = first[2] <= second[0] or second[2] <= first[0] or first[3] <= second[1] or second[3] <= first[1]
            assert apart, f"{a} and {b} overlap"

    def test_text_stays_within_its_box(self, name: str) -> None:
        """By the width of a wide font: 0.55 em a character on average."""
        for group in drawn(name).iter(f"{SVG}g"):
            left, _, right, _ = boxes(name)[str(group.get("data-module"))]
            rects, said = list(group.iter(f"{SVG}rect")), list(group.iter(f"{SVG}text"))
            end = left + 10 + 0.55 * 13 * len(said[0].text or "")
            number = right - 10 - 0.55 * 13 * len(said[1].text or "")
            assert end < number
            if len(rects) == 2:
                assert end < float(rects[1].get("x", "")) + 2
                assert float(rects[1].get("x", "")) + float(rects[1].get("width", "")) < number + 6


@pytest.mark.parametrize("name", [*UNETS, *OTHERS])
def test_everything_is_within_the_picture(name: str) -> None:
    root = drawn(name)
    width, height = float(root.get("width", "")), float(root.get("height", ""))
    assert width == 1200 and root.get("viewBox") == f"0 0 {width:g} {height:g}"
    assert all(a >= 0 and c <= width and b >= 0 and d <= height for a, b, c, d in boxes(name).values())
    for text in texts(name):
        length = 0.55 * float(text.get("font-size", "")) * len(text.text or "")
        x = float(text.get("x", "")) - {"start": 0, "middle": length / 2, "end": length}[text.get("text-anchor", "")]
        assert x > 0 and x + length < width, text.text
        assert 0 < float(text.get("y", "")) < height


@pytest.mark.parametrize("name", [*UNETS, *OTHERS])
def test_title_and_figures(name: str) -> None:
    said = [text.text or "" for text in texts(name)]
    assert said[0] == name
    assert f"{taken_apart(name).parameters / 2**20:.2f} Mi parameters" in said[1]


def test_a_network_that_is_no_unet_is_a_list_of_its_stages() -> None:
    network = taken_apart("mnist-classifier").network
    layers = [key for key, module in network.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    shown = list(boxes("mnist-classifier"))
    assert [key for key in shown if key in layers] == layers
    tops = [place[1] for place in boxes("mnist-classifier").values()]
    assert tops == sorted(set(tops)), "not one below the other in the order of the calls"


def test_a_unet_within_another_network_is_drawn(tmp_path: Path) -> None:
    root = drawn("mnist-growing")
    assert any("The U-Net in a Growing network" in (text.text or "") for text in root.iter(f"{SVG}text"))
    shown = {str(group.get("data-module")) for group in root.iter(f"{SVG}g")}
    assert shown and all(key.startswith("unet.") for key in shown)


def test_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    out = write_drawing(taken_apart("demo"), tmp_path / "new" / "demo.svg")
    assert out.read_text(encoding="utf-8") == draw_network(taken_apart("demo"))
    assert [path.name for path in out.parent.iterdir()] == ["demo.svg"]
    with pytest.raises(InputError, match="--svg: cannot write"):
        write_drawing(taken_apart("demo"), out / "inside.svg")
