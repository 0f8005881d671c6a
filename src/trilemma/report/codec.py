"""A codec's reconstructions and latents as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table

from trilemma.report.tables import DASH


def codec_table(result: Mapping[str, Any]) -> Table:
    """How well images come back, with standard errors over images; what the latents cost; and what they are like."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for head in ("", "value", "± standard error"):
        table.add_column(head, justify="left" if not head else "right")
    back, kl, latents = result["reconstruction"], result["kl"], result["latents"]
    distance = back["frechet_distance"]

    def row(words: str, *figures: float | None, digits: int = 2, end: bool = False) -> None:
        cells = (DASH if figure is None else f"{figure:.{digits}f}" for figure in figures)
        table.add_row(words, *cells, end_section=end)

    row("root mean square error of an image, of 255", *back["rmse"].values())
    row("PSNR, dB", *back["psnr_db"].values())
    row(f"Fréchet distance to the originals, {result['features']['name']}", *distance.values(), digits=3, end=True)
    if kl is not None:
        row("KL(q(z | x) ‖ N(0, I)), nats", *kl["nats"].values(), digits=1)
        row("the same, bits/dim", *kl["bits_per_dim"].values(), digits=3, end=True)
    table.add_row("latents, channels × height × width", " × ".join(map(str, latents["shape"])), "")
    row("numbers of an image for one of its latents", latents["compression"])
    channels = zip(latents["channel_means"], latents["channel_standard_deviations"], strict=True)
    for i, (mean, deviation) in enumerate(channels):
        table.add_row(f"channel {i}, mean and standard deviation", f"{mean:.3f}", f"{deviation:.3f}")
    row("scale, 1 over the standard deviation of all", latents["scale"], digits=4)
    return table
