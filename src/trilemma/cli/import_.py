"""`trilemma import`: a checkpoint of another library as a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trilemma.cli import options as o


def import_(
    path: Annotated[Path, typer.Argument(help="A diffusers folder, or a state dict (.pt).")],
    format_: Annotated[str, typer.Option("--format", help="diffusers, improved-diffusion or guided-diffusion.")],
    out: Annotated[Path | None, typer.Option(help="Run directory; runs/NAME unless given.")] = None,
    name: Annotated[str | None, typer.Option(help="What the run's recipe is called; as the file unless given.")] = None,
    size: Annotated[
        str | None, typer.Option(help="The images' side, or HEIGHTxWIDTH; a state dict does not say it.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="What to train on and measure against: a source or a path. Not needed to sample.")
    ] = None,
    attention_order: Annotated[
        str | None,
        typer.Option(help="Of guided-diffusion's attention: legacy unless given, or new (its ImageNet 64)."),
    ] = None,
    low: Annotated[
        str | None, typer.Option(help="Of an upsampler: its low images' side, or HEIGHTxWIDTH; a quarter unless given.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override what was read, such as network.heads=1.")
    ] = None,
) -> None:
    """Turn a checkpoint into a run that samples, resumes and is evaluated like any other. Nothing in the file is run.

    A state dict carries no settings. What its names and shapes do not tell is assumed: for improved-diffusion four
    heads and the cosine schedule of 4 000 steps with rescaled timesteps, for guided-diffusion, its classifiers too, 64
    channels a head and the linear schedule of 1 000 steps; for both no dropout, and that ε is predicted. Where it was
    trained otherwise:
    --set network.heads=1, --set network.head_channels=64, --set schedule=linear, --set schedule.steps=1000,
    --set schedule.network_steps=1000 (or null, where timesteps were not rescaled), --set network.dropout=0.1,
    --set learner.parameterization=x0.

    guided-diffusion's upsamplers (six input channels) come in too: 64_256_upsampler.pt by --size 256
    --set network.heads=4, 128_512_upsampler.pt by --size 512. `trilemma sample BASE+UPSAMPLER` samples the two.

    So does the folder of diffusers' AutoencoderKL, a pipeline's vae, as an autoencoder's run."""
    from trilemma import exchange
    from trilemma.machine import say

    run = exchange.import_run(
        path, format_, out=out, name=name, size=_pair(size), data=data, attention_order=attention_order,
        low=_pair(low, "--low"), overrides=set_ or [],
    )  # fmt: skip
    say(f"imported: {run.path}  (next: trilemma {o.following(run)})")


def _pair(text: str | None, option: str = "--size") -> tuple[int, int] | None:
    """Height and width."""
    size = o.parse_size(text, option)
    return (size, size) if isinstance(size, int) else size
