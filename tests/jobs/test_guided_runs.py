"""Guided runs: named guides reach the sampler, stand in the record, and are refused where they do not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.jobs.conftest import recipe, trained
from trilemma.errors import InputError
from trilemma.evaluations import evaluate
from trilemma.guidance import Autoguidance, ClassifierFree, ClassifierGuidance
from trilemma.metrics import multiply_adds
from trilemma.runs import Run


@pytest.fixture(scope="module")
def free(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Trained with label dropout; checkpoints of steps 15 and 30."""
    changes: dict[str, Any] = {"learner": {"conditional": True, "label_dropout": 0.2}}
    changes["training"] = {"checkpoint_every": 15}
    return Run(trained(tmp_path_factory.mktemp("free"), recipe(data, **changes)))


@pytest.fixture(scope="module")
def noisy(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A classifier of the same images noised by the same schedule."""
    values = recipe(data)
    network = {**values["network"], "name": "noisy_classifier", "pool_head_channels": 8}
    values |= {"learner": {"name": "noisy_classifier"}, "network": network}
    values["training"] |= {"steps": 3, "checkpoint_every": 3}
    return Run(trained(tmp_path_factory.mktemp("noisy"), values))


def test_by_default_it_is_classifier_free(free: Run) -> None:
    sampler = free.sampler(steps=3, guidance=2.0, guidance_interval=[5, 30])
    (guide,) = sampler.guides
    assert isinstance(guide, ClassifierFree)
    assert (guide.scale, guide.interval) == (2.0, (5.0, 30.0))
    assert free.sampler(steps=3).guides == []
    guided, plain = (free.sample(3, steps=3, guidance=scale).images for scale in (2.0, 0.0))
    assert (guided != plain).any()


def test_a_guide_is_a_run_at_a_step_or_the_run_s_own_checkpoint(free: Run, labelled: Run) -> None:
    for name, step in (("@15", 15), (f"{free.path}@15", 15), (str(labelled.path), 30)):
        way = free.way(steps=3, guidance=1.0, guide=name)
        (guide,) = way.sampler.guides
        assert isinstance(guide, Autoguidance)
        assert way.guide is not None
        assert way.guide["checkpoint_step"] == step
    weak = Run(free.path, step=15).denoiser().network
    (guide,) = free.sampler(guidance=1.0, guide="@15").guides
    assert isinstance(guide, Autoguidance)
    own = zip(guide.weaker.network.parameters(), weak.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in own)


def test_a_guide_is_opened_once(free: Run, noisy: Run) -> None:
    for how in ({"guide": "@15"}, {"classifier": str(noisy.path)}):
        (first,), (second,) = (free.sampler(steps=3, guidance=scale, **how).guides for scale in (1.0, 2.0))
        assert (first.scale, second.scale) == (1.0, 2.0)
        assert first.networks[0] is second.networks[0]


def test_a_classifier_gives_an_unconditional_run_its_classes(plain: Run, noisy: Run) -> None:
    way = plain.way(steps=3, guidance=1.0, classifier=str(noisy.path))
    (guide,) = way.sampler.guides
    assert isinstance(guide, ClassifierGuidance)
    assert way.classes == noisy.recipe.images.classes
    samples = plain.sample(6, steps=3, guidance=4.0, classifier=str(noisy.path), cls="1,3")
    assert samples.labels is not None
    assert samples.labels.tolist() == [1, 3, 1, 3, 1, 3]
    with pytest.raises(InputError, match="class '1': this model is unconditional"):
        plain.sample(2, steps=3, guidance=0.0, classifier=str(noisy.path), cls="1")


def test_the_record_says_it_and_the_same_samples_are_taken_up(free: Run, noisy: Run, tmp_path: Path) -> None:
    place = tmp_path / "set.npz"
    how: dict[str, Any] = {"steps": 3, "guidance": 1.5, "classifier": str(noisy.path), "n": 4}
    first = free.sample_to(place, **how)
    made = json.loads((tmp_path / "set.npz.record.json").read_text())["sampler"]
    assert made["guidance"] == 1.5
    assert made["guide"]["kind"] == "classifier"
    assert made["guide"]["name"] == str(noisy.path)
    assert len(made["guide"]["weights_sha256"]) == 64
    assert made["network_evaluations"] == 6
    assert np.array_equal(free.sample_to(place, **how).images, first.images)
    with pytest.raises(InputError, match=r"samples made otherwise \(sampler\.guidance: 1\.5, now 2\.0\)"):
        free.sample_to(place, **how | {"guidance": 2.0})
    with pytest.raises(InputError, match=r"samples made otherwise \((sampler\.)?guide"):
        free.sample_to(place, **how | {"classifier": None, "guide": "@15"})
    names = {free.default_out(free.way(**way), [0, 1], None) for way in ways(noisy)}
    assert len(names) == len(ways(noisy)) - 1  # at scale 0 a guide is nothing


def test_samples_from_before_guidance_was_recorded_are_unguided(free: Run, tmp_path: Path) -> None:
    place, beside = tmp_path / "set.npz", tmp_path / "set.npz.record.json"
    first = free.sample_to(place, steps=3, n=4)
    record = json.loads(beside.read_text())
    del record["sampler"]["guidance"], record["sampler"]["guide"]
    beside.write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"samples made otherwise \(sampler\.guidance: 0\.0, now 2\.0\)"):
        free.sample_to(place, steps=3, n=4, guidance=2.0)
    assert np.array_equal(free.sample_to(place, steps=3, n=4).images, first.images)


def test_an_interval_of_no_guidance_is_nothing(free: Run, tmp_path: Path) -> None:
    """A sweep over scales has one interval for all of them: at scale 0 the set is the unguided one."""
    place, how = tmp_path / "set.npz", {"steps": 3, "n": 4}
    first = free.sample_to(place, **how)
    again = free.sample_to(place, **how, guidance=0.0, guidance_interval=[5, 30])
    assert np.array_equal(again.images, first.images)
    within = free.way(steps=3, guidance=0.0, guidance_interval=[5, 30])
    assert free.record(within, [0], None) == free.record(free.way(steps=3), [0], None)


def ways(noisy: Run) -> list[dict[str, Any]]:
    base: dict[str, Any] = {"steps": 3}
    return [
        *({**base, **more} for more in ({}, {"guidance": 0.0, "guide": "@15"})),
        *({**base, "guidance": 1.0, **more} for more in ({}, {"guide": "@15"}, {"classifier": str(noisy.path)})),
        *({**base, "guidance": 1.0, "guidance_interval": [a, 30]} for a in (3, 5)),
    ]


def test_an_evaluation_says_it(free: Run, tmp_path: Path) -> None:
    found = evaluate(free, n=8, steps=3, guidance=0.5, guide="@15", features="pixels",
                     metrics=["network_evaluations", "multiply_adds"], out=tmp_path / "one.json")  # fmt: skip
    assert found.sampler is not None
    assert found.sampler.guidance == 0.5
    assert found.sampler.guide is not None
    assert found.sampler.guide["name"] == "@15"
    plain = evaluate(free, n=8, steps=3, features="pixels", metrics=["network_evaluations", "multiply_adds"],
                     out=tmp_path / "two.json")  # fmt: skip
    for name in ("network_evaluations", "multiply_adds"):
        assert found.metrics[name] == 2 * plain.metrics[name]


def test_a_classifier_s_cost_is_counted(free: Run, noisy: Run, tmp_path: Path) -> None:
    """Its gradient too, which takes about what its logits take."""
    how: dict[str, Any] = {"n": 8, "steps": 3, "features": "pixels", "metrics": ["multiply_adds", "images_per_second"]}
    guided = evaluate(free, **how, guidance=0.5, classifier=str(noisy.path), out=tmp_path / "one.json")
    plain = evaluate(free, **how, out=tmp_path / "two.json")
    posterior = noisy.posterior()
    once = multiply_adds(lambda: posterior(torch.zeros(1, 1, 8, 8), torch.tensor(3.0, dtype=torch.float64)))
    assert 1.9 * once < (guided.metrics["multiply_adds"] - plain.metrics["multiply_adds"]) / 3 < 2.1 * once


def test_what_does_not_fit_is_refused(free: Run, plain: Run, labelled: Run, continuous: Run, noisy: Run,
                                      tmp_path: Path, tmp_path_factory: pytest.TempPathFactory,
                                      data: Path) -> None:  # fmt: skip
    def refused(run: Run, message: str, **settings: Any) -> None:
        with pytest.raises(InputError, match=message):
            run.sample_to(tmp_path / "none.npz", n=2, **settings)

    refused(labelled, "guidance 1: this model was trained without label dropout", guidance=1.0)
    refused(plain, "guidance 1: this model was trained without label dropout", guidance=1.0)
    refused(free, "guide @15: by how much", guide="@15")
    refused(free, "classifier .*: by how much", classifier=str(noisy.path))
    refused(free, "guidance_interval 5,30: by how much", guidance_interval="5,30")
    refused(free, "classifier 'a' and guide 'b': expected one of them", classifier="a", guide="b", guidance=1.0)
    refused(free, "not a classifier of noised images", classifier=str(plain.path), guidance=1.0)
    refused(free, r"has no checkpoint of step 16 \(has: \[15, 30\]\)", guide="@16", guidance=1.0)
    refused(free, "guide : it names no run", guide="", guidance=1.0)
    refused(free, "nowhere is not a run directory", guide="nowhere", guidance=1.0)
    refused(plain, "it is conditioned on classes, and .* on none", guide=str(labelled.path), guidance=1.0)
    refused(free, "its schedule is .*expected the same", guide=str(continuous.path), guidance=1.0)
    refused(continuous, "its schedule is .*expected the same", steps=4, classifier=str(noisy.path), guidance=1.0)
    upsampler = recipe(data, training={"steps": 2, "warmup": 0, "checkpoint_every": 2})
    upsampler["learner"] |= {"low": 4}
    upsampler["network"] |= {"upsampler": True}
    above = trained(tmp_path_factory.mktemp("above"), upsampler)
    refused(free, "guide .*: it is an upsampler", guide=str(above), guidance=1.0)
    other = recipe(data, training={"steps": 2, "warmup": 0, "checkpoint_every": 2})
    other["data"] |= {"size": [12, 12]}
    smaller = trained(tmp_path, other)
    refused(free, r"guide .*: its images are \(1, 12, 12\).*the run's", guide=str(smaller), guidance=1.0)
    assert not list(tmp_path.glob("none.npz*"))
