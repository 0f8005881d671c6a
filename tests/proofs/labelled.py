"""A labelled mixture, whose every answer to a class is known: p(y | x_t), the denoiser without a class and with one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.exact import Mixture
from tests.proofs.models import Exact
from trilemma.process import UNCONDITIONAL, ClassPosterior, Condition, Prediction, Schedule

MIXTURE = Mixture(
    torch.tensor([0.2, 0.3, 0.1, 0.4], dtype=torch.float64),
    torch.tensor([[-0.9, 0.2], [-0.2, 0.8], [0.3, -0.7], [0.8, 0.5]], dtype=torch.float64).reshape(4, 1, 1, 2),
    torch.tensor([[0.05, 0.1], [0.1, 0.02], [0.06, 0.2], [0.04, 0.09]], dtype=torch.float64).reshape(4, 1, 1, 2),
)
LABELS = torch.tensor([0, 1, 0, 2])
"""The class of each component."""

CLASSES = 3


def of_class(label: int) -> Mixture:
    """The data of one class."""
    which = label == LABELS
    weights = MIXTURE.weights[which]
    return Mixture(weights / weights.sum(), MIXTURE.means[which], MIXTURE.variances[which])


class ExactPosterior(ClassPosterior):
    """log p(y, x_t) as logits."""

    def __init__(self, schedule: Schedule):
        nn.Module.__init__(self)
        self.schedule, self.network = schedule, nn.Identity()

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        a, s = (f(t).reshape(-1, 1, 1, 1, 1) for f in (self.schedule.alpha, self.schedule.sigma))
        spread = a**2 * MIXTURE.variances + s**2
        squares = (x_t.double()[:, None] - a * MIXTURE.means) ** 2 / spread
        joint = MIXTURE.weights.log() - 0.5 * (squares + spread.log()).flatten(2).sum(2)
        return torch.stack([joint[:, y == LABELS].logsumexp(1) for y in range(CLASSES)], dim=1)


class ExactLabelled(Exact):
    """E[x_0 | x_t, y] for each image's label y; without one, and for the label that stands for none, E[x_0 | x_t]."""

    def __init__(self, schedule: Schedule, variance: str = "fixed_small"):
        super().__init__(MIXTURE, schedule, variance)
        self.no_class = CLASSES
        self.asked: list[int] = []

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition = UNCONDITIONAL) -> Prediction:
        self.asked.append(len(x_t))
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        label = torch.full((len(x_t),), CLASSES) if condition.label is None else condition.label
        x0 = torch.empty_like(x_t, dtype=torch.float64)
        for y in label.unique().tolist():
            data = MIXTURE if y == CLASSES else of_class(y)
            x0[label == y] = data.denoised(x_t.double()[label == y], alpha, sigma)
        return Prediction(x0, (x_t.double() - alpha * x0) / sigma)
