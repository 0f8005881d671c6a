"""An image's draws are its own: they depend on its key, not on what is drawn beside it, before it, or where."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from scipy.stats import kstest
from torch import Tensor

from trilemma.process import Draw, stream, stream_seed


def like(count: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(count, 1, 5, 5, dtype=dtype)


def test_an_images_noise_does_not_depend_on_the_batch() -> None:
    seeds = [7, 3, 11, 2**40, 0]
    together = Draw.for_seeds(seeds, "step")
    first, second = together.normal(like(5)), together.normal(like(5))
    for i, seed in enumerate(seeds):
        alone = Draw.for_seeds([seed], "step")
        assert torch.equal(alone.normal(like(1))[0], first[i])
        assert torch.equal(alone.normal(like(1))[0], second[i])
    backwards = Draw.for_seeds(seeds[::-1], "step")
    assert torch.equal(backwards.normal(like(5)).flip(0), first)


def test_a_draw_goes_on_where_it_was() -> None:
    draw = Draw.for_seeds([1], "step")
    assert not torch.equal(draw.normal(like(1)), draw.normal(like(1)))


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param([(7, "start"), (7, "step")], id="role"),
        pytest.param([(7, "start"), (8, "start")], id="seed"),
        pytest.param([(7, "start"), ("7", "start")], id="type"),
        pytest.param([(1, 23), (12, 3)], id="parts-run-together"),
        pytest.param([(1, 2), (2, 1)], id="order"),
        pytest.param([(0,), (0, 0)], id="length"),
        pytest.param([(-1, "start"), (1, "start")], id="sign"),
    ],
)
def test_every_part_of_the_key_counts(keys: list[tuple[int | str, ...]]) -> None:
    assert len({stream_seed(*key) for key in keys}) == len(keys)
    noise = [torch.from_numpy(stream(*key).standard_normal(8)) for key in keys]
    assert not torch.equal(*noise)


def test_image_seeds_do_not_share_noise() -> None:
    """These two keys' seeds agree in their lower 32 bits, which is all that a Mersenne twister takes of a seed: among
    50 000 images a generator of 32 bits gives some two the same noise every third time."""
    one, other = stream_seed(14748, "start"), stream_seed(50814, "start")
    assert one != other
    assert one % 2**32 == other % 2**32
    noise = Draw.for_seeds([14748, 50814], "start").normal(like(2))
    assert not torch.equal(noise[0], noise[1])


def test_start_and_step_are_different_streams() -> None:
    start, step = (Draw.for_seeds([5], role).normal(like(1)) for role in ("start", "step"))
    assert not torch.equal(start, step)


def test_seeds_are_the_same_in_every_process() -> None:
    """Python's own hash of a string differs with PYTHONHASHSEED; a sample set made in parts must not."""
    code = "from trilemma.process import stream_seed; print(stream_seed(7, 'start'))"
    environment = {**os.environ, "PYTHONHASHSEED": "12"}
    command = [sys.executable, "-c", code]
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert int(printed) == stream_seed(7, "start") == 7645984534879266904
    assert stream_seed(0, "step") == 5098192799807135273


def test_seeds_fit_a_generator() -> None:
    seeds = [stream_seed(i, "start") for i in range(2000)]
    assert len(set(seeds)) == 2000
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) > 2**62


def test_noise_has_the_type_of_the_images() -> None:
    for dtype in (torch.float64, torch.bfloat16):
        noise = Draw.for_seeds([1, 2], "step").normal(like(2, dtype))
        assert noise.dtype == dtype
        assert torch.equal(noise, Draw.for_seeds([1, 2], "step").normal(like(2)).to(dtype))


def test_streams_are_standard_normal_and_unrelated() -> None:
    noise = Draw.for_seeds(range(400), "start").normal(torch.empty(400, 1, 8, 8)).flatten(1)
    assert kstest(noise.flatten().numpy(), "norm").pvalue > 1e-3
    # Means over images of neighbouring seeds, which related streams would not bring to nothing.
    assert kstest((noise.mean(0) * 20).numpy(), "norm").pvalue > 1e-3
    correlation = torch.corrcoef(noise)
    off = correlation[~torch.eye(400, dtype=torch.bool)]
    assert off.abs().max() < 0.7
    assert off.square().mean().item() == pytest.approx(1 / 64, rel=0.05)


def test_uniforms_are_in_range_and_each_images_own() -> None:
    together = Draw((seed, "time") for seed in range(3000)).uniform()
    assert together.dtype == torch.float64
    assert (together >= 0).all()
    assert (together < 1).all()
    assert kstest(together.numpy(), "uniform").pvalue > 1e-3
    assert Draw([(17, "time")]).uniform()[0] == together[17]


def test_as_many_streams_as_images() -> None:
    draw = Draw.for_seeds([1, 2, 3], "step")
    assert len(draw) == 3
    with pytest.raises(ValueError, match="zip"):
        draw.normal(like(2))
