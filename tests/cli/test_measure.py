"""`trilemma measure`: two sets of images, whatever they come from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trilemma.data import write_samples
from trilemma.errors import InputError
from trilemma.evaluations import measure
from trilemma.evaluations.record import read

Command = Callable[..., Any]
ASKED = ("--features", "pixels", "--metrics", "frechet_distance,precision")


@pytest.fixture
def sets(tmp_path: Path) -> tuple[Path, Path]:
    """A folder of 40 images 8×8, and a file of 30, 12×12."""
    rng = np.random.default_rng(0)
    first, second = (rng.integers(0, 256, (n, s, s, 1), dtype=np.uint8) for n, s in ((40, 8), (30, 12)))
    return write_samples(tmp_path / "folder", first), write_samples(tmp_path / "b.npz", second)


def test_says_figures_errors_counts_and_features(command: Command, sets: tuple[Path, Path], tmp_path: Path) -> None:
    folder, _ = sets
    made = command("measure", folder, folder, *ASKED, "--out", tmp_path / "e.json")
    assert made.code == 0
    assert "40 images against folder:all, by features 'pixels'" in made.out
    assert "precision: 1.0" in made.out and " ± " in made.out and "FD-40" in made.out
    assert read(tmp_path / "e.json").metrics["precision"] == 1.0


def test_of_two_sizes_names_the_option(command: Command, sets: tuple[Path, Path]) -> None:
    refused = command("measure", *sets, *ASKED)
    assert refused.code == 2 and "(1, 12, 12)" in refused.err and "--size 8 brings both to one" in refused.err
    made = measure(*sets, ["frechet_distance"], features="pixels", size=6)
    assert made.reference.size == (1, 6, 6) and made.samples.resized == [6, 6]
    again = command("measure", *sets, "--size", "6", *ASKED)
    assert again.code == 0 and made.lines()["FD-40"] in again.out


def test_arrays_are_resized_as_files_are(sets: tuple[Path, Path]) -> None:
    arrays = [np.load(sets[1])["arr_0"], np.load(sets[1])["arr_0"][:20]]
    made = measure(*arrays, ["frechet_distance"], features="pixels", size=5)
    from_file = measure(sets[1], arrays[1], ["frechet_distance"], features="pixels", size=5)
    assert made.features.dim == 25 and made.metrics == from_file.metrics


@pytest.mark.parametrize(
    ("asked", "nearest"),
    [("fid", "frechet_distance"), ("FID-50k", "frechet_distance"), ("fid50k_full", "frechet_distance"),
     ("is", "inception_score"), ("prdc", "precision"), ("recal", "recall")],
)  # fmt: skip
def test_a_metric_by_another_name_is_told_its_own(
    command: Command, sets: tuple[Path, Path], asked: str, nearest: str
) -> None:
    refused = command("measure", *sets, "--metrics", asked)
    assert refused.code == 2 and f"did you mean '{nearest}'" in refused.err and refused.err.count("\n") == 1


def test_a_run_is_sent_to_evaluate_and_what_is_not_there_is_said_first(
    command: Command, sets: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    for given in ((tmp_path / "run", sets[0]), (sets[0], tmp_path / "run")):
        refused = command("measure", *given)
        assert refused.code == 2 and "a run, expected images; `trilemma evaluate" in refused.err
    refused = command("measure", sets[0], "nosuch")
    assert refused.code == 2 and "unknown data 'nosuch' (known: " in refused.err and not refused.out
    assert "there is no such file or folder" in refused.err


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.full((9, 3, 8, 8), np.nan), "images: some values are not finite, expected -1 to 1"),
        (np.linspace(0, 255, 9 * 64).reshape(9, 1, 8, 8), "floats from 0 to 255, expected -1 to 1, or bytes"),
        (np.zeros((9, 8, 4, 3)), r"floats \(9, 8, 4, 3\), expected \(n, c, h, w\)"),
    ],
)
def test_floats_that_can_be_no_images_are_refused(images: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        measure(images, images, features="pixels")


def test_floats_from_zero_are_cautioned_and_one_metric_may_be_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    images = np.random.default_rng(0).random((9, 1, 8, 8))
    made = measure(images, images, "kid", features="pixels")
    assert "kid" in made.metrics and "precision" not in made.metrics
    assert "warning: images: floats from 0" in capsys.readouterr().out
