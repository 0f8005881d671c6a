"""Schedules side by side, through the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

Command = Callable[..., Any]


class TestSchedule:
    def test_prints_each_schedule_and_draws_them(self, command: Command, tmp_path: Path) -> None:
        names = ["linear", "cosine", "linear-200", "linear,steps=50,beta_end=0.4", "vp", "edm"]
        found = command("schedule", *names, "--picture", tmp_path / "s.png")
        assert found.code == 0, found.err
        assert all(name in found.out for name in names)
        for name in ("ᾱ", "SNR", "β̃/β", "terminal SNR", "L_T"):
            assert name in found.out
        # ᾱ_1000 of the linear schedule is 4.04e-5, its SNR the same; ᾱ_200 = 0.132 gives 0.152.
        assert "4.04e-05" in found.out
        assert "0.152" in found.out
        with Image.open(tmp_path / "s.png") as picture:
            assert min(picture.size) > 100

    def test_the_prior_is_of_the_data(self, command: Command, data: Path, tmp_path: Path) -> None:
        images = np.load(data)["arr_0"] / 127.5 - 1
        found = command("schedule", "linear-200", "--data", data, "--picture", tmp_path / "s.png")
        assert f"E[x²] = {np.mean(images**2):.3f}" in found.out

    @pytest.mark.parametrize(
        ("name", "says"),
        [
            ("linaer", "did you mean 'linear'?"),
            ("linear-300", "did you mean 'linear-200'?"),
            ("linear,stepz=5", "did you mean 'steps'?"),
            ("linear,steps=0", "(got '0')"),
            ("linear,steps", "(got '')"),
            ("cosine,terminal_snr=-1", "(got '-1')"),
        ],
    )
    def test_what_is_no_schedule_is_refused(self, command: Command, tmp_path: Path, name: str, says: str) -> None:
        found = command("schedule", name, "--picture", tmp_path / "s.png")
        assert found.code == 2
        assert found.err.startswith("error: ") and says in found.err and found.err.count("\n") == 1

    def test_terminal_snr_can_be_asked_for(self, command: Command, tmp_path: Path) -> None:
        found = command("schedule", "cosine,terminal_snr=0", "--picture", tmp_path / "s.png")
        assert found.code == 0, found.err
