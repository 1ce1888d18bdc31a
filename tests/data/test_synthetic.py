import pickle

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel
from torch import nn

from projunn_lightning import AddingProblem, CopyingMemory
from projunn_lightning.data.synthetic import BLOCK, Generated
from projunn_lightning.data.task import EpochSampler

QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


def numbered(count, generator):
    """Samples that tell their row and the stream they come from."""
    stream = torch.rand((), generator=generator)
    return torch.arange(count), stream.expand(count)


def epoch(dataset, number, *, fresh=True, replicas=1, rank=0):
    sampler = EpochSampler(dataset, shuffle=not fresh, seed=0, num_replicas=replicas, rank=rank)
    sampler.set_epoch(number)
    return list(sampler)


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

    def test_keys_give_independent_samples(self):
        module = AddingProblem(length=20, seed=1)
        splits = [module.dataset(split).__getitems__([0, 1])[0] for split in ("train", "val", "test")]
        splits.append(AddingProblem(length=20, seed=2).dataset("train").__getitems__([0, 1])[0])
        for i, a in enumerate(splits):
            for b in splits[:i]:
                assert not (a[..., 0] == b[..., 0]).any()

    def test_goes_to_worker_processes(self):
        dataset = pickle.loads(pickle.dumps(AddingProblem(length=20).dataset("train")))
        expected = AddingProblem(length=20).dataset("train").__getitems__([3, 1])
        assert all(torch.equal(a, b) for a, b in zip(dataset.__getitems__([3, 1]), expected, strict=True))


class TestEpochSampler:
    dataset = Generated(numbered, 10, "key")

    def test_a_fresh_set_never_repeats_an_index(self):
        assert epoch(self.dataset, 0) == list(range(10))
        assert epoch(self.dataset, 3) == list(range(30, 40))

    def test_a_fixed_set_is_reshuffled_every_epoch(self):
        first, second = (epoch(self.dataset, e, fresh=False) for e in (0, 1))
        assert sorted(first) == list(range(10))
        assert sorted(second) == list(range(10, 20))
        assert [index - 10 for index in second] != first
        assert first == epoch(self.dataset, 0, fresh=False)

    @pytest.mark.parametrize("fresh", [True, False])
    @pytest.mark.parametrize("number", [0, 1, 2])
    def test_ranks_share_an_epoch(self, fresh, number):
        alone = epoch(self.dataset, number, fresh=fresh)
        shares = [epoch(self.dataset, number, fresh=fresh, replicas=2, rank=r) for r in (0, 1)]
        assert not set(shares[0]) & set(shares[1])
        assert [index for pair in zip(*shares, strict=True) for index in pair] == alone

    def test_ranks_that_do_not_divide_an_epoch_still_never_repeat(self):
        shares = [epoch(self.dataset, e, replicas=3, rank=r) for e in range(4) for r in range(3)]
        # torch's sampler pads an epoch to a multiple of the ranks by its first indices: those alone come twice
        assert len({i for share in shares for i in share}) == 40


class TestLoaders:
    @pytest.mark.parametrize("workers", [0, 2])
    @pytest.mark.parametrize("fresh", [True, False])
    def test_lightning_sees_the_same_batches_whatever_the_workers(self, fresh, workers):
        seen = []

        class Recorder(BoringModel):
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(1, 1)

            def training_step(self, batch, batch_idx):
                seen.append(batch[0][:, 0, 0])
                return self.layer(batch[1]).sum()

        data = AddingProblem(length=4, batch_size=8, train_size=20, val_size=4, fresh=fresh, num_workers=workers)
        options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        trainer = Trainer(accelerator="cpu", max_epochs=2, limit_val_batches=0, enable_model_summary=False, **options)
        trainer.fit(Recorder(), datamodule=data)
        assert [len(batch) for batch in seen] == [8, 8, 4, 8, 8, 4]
        source = AddingProblem(length=4, train_size=20, fresh=fresh).dataset("train")
        epochs = torch.cat(seen[:3]), torch.cat(seen[3:])
        for number, samples in enumerate(epochs):
            expected = source.__getitems__(epoch(source, number, fresh=fresh))[0][:, 0, 0]
            assert torch.equal(samples, expected)
        assert (len(torch.cat(epochs).unique()) == 40) == fresh

    def test_a_second_fit_on_other_data_has_whole_epochs(self):
        trainer = Trainer(accelerator="cpu", max_epochs=1, limit_val_batches=0, **QUIET)
        counts = []

        class Counting(BoringModel):
            def training_step(self, batch, batch_idx):
                counts.append(batch_idx)
                return self.layer(torch.ones(1, 32)).sum()

        for size in (10, 7):
            trainer.fit_loop.max_epochs += 1
            trainer.fit(Counting(), AddingProblem(length=4, batch_size=1, train_size=size, val_size=1))
        assert counts == [*range(10)] * 2 + [*range(7)]

    def test_evaluation_sets_are_the_same_every_time(self):
        data = CopyingMemory(delay=5, batch_size=4, val_size=10, test_size=6)
        for loader, size in ((data.val_dataloader, 10), (data.test_dataloader, 6), (data.predict_dataloader, 6)):
            first, second = (torch.cat([x for x, _ in loader()]) for _ in range(2))
            assert len(first) == size
            assert torch.equal(first, second)


@pytest.mark.parametrize("kind", [CopyingMemory, AddingProblem])
@pytest.mark.parametrize("name", ["batch_size", "train_size", "val_size", "test_size"])
def test_refuses_sizes_below_one(kind, name):
    with pytest.raises(ValueError, match=f"{name} must be 1 or more, found 0"):
        kind(**{name: 0})


def test_refuses_a_negative_number_of_workers():
    with pytest.raises(ValueError, match="num_workers must be 0 or more, found -1"):
        CopyingMemory(num_workers=-1)
