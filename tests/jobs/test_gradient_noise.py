"""The gradient noise scale of a tiny run, through Python and through the command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from trilemma.data import open_data
from trilemma.errors import InputError
from trilemma.jobs.gradient_noise import gradient_noise
from trilemma.process import Draw, to_model
from trilemma.runs import Run

Command = Callable[..., Any]


class TestGradientNoise:
    def test_the_estimate_is_unbiased(self, plain: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """Images whose gradients are μ + s ε with ε standard normal: tr Σ = d s², ‖g‖² = ‖μ‖², the scale d s²/‖μ‖².
        Estimated again and again, they come out right on average, within 4 standard errors."""
        module = sys.modules[gradient_noise.__module__]
        dims, spread, repeats = 30, 1.5, 40
        mu = torch.linspace(-0.4, 0.6, dims)
        trace, signal = dims * spread**2, float(mu.square().sum())

        class Linear(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.theta = nn.Parameter(torch.zeros(dims))

        class Learner:
            times = None

            def __init__(self, seed: int) -> None:
                self.network, self.seed = Linear(), seed

            def losses(self, batch: Any) -> Any:
                keys = [(*key, "made up", self.seed) for key in batch.keys]
                noise = Draw(keys).normal(torch.empty(len(batch), dims))
                return SimpleNamespace(loss=((mu + spread * noise) @ self.network.theta).mean())

        seeds = iter(range(repeats))
        monkeypatch.setattr(module, "_learner", lambda *_: Learner(next(seeds)))
        found = [gradient_noise(plain, ["simple"], ["uniform"], batch=4, batches=8)[0] for _ in range(repeats)]
        assert {(one.small, one.big) for one in found} == {(4, 32)}
        for expected, values in ((trace, [one.trace for one in found]), (signal, [one.signal for one in found])):
            error = np.std(values, ddof=1) / repeats**0.5
            assert abs(np.mean(values) - expected) < 4 * error
            assert error < 0.1 * expected
        assert np.mean([o.trace for o in found]) / np.mean([o.signal for o in found]) == pytest.approx(
            trace / signal, rel=0.2
        )

    def test_of_a_run_by_hand(self, plain: Run) -> None:
        """Two batches of six: the two squared norms from gradients taken here, in McCandlish et al.'s formulas."""
        module = sys.modules[gradient_noise.__module__]
        (found,) = gradient_noise(plain, ["hybrid"], ["uniform"], batch=6, batches=2)
        learner = module._learner(plain, "hybrid", "uniform", None)
        source = module.Batches(open_data(plain.recipe.data.name), to_model, batch=6, seed=0)
        parameters = [p for p in learner.network.parameters() if p.requires_grad]
        rows = []
        for index in range(2):
            loss = learner.losses(source[1000 + index]).loss
            rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)]).double())
        small = float(np.mean([float(row.square().sum()) for row in rows]))
        big = float(torch.stack(rows).mean(0).square().sum())
        assert found.signal == pytest.approx((12 * big - 6 * small) / 6, rel=1e-4)
        assert found.trace == pytest.approx((small - big) / (1 / 6 - 1 / 12), rel=1e-4)
        assert found.scale is None or found.scale == pytest.approx(found.trace / found.signal)

    def test_the_command(self, plain: Run, command: Command, tmp_path: Path) -> None:
        out = tmp_path / "noise.json"
        found = command("gradient-noise", plain.path, "--batch", 8, "--batches", 3, "--out", out)
        assert found.code == 0, found.err
        saved = json.loads(out.read_text())
        pairs = [(one["objective"], one["times"]) for one in saved["noise"]]
        assert pairs == [(o, t) for o in ("simple", "hybrid", "vlb") for t in ("uniform", "importance")]
        for one in saved["noise"]:
            assert (one["small"], one["big"]) == (8, 24)
            expected = one["trace"] / one["signal"] if one["signal"] > 0 else None
            assert one["scale"] == (None if expected is None else pytest.approx(expected))
            assert f"{one['trace']:.4g}" in found.out

    def test_what_cannot_be_measured_is_refused(self, plain: Run, continuous: Run) -> None:
        with pytest.raises(InputError, match=r"unknown objective\.name 'simpel'.*did you mean 'simple'"):
            gradient_noise(plain, ["simpel"], ["uniform"])
        with pytest.raises(InputError, match=r"batches 1: two batch sizes need 2 or more"):
            gradient_noise(plain, ["simple"], ["uniform"], batches=1)
        with pytest.raises(InputError, match=r"needs a tabulated schedule"):
            gradient_noise(continuous, ["vlb"], ["uniform"], batches=2)
