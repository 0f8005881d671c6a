"""A run's evaluations beside its training's figures, in TensorBoard."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from trilemma.errors import InputError
from trilemma.evaluations.record import Evaluation
from trilemma.process import image_grid
from trilemma.runs.logs import BOARD

SHOWN = 40
"""Images of an evaluation that TensorBoard is given."""


def to_board(run: Path, evaluation: Evaluation) -> None:
    """Give an evaluation of a run to the run's TensorBoard, if it has one: the figures as scalars `evaluation/NAME` at
    the checkpoint's step, and the first images that were measured. Each way of sampling, reference and features is a
    line of its own there, over the steps that were evaluated. What cannot be written there is left out."""
    if not (run / BOARD).is_dir():
        return
    from torch.utils.tensorboard import SummaryWriter  # a second, which a run without one need not wait for

    against, look, step = evaluation.reference, evaluation.features.name, evaluation.subject.checkpoint_step
    data = Path(against.data or against.statistics or "").stem
    words = (evaluation.label, "vs", data, against.split, look)
    line = "-".join(re.sub(r"[^\w.]+", "-", word).strip("-.") for word in words if word)
    with suppress(OSError), SummaryWriter(str(run / BOARD / line)) as board:
        for name in evaluation.metrics:
            if (figure := evaluation.figure(name)) is not None:
                board.add_scalar(f"evaluation/{name}", figure, step)
        with suppress(InputError):
            if (held := evaluation.images()) is not None:
                board.add_image("evaluation/samples", image_grid(held[0][:SHOWN], 10), step, dataformats="HWC")
