"""The order of the training samples. Resumed runs are tested in ``tests/test_resume.py``."""

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel
from torch.utils.data import DistributedSampler

from projunn_lightning import AddingProblem
from projunn_lightning.data.train_loader import EpochSampler
from tests.support.distributed_runs import QUIET

SIZE = 10


def epoch(number, *, shuffle, size=SIZE, start=0, **share):
    sampler = EpochSampler(size, shuffle=shuffle, seed=3, **share)
    sampler.set_epoch(number, start)
    return list(sampler)


class TestEpochSampler:
    def test_indices_in_order_continue_from_epoch_to_epoch(self):
        assert epoch(0, shuffle=False) == list(range(10))
        assert epoch(3, shuffle=False) == list(range(30, 40))

    def test_shuffled_epochs_have_orders_of_their_own(self):
        first, second = (epoch(number, shuffle=True) for number in (0, 1))
        assert sorted(first) == list(range(10))
        assert sorted(second) == list(range(10, 20))
        assert [index - 10 for index in second] != first
        assert first == epoch(0, shuffle=True)

    @pytest.mark.parametrize("shuffle", [False, True])
    @pytest.mark.parametrize(("size", "replicas"), [(10, 1), (10, 2), (10, 3), (2, 5)])
    def test_ranks_share_an_epoch_as_with_the_sampler_of_torch(self, shuffle, size, replicas):
        for rank in range(replicas):
            share = {"num_replicas": replicas, "rank": rank}
            expected = DistributedSampler(range(size), shuffle=shuffle, seed=3, **share)
            expected.set_epoch(2)
            found = epoch(2, shuffle=shuffle, size=size, **share)
            assert found == [2 * size + index for index in expected]
            assert len(EpochSampler(size, shuffle=shuffle, seed=3, **share)) == len(found)

    def test_only_the_first_indices_of_an_epoch_are_repeated(self):
        shares = [epoch(number, shuffle=False, num_replicas=3, rank=r) for number in range(4) for r in range(3)]
        assert len({index for share in shares for index in share}) == 40

    @pytest.mark.parametrize("shuffle", [False, True])
    def test_can_start_within_an_epoch(self, shuffle):
        share = {"num_replicas": 2, "rank": 1}
        whole = epoch(1, shuffle=shuffle, **share)
        assert epoch(1, shuffle=shuffle, start=2, **share) == whole[2:]
        assert epoch(1, shuffle=shuffle, start=5, **share) == []

    def test_reads_the_process_group_when_it_is_used_and_keeps_nothing_of_it(self, monkeypatch):
        sampler = EpochSampler(SIZE, shuffle=False, seed=0)
        fields = dict(vars(sampler))
        assert (len(sampler), list(sampler)) == (10, list(range(10)))
        monkeypatch.setattr(dist, "is_initialized", lambda: True)
        monkeypatch.setattr(dist, "get_world_size", lambda: 2)
        monkeypatch.setattr(dist, "get_rank", lambda: 1)
        assert (len(sampler), list(sampler)) == (5, [1, 3, 5, 7, 9])
        assert vars(sampler) == fields

    def test_a_change_of_the_epoch_does_not_change_an_iteration_that_has_begun(self):
        sampler = EpochSampler(SIZE, shuffle=False, seed=0)
        indices = iter(sampler)
        sampler.set_epoch(7)
        assert list(indices) == list(range(10))


class Recorder(BoringModel):
    """Keeps the first number of every sample that it trains on, batch by batch."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append(batch[0][:, 0, 0])
        return self.layer(torch.ones(1, 32)).sum()


def new_trainer(**options):
    return Trainer(accelerator="cpu", limit_val_batches=0, **{"max_epochs": 2, **QUIET, **options})


def fitted(data, run, ckpt=None):
    model = Recorder()
    run.fit(model, data, ckpt_path=ckpt, weights_only=True)
    return model.seen


def numbers(data, indices):
    return data.dataset("train").__getitems__(indices)[0][:, 0, 0]


class TestTrainLoader:
    @pytest.mark.parametrize("workers", [0, 2])
    @pytest.mark.parametrize("fresh", [True, False])
    def test_lightning_sees_the_same_batches_whatever_the_workers(self, fresh, workers):
        data = AddingProblem(4, batch_size=8, train_size=20, fresh=fresh, seed=3, num_workers=workers)
        seen = fitted(data, new_trainer())
        assert [len(batch) for batch in seen] == [8, 8, 4, 8, 8, 4]
        epochs = torch.cat(seen[:3]), torch.cat(seen[3:])
        for number, samples in enumerate(epochs):
            assert torch.equal(samples, numbers(data, epoch(number, shuffle=not fresh, size=20)))
        assert (len(torch.cat(epochs).unique()) == 40) == fresh

    def test_an_epoch_that_is_limited_leaves_its_other_samples_out(self):
        data = AddingProblem(4, batch_size=8, train_size=20)
        first, second = fitted(data, new_trainer(limit_train_batches=1))
        assert torch.equal(first, numbers(data, range(8)))
        assert torch.equal(second, numbers(data, range(20, 28)))

    def test_loaders_that_are_made_anew_every_epoch_continue(self):
        data = AddingProblem(4, batch_size=8, train_size=20)
        seen = fitted(data, new_trainer(reload_dataloaders_every_n_epochs=1))
        assert torch.equal(torch.cat(seen), numbers(data, range(40)))

    def test_a_second_fit_continues_with_whole_epochs_of_other_data(self):
        run = new_trainer(max_epochs=1)
        for number, size in enumerate((10, 7)):
            data = AddingProblem(4, batch_size=1, train_size=size)
            seen = fitted(data, run)
            assert torch.equal(torch.cat(seen), numbers(data, range(number * size, (number + 1) * size)))
            run.fit_loop.max_epochs += 1

    def test_a_resumed_run_with_shorter_epochs_continues_at_the_same_sample(self, tmp_path):
        data = AddingProblem(4, batch_size=8, train_size=32)
        run = new_trainer(max_epochs=-1, max_steps=6)
        assert torch.equal(torch.cat(fitted(data, run)), numbers(data, range(48)))
        run.save_checkpoint(tmp_path / "first.ckpt")
        resumed = new_trainer(max_epochs=-1, max_steps=8, limit_train_batches=3)
        third, first = fitted(data, resumed, tmp_path / "first.ckpt")
        assert torch.equal(third, numbers(data, range(48, 56)))
        assert torch.equal(first, numbers(data, range(64, 72)))

    def test_a_loop_of_ones_own_chooses_the_epoch(self):
        data = AddingProblem(4, batch_size=8, train_size=20)
        loader = data.train_dataloader()
        loader.sampler.set_epoch(2)
        assert torch.equal(torch.cat([x[:, 0, 0] for x, _ in loader]), numbers(data, range(40, 60)))

    def test_the_state_is_the_epoch_and_the_batches_that_are_trained_on(self):
        data = AddingProblem(4, batch_size=8, train_size=20, num_workers=2)
        states = []

        class States(Recorder):
            def training_step(self, batch, batch_idx):
                states.append(self.trainer.train_dataloader.state_dict())
                return super().training_step(batch, batch_idx)

            def on_train_epoch_end(self):
                states.append(self.trainer.train_dataloader.state_dict())

        new_trainer().fit(States(), data)
        positions = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 0), (1, 1), (1, 2), (2, 0)]
        assert states == [{"epoch": e, "batch": b} for e, b in positions]
