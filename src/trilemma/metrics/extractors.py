"""Extractors by name."""

from __future__ import annotations

from collections.abc import Callable

import torch

from trilemma.errors import InputError, unknown
from trilemma.metrics.features import Extractor, PixelExtractor, open_digits
from trilemma.metrics.inception_features import open_inception
from trilemma.metrics.timm_features import open_timm

Device = str | torch.device

EXTRACTORS: dict[str, Callable[[Device], Extractor]] = {
    "digits": open_digits,
    "pixels": lambda device: PixelExtractor(),
    "inception": lambda device: open_inception("inception", device=device),
    "inception-clean": lambda device: open_inception("inception-clean", device=device),
}

# KIND:ARGUMENT; what the argument is, and what opens it.
WITH_ARGUMENT: dict[str, tuple[str, Callable[[str, Device], Extractor]]] = {
    "inception": ("PATH", lambda path, device: open_inception("inception", path, device=device)),
    "inception-clean": ("PATH", lambda path, device: open_inception("inception-clean", path, device=device)),
    "timm": ("NAME", lambda model, device: open_timm(model, device=device)),
}


def open_extractor(name: str, *, device: Device = "cpu") -> Extractor:
    """The extractor called `name`, ready on `device`.

    `digits`: the packaged classifier of digits. `pixels`: the images themselves. `inception`: the network of FID, its
    published weights, images resized as pytorch-fid does; `inception-clean`: as clean-fid does; `inception:PATH`: from
    this weights file. `timm:NAME`: a pretrained network of the timm library. (`classifier:RUN`, a classifier trained
    here, is opened where runs are: it is a name to `evaluate`, not here.)

    Raises InputError for a name that does not exist, and for weights that cannot be had.
    """
    kind, _, argument = name.partition(":")
    if name in EXTRACTORS:
        return EXTRACTORS[name](device)
    if argument and kind in WITH_ARGUMENT:
        return WITH_ARGUMENT[kind][1](argument, device)
    if argument and kind == "classifier":
        raise InputError(f"features {name!r}: only what evaluates runs opens a run's classifier, not open_extractor")
    choices = [f"{kind}:{what}" for kind, (what, _) in WITH_ARGUMENT.items()]
    raise unknown("features", name, [*EXTRACTORS, *choices, "classifier:RUN"])
