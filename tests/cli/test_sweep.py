"""`trilemma sweep`: the comma form of every option, what is printed, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trilemma.cli.options import sampling_options

Command = Callable[..., Any]
ONLY = ("-n", 5, "--features", "pixels", "--metrics", "frechet_distance,recall")


def test_the_options_are_those_of_evaluate() -> None:
    plain, several = ({option.name: option for option in sampling_options(form)} for form in (False, True))
    assert plain.keys() == several.keys()

    def kind(option: Any) -> Any:
        return option.annotation.__args__[0]

    changed = {name for name in plain if several[name].annotation.__metadata__[0].callback}
    assert changed >= {"steps", "sampler", "eta", "guidance", "clip", "precision", "weights", "order", "t_mid", "skip"}
    single = {"spacing", "times", "guidance_interval", "surrogate", "classifier", "guide", "compile", "stochastic"}
    assert plain.keys() - changed == single
    assert all(kind(several[name]) == kind(plain[name]) for name in single)


def test_a_sweep_ends_in_a_table_and_a_page_and_is_taken_up(command: Command, run: Path) -> None:
    asked = ("sweep", run, *ONLY, "--sampler", "ddim, ancestral", "--steps", "2,3", "--clip", "none")
    code, out, err = command(*asked)
    assert code == 0 and err == "", err
    assert "sweep: 4 points of 5 images, 50 network evaluations" in out
    assert "point 4 of 4: ancestral, 3 steps" in out
    made = [json.loads(path.read_text()) for path in (run / "evaluations").glob("*.json")]
    assert {(one["sampler"]["sampler"], one["sampler"]["steps"], one["sampler"]["clip"]) for one in made} == {
        (sampler, steps, "none") for sampler in ("ddim", "ancestral") for steps in (2, 3)
    }
    (page,) = (run / "sweeps").glob("sampler-steps-*.html")
    (figure,) = (run / "sweeps").glob("sampler-steps-*-steps.svg")
    assert out.splitlines()[-2:] == [f"page: {page}", f"figure: {figure}"]
    assert "on the Pareto front of FD-5, recall, network evaluations" in " ".join(out.split())
    again = command(*asked)
    assert (
        again.code == 0
        and "sweep: 0 points of 5 images, 0 network evaluations; 4 more are measured already" in again.out
    )
    assert out[out.index("  sampler ") :] == again.out[again.out.index("  sampler ") :]


def test_the_page_goes_where_it_is_told(command: Command, run: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine.html"
    found = command("sweep", run, *ONLY, "--steps", "2", "--out", out)
    assert found.code == 0 and out.exists() and not (run / "sweeps").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--steps", ""], "--steps '': expected whole numbers with commas between, such as 10,20"),
        (["--steps", "2,"], "--steps '2,': expected whole numbers"),
        (["--steps", "2,x"], "--steps '2,x': expected whole numbers"),
        (["--eta", "0;1"], "--eta '0;1': expected numbers with commas between, such as 0,0.5,1"),
        (["--sampler", ",ddim"], "--sampler ',ddim': expected names with commas between"),
        (["--steps", "2,3,2"], "steps: 2 is given twice"),
        (["--sampler", "ddim,dpmpp", "--eta", "0,1"], "dpmpp, eta 0: sampling: dpmpp takes no eta"),
        (["--sampler", "ddim,dimm"], "did you mean 'ddim'"),
        (["--steps", "2,3", "--out", "page.txt"], "should end in .html"),
        (["--guidance", "0,-1"], "guidance -1: "),
        (["--guidance", "0,1"], "guidance 1: "),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_sampled(
    command: Command, run: Path, arguments: list[str], says: str
) -> None:
    refused = command("sweep", run, *ONLY, *arguments)
    assert refused.code == 2 and says in refused.err and refused.err.count("\n") == 1, refused.err
    assert not (run / "evaluations").exists() and not [*(run / "samples").glob("*.npz")]
