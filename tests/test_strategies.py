"""Training on several processes."""

from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy

from projunn_lightning import ConstraintError, ProjUNN
from projunn_lightning.functional import SAMPLERS, unitarity_error
from tests.support import distributed_runs, sharded_fits
from tests.support.distributed_runs import QUIET, fitted, small
from tests.support.world import World

CONFIGS = Path(__file__).parent.parent / "configs"
STRATEGIES = sorted((CONFIGS / "strategies").glob("*.yaml"))
DDP = {"strategy": "ddp", "devices": 2}


def distance(first, second):
    return max(float((first[name] - second[name]).abs().max()) for name in first)


class TestDDP:
    @pytest.mark.parametrize("sampler", SAMPLERS)
    def test_ranks_have_the_same_bits_and_are_one_process_with_the_whole_batch(self, world, sampler):
        first, second = world(fitted, 8, sampler=sampler, **DDP)
        assert all(torch.equal(first[name], second[name]) for name in first)
        assert unitarity_error(first["rnn.weight_hh_l0"]) < 1e-6
        assert distance(first, fitted(16, sampler=sampler)) < 1e-5

    @pytest.mark.parametrize(
        "settings",
        [{"coordinates": "skew", "sampler": "tangent", "feedback": 0.5}, {"rank": "full", "coordinates": "skew"}],
        ids=["skew", "skew, full"],
    )
    def test_in_skew_coordinates_too(self, world, settings):
        first, second = world(fitted, 8, settings=settings, **DDP)
        assert all(torch.equal(first[name], second[name]) for name in first)
        assert distance(first, fitted(16, settings=settings)) < 1e-5

    @pytest.mark.parametrize("by_datamodule", [True, False])
    def test_gives_each_rank_its_own_samples(self, world, by_datamodule):
        first, second = world(distributed_runs.samples_seen, by_datamodule)
        assert len(set(first)) == len(first) == 16
        assert not set(first) & set(second)

    def test_with_gradients_averaged_by_power_sgd(self, world):
        (first, error), (second, _) = world(distributed_runs.compressed)
        assert torch.equal(first, second)
        assert error < 1e-6


class TestShardedModels:
    @pytest.mark.parametrize("distributed_checkpoint", [True, False])
    def test_train_and_resume_as_one_process_with_the_whole_batch(self, world, distributed_checkpoint, tmp_path):
        first, second = world(sharded_fits.fitted_sharded, 8, tmp_path, distributed_checkpoint)
        assert all(torch.equal(first[name], second[name]) for name in first)
        assert unitarity_error(first["rnn.weight_hh_l0"]) < 1e-6
        assert distance(first, fitted(16, steps=20)) < 1e-5

    @pytest.mark.parametrize("complex", [False, True])
    def test_with_a_weight_of_the_root_and_validation(self, world, complex):
        for error, moved in world(sharded_fits.matched, complex):
            assert error < 1e-6
            assert moved > 0.01

    def test_move_weights_of_an_unconstrained_checkpoint_back_at_once(self, world, tmp_path):
        for warnings, error in world(sharded_fits.from_an_unconstrained_checkpoint, tmp_path):
            assert any("rnn.weight_hh_l0 has unitarity error" in warning for warning in warnings)
            assert error < 1e-6

    def test_after_an_evaluation(self, world):
        assert max(world(sharded_fits.after_an_evaluation)) < 1e-6

    def test_ranks_of_one_model_share_its_samples(self, world):
        assert world(sharded_fits.samples_of_tensor_parallel_ranks) == [list(range(6))] * 2

    def test_tensor_parallel_layers(self, world):
        self.check_parallel_layers(world)

    @pytest.mark.slow
    def test_tensor_parallel_layers_that_are_fully_sharded_too(self):
        four = World(4)
        self.check_parallel_layers(four)
        four.close()

    def check_parallel_layers(self, world):
        first, *others = world(distributed_runs.parallel_layers)
        alone = distributed_runs.parallel_layers(world=False)
        for weights in others:
            assert all(torch.equal(one, other) for one, other in zip(first, weights, strict=True))
        for one, whole in zip(first, alone, strict=True):
            assert torch.allclose(one, whole, rtol=0, atol=1e-5)

    def test_the_models_here_have_no_tensor_parallel_layers(self, world):
        with pytest.raises(
            RuntimeError, match="SequenceModel can be sharded by FSDP2 only: set the strategy's data_para"
        ):
            world(fitted, 8, devices=2, strategy=ModelParallelStrategy(1, 2))

    def test_modules_of_two_dtypes_are_refused(self, world):
        with pytest.raises(RuntimeError, match=r"ImageClassifier has parameters of .*complex64 and"):
            world(sharded_fits.shard_convolutions)

    def test_a_sharded_network_is_certified(self, world):
        for accuracy, error in world(sharded_fits.certified):
            assert accuracy > 0.9
            assert error < 1e-5


@pytest.fixture(scope="module")
def alone():
    """The autoencoder that one process has trained."""
    return distributed_runs.convolutions(16)


class TestOrthogonalConvolutions:
    @pytest.mark.parametrize("how", ["ddp", pytest.param("sharded", marks=pytest.mark.slow), "sharded, each layer"])
    def test_train_as_one_process_with_the_whole_batch(self, world, alone, how):
        options = DDP if how == "ddp" else {"strategy": ModelParallelStrategy(2, 1), "devices": 2}
        first, second = world(distributed_runs.convolutions, 8, each_layer=how == "sharded, each layer", **options)
        assert all(torch.equal(first[0][name], second[0][name]) for name in first[0])
        assert distance(first[0], alone[0]) < 1e-5
        assert first[1] == pytest.approx(alone[1], rel=1e-5)
        assert max(error for _, _, error in (alone, first, second)) < 1e-5


class TestConfigs:
    def test_say_when_to_use_them_and_how(self):
        assert {path.stem for path in STRATEGIES} == {"ddp", "ddp_powersgd", "fsdp2", "multi_node"}
        for path in STRATEGIES:
            header = "".join(line for line in path.read_text().splitlines(True) if line.startswith("#"))
            assert f"--config configs/strategies/{path.name}" in header
            assert "Use it" in header
            assert yaml.safe_load(path.read_text()).keys() == {"trainer"}

    @pytest.mark.parametrize("path", STRATEGIES, ids=lambda path: path.stem)
    def test_run(self, world, path, tmp_path):
        steps = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=3", "--trainer.val_check_interval=3"]
        small = [
            "--data.batch_size=4",
            "--data.delay=3",
            "--trainer.limit_val_batches=1",
            "--trainer.limit_test_batches=1",
            "--trainer.accelerator=cpu",
        ]
        here = ["--trainer.devices=2", "--trainer.num_nodes=1", "--trainer.enable_progress_bar=false"]
        configs = [f"--config={CONFIGS / 'copying_1000.yaml'}", f"--config={path}"]
        world(distributed_runs.command, tmp_path, "fit", *configs, *steps, *small, *here)
        assert list(tmp_path.rglob("*.ckpt"))


class TestRefusals:
    @pytest.mark.parametrize("kind", [FSDPStrategy, DeepSpeedStrategy])
    def test_strategies_that_flatten_parameters(self, kind):
        model, _ = small(4)
        trainer = Trainer(accelerator="cpu", **QUIET)
        trainer.strategy.__class__ = kind  # the one needs a GPU, the other a package of its own
        with pytest.raises(ConstraintError, match=rf"strategy {kind.__name__} leaves no matrix .* shard by FSDP2"):
            ProjUNN().check(trainer, model)
