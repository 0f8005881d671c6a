"""Which images make up a batch: permutations, shares of processes, flips, streams."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from trilemma.errors import InputError
from trilemma.training import Batch, Batches

Make = Callable[..., Batches]


class TestOrder:
    @pytest.mark.parametrize(("count", "batch"), [(16, 6), (7, 7), (12, 4), (5, 3)])
    def test_is_a_permutation_every_epoch(self, make_batches: Make, count: int, batch: int) -> None:
        batches = make_batches(count, batch=batch)
        seen = [index for step in range(3 * count) for index in batches.indices(step)]  # `batch` × 3 epochs
        for epoch in range(3 * batch):
            assert sorted(seen[epoch * count : (epoch + 1) * count]) == list(range(count))

    def test_differs_between_epochs_and_seeds(self, make_batches: Make) -> None:
        batches = make_batches(16, batch=16)
        assert batches.indices(0) != batches.indices(1) != sorted(batches.indices(1))
        assert batches.indices(0) != make_batches(16, batch=16, seed=1).indices(0)

    def test_is_a_function_of_the_step_alone(self, make_batches: Make) -> None:
        one = make_batches()
        ahead = [one.indices(step) for step in (9, 0, 4)]
        assert ahead == [make_batches().indices(step) for step in (9, 0, 4)]

    @pytest.mark.parametrize("processes", [2, 3])
    def test_of_processes_makes_up_the_one_process_s(self, make_batches: Make, processes: int) -> None:
        whole = make_batches(flip=True)
        shares = [make_batches(flip=True, rank=rank, processes=processes) for rank in range(processes)]
        for step in (0, 2, 7):
            parts = [share[step] for share in shares]
            assert torch.equal(torch.cat([part.images for part in parts]), whole[step].images)
            assert torch.equal(
                torch.cat([part.labels for part in parts if part.labels is not None]), whole[step].labels
            )
            assert [key for part in parts for key in part.keys] == whole[step].keys

    def test_reads_on_from_any_step(self, make_batches: Make) -> None:
        batches = make_batches(flip=True)
        resumed = list(batches.loader(3, 6, workers=0))
        assert len(resumed) == 3
        for step, batch in enumerate(resumed, start=3):
            assert torch.equal(batch.images, batches[step].images)

    def test_is_the_same_from_loading_processes(self, make_batches: Make) -> None:
        batches = make_batches(flip=True)
        batches.source.in_memory = False
        for step, batch in enumerate(batches.loader(0, 3, workers=1)):
            assert torch.equal(batch.images, batches[step].images)
            assert batch.keys == batches[step].keys


class TestRefusal:
    def test_of_three_images_at_batch_8(self, make_batches: Make) -> None:
        with pytest.raises(InputError, match=r"training\.batch 8 is more than the 3 images .* \(nearest: 3\)"):
            make_batches(3, batch=8)

    def test_of_processes_that_do_not_divide_the_batch(self, make_batches: Make) -> None:
        with pytest.raises(InputError, match="batch 6 is not a multiple of the 4 processes"):
            make_batches(batch=6, processes=4)


def test_flip_turns_about_half_of_the_images_left_to_right(make_batches: Make) -> None:
    plain, flipped = make_batches(), make_batches(flip=True)
    turned = []
    for step in range(40):
        for before, after in zip(plain[step].images, flipped[step].images, strict=True):
            turned.append(bool(torch.equal(after, before.flip(-1))))
            assert turned[-1] or torch.equal(after, before)
    assert 0.4 < np.mean(turned) < 0.6  # 240 draws: σ = 0.03
    kept = [images[0] for images in np.split(np.array(turned), 40)]
    assert 0 < sum(kept) < 40, "one draw for the whole batch, or by position"


def test_streams_are_keyed_by_step_and_position(make_batches: Make) -> None:
    batches = make_batches()
    keys = [key for step in range(4) for key in batches[step].keys]
    assert len(set(keys)) == 24
    assert batches[2].keys[3] == (0, "train", 2, 3)


class TestExtra:
    """The batches that a time sampler is told of besides the one trained on."""

    def test_are_other_images_with_other_noise_than_the_training_batch_s(self, make_batches: Make) -> None:
        batches = make_batches(1000)
        for step in range(3):
            seen = [batches[step], *batches.extra(step, 2)]
            assert [len(batch) for batch in seen] == [6, 6, 6]
            assert len({key for batch in seen for key in batch.keys}) == 18
            images = [image.numpy().tobytes() for batch in seen for image in batch.images]
            # Brightness has 128 values here: 18 draws hold some pairs, a batch repeated at most 12 values.
            assert len(set(images)) > 12
            noises = [batch.draw().normal(batch.images) for batch in seen]
            assert not any(torch.equal(noises[i], noises[j]) for i, j in [(0, 1), (0, 2), (1, 2)])

    def test_differ_from_step_to_step_and_are_the_same_again(self, make_batches: Make) -> None:
        first, second = [next(make_batches(1000).extra(step, 1)) for step in (0, 1)]
        assert not torch.equal(first.images, second.images)
        assert torch.equal(first.images, next(make_batches(1000).extra(0, 1)).images)

    def test_of_processes_make_up_the_one_process_s(self, make_batches: Make) -> None:
        whole = list(make_batches(flip=True).extra(3, 2))
        shares = [list(make_batches(flip=True, rank=rank, processes=2).extra(3, 2)) for rank in range(2)]
        for i, one in enumerate(whole):
            assert torch.equal(torch.cat([share[i].images for share in shares]), one.images)
            assert [key for share in shares for key in share[i].keys] == one.keys


class TestSplit:
    @pytest.mark.parametrize(("size", "sizes"), [(None, [6]), (4, [4, 2]), (3, [3, 3]), (1, [1] * 6), (9, [6])])
    def test_keeps_everything_in_order(self, make_batches: Make, size: int | None, sizes: list[int]) -> None:
        batch = make_batches()[0]
        parts = batch.split(size)
        assert [len(part) for part in parts] == sizes == [len(part.images) for part in parts]
        assert torch.equal(torch.cat([part.images for part in parts]), batch.images)
        assert [key for part in parts for key in part.keys] == batch.keys

    def test_of_unlabelled_images(self) -> None:
        batch = Batch(torch.zeros(3, 1, 2, 2), None, [(0, i) for i in range(3)])
        assert [part.labels for part in batch.split(2)] == [None, None]

    def test_draws_the_noise_of_the_whole(self, make_batches: Make) -> None:
        batch = make_batches()[0]
        whole = batch.draw().normal(batch.images)
        assert torch.equal(torch.cat([part.draw().normal(part.images) for part in batch.split(4)]), whole)
