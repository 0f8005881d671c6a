"""How a network is called: any module that is given images and a time, whatever it calls them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from inspect import Parameter
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from trilemma.errors import InputError

TIMES = ("time", "t", "times", "timestep", "timesteps")
OTHERS = {"low": "upsampler", "low_time": "low_time", "latent": "latent"}
"""Further conditions, and the attributes by which networks that are built without them say so."""
LABELS = ("label", "labels", "class_label", "class_labels", "classes", "y")


def latent_of(network: nn.Module) -> int:
    """The length of the latent that a network takes, its attribute `latent`; 0 for one that takes none."""
    latent = getattr(getattr(network, "_orig_mod", network), "latent", 0)
    return latent if isinstance(latent, int) else 0


@dataclass(frozen=True)
class Call:
    """The names under which a network takes the image (None: first, without a name), the time (None: second) and the
    class (None: it takes none), which other conditions it takes, by the names they have here, whether it has to be
    told the class, and whether it is given image and time at all (`sees`)."""

    image: str | None = None
    time: str | None = None
    label: str | None = "label"
    others: tuple[str, ...] = tuple(OTHERS)
    needs_label: bool = False
    sees: bool = True

    @classmethod
    def of(cls, network: nn.Module) -> Call:
        """How this network is called: `forward(x, t)`, `forward(x, t, label)`, with the time under one of `TIMES` and
        the class under one of `LABELS`, in any order, or in the second and third place under any name. A network
        built without classes (`classes` 0, or `class_embedding` None as diffusers has it) takes no class, whatever its
        signature says. A generator, `forward(latent)` or `forward(latent, label)`, is given neither image nor time.
        Raises InputError for any other network that takes no time."""
        plain = getattr(network, "_orig_mod", network)  # what torch.compile wraps
        parameters = list(inspect.signature(plain.forward).parameters.values())
        kinds = {parameter.kind for parameter in parameters}
        places = [p.name for p in parameters if p.kind in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)]
        names = [p.name for p in parameters if p.kind in (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)]
        required = [p.name for p in parameters if p.name in places and p.default is Parameter.empty]
        time = next((name for name in names if name in TIMES), None)
        sees = places[:1] != ["latent"]
        if sees and time is None and len(places) < 2 and Parameter.VAR_POSITIONAL not in kinds:
            raise InputError(
                f"network {type(plain).__name__}: forward({', '.join(p.name for p in parameters)}) takes no time, "
                "expected forward(x, t), or forward(x, t, label)"
            )
        label = next((name for name in names if name in LABELS), None)
        if label is None and sees and len(required) > 2 and required[2] not in OTHERS:
            label = required[2]
        anything = Parameter.VAR_KEYWORD in kinds
        if label is None and anything:
            label = "label"
        if getattr(plain, "classes", None) == 0 or getattr(plain, "class_embedding", plain) is None:
            label = None
        image = None
        if time is not None and places[:1] == [time]:
            image = next(name for name in names if name not in (time, label))
        others = tuple(n for n, built in OTHERS.items() if (anything or n in names) and getattr(plain, built, True))
        return cls(image, time, label, others, label in required, sees)

    def __call__(
        self, network: Any, x: Float[Tensor, "n c h w"], time: Float[Tensor, "n"], condition: Mapping[str, Tensor]
    ) -> Float[Tensor, "n d h w"]:
        """The network's output; of an object that holds it as `sample`, as diffusers' networks give it, that."""
        places: list[Tensor] = []
        given = {name: value for name, value in condition.items() if name in self.others}
        for name, value in ((self.image, x), (self.time, time)) if self.sees else ():
            if name is None:
                places.append(value)
            else:
                given[name] = value
        if self.label is not None and "label" in condition:
            given[self.label] = condition["label"]
        output = network(*places, **given)
        return getattr(output, "sample", output)
