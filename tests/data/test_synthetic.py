"""Samples that are generated as a function of seed, split and index."""

import pickle

import pytest
import torch

from projunn_lightning import CopyingMemory, ProjUNNError
from projunn_lightning.data import TASKS, SyntheticTask
from projunn_lightning.data.synthetic import BLOCK, Generated

SYNTHETIC = [task for task in TASKS.values() if issubclass(task, SyntheticTask)]


def numbered(count, generator):
    """Samples that tell their row and the stream they come from."""
    stream = torch.rand((), generator=generator)
    return torch.arange(count), stream.expand(count)


class TestGenerated:
    def test_a_sample_depends_on_key_and_index_alone(self):
        dataset = CopyingMemory(delay=5, seed=3).dataset("train")
        whole = dataset.__getitems__(range(2 * BLOCK + 7))
        again = CopyingMemory(delay=5, seed=3).dataset("train")
        indices = [2 * BLOCK + 6, 0, BLOCK - 1, BLOCK, 5, 2 * BLOCK]
        for column, picked in zip(whole, again.__getitems__(indices), strict=True):
            assert torch.equal(column[indices], picked)

    def test_batches_that_cross_blocks_keep_their_order(self):
        dataset = Generated(numbered, 100, "key", fresh=True)
        rows, streams = dataset.__getitems__([2 * BLOCK + 1, 2, 3, BLOCK, 2 * BLOCK, 0])
        assert rows.tolist() == [1, 2, 3, 0, 0, 0]
        assert len(streams.unique()) == 3
        assert streams[0] == streams[4]
        assert streams[1] == streams[2] == streams[5]

    def test_indices_beyond_the_length_are_new_samples_only_if_the_dataset_is_fresh(self):
        fresh, fixed = (Generated(numbered, 100, "key", fresh=fresh) for fresh in (True, False))
        assert fresh.__getitems__([3, 103])[0].tolist() == [3, 103]
        assert fixed.__getitems__([3, 103])[0].tolist() == [3, 3]


@pytest.mark.parametrize("task", SYNTHETIC, ids=lambda task: task.__name__)
class TestTasks:
    @pytest.mark.parametrize("name", ["train_size", "val_size", "test_size"])
    def test_refuse_sizes_below_one(self, task, name):
        with pytest.raises(ProjUNNError, match=f"{name} must be 1 or more, found 0"):
            task(**{name: 0})

    def test_splits_and_seeds_have_samples_of_their_own(self, task):
        splits = [task(8, seed=1).dataset(split).__getitems__([0, 1])[0] for split in ("train", "val", "test")]
        splits.append(task(8, seed=2).dataset("train").__getitems__([0, 1])[0])
        for number, first in enumerate(splits):
            for second in splits[:number]:
                assert not (first == second).flatten(1).all(dim=1).any()

    def test_samples_do_not_depend_on_the_process_that_makes_them(self, task):
        dataset = task(8).dataset("train")
        copy = pickle.loads(pickle.dumps(task(8).dataset("train")))
        assert all(map(torch.equal, dataset.__getitems__([3, 1]), copy.__getitems__([3, 1])))
