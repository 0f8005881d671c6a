"""The page as a whole: self-contained, complete, and clear about what it was not given."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trilemma.errors import InputError
from trilemma.report.html import build_report
from trilemma.report.provenance import commands
from trilemma.report.sources import read_log, read_sources
from trilemma.report.tables import build_table

SECTIONS = ["verdict", "figures", "trilemma", "samples", "strips", "loss", "balance", "provenance"]
VOID = {"meta", "img", "br", "link", "input", "hr", "source"}


class Page(HTMLParser):
    """Collects what the tests ask about, and checks that elements are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.headings: list[tuple[str, str]] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("script", "style"):
            self.words.append(data)
        if self.open and self.open[-1] in ("h1", "h2"):
            self.headings.append((self.open[-1], data))

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))

    @property
    def sections(self) -> list[str]:
        """Those below where the run stands, which is said, or not, by what a log and evaluations allow."""
        return [attrs["id"] for tag, attrs in self.elements if tag == "section" and attrs["id"] != "standing"]

    def images(self, kind: str) -> list[bytes]:
        found = [str(attrs["src"]) for tag, attrs in self.elements if tag == "img"]
        prefix = f"data:image/{kind};base64,"
        return [base64.b64decode(src[len(prefix) :]) for src in found if src.startswith(prefix)]


def read(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def edit(path: Path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_whole_report(run):
    out = build_report([run])
    assert out == run / "report.html"
    page = read(out)
    assert page.sections == SECTIONS
    assert "“Ancestral, 200 steps” wins on quality and coverage" in page.text
    assert "291 images/s" in page.text
    assert (
        "trilemma evaluate runs/demo --weights ema --sampler ddim --steps 10 --spacing uniform --clip static"
        in page.text
    )
    assert "network: {name: unet, channels: 32, patch: 2}" in page.text
    assert "N = 500 is less than 10 times the feature dimension" in page.text
    assert "The same place holds the same seed in each block." in page.text
    assert not [p for p in run.iterdir() if p.name.startswith(".")]
    assert out.stat().st_size < 500_000


def test_nothing_is_fetched_from_elsewhere(run):
    out = build_report([run])
    page = read(out)
    for tag, attrs in page.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base")
        for name in ("src", "href", "srcset", "data", "poster", "action"):
            assert (attrs.get(name) or "#").startswith(("#", "data:")), (tag, attrs)
    assert not re.search(
        r"\b(fetch|import|XMLHttpRequest|WebSocket)\b",
        "".join(re.findall(r"<script>(.*?)</script>", out.read_text(), re.DOTALL)),
    )
    style = re.search(r"<style>(.*?)</style>", out.read_text(), re.DOTALL)
    assert style
    assert "url(" not in style[1]
    assert "@import" not in style[1]
    for svg in page.images("svg+xml"):
        assert not re.search(rb'(href|src)="(?!#)', svg)


def test_pictures_are_the_samples_and_have_words(run):
    page = read(build_report([run]))
    pictures = [Image.open(io.BytesIO(data)) for data in page.images("png")]
    assert [picture.size for picture in pictures] == [(5 * 30, 30)] * 30 + [(11 * 30, 4 * 30)] * 2
    with np.load(run / "samples" / "way-1.npz") as file:
        images = file["arr_0"]
    for label, column in ((0, 0), (3, 1), (9, 4)):
        cell = np.asarray(pictures[label])[1:29, 30 * column + 1 : 30 * column + 29]
        np.testing.assert_array_equal(cell, images[label + 10 * column, :, :, 0])
    assert all(attrs.get("alt") for tag, attrs in page.elements if tag == "img")


def test_labels_are_text_wherever_they_stand(run):
    nasty = '</script><img src="http://x.invalid/a.png" onerror=alert(1)>&amp;'

    def change(evaluation):
        evaluation["label"] = evaluation["subject"]["recipe"] = nasty
        evaluation["environment"]["hardware"] = evaluation["samples"]["seeds"] = nasty
        evaluation["warnings"] = [nasty]

    for path in (run / "evaluations").glob("*.json"):
        edit(path, change)
    (run / "recipe.yaml").write_text(f"# {nasty}\n")
    page = read(build_report([run]))
    assert page.sections == SECTIONS
    assert not [attrs for tag, attrs in page.elements if "onerror" in attrs]
    assert nasty in page.text


@pytest.mark.parametrize(
    ("gone", "section"),
    [
        ("log.jsonl", "loss"),
        ("evaluations", "figures"),
        ("samples/*-strip.npz", "strips"),
        ("samples/way-*", "samples"),
    ],
)
def test_a_section_without_material_is_left_out(run, gone, section):
    for path in run.glob(gone):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    page = read(build_report([run]))
    assert section not in page.sections
    assert "provenance" in page.sections
    assert page.sections == [name for name in SECTIONS if name in page.sections]


def test_a_run_that_was_only_trained_has_its_losses(run):
    shutil.rmtree(run / "evaluations")
    page = read(build_report([run]))
    assert page.sections == ["strips", "loss", "provenance"]
    assert "800 steps, 51 200 images seen" in page.text


def test_unlabelled_samples_make_one_grid(run):
    for path in (run / "samples").glob("way-*.npz"):
        with np.load(path) as file:
            images = file["arr_0"]
        np.savez(path, arr_0=images[:7])
    page = read(build_report([run]))
    assert "Samples by class" not in page.text
    assert [Image.open(io.BytesIO(data)).size for data in page.images("png")][:3] == [(5 * 30, 30)] * 3


def test_rgb_samples_and_non_square_strips(run):
    rng = np.random.default_rng(0)
    for path in (run / "samples").glob("way-*.npz"):
        np.savez(path, arr_0=rng.integers(0, 256, (20, 64, 32, 3), dtype=np.uint8), arr_1=np.arange(20) % 2)
    np.savez(run / "samples" / "forward-strip.npz", images=np.zeros((1, 3, 64, 32, 3), np.uint8), times=[0, 500, 1000])
    page = read(build_report([run]))
    pictures = [Image.open(io.BytesIO(data)) for data in page.images("png")]
    assert pictures[0].mode == "RGB"
    assert pictures[0].height == 66
    assert pictures[-1].size == (11 * 30, 4 * 30) and (3 * 34, 66) in [picture.size for picture in pictures]
    assert "t = 0" in page.text


def test_evaluation_files_alone_make_a_report_in_the_working_directory(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = sorted((run / "evaluations").glob("*.json"))
    out = build_report([files[0], files[2], files[0]])
    assert out == Path("report.html")
    page = read(out)
    assert page.sections == ["verdict", "figures", "trilemma", "samples", "balance", "provenance"]
    assert "2 ways of sampling" in page.text


def test_a_run_and_its_classes_have_their_names(run, tmp_path):
    products = run.rename(tmp_path / "products")
    names = [f"kind <{i}>" for i in range(10)]
    (products / "recipe.yaml").write_text(f"images: {{channels: 1, height: 28, width: 28, classes: {names}}}")
    page = read(build_report([products]))
    assert ("h1", "products") in page.headings
    assert page.text.count("kind <3>") == 3 + 1 + 1, "beside samples of three ways, in the balance, in the recipe"
    assert "Samples of class kind <3>: DDIM, 10 steps" in [attrs.get("alt") for _, attrs in page.elements]


def test_ways_are_in_the_order_of_their_numbers(run):
    for i, steps in enumerate((100, 5, 20)):
        edit(run / "evaluations" / f"way-{i}.json", lambda e, steps=steps: e.update(label=f"ddim, {steps} steps"))
    text = build_report([run]).read_text()
    assert re.findall(r'<th scope="row">(ddim, \d+)', text)[:3] == ["ddim, 5", "ddim, 20", "ddim, 100"]


def test_two_runs_are_told_apart(run, tmp_path):
    other = shutil.copytree(run, tmp_path / "other")
    for path in (other / "evaluations").glob("*.json"):
        edit(path, lambda e: e["subject"].update(path="runs/other"))
    page = read(build_report([run, other], tmp_path / "out" / "both.html"))
    assert "DDIM, 10 steps (demo)" in page.text
    assert "DDIM, 10 steps (other)" in page.text
    assert "Forward of other" in page.text
    assert "Training of demo" in page.text


def test_a_figure_that_is_not_comparable_is_marked_on_the_page(run):
    edit(run / "evaluations" / "way-1.json", lambda e: e["reference"].update(sha256="00", split="test", count=500))
    page = read(build_report([run]))
    assert "not comparable: other reference: mnist5k:test, 500 images against mnist5k:train, 4500 images" in page.text
    assert "Not drawn, for want of comparable figures: Ancestral, 20 steps." in page.text


@pytest.mark.parametrize("key", ["format", "label", "subject", "samples", "metrics"])
def test_a_file_that_is_no_evaluation_names_the_missing_key(run, key):
    path = run / "evaluations" / "way-0.json"
    edit(path, lambda e: e.pop(key))
    with pytest.raises(InputError, match=rf"way-0\.json: not an evaluation: key '{key}.*' is missing") as caught:
        build_report([path])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("evaluations/way-0.json", b'{"format": ', "no valid JSON"),
        ("evaluations/way-0.json", b"[1]", "holds a list"),
        ("evaluations/way-0.json", b"\xff\xfe", "no valid JSON"),
        ("log.jsonl", b'{"step": 1}\nnot json\n{"step": 2}\n', "line 2 is not a JSON object with a step"),
        ("samples/forward-strip.npz", b"PK\x03\x04broken", "not a strip"),
        ("samples/way-0.npz", b"PK\x03\x04broken", "way-0.npz"),
    ],
)
def test_invalid_files_are_named(run, name, content, message):
    (run / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        build_report([run])
    assert not (run / "report.html").exists()


def test_a_strip_of_another_shape_is_refused(run):
    np.savez(run / "samples" / "reverse-strip.npz", images=np.zeros((2, 3, 8, 8, 1), np.uint8), times=[0.0, 1.0])
    with pytest.raises(InputError, match=r"times \(2,\) are not a strip"):
        build_report([run])


def test_other_formats_and_missing_sources_are_refused(run, tmp_path):
    edit(run / "evaluations" / "way-0.json", lambda e: e.update(format="other/1"))
    with pytest.raises(InputError, match="'format' is 'other/1', expected 'trilemma-evaluation/1'"):
        build_report([run])
    with pytest.raises(InputError, match="no such file or directory"):
        build_report([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="nothing to report"):
        build_report([tmp_path / "empty"])
    with pytest.raises(InputError, match="nothing to report"):
        build_report([], tmp_path / "x.html")


def test_an_out_that_cannot_be_written_is_refused(run, tmp_path):
    with pytest.raises(InputError, match="is a folder"):
        build_report([run], tmp_path)
    (tmp_path / "file").write_text("kept")
    with pytest.raises(InputError, match="--out"):
        build_report([run], tmp_path / "file" / "report.html")
    assert (tmp_path / "file").read_text() == "kept"


def test_log_of_a_resumed_and_killed_run(tmp_path):
    path = tmp_path / "log.jsonl"
    lines = ['{"step": 10, "loss": 3}', '{"step": 20, "loss": 2}', '{"step": 20, "validation_loss": 5}',
             '{"step": 20, "loss": 1}', "", '{"step": 30, "lo']  # fmt: skip
    path.write_text("\n".join(lines))
    assert read_log(path) == ({"step": 10, "loss": 3}, {"step": 20, "loss": 1, "validation_loss": 5})


def test_commands_quote_paths_and_follow_what_was_measured(run, evaluation):
    runs, _ = read_sources([run])
    one = evaluation("a", subject__path="runs/my run", samples__classes="3", subject__weights="raw")
    files = evaluation("b", sampler=None, subject={"kind": "samples", "path": "digits.npz"})
    real = evaluation("c", subject={"kind": "data", "path": "mnist5k:test"})
    todo = commands(runs, build_table([one, files, real]).rows)
    assert todo[1:] == [
        "trilemma evaluate 'runs/my run' --weights raw --sampler ddim --steps 10 --spacing uniform --clip static "
        "--precision fp32 --eta 0.0 --seeds 0-499 --class 3 --reference mnist5k:train --features digits",
        "trilemma evaluate digits.npz --reference mnist5k:train --features digits",
    ]
    assert todo[0].startswith("trilemma train ")
