"""Cascades of runs: sampled, taken up, recorded and refused like one run."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from tests.conftest import recipe_values
from tests.runs.test_sampling import BrokenOffError, close
from trilemma.data import read_samples
from trilemma.errors import InputError
from trilemma.evaluations import evaluate
from trilemma.jobs import nll, sweep, train
from trilemma.machine.files import sha256
from trilemma.metrics import multiply_adds
from trilemma.process import Condition
from trilemma.recipes import sampling_words
from trilemma.report.sweep import Sweep
from trilemma.runs import Cascade, Run, open_run
from trilemma.samplers import Sampler
from trilemma.training import checkpoint

UP: dict[str, Any] = {"upsampler": True}


def trained(folder: Path, name: str, source: Path, /, **changes: dict[str, Any]) -> Path:
    values = recipe_values(source)
    for section, items in changes.items():
        values[section] = {**values[section], **items}
    values["training"] |= {"steps": 2, "validate_every": 0, "checkpoint_every": 2}
    values["schedule"] = {"name": "cosine", "steps": 8}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(values))
    path = train(folder / f"{name}.yaml", out=folder / name).path
    awaken(path)
    return path


def awaken(path: Path) -> None:
    """Weights of some size instead of those that two steps leave, most of them zero: the images then differ."""
    place = checkpoint.latest(path / "checkpoints")
    generator = torch.Generator().manual_seed(len(path.name))
    for name in ("model", "ema"):
        tensors = checkpoint.read_tensors(place / f"{name}.safetensors")
        for value in tensors.values():
            if value.dim() > 1:
                value.normal_(0, (1 / value[0].numel()) ** 0.5, generator=generator)
        checkpoint.write_tensors(place / f"{name}.safetensors", tensors, {"format": "pt"})
    state = json.loads((place / "state.json").read_text())
    state["sha256"] = {file: sha256(place / file) for file in state["sha256"]}
    (place / "state.json").write_text(json.dumps(state))


@pytest.fixture(scope="session")
def places(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs of 4×4, 4×4 to 6×6, 6×6 to 8×8 (noised) pixels, class-conditional but for the last; and others."""
    folder = tmp_path_factory.mktemp("stages")
    small: dict[str, Any] = {"size": 4, "resize": "area"}
    middle, plain = {"size": 6, "resize": "area"}, {"conditional": False}
    return {
        "base": trained(folder, "base", data, data=small),
        "up": trained(folder, "up", data, data=middle, learner={"low": 4}, network=UP),
        "top": trained(
            folder, "top", data, learner={"low": 6, "low_noise": 4, **plain}, network={**UP, "low_time": True}
        ),
        "plain": trained(folder, "plain", data, data=small, learner=plain),
        "wide": trained(folder, "wide", data, data={"size": [4, 6]}),
        "two": trained(
            folder, "two", data, data=small, learner={"label_dropout": 0.1}, sampling={"sampler": "ddim", "steps": 3}
        ),
    }


@pytest.fixture
def fresh(places: dict[str, Path], tmp_path: Path) -> dict[str, Path]:
    """The test's own copies."""
    return {name: Path(shutil.copytree(place, tmp_path / name, symlinks=True)) for name, place in places.items()}


def chain(places: dict[str, Path], *names: str) -> str:
    return "+".join(str(places[name]) for name in names)


def test_a_sweep_turns_the_base_s_dial_and_asks_no_network_before_it_begins(
    fresh: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    generate, calls = Sampler.generate, []

    def counted(self: Sampler, seeds: Any, labels: Any = None) -> np.ndarray:
        calls.append(len(seeds))
        return generate(self, seeds, labels)

    monkeypatch.setattr(Sampler, "generate", counted)
    spec = chain(fresh, "two", "up")
    made = sweep(spec, features="pixels", metrics=["frechet_distance"], n=5, guidance=[0.0, 2.0])
    assert calls == 2 * [4, 4, 1, 1]
    found = Sweep.of(made)
    assert found.axes == {"guidance": [0.0, 2.0]}
    assert [row.label for row in found.table.rows] == ["guidance 0", "guidance 2"]
    assert sweep(spec, features="pixels", metrics=["frechet_distance"], n=5, guidance=[0.0, 2.0]) == made
    with pytest.raises(InputError, match=r"guidance 2: .*trained without label dropout"):
        sweep(chain(fresh, "base", "up"), n=5, guidance=[0.0, 2.0])


class TestSampling:
    def test_the_upsampler_starts_from_the_base_s_images(self, places: dict[str, Path]) -> None:
        """By hand: the base's images of these seeds, sampled by itself, given to the upsampler's sampler."""
        run = open_run(chain(places, "base", "up"))
        assert isinstance(run, Cascade) and run.recipe.name == "up"
        heard: list[Condition] = []
        denoiser = run.denoiser()
        forward = type(denoiser).forward

        def listen(self: Any, x: Any, t: Any, condition: Condition) -> Any:
            heard.append(condition)
            return forward(self, x, t, condition)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(type(denoiser), "forward", listen)
            found = run.sample(seeds=[3, 8, 6])
        alone = Run(places["base"]).sample(seeds=[3, 8, 6])
        lows = [each for each in heard if each.low is not None]
        assert found.images.shape == (3, 6, 6, 1) and len(lows) == 8 and len(heard) == 16
        grey = ((lows[0].low + 1) * 127.5).round().numpy()[:, 0]
        close(grey.astype(np.uint8), alone.images[..., 0])
        assert len(np.unique(alone.images)) > 5 and lows[0].label.tolist() == found.labels.tolist() == [3, 0, 2]

    @pytest.mark.parametrize("names", [("base", "up"), ("base", "up", "top")])
    def test_an_image_is_the_same_at_batch_1_and_among_others(
        self, names: tuple[str, ...], places: dict[str, Path]
    ) -> None:
        run = open_run(chain(places, *names))
        settings = {"sampler": "ancestral"} | ({"low_noise": 3} if "top" in names else {})
        alone = run.sample(seeds=[7], batch=1, **settings)
        among = run.sample(seeds=[2, 5, 7, 11, 12], batch=4, **settings)
        close(among.images[2:3], alone.images)
        assert among.labels[2] == alone.labels[0] == 3
        assert not np.array_equal(among.images[0], among.images[1])

    def test_options_act_on_every_stage_and_guidance_at_the_base(self, places: dict[str, Path]) -> None:
        run = open_run(chain(places, "two", "up"))
        own = run.way()
        assert own.sampler.label == "DDIM, 3 steps + Ancestral, all 8 steps" and own.sampler.evaluations == 11
        both = run.way(sampler="ddim", steps=4, precision="bf16", guidance=2.0, batch=5)
        assert both.sampler.label == "DDIM, 4 steps, guidance 2 + DDIM, 4 steps"
        assert both.sampler.evaluations == 2 * 4 + 4
        assert {(each.precision, each.batch) for each in (both.sampler, both.sampler.low)} == {("bf16", 5)}
        assert not both.sampler.guides and both.sampler.low.guides
        whole = open_run(chain(places, "base", "up", "top")).way(low_noise=3).sampler
        assert (whole.low_noise, whole.low.low_noise) == (3, 0), "the one below is not trained on noised images"
        with pytest.raises(InputError, match=r"low_noise 5: .*top is trained on low images noised up to 4"):
            open_run(chain(places, "base", "up", "top")).way(low_noise=5)
        with pytest.raises(InputError, match=r"low_noise 3: .*up is trained on low images noised up to 0"):
            run.way(low_noise=3)

    def test_samples_in_place_of_the_base(self, places: dict[str, Path], tmp_path: Path) -> None:
        base = Run(places["base"]).sample(6, out=tmp_path / "base.npz")
        run = open_run(f"{tmp_path / 'base.npz'}+{places['up']}")
        whole = open_run(chain(places, "base", "up")).sample(6)
        found = run.sample(6)
        close(found.images, whole.images)
        assert run.way().sampler.evaluations == 8
        made = run.sample_to(n=4)
        assert made.record["sampler"]["low"]["name"] == str(tmp_path / "base.npz")
        assert base.images.shape == (6, 4, 4, 1)
        for settings, message in (
            ({"n": 7}, "it has 6 images, none for seed 6"),
            ({"cls": 1}, "image 0 is of class 0, and class 1 is asked for"),
            ({"guidance": 1.0}, "guidance: it is the base's, and .* holds finished images"),
        ):
            with pytest.raises(InputError, match=message):
                run.sample(**settings)


class TestSets:
    def test_record_covers_every_stage(self, fresh: dict[str, Path]) -> None:
        run = open_run(chain(fresh, "two", "up"))
        made = run.sample_to(n=3, cls="1")
        sampler = made.record["sampler"]
        assert sampler["network_evaluations"] == 11 and sampler["sampler"] == "ancestral"
        assert made.record["weights_sha256"] == sha256(run.weights_file("ema"))
        low = sampler["low"]
        assert low["name"] == str(fresh["two"]) and low["checkpoint_step"] == 2
        assert low["weights_sha256"] == sha256(Run(fresh["two"]).weights_file("ema"))
        assert (low["sampler"]["sampler"], low["sampler"]["steps"]) == ("ddim", 3)
        assert made.path.parent == fresh["up"] / "samples"
        assert made.path.stem == "ancestral-8-step2-over-two-ddim-3-step2-class1-seeds0-2"
        other = open_run(chain(fresh, "base", "up")).sample_to(n=3, cls="1")
        assert other.path != made.path
        with pytest.raises(InputError, match="holds samples made otherwise"):
            open_run(chain(fresh, "base", "up")).sample_to(made.path, n=3, cls="1")

    def test_an_interrupted_set_is_taken_up(
        self, fresh: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        run, generate = open_run(chain(fresh, "base", "up")), Sampler.generate
        whole = run.sample_to(tmp_path / "whole.npz", n=10, batch=4)
        count = 0

        def broken(self: Sampler, seeds: Any, labels: Any = None) -> Any:
            nonlocal count
            count += 1
            if count == 4:  # the base's second batch
                raise BrokenOffError
            return generate(self, seeds, labels)

        monkeypatch.setattr(Sampler, "generate", broken)
        with pytest.raises(BrokenOffError):
            run.sample_to(tmp_path / "cut.npz", n=10, batch=4)
        assert len(list((tmp_path / "cut.npz.parts").glob("part-*"))) == 1
        monkeypatch.setattr(Sampler, "generate", generate)
        made = run.sample_to(tmp_path / "cut.npz", n=10, batch=3)
        close(made.images, whole.images)
        assert np.array_equal(read_samples(tmp_path / "cut.npz")[1], whole.labels)


class TestEvaluation:
    def test_counts_what_all_stages_take(self, fresh: dict[str, Path]) -> None:
        spec = chain(fresh, "two", "up")
        found = evaluate(
            spec,
            n=12,
            features="pixels",
            metrics=["frechet_distance", "images_per_second", "network_evaluations", "multiply_adds"],
        )
        assert found.label == "DDIM, 3 steps + Ancestral, all 8 steps"
        assert found.subject.path == spec and found.subject.recipe == "up"
        assert found.figure("network_evaluations") == 11
        base, up = Run(fresh["two"]), Run(fresh["up"])
        assert found.subject.parameters == base.parameters + up.parameters
        label, t = torch.zeros(1, dtype=torch.int64), torch.tensor(8.0, dtype=torch.float64)
        low, time = torch.zeros(1, 1, 4, 4), torch.zeros(1)
        with torch.inference_mode():
            first = multiply_adds(lambda: base.denoiser()(torch.zeros(1, 1, 4, 4), t, Condition(label)))
            second = multiply_adds(lambda: up.denoiser()(torch.zeros(1, 1, 6, 6), t, Condition(label, low, time)))
        assert found.figure("multiply_adds") == pytest.approx(3 * first + 8 * second)
        assert found.path is not None and found.path.parent == fresh["up"] / "evaluations"
        again = evaluate(spec, n=12, features="pixels", metrics=["frechet_distance"])
        assert again.samples.sha256 == found.samples.sha256

    def test_the_words_that_give_the_same_again(self, fresh: dict[str, Path], tmp_path: Path) -> None:
        """Options act on every stage: only what the stages have in common is an option, the rest is each one's own."""
        run = open_run(chain(fresh, "two", "up", "top"))
        made = run.sample_to(n=3, precision="bf16", guidance=1.0, low_noise=2)
        words = sampling_words({"weights": "ema", **made.record["sampler"]}, "0-2", "balanced")
        given = dict(pairwise(words))
        assert given["--precision"] == "bf16" and given["--guidance"] == "1.0" and given["--seeds"] == "0-2"
        assert "--steps" not in given and "--sampler" not in given and "--low" not in given
        assert float(given["--low-noise"]) == 2
        second = open_run(chain(fresh, "base", "up")).sample_to(n=3, steps=4)
        words = sampling_words({"weights": "ema", **second.record["sampler"]}, "0-2", None)
        assert words[words.index("--steps") + 1] == "4" and words[words.index("--sampler") + 1] == "ancestral"
        assert "--low-noise" not in words


class TestRefusals:
    def test_an_upsampler_alone(self, places: dict[str, Path]) -> None:
        up = places["up"]
        with pytest.raises(InputError, match=rf"{up} is an upsampler: it needs what makes its 4×4 images.*BASE\+{up}$"):
            Run(up).sample(1)
        with pytest.raises(InputError, match="up is an upsampler"):
            open_run(chain(places, "up", "top")).sample(1)

    @pytest.mark.parametrize(
        ("names", "message"),
        [
            (("base", "two"), "two is no upsampler"),
            (("wide", "up"), r"up starts from images \(1, 4, 4\) .* those below are \(1, 4, 6\)"),
            (("base", "top"), r"top starts from images \(1, 6, 6\) .* those below are \(1, 4, 4\)"),
        ],
    )
    def test_stages_that_do_not_fit(self, names: tuple[str, ...], message: str, places: dict[str, Path]) -> None:
        with pytest.raises(InputError, match=message) as caught:
            open_run(chain(places, *names))
        assert "\n" not in str(caught.value)

    def test_classes_that_do_not_fit(self, places: dict[str, Path]) -> None:
        run = open_run(chain(places, "plain", "up"))
        with pytest.raises(InputError, match=r"up is conditioned on 4 classes, and what lies below has none$"):
            run.sample(1)
        run = open_run(chain(places, "base", "up"))
        run.recipe.images.classes[:] = ["a", "b", "c", "d"]
        with pytest.raises(InputError, match="what lies below has 4 of other names"):
            run.sample(1)

    @pytest.mark.parametrize("spec", ["{base}+", "+{up}", "{base}++{up}"])
    def test_a_missing_end(self, spec: str, places: dict[str, Path]) -> None:
        with pytest.raises(InputError, match=r"expected BASE\+UPSAMPLER"):
            open_run(spec.format(**places))

    def test_a_stage_that_is_not_there(self, places: dict[str, Path]) -> None:
        with pytest.raises(InputError, match=r"nowhere does not exist, expected BASE\+UPSAMPLER"):
            open_run(f"{places['base']}+nowhere")
        with pytest.raises(InputError, match="nowhere does not exist"):
            evaluate(f"nowhere+{places['base']}", n=4)

    def test_channels_that_do_not_fit(self, places: dict[str, Path], tmp_path: Path) -> None:
        np.savez(tmp_path / "rgb.npz", arr_0=np.zeros((3, 4, 4, 3), dtype=np.uint8))
        with pytest.raises(InputError, match=r"those below are \(3, 4, 4\)"):
            open_run(f"{tmp_path / 'rgb.npz'}+{places['up']}")


def test_the_likelihood_of_an_upsampler_is_given_the_low_images(fresh: dict[str, Path], data: Path) -> None:
    found = nll(fresh["up"], f"{data}:train", n=6, steps=4)
    assert 0 < found["bits_per_dim"]["total"]["mean"] < 1e6
