"""Encodings of images and walks between them, through Python and through the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from trilemma.data import open_data
from trilemma.errors import InputError
from trilemma.jobs import interpolate, invert
from trilemma.runs import Run
from trilemma.samplers import noise_start, slerp

Command = Callable[..., Any]
STEPS = 40
"""Of the schedule of `plain` and `labelled`."""


class TestInvert:
    def test_the_error_falls_as_the_steps_grow(self, plain: Run, data: Path, tmp_path: Path) -> None:
        errors = [invert(plain, str(data), tmp_path / "e.npz", n=6, steps=steps).error for steps in (5, 10, 20, STEPS)]
        assert errors[0] > errors[1] > errors[2] > errors[3]
        assert errors[3] < 0.5 * errors[0]

    def test_encodings_are_written_and_decode_to_the_images(self, labelled: Run, data: Path, tmp_path: Path) -> None:
        encoded = invert(labelled, str(data), tmp_path / "e.npz", n=5, picture=tmp_path / "p.png")
        held = np.load(tmp_path / "e.npz")
        images, labels = open_data(str(data)).batch(range(5))
        np.testing.assert_array_equal(held["encodings"], encoded.encodings)
        np.testing.assert_array_equal(held["labels"], labels)
        np.testing.assert_array_equal(held["times"], np.arange(STEPS, -1, -1.0))
        assert encoded.encodings.shape == (5, 1, 8, 8) and encoded.encodings.dtype == np.float32
        difference = encoded.decoded.astype(float) - images
        assert encoded.error == pytest.approx(float(np.sqrt(np.mean(difference**2))))
        with Image.open(tmp_path / "p.png") as picture:
            assert picture.size == (5 * 10 + 2, 2 * 10 + 2)

    def test_the_command_reports_the_error(self, plain: Run, data: Path, command: Command, tmp_path: Path) -> None:
        found = command("invert", plain.path, data, "--out", tmp_path / "e.npz", "-n", 3, "--steps", 10)
        assert found.code == 0, found.err
        expected = invert(plain, str(data), tmp_path / "again.npz", n=3, steps=10).error
        assert "3 images in 10 steps" in found.out and f"{expected:.2f}" in found.out

    def test_what_cannot_be_encoded_is_refused(self, plain: Run, labelled: Run, data: Path, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"out: .*should end in \.npz"):
            invert(plain, str(data), tmp_path / "e.txt")
        with pytest.raises(InputError, match=r"images 'mnist5k:test': they are \(28, 28, 1\)"):
            invert(plain, "mnist5k:test", tmp_path / "e.npz")
        np.savez(tmp_path / "bare.npz", arr_0=np.load(data)["arr_0"])
        with pytest.raises(InputError, match=r"are unlabelled, and the model is class-conditional"):
            invert(labelled, str(tmp_path / "bare.npz"), tmp_path / "e.npz")


def tiles(path: Path, rows: int, columns: int) -> np.ndarray:
    """The 8×8 images of a picture, [rows, columns, 8, 8]."""
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("L")).astype(int)
    assert pixels.shape == (rows * 10 + 2, columns * 10 + 2)
    cut = [[pixels[2 + 10 * r : 10 + 10 * r, 2 + 10 * c : 10 + 10 * c] for c in range(columns)] for r in range(rows)]
    return np.array(cut)


class TestInterpolate:
    def test_the_ends_are_the_seeds_own_ddim_samples(self, plain: Run, tmp_path: Path) -> None:
        found = tiles(interpolate(plain, tmp_path / "i.png", seeds=[4, 9, 2, 7], frames=5, steps=8), 2, 5)
        own = plain.sample(seeds=[4, 9, 2, 7], sampler="ddim", steps=8, clip="none").images[..., 0].astype(int)
        ends = found[:, [0, -1]].reshape(4, 8, 8)
        assert np.abs(ends - own).max() <= 1
        assert np.abs(found[0, 2] - found[0, 0]).max() > 2

    def test_the_middle_is_decoded_from_the_arc(self, plain: Run, tmp_path: Path) -> None:
        found = tiles(interpolate(plain, tmp_path / "i.png", seeds=[4, 9], frames=3, steps=8), 1, 3)
        a, b = noise_start(plain.denoiser().schedule, [4, 9], (1, 8, 8)).split(1)
        middle = slerp(a, b, 0.5)
        straight = (a + b) / 2
        assert middle.norm() > 1.2 * straight.norm()
        np.savez(tmp_path / "e.npz", encodings=torch.cat([middle, middle]).numpy())
        again = tiles(interpolate(plain, tmp_path / "j.png", encodings=tmp_path / "e.npz", frames=2, steps=8), 1, 2)
        assert np.abs(again[0] - found[0, 1]).max() <= 1

    def test_a_conditional_models_row_has_the_class_of_its_first(self, labelled: Run, tmp_path: Path) -> None:
        found = tiles(interpolate(labelled, tmp_path / "i.png", seeds=[5, 2], frames=2, steps=8), 1, 2)
        own = labelled.sample(seeds=[5, 2], cls=1, sampler="ddim", steps=8, clip="none").images[..., 0].astype(int)
        assert np.abs(found[0] - own).max() <= 1
        other = tiles(interpolate(labelled, tmp_path / "j.png", seeds=[5, 2], frames=2, steps=8, cls="3"), 1, 2)
        asked = labelled.sample(seeds=[5, 2], cls=3, sampler="ddim", steps=8, clip="none").images[..., 0].astype(int)
        assert np.abs(other[0] - asked).max() <= 1

    def test_encodings_of_images_are_walked_between(self, labelled: Run, data: Path, tmp_path: Path) -> None:
        encoded = invert(labelled, str(data), tmp_path / "e.npz", n=2, steps=20)
        labels = np.load(tmp_path / "e.npz")["labels"]
        found = tiles(interpolate(labelled, tmp_path / "i.png", encodings=tmp_path / "e.npz", frames=3, steps=20), 1, 3)
        assert np.abs(found[0, 0] - encoded.decoded[0, ..., 0]).max() <= 1
        if labels[0] == labels[1]:
            assert np.abs(found[0, 2] - encoded.decoded[1, ..., 0]).max() <= 1

    def test_the_command(self, plain: Run, command: Command, tmp_path: Path) -> None:
        out = tmp_path / "i.png"
        found = command("interpolate", plain.path, "--picture", out, "--seeds", "0-3", "--frames", 4, "--steps", 5)
        assert found.code == 0, found.err
        assert str(out) in found.out.replace("\n", "")
        tiles(out, 2, 4)

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (["--seeds", "1,2,3"], "3 encodings, expected pairs"),
            (["--seeds", "1"], "1 encodings, expected pairs"),
            ([], "give either seeds or encodings"),
            (["--encodings", "nowhere.npz"], "not a file that `trilemma invert` wrote"),
            (["--seeds", "0,1", "--class", "2"], "this model is unconditional"),
            (["--seeds", "0,x"], "expected numbers and ranges"),
        ],
    )
    def test_what_cannot_be_walked_is_refused(
        self, plain: Run, command: Command, tmp_path: Path, arguments: list[str], says: str
    ) -> None:
        found = command("interpolate", plain.path, "--picture", tmp_path / "i.png", *arguments)
        assert found.code == 2 and says in found.err and found.err.count("\n") == 1

    @pytest.mark.parametrize("shape", [(1, 9, 9), (3, 8, 8), (64,)])
    def test_encodings_of_another_shape_are_refused(self, plain: Run, tmp_path: Path, shape: tuple[int, ...]) -> None:
        """Of another run's images, which a convolutional network might take all the same."""
        np.savez(tmp_path / "e.npz", encodings=np.zeros((2, *shape), np.float32))
        with pytest.raises(InputError, match=r"encodings: they are \(.*\), the run's \(1, 8, 8\)"):
            interpolate(plain, tmp_path / "i.png", encodings=tmp_path / "e.npz", steps=3)
