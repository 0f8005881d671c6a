"""Strips and samples of a run whose schedule is continuous."""

from __future__ import annotations

from trilemma.runs import Run


def test_a_forward_strip_of_a_continuous_schedule_shows_the_way(continuous: Run) -> None:
    """Nine different times from 0 to T, also where T is 1."""
    strip = continuous.forward_strip(rows=2)
    assert strip.times[0] == 0 and strip.times[-1] == 1
    assert len(set(strip.times)) == 9
    assert strip.images.shape == (2, 9, 8, 8, 1)


def test_a_continuous_run_is_sampled_by_every_sampler(continuous: Run) -> None:
    for name in ("ancestral", "ddim", "probability_flow", "heun", "dpmpp", "unipc"):
        for spacing in ("even", "log_snr", "karras"):
            assert continuous.sample(2, sampler=name, steps=5, spacing=spacing).images.shape == (2, 8, 8, 1)
