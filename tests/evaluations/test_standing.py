"""Where a run stands, on logs and evaluations whose answers are known; and that nothing is said without its figure."""

from __future__ import annotations

import re
import shlex
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from trilemma.cli import app
from trilemma.data import write_png
from trilemma.evaluations import Evaluation
from trilemma.evaluations.advice import standing
from trilemma.evaluations.statements import Standing, Statement
from trilemma.recipes import load

RECIPE: dict[str, Any] = {
    "learner": {"name": "denoising", "conditional": True, "label_dropout": 0.1},
    "schedule": {"name": "cosine", "steps": 128},
    "network": {"name": "unet", "base_channels": 32},
    "data": {"name": "products", "split": "train", "validation_split": "test"},
    "training": {"steps": 3000, "learning_rate": 1e-3, "flip": False},
    "sampling": {"sampler": "ddim", "steps": 16},
    "images": {"classes": ["cat", "dog", "owl"]},
}
FIGURES: dict[str, Any] = {
    **{"frechet_distance": 0.1, "frechet_distance_se": 0.01, "recall": 0.8, "recall_se": 0.02},
    **{"memorisation": 0.01, "memorisation_se": 0.003, "recognised": 0.95, "recognised_se": 0.01},
    **{"balance_kl": 0.002, "balance_kl_se": 0.001, "class_counts": [166, 170, 164]},
}


def recipe(**changes: Any) -> dict[str, Any]:
    """`RECIPE` with changes at dotted paths, `__` for the dots."""
    return _changed(RECIPE, changes)


def _changed(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    values = deepcopy(values)
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = values
        for part in parents:
            place = place[part]
        place[last] = value
    return values


def evaluation(label: str = "DDIM", **changes: Any) -> Evaluation:
    content = {
        **{"format": "trilemma-evaluation/1", "label": label, "created": "2026-01-01", "neighbours": 3},
        "subject": {"kind": "run", "path": "runs/products", "checkpoint_step": 3000},
        "samples": {"count": 500, "classes": "balanced", "sha256": label},
        "sampler": {"sampler": "ddim", "steps": 16, "guidance": 0.5, "network_evaluations": 32},
        "features": {"name": "digits", "sha256": "cd", "dim": 128, "resize": "none"},
        "reference": {
            **{"data": "products", "split": "train", "count": 4500, "sha256": "ef"},
            "holdout": {"split": "test", "count": 500, "sha256": "ab"},
        },
        "metrics": dict(FIGURES),
    }
    return Evaluation.model_validate(_changed(content, changes))


def yardstick(**figures: Any) -> Evaluation:
    known = {"frechet_distance": 0.1, "recall": 0.8, "recognised": 0.95, "class_counts": [167, 167, 166], **figures}
    return evaluation(
        "real", subject={"kind": "data"}, samples={"count": 500, "sha256": "ab"}, sampler=None,
        metrics={**FIGURES, **known},
    )  # fmt: skip


def log(kind: str = "level", noise: float = 0.003) -> list[dict[str, Any]]:
    """3 000 steps, validated every 100: falling by 10 % per 1 000 steps, level, or rising since step 1 000."""
    steps, rng = np.arange(100, 3001, 100), np.random.default_rng(0)
    fall = 1 - 0.1 * (steps - 1500) / 1000
    fitted = {
        "falling": fall,
        "level": np.where(steps < 1000, 1 + (1000 - steps) / 1000, 1.0),
        "rising": 1 + np.abs(steps - 1000) / 2000,
    }[kind]
    values = fitted * (1 + noise * rng.normal(size=len(steps)))
    return [
        {"step": int(s), "loss": 1.0, "skipped": 0, "validation_loss": v} for s, v in zip(steps, values, strict=True)
    ]


def stands(
    lines: list[dict[str, Any]] | None = None, *evaluations: Evaluation, of: dict[str, Any] | None = None, **more: Any
) -> Standing:
    found = standing(log() if lines is None else lines, evaluations, of or RECIPE, "runs/products", **more)
    for one in (*found.sentences, *found.advice):
        assert one.figures and all(figure.where and figure.name for figure in one.figures)
        check_command(one.command)
    assert all(figure.value is not None for one in found.sentences for figure in one.figures)
    return found


def check_command(command: str) -> None:
    """It is one that there is, with options that there are, and settings that a recipe has."""
    if not command:
        return
    trilemma, name, *words = shlex.split(command)
    assert trilemma == "trilemma"
    found = typer.main.get_command(app).get_command(None, name)  # type: ignore[attr-defined]
    context = found.make_context(name, words)
    settings = [word for word in context.params.get("set_") or [] if not word.startswith("data.")]
    load("demo", settings)


def test_level_with_held_out_images_and_nothing_left_to_do() -> None:
    found = stands(log("level"), evaluation(), yardstick())
    assert found.text.startswith(
        "As near the training images as held-out images are: FD-500 0.100 ± 0.010, against 0.100 ± 0.010. No longer "
        "learning: the validation loss is level since step 2 100 ("
    )
    assert "No sign of memorising: 1.00 ± 0.30 % of the samples" in found.text
    assert "The classes are as frequent as in the training images" in found.text
    assert "the samples are as varied as held-out images (recall 0.800 ± 0.020 against 0.800 ± 0.020)" in found.text
    assert found.advice == () and found.next == ""


def test_the_distance_is_a_multiple_of_held_out_images() -> None:
    far = evaluation(metrics__frechet_distance=0.4, metrics__frechet_distance_se=0.02)
    found = stands(log(), far, yardstick())
    # 4 √(0.05² + 0.1²)
    assert found.text.startswith("4.00 ± 0.45 times as far from the training images as held-out images are: FD-500")
    (first, second) = found.sentences[0].figures
    assert (first.value, first.error, second.value) == (0.4, 0.02, 0.1)
    near = stands(log(), evaluation(metrics__frechet_distance=0.03), yardstick())
    assert near.text.startswith("Suspiciously near: nearer the training images than held-out images are, as")


@pytest.mark.parametrize("value", [-0.0005, 0.001])
def test_an_unbiased_distance_stands_in_where_the_counts_differ(value: float) -> None:
    run = evaluation(metrics__kid=0.01, metrics__kid_se=0.001)
    real = evaluation(
        "real", subject={"kind": "data"}, samples={"count": 60, "sha256": "ab"}, sampler=None,
        metrics={"frechet_distance": 0.1, "frechet_distance_se": 0.01, "kid": value, "kid_se": 0.001},
    )  # fmt: skip
    found = stands(log(), run, real)
    assert found.next.startswith("next: more sampling steps, measured are only 16: KID 0.0100 ± 0.0010, against")
    assert found.text.startswith(
        "Farther from the training images than held-out images are: KID 0.0100 ± 0.0010, against"
    )


@pytest.mark.parametrize(
    ("kind", "sentence", "true"),
    [
        ("falling", "Still learning: the validation loss falls by S % per 1 000 steps.", 10 / 0.895),
        ("level", "No longer learning: the validation loss is level since step 2 100 (S % per 1 000 steps).", 0),
        ("rising", "Overfitting: the validation loss has been rising since step 1 000, by S % per 1 000 steps.",
         50 / 1.775),
    ],
)  # fmt: skip
def test_still_learning_or_not(kind: str, sentence: str, true: float) -> None:
    """The slope as a share of the mean of the last third, 2 100 to 3 000."""
    found = stands(log(kind))
    slope, error = (figure := found.sentences[0].figures[0]).value, figure.error
    assert slope is not None and error is not None and abs(abs(slope) - true / 100) < 3 * error < 0.03
    pattern = re.escape(sentence).replace("S\\ %", r"−?[\d.]+ ± [\d.]+\ %")
    assert re.fullmatch(pattern, found.text), found.text


def test_train_longer_where_it_pays() -> None:
    found = stands(log("falling"), evaluation(), yardstick(), checkpoints=[2000, 3000])
    assert found.next.startswith("next: train longer, the validation loss still falls by ")
    assert found.next.endswith(
        ": trilemma train runs/products/recipe.yaml --out runs/products --resume --set training.steps=6000"
    )
    stopped = stands(log("falling"), of=recipe(training__steps=5000)).advice[0].command
    assert stopped.endswith("--resume --set training.steps=5000"), "it was to be trained so far"
    slowly = [{**line, "validation_loss": 1 - 1e-8 * line["step"]} for line in log()]
    hardly = stands(slowly, evaluation(), yardstick())
    assert "No longer learning" in hardly.text and not hardly.advice, "0.003 % by as many steps again"


def test_overfitting_ends_where_the_validation_was_lowest() -> None:
    found = stands(log("rising", noise=0), evaluation(), yardstick())
    assert found.advice[0].command == (
        "trilemma train runs/products/recipe.yaml --out runs/products-1000 --set training.steps=1000"
    )
    assert "training.flip" in found.advice[0].text
    flipped = stands(log("rising", noise=0), of=recipe(training__flip=True))
    assert "training.flip" not in " ".join(one.text for one in flipped.advice)


@pytest.mark.parametrize(
    ("share", "error", "held", "copies"),
    [
        (0.01, 0.004, 500, False),
        (0.021, 0.006, 500, False),
        (0.05, 0.01, 500, True),
        (0.05, 0.01, 60, False),  # of 60 held-out images 2.6 ± 2.0 % is usual
        (0.12, 0.015, 60, True),
        (0.03, 0.008, None, True),
    ],
)
def test_memorising_or_not(share: float, error: float, held: int | None, copies: bool) -> None:
    holdout = {"split": "test", "count": held} if held else None
    run = evaluation(metrics__memorisation=share, metrics__memorisation_se=error, reference__holdout=holdout)
    found = stands(log(), run, yardstick())
    assert (found.text.startswith("Memorising: "), "No sign of memorising: " in found.text) == (copies, not copies)
    assert found.next.startswith("next: train to step") == copies or not copies
    assert (f"Only {held} held-out images" in found.text) == (held == 60)


@pytest.mark.parametrize(("held", "count"), [(15, 20), (60, 500), (1000, 1000)])
def test_the_share_that_would_not_show_is_where_it_is_called_memorising(held: int, count: int) -> None:
    def says(share: float) -> str:
        error = np.sqrt(share * (1 - share) / count)
        run = evaluation(
            metrics={"memorisation": share, "memorisation_se": error},
            samples__count=count, reference__holdout={"split": "test", "count": held},
        )  # fmt: skip
        return stands([], run).text

    found = re.search(r"\(less than ([\d.]+) % would not show\)", says(0.01))
    assert found is not None
    least = float(found[1]) / 100
    assert "No sign of memorising" in says(0.95 * least) and says(1.05 * least).startswith("Memorising")


def test_held_out_images_are_called_memorised_as_often_as_chance_has_it() -> None:
    """Samples of the reference's own distribution, for each number of held-out images."""
    rng, wrong, draws = np.random.default_rng(0), 0, 300
    for _ in range(draws):
        held, samples = rng.exponential(size=200), rng.exponential(size=300)
        share = float(np.mean(samples < np.quantile(held, 0.01)))
        error = max(np.sqrt(share * (1 - share) / 300), 1 / 300)
        run = evaluation(
            metrics={"memorisation": share, "memorisation_se": error},
            reference__holdout={"split": "test", "count": 200},
        )
        wrong += "Memorising: " in standing([], [run], RECIPE, "x").text
    assert wrong <= 0.06 * draws


def test_missing_classes_by_name() -> None:
    run = evaluation(metrics__class_counts=[300, 0, 200], metrics__balance_kl=0.4)
    found = stands(log(), run, yardstick())
    assert "No sample is taken for “dog”; the samples are as varied" in found.text
    rare = stands(log(), run, yardstick(class_counts=[250, 2, 248]))
    assert "“dog”" not in rare.text, "two of 500 held-out images: chance leaves them out"
    unasked = stands(log(), run, yardstick(), of=recipe(learner__conditional=False, learner__label_dropout=0.0))
    assert unasked.next.startswith("next: ask for the classes, no sample is of “dog”: trilemma train")
    assert "learner.conditional=true" in unasked.next


def test_balanced_samples_of_many_classes_are_not_said_to_lack_some() -> None:
    rng, accused = np.random.default_rng(0), 0
    of = recipe(images__classes=[str(i) for i in range(100)])
    for _ in range(50):
        counts = rng.multinomial(400, np.full(100, 0.01)).tolist()
        accused += "No sample is taken" in stands([], evaluation(metrics={"class_counts": counts}), of=of).text
    assert accused <= 4


def test_classes_in_other_shares_than_chance_has_them() -> None:
    """KL of equal shares is (k − 1)/2 (1/m + 1/n) on average: 0.0022 here, and its error alone would not say so."""
    even, off = (evaluation(metrics__balance_kl=kl) for kl in (0.0033, 0.01))
    assert "The classes are as frequent as" in stands(log(), even).text
    assert "The classes are not as frequent as in the training images (balance KL 0.0100" in stands(log(), off).text


def test_guidance_follows_what_is_recognised_and_what_is_left_out() -> None:
    poor = evaluation(metrics__recognised=0.8)
    assert "more guidance, recognised 80.0 ± 1.0 % against 95.0 ± 1.0 % of held-out images" in (
        stands(log(), poor, yardstick()).next
    )
    narrow = stands(log(), evaluation(metrics__recall=0.5), yardstick())
    assert narrow.next.endswith("trilemma evaluate runs/products --guidance 0.25")
    assert "the samples are less varied than held-out images" in narrow.text
    both = stands(log(), evaluation(metrics__recall=0.5, metrics__recognised=0.8), yardstick())
    assert both.next.endswith("trilemma sweep runs/products --guidance 0,0.25,0.5,1")
    plain = recipe(learner__label_dropout=0.0)
    assert not any("guidance" in one.text for one in stands(log(), poor, yardstick(), of=plain).advice)
    alone = evaluation(metrics__recall=0.5, sampler__guidance=0.0)
    assert not any("guidance" in one.text for one in stands(log(), alone, yardstick()).advice)


def steps(count: int, distance: float) -> Evaluation:
    return evaluation(
        f"{count}", sampler__steps=count, sampler__network_evaluations=2 * count, metrics__frechet_distance=distance
    )


def test_more_sampling_steps_where_they_were_better() -> None:
    found = stands(log(), steps(16, 0.3), steps(32, 0.1), steps(64, 0.101), yardstick())
    assert found.next.endswith(": trilemma sample runs/products --steps 32")
    assert "sample in 32 steps, not in 16 (FD-500 0.100 ± 0.010)" in found.next
    best = stands(log(), steps(16, 0.3), steps(32, 0.2), yardstick())
    assert best.next.endswith(": trilemma evaluate runs/products --steps 64")
    assert {figure.value for figure in best.advice[0].figures} == {0.3, 0.2}
    only = stands(log(), steps(16, 0.3), yardstick())
    assert only.next.startswith("next: more sampling steps, measured are only 16") and "--steps 32" in only.next
    assert not stands(log(), steps(16, 0.1), steps(32, 0.101), yardstick()).advice
    most = stands(log(), steps(64, 0.3), steps(128, 0.2), yardstick())
    assert not any("sampling steps" in one.text for one in most.advice), "the schedule has no more"


def test_a_larger_network_where_all_else_is_said() -> None:
    found = stands(log("level"), steps(16, 0.3), steps(32, 0.3), yardstick())
    assert found.next == (
        "next: a larger network, the validation loss is level and the samples are 3 times as far as held-out images: "
        "trilemma train runs/products/recipe.yaml --out runs/products-wider --set network.base_channels=64"
    )


def test_a_diverged_run_goes_back_to_a_checkpoint_that_is_there() -> None:
    lines = [*log()[:10], *({"step": 1000 + i, "loss": None, "skipped": i} for i in range(1, 21))]
    found = stands(lines, checkpoints=[500, 1000])
    assert found.text == "Diverged: 20 of 1 020 steps were not finite."
    assert found.next == (
        "next: lower the learning rate, 20 of 1 020 steps were not finite: trilemma train runs/products/recipe.yaml "
        "--out runs/products-slower --init runs/products --set training.learning_rate=0.0005"
    )
    assert "--init" not in stands(lines).next
    lines[9] |= {"loss": 1.6}
    assert "--init" not in stands(lines, checkpoints=[500, 1000]).next, "it had begun to diverge"
    few, many = ([*log()[:-1], {**log()[-1], "skipped": count}] for count in (29, 30))
    assert "not finite" not in stands(few).text
    assert stands(many).text.startswith("Unstable: 30 of 3 000 steps were not finite. No longer learning")


def test_what_is_missing_is_asked_for_and_not_spoken_of() -> None:
    bare = stands(log(), checkpoints=[3000])
    assert [one.figures[0].value for one in bare.advice] == [None]
    assert bare.next == "next: measure its samples: trilemma evaluate runs/products"
    assert bare.text.startswith("No longer learning") and len(bare.sentences) == 1
    old = evaluation(subject__checkpoint_step=2000)
    assert "measure it again, it was at step 2 000 and is at 3 000" in stands(log(), old, checkpoints=[3000]).next
    apart = {key: value for key, value in FIGURES.items() if key != "memorisation"}
    found = stands(log(), evaluation(metrics=apart), yardstick())
    assert found.next == "next: measure memorisation: trilemma evaluate runs/products --metrics memorisation"
    assert "emorising" not in found.text
    seldom = stands(log()[9::10], evaluation(), yardstick())
    assert seldom.next.endswith("--resume --set training.steps=6000 --set training.validate_every=300")
    nothing = standing([], [], {}, "x")
    assert nothing.sentences == () and nothing.next == "next: measure its samples: trilemma evaluate x"


@pytest.mark.parametrize(
    ("parts", "settings"),
    [
        (("train", "val"), "--set data.validation_split=val"),
        (("train", "test"), "--set data.validation_split=test"),
        (("cats", "dogs"), "--set data.holdout=0.1 --set data.validation_split=test"),
    ],
)
def test_images_are_held_out_by_a_split_that_there_is(tmp_path: Path, parts: tuple[str, str], settings: str) -> None:
    for part in parts:
        (tmp_path / part).mkdir()
        write_png(tmp_path / part / "0.png", np.zeros((4, 4, 3), np.uint8))
    of = recipe(data__validation_split=None, data__name=str(tmp_path))
    (found,) = (one for one in stands([{"step": 3000, "loss": 1.0}], of=of).advice if "hold images" in one.text)
    assert found.command.endswith(settings)
    elsewhere = recipe(data__validation_split=None, data__name="hub:someone/else")
    (found,) = (one for one in stands([{"step": 3000, "loss": 1.0}], of=elsewhere).advice if "hold" in one.text)
    assert found.command == "", "what splits there are takes a network"


def test_a_run_that_has_hardly_begun_is_trained_on_first() -> None:
    lines = [{"step": step, "loss": 1.0, "validation_loss": 1.0 - step / 100} for step in (1, 2, 3)]
    three = recipe(training={"steps": 3, "validate_every": 1})
    far = evaluation(metrics__frechet_distance=9.0)
    for evaluations in ((), (far, yardstick())):
        found = stands(lines, *evaluations, of=three, checkpoints=[3])
        assert found.next == (
            "next: train longer, 3 steps are few: trilemma train runs/products/recipe.yaml --out runs/products "
            "--resume --set training.steps=1000"
        )
        assert "Only 3 steps trained: it has hardly begun to learn." in found.text
        assert not any("validate" in one.text for one in found.advice), "every step was"
    assert stands(lines, of=recipe()).next.endswith("training.steps=3000"), "it was to be trained so far"


@pytest.mark.parametrize(
    "lines",
    [
        [{"step": 7, "validation_loss": 1.0 + i} for i in range(5)],
        [{"step": 1, "skipped": 1}],
        [{"loss": 1.0, "validation_loss": 1.0}, {"step": "x", "loss": None, "skipped": 2}],
    ],
)
def test_a_damaged_log_says_nothing_and_breaks_nothing(lines: list[dict[str, Any]]) -> None:
    assert "learning:" not in stands(lines, evaluation(), yardstick()).text


@pytest.mark.parametrize("learner", ["classifier", "noisy_classifier", "autoencoder"])
def test_what_makes_no_images_is_not_to_be_measured(learner: str) -> None:
    assert not stands(log(), of=recipe(learner={"name": learner}), checkpoints=[3000]).advice


def test_an_upsampler_is_measured_with_its_base() -> None:
    up = recipe(learner__low=14)
    assert stands(log(), of=up, checkpoints=[3000]).next.endswith("trilemma evaluate BASE+runs/products")


def test_few_samples_for_the_features_are_said_to_be_few() -> None:
    run, real = evaluation(samples__count=100), yardstick()
    found = stands(log(), run, real.model_copy(update={"samples": run.samples.model_copy(update={"sha256": "ab"})}))
    assert "100 samples are few for FD-100, which has 128 features." in found.text
    assert found.next.endswith("trilemma evaluate runs/products -n 1000")


def test_of_few_training_images_kid_is_what_counts() -> None:
    """No number of samples makes a covariance of 45 images in 128 features regular."""
    few = {"metrics__kid_se": 0.002, "reference__count": 45}
    run = evaluation(metrics__kid=0.03, samples__count=20, **few)
    real = yardstick(kid=0.001, kid_se=0.002)
    ways = {"reference": run.reference, "samples": real.samples.model_copy(update={"count": 20})}
    found = stands(log(), run, real.model_copy(update=ways))
    assert found.text.startswith("Farther from the training images than held-out images are: KID 0.0300")
    assert "45 training images are few for FD-20, which has 128 features: judged by KID instead" in found.text
    assert not any("-n " in one.command for one in found.advice)


def test_the_newest_checkpoint_and_the_best_way_are_what_counts() -> None:
    old = evaluation("old", subject__checkpoint_step=1000, metrics__frechet_distance=0.05)
    one_class = evaluation("sevens", samples__classes="2", metrics__frechet_distance=0.01)
    found = stands(log(), steps(16, 0.3), evaluation("best"), old, one_class, yardstick())
    assert found.sentences[0].figures[0].where == "best" and "FD-500 0.100 ± 0.010 by “best”, against" in found.text
    assert found == stands(log(), yardstick(), one_class, old, evaluation("best"), steps(16, 0.3)), "in any order"


def test_the_reference_itself_is_no_yardstick() -> None:
    itself = evaluation("train", subject={"kind": "data"}, sampler=None, samples={"count": 500, "sha256": "ef"})
    assert "held-out images are:" not in stands(log(), evaluation(), itself).text


def test_what_was_held_against_other_images_or_seen_by_other_features_does_not_count() -> None:
    own = evaluation(metrics__class_counts=[500, 0, 0])
    later = {"created": "2026-02-01", "metrics": FIGURES}
    part = {"reference": {"data": "owls", "split": "all", "count": 30, "sha256": "aa"}}
    assert stands(log(), own, yardstick(), evaluation("part", **later, **part)) == stands(log(), own, yardstick())
    everything = evaluation("all", **later, reference__split="all", reference__sha256="bb")
    held = recipe(data__holdout=0.2)
    assert stands(log(), own, everything, yardstick(), of=held) == stands(log(), own, yardstick(), of=held)
    pixels = evaluation("pixels", **later, features={"name": "pixels", "dim": 9})
    lacking = evaluation(metrics={key: FIGURES[key] for key in ("frechet_distance", "frechet_distance_se")})
    found = stands(log(), own, lacking, pixels, yardstick())
    assert "No sample is taken for “dog” and “owl”" in found.text, "the newest by the features it is judged by"


def test_images_given_in_python_have_no_command() -> None:
    found = stands(log("falling"), evaluation(), yardstick(), of=recipe(data__name="own"))
    assert found.advice[0].text.startswith("train longer") and found.advice[0].command == ""


def test_no_statement_without_its_figure() -> None:
    with pytest.raises(ValueError, match="'so it is' rests on no figure"):
        Statement("so it is", ())
