"""trilemma: train, sample, measure and compare diffusion models of images under one protocol.

import trilemma as tl

data = tl.open_data("mnist5k")
denoiser = tl.Denoiser(MyNet(), tl.Cosine(steps=128), "v")  # any module: forward(x, t)
for report in tl.fit(denoiser, data, tl.Simple(), steps=1500, out="runs/mine"):  # out: a run, resumable
    print(report.step, report.loss)
samples = tl.Sampler(denoiser, tl.DDIM(), steps=20, shape=data.shape)(seeds=range(1000))
print(tl.measure(samples, data, ["frechet_distance", "recall"]))
tl.Run("runs/mine", network=MyNet())  # opened again, evaluated, compared like any other

run = tl.train("mnist-conditional")  # a recipe
run.sample(64, out="digits.npz")
tl.evaluate(run, "mnist:train")
"""

# ruff: noqa: F401
from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same names, for editors and type checkers
    from trilemma.data import ImageSet, open_data
    from trilemma.errors import InputError
    from trilemma.evaluations import evaluate, measure
    from trilemma.jobs import demo, fit, sweep, train
    from trilemma.objectives import Hybrid, IWDiff, Objective, Simple, Variational, VariationalDiffusion
    from trilemma.process import (
        EDM,
        VDM,
        Condition,
        ContinuousVP,
        Cosine,
        Denoiser,
        Linear,
        Prior,
        Schedule,
        Tabulated,
        TimeSampler,
    )
    from trilemma.process.parameterization import X0, Epsilon, V
    from trilemma.process.times import Importance, LogNormal, LowDiscrepancy, Uniform
    from trilemma.registry import load_plugin, register
    from trilemma.report.html import build_report
    from trilemma.runs import Run
    from trilemma.samplers import DDIM, Ancestral, DPMSolver, Heun, Kernel, ProbabilityFlow, Sampler, Samples, UniPC
    from trilemma.training import Learner, Report

__version__ = "0.1.0"

_EXPORTS = {
    "trilemma.data": "ImageSet open_data",
    "trilemma.errors": "InputError",
    "trilemma.evaluations": "evaluate measure",
    "trilemma.jobs": "demo fit sweep train",
    "trilemma.objectives": "Hybrid IWDiff Objective Simple Variational VariationalDiffusion",
    "trilemma.process": "EDM VDM Condition ContinuousVP Cosine Denoiser Linear Prior Schedule Tabulated TimeSampler",
    "trilemma.process.parameterization": "Epsilon V X0",
    "trilemma.process.times": "Importance LogNormal LowDiscrepancy Uniform",
    "trilemma.registry": "load_plugin register",
    "trilemma.report.html": "build_report",
    "trilemma.runs": "Run",
    "trilemma.samplers": "Ancestral DDIM DPMSolver Heun Kernel ProbabilityFlow Sampler Samples UniPC",
    "trilemma.training": "Learner Report",
}
_HOMES = {name: module for module, names in _EXPORTS.items() for name in names.split()}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is: `import trilemma` itself costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'trilemma' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
