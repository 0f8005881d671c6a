"""Forward, training step and sampling against diffusers' UNet2DModel and DDPMPipeline of the same shape, in one run.

    python benchmarks/bench_networks.py [--threads N] [--rounds N] [--json results/networks/speed.json]

Both are timed in turn; a ratio is their shortest time over ours, so above 1 we are faster. Theirs is used as its
documentation has it (contiguous maps, fp32); ours as trilemma does: for sampling in channels_last, for training as the
recipes say. The rows in bf16 run both under autocast. The last rows are whole sets of images: `DDPMPipeline` with its
defaults against `trilemma sample` with its own, the same number of steps.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

from trilemma.machine.environment import environment
from trilemma.networks import UNet
from trilemma.process import Denoiser, Linear
from trilemma.samplers import Ancestral, Sampler


@dataclass(frozen=True)
class Shape:
    """A network's shape and the batch it is timed at."""

    channels: int
    side: int
    base: int
    multipliers: tuple[int, ...]
    blocks: int
    attention: tuple[int, ...]
    batch: int

    def ours(self) -> UNet:
        size = (self.side, self.side)
        options: dict[str, Any] = {"blocks": self.blocks, "attention": self.attention, "dropout": 0.0}
        net = UNet(
            self.channels, self.channels, size, 0, base_channels=self.base, multipliers=self.multipliers, **options
        )
        return net

    def theirs(self) -> UNet2DModel:
        attends = [self.side // 2**i in self.attention for i in range(len(self.multipliers))]
        return UNet2DModel(
            sample_size=self.side,
            in_channels=self.channels,
            out_channels=self.channels,
            block_out_channels=tuple(self.base * m for m in self.multipliers),
            down_block_types=tuple("AttnDownBlock2D" if on else "DownBlock2D" for on in attends),
            up_block_types=tuple("AttnUpBlock2D" if on else "UpBlock2D" for on in reversed(attends)),
            layers_per_block=self.blocks,
            attention_head_dim=None,
            norm_num_groups=min(32, self.base // 4),
            downsample_padding=1,
        )


SHAPES = {
    "DDPM on CIFAR-10": Shape(3, 32, 128, (1, 2, 2, 2), 2, (16,), 4),
    "digits 28×28, 48 wide": Shape(1, 28, 48, (1, 2), 1, (14,), 32),
    "digits 14×14, 48 wide": Shape(1, 14, 48, (1, 2), 1, (7,), 64),
    "digits 32×32, 16 wide": Shape(1, 32, 16, (1, 2, 2, 2), 2, (16,), 32),
}


def faster(ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> dict[str, float]:
    """The shortest times in seconds, each called in turn after a warm-up, and their ratio."""
    best = {"ours_s": float("inf"), "theirs_s": float("inf")}
    for i in range(rounds + 1):
        for name, call in (("ours_s", ours), ("theirs_s", theirs)):
            began = time.perf_counter()
            call()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if i:
                best[name] = min(best[name], time.perf_counter() - began)
    return best | {"ratio": best["theirs_s"] / best["ours_s"]}


def passes(shape: Shape, device: torch.device, precision: str, rounds: int) -> dict[str, dict[str, float]]:
    """Forward pass (as in sampling) and training step (forward and backward) of one shape."""
    ours, theirs = shape.ours().to(device), shape.theirs().to(device)
    x = torch.randn(shape.batch, shape.channels, shape.side, shape.side, device=device)
    t = torch.arange(shape.batch, device=device).float()
    mixed = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")

    def train(forward: Callable[[], torch.Tensor]) -> None:
        with mixed:
            loss = forward().float().square().mean()
        loss.backward()

    def infer(forward: Callable[[], torch.Tensor]) -> None:
        with mixed, torch.inference_mode():
            forward()

    step = faster(lambda: train(lambda: ours(x, t)), lambda: train(lambda: theirs(x, t).sample), rounds)
    ours.to(memory_format=torch.channels_last)
    forward = faster(lambda: infer(lambda: ours(x, t)), lambda: infer(lambda: theirs(x, t).sample), rounds)
    return {"forward": forward, "step": step}


def sampling(shape: Shape, device: torch.device, precision: str, steps: int, rounds: int) -> dict[str, float]:
    """A batch of finished images by ancestral sampling, both from their own entry points."""
    network = shape.ours().to(device, memory_format=torch.channels_last).eval().requires_grad_(False)
    size = (shape.channels, shape.side, shape.side)
    how: dict[str, Any] = {"steps": steps, "precision": precision, "batch": shape.batch}
    sampler = Sampler(Denoiser(network, Linear()), Ancestral(), shape=size, **how)
    pipeline = DDPMPipeline(shape.theirs(), DDPMScheduler()).to(device)
    pipeline.set_progress_bar_config(disable=True)
    # Untrained networks answer with zeros: what is timed does not depend on what is drawn.
    return faster(
        lambda: sampler.generate(range(shape.batch)),
        lambda: pipeline(batch_size=shape.batch, num_inference_steps=steps, output_type="np"),
        rounds,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows = []
    for name, shape in SHAPES.items():
        for precision in ("fp32", "bf16"):
            found = passes(shape, device, precision, arguments.rounds)
            found["sampling, 10 steps"] = sampling(shape, device, precision, 10, max(1, arguments.rounds // 2))
            for what, times in found.items():
                if what.startswith("sampling") and precision == "bf16":
                    what += " (theirs fp32)"
                rows.append({"network": name, "batch": shape.batch, "precision": precision, "what": what, **times})
                print(
                    f"{name:24} {precision} {what:34} ours {times['ours_s'] * 1e3:7.1f} ms   "
                    f"theirs {times['theirs_s'] * 1e3:7.1f} ms   ratio {times['ratio']:.2f}",
                    flush=True,
                )
    if arguments.json:
        here = environment(device, 1) | {"threads": arguments.threads}
        arguments.json.write_text(json.dumps({"rows": rows, "environment": here}, indent=1) + "\n")


if __name__ == "__main__":
    main()
