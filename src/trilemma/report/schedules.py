"""Schedules side by side: their figures, their curves, and images noised by them (B figure 3)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from matplotlib.figure import Figure
from rich import box
from rich.table import Table

from trilemma.process import Draw, Schedule, pair, perturb, to_model, to_uint8
from trilemma.report.figures import save_figure

COLOURS = ("#2a6f97", "#c1502e", "#5f8d4e", "#7b4b94", "#b8860b", "#444444")


def schedule_table(schedules: Mapping[str, Schedule], second_moment: float = 1.0) -> Table:
    """α², log₁₀ SNR and β̃/β at quarters of T, the terminal SNR, and L_T for data of this E[x²]."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("schedule")
    for head in ("t", "ᾱ = α²", "SNR", "β̃/β", "terminal SNR", "L_T bits/dim"):
        table.add_column(head, justify="right")
    for name, schedule in schedules.items():
        first, *_, last = marks = _marks(schedule)
        ends = f"{schedule.terminal_snr():.3g}", f"{schedule.prior_bits_per_dim(second_moment):.3g}"
        for t in marks:
            alpha2, snr = float(schedule.alpha(t)) ** 2, math.exp(-float(schedule.gamma(t)))
            row = [name if t is first else "", f"{float(t):.5g}", f"{alpha2:.5f}", f"{snr:.4g}", _ratio(schedule, t)]
            table.add_row(*row, *(ends if t is last else ()), end_section=t is last)
    return table


def _marks(schedule: Schedule) -> list[torch.Tensor]:
    on_table = schedule.steps is not None
    marks = [1.0 if on_table else schedule.t_min, *(schedule.T * q for q in (0.25, 0.5, 0.75, 1.0))]
    return [torch.tensor(float(round(m)) if on_table else m, dtype=torch.float64) for m in marks]


def _ratio(schedule: Schedule, t: torch.Tensor) -> str:
    """β̃/β of the step down to the table's time before; a continuous schedule has none."""
    if schedule.steps is None:
        return "–"
    kernel = pair(schedule, t, t - 1)
    return f"{float(kernel.beta_tilde / kernel.beta):.4f}"


def schedule_figure(
    schedules: Mapping[str, Schedule], image: UInt8[np.ndarray, "h w c"], out: Path, columns: int = 11
) -> Path:
    """Write a PNG: ᾱ and log SNR against t/T, and for each schedule one image noised at evenly spaced t from 0 to T."""
    figure = Figure(figsize=(9, 3.2 + 0.95 * len(schedules)), dpi=150, layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=[2.8, 0.95 * len(schedules)])
    top, bottom = parts
    left, right = top.subplots(1, 2)
    for (name, schedule), colour in zip(schedules.items(), COLOURS * 9, strict=False):
        t = torch.linspace(max(schedule.t_min, schedule.T / 2000), schedule.T, 400, dtype=torch.float64)
        t = t.round().unique() if schedule.steps is not None else t
        left.plot(t / schedule.T, schedule.alpha(t) ** 2, label=name, color=colour)
        right.plot(t / schedule.T, -schedule.gamma(t) / math.log(10), color=colour)
    left.set(xlabel="t / T", ylabel="signal, ᾱ = α²")
    right.set(xlabel="t / T", ylabel="log₁₀ SNR")
    for axes in (left, right):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    left.legend(frameon=False, fontsize=8)
    rows = bottom.subplots(len(schedules), 1, squeeze=False)[:, 0]
    for axes, (name, schedule) in zip(rows, schedules.items(), strict=True):
        axes.imshow(_strip(schedule, image, columns), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axes.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    rows[-1].set_xlabel("t from 0 to T, evenly spaced", fontsize=8)
    return save_figure(figure, out)


def _strip(schedule: Schedule, image: UInt8[np.ndarray, "h w c"], columns: int) -> np.ndarray:
    x0 = to_model(image[None])
    eps = Draw([(0, "schedule figure")]).normal(x0)
    times = torch.linspace(0, schedule.T, columns, dtype=torch.float64)
    times = times.round() if schedule.steps is not None else times
    # Where nothing is scaled (EDM) x_t is shown at the spread of a variance-preserving one.
    scale = [max(1.0, float((schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2).sqrt())) for t in times]
    shown = [to_uint8(perturb(schedule, x0, t, eps) / s)[0] for t, s in zip(times, scale, strict=True)]
    strip = np.concatenate([np.pad(one, ((0, 0), (0, 1), (0, 0)), constant_values=255) for one in shown], axis=1)
    return strip[..., 0] if strip.shape[-1] == 1 else strip
