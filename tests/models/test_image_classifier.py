import inspect
import re

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningDataModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from projunn_lightning import ImageClassification, ImageClassifier, ProjUNN
from projunn_lightning.constraint import declared
from projunn_lightning.functional import unitarity_error
from projunn_lightning.nn import ACTIVATIONS, ARCHITECTURES, CONVOLUTIONS, CNNOptions, FourierConv2d, OrthogonalConv2d
from tests.support.image_folders import labels_of, random_images, write_split

SMALL = {"architecture": "plain", "in_channels": 1, "size": (6, 5), "num_classes": 4, "depth": 2, "width": 6}
FOURIER = SMALL | {"convolution": "fourier"}
QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


class Quadrants(LightningDataModule):
    """The task to tell which quarter of a 6 x 5 image is bright."""

    def loader(self, seed, shuffle=False):
        generator = torch.Generator().manual_seed(seed)
        labels = torch.randint(4, (256,), generator=generator)
        images = torch.randn(256, 1, 6, 5, generator=generator)
        for image, label in zip(images, labels.tolist(), strict=True):
            image[0, 3 * (label // 2) : 3 * (label // 2) + 3, 2 * (label % 2) : 2 * (label % 2) + 3] += 2
        return DataLoader(TensorDataset(images, labels), batch_size=32, shuffle=shuffle)

    def train_dataloader(self):
        return self.loader(1, shuffle=True)

    def val_dataloader(self):
        return self.loader(2)

    def test_dataloader(self):
        return self.loader(3)

    predict_dataloader = test_dataloader


def train(model, **options):
    trainer = Trainer(accelerator="cpu", callbacks=options.pop("callbacks", []), **QUIET, **options)
    trainer.fit(model, datamodule=Quadrants())
    return trainer


class TestTraining:
    @pytest.mark.parametrize("convolution", CONVOLUTIONS)
    def test_with_every_convolution(self, convolution):
        model = ImageClassifier(**SMALL, convolution=convolution, learning_rate=3e-3)
        trainer = train(model, max_epochs=6, callbacks=[] if convolution == "plain" else [ProjUNN()])
        logged = set(trainer.callback_metrics)
        (result,) = trainer.test(model, datamodule=Quadrants(), verbose=False)
        assert result["test/accuracy"] > 0.8
        for stage in ("train", "val"):
            assert {f"{stage}/loss", f"{stage}/accuracy"} <= logged
        assert set(result) == {"test/loss", "test/accuracy"}
        assert "train/locality" not in logged
        stacks = [model.get_parameter(name).detach() for name in declared(model)]
        assert bool(stacks) == (convolution != "plain")
        assert all(unitarity_error(stack).max().item() < 1e-5 for stack in stacks)

    def test_accuracy_is_the_share_of_right_predictions(self):
        model = ImageClassifier(**SMALL)
        trainer = Trainer(accelerator="cpu", **QUIET)
        (result,) = trainer.test(model, datamodule=Quadrants(), verbose=False)
        predicted = torch.cat(trainer.predict(model, datamodule=Quadrants()))
        target = torch.cat([y for _, y in Quadrants().test_dataloader()])
        assert result["test/accuracy"] == pytest.approx((predicted == target).float().mean().item())

    def test_in_mixed_precision(self):
        model = ImageClassifier(**SMALL)
        trainer = train(model, max_epochs=1, precision="bf16-mixed", callbacks=[ProjUNN()])
        assert trainer.callback_metrics["val/loss"].isfinite()

    def test_a_checkpoint_restores_the_model(self, tmp_path):
        model = ImageClassifier(**SMALL)
        trainer = train(model, max_epochs=1, callbacks=[ProjUNN()])
        trainer.save_checkpoint(tmp_path / "model.ckpt")
        again = ImageClassifier.load_from_checkpoint(tmp_path / "model.ckpt").eval()
        x = torch.randn(3, 1, 6, 5)
        assert torch.equal(again(x), model.eval()(x))

    def test_on_images_of_a_folder(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "folder").mkdir()
        labels = labels_of(60)
        images = random_images(60, 6, 5) // 4
        images[np.arange(60), labels] += 180  # the bright row is the class
        for split in ("train", "test"):
            write_split(tmp_path / "folder", split, images, labels)
        model = ImageClassifier(**SMALL, learning_rate=3e-3)
        trainer = Trainer(accelerator="cpu", callbacks=[ProjUNN()], max_epochs=30, **QUIET)
        data = ImageClassification("folder", batch_size=10)
        trainer.fit(model, datamodule=data)
        (result,) = trainer.test(model, datamodule=data, verbose=False)
        assert result["test/accuracy"] > 0.9


class TestLocality:
    def test_is_the_mean_share_of_energy_outside_the_support(self):
        model = ImageClassifier(**FOURIER, locality=1.0, support=(3, 1))
        layers = [m for m in model.modules() if isinstance(m, FourierConv2d)]
        shares = [layer.locality_penalty((3, 1)) / layer.kernel().square().sum() for layer in layers]
        expected = sum(shares) / len(shares)
        torch.testing.assert_close(model.locality_penalty(), expected)

    def test_its_weight_makes_kernels_local(self):
        penalties = []
        for locality in (0.0, 1.0):
            torch.manual_seed(0)
            model = ImageClassifier(**FOURIER, locality=locality, learning_rate=0.03)
            trainer = train(model, max_epochs=10, callbacks=[ProjUNN()])
            penalties.append(model.locality_penalty().item())
            assert ("train/locality" in trainer.callback_metrics) == (locality > 0)
        assert penalties[1] < 0.3 * penalties[0]

    def test_enters_the_gradient_with_its_weight(self):
        torch.manual_seed(0)
        gradients = []
        batch = next(iter(Quadrants().train_dataloader()))
        for locality in (0.0, 0.5):
            torch.manual_seed(0)
            model = ImageClassifier(**FOURIER, locality=locality)
            model.log = model.log_dict = lambda *_, **__: None
            model.training_step(batch, 0).backward()
            gradients.append(model.network.body[0][0].weight.grad.clone())
        model.zero_grad()
        (0.5 * model.locality_penalty()).backward()
        torch.testing.assert_close(gradients[1] - gradients[0], model.network.body[0][0].weight.grad)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"locality": -1.0}, r"locality must be a finite number of 0 or more, found -1\.0"),
            ({"locality": 1.0, "convolution": "orthogonal"}, r"this network has none: set it to 0, found 1\.0"),
            ({"locality": 1.0, "convolution": "plain"}, r"this network has none: set it to 0, found 1\.0"),
        ],
    )
    def test_refuses_negative_weights_and_convolutions_with_a_small_kernel(self, options, message):
        with pytest.raises(ValueError, match=message):
            ImageClassifier(**FOURIER | options)


class TestOptions:
    @pytest.mark.parametrize("architecture", ARCHITECTURES)
    def test_the_architecture_chooses_the_network(self, architecture):
        assert type(ImageClassifier(architecture, width=4).network) is ARCHITECTURES[architecture]

    def test_they_reach_the_network(self):
        plain = ImageClassifier("plain", width=4).network
        assert sum(isinstance(m, OrthogonalConv2d) for m in plain.modules()) == 10
        ordinary = ImageClassifier("plain", width=4, depth=3, convolution="plain").network
        assert [m.out_channels for m in ordinary.modules() if isinstance(m, nn.Conv2d)] == [4] * 3

    def test_a_new_architecture_is_a_class_and_an_entry(self, monkeypatch):
        class Linear(nn.Module):
            def __init__(self, in_channels, num_classes, size, **options):
                super().__init__()
                self.options = options
                self.linear = nn.Linear(in_channels * size[0] * size[1], num_classes)

            def forward(self, input):
                return self.linear(input.flatten(1))

        monkeypatch.setitem(ARCHITECTURES, "linear", Linear)
        model = ImageClassifier("linear", 2, (6, 5), 4, depth=3)
        assert model(torch.randn(7, 2, 6, 5)).shape == (7, 4)
        assert model.network.options["depth"] == 3

    def test_the_help_describes_every_option_and_shows_its_choices(self):
        parser = ArgumentParser()
        parser.add_class_arguments(ImageClassifier, "model")
        words = " ".join(parser.format_help().partition("options:")[2].split())
        own = [name for name in inspect.signature(ImageClassifier).parameters if name != "options"]
        for name in (*own, *inspect.signature(CNNOptions).parameters):
            assert re.search(rf"--model\.{name} \S+ [^-(\[]", words), name  # a description follows the value
        assert f"--model.architecture {{{','.join(ARCHITECTURES)}}}" in words
        assert f"--model.convolution {{{','.join(CONVOLUTIONS)}}}" in words
        assert "Literal['average', 'norm', 'strided']" in words
        assert f"Literal[{', '.join(map(repr, ACTIVATIONS))}]" in words
        assert "--model.init {haar,haar_so,identity}" in words

    def test_are_saved(self):
        assert ImageClassifier(**SMALL).hparams.items() >= SMALL.items()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"architecture": "vgg"}, "unknown architecture 'vgg', expected one of resnet9, plain"),
            ({"depth": 5}, "ResNet9 has eight convolutions; leave out depth, found 5"),
            ({"size": 8}, "size must be 16 or more, found 8"),
            ({"num_classes": 1}, "num_classes must be 2 or more, found 1"),
            ({"size": (32, 32, 3)}, r"two numbers, or one for both, found \(32, 32, 3\)"),
            ({"init": "polar"}, "unknown init 'polar', expected one of haar, haar_so, identity"),
            ({"in_channels": 0}, "in_channels must be 1 or more, found 0"),
            ({"width": 2, "convolution": "fourier"}, "out_channels must be at least in_channels = 3, found 2"),
            ({"temperature": 0.0}, r"temperature must be a finite number above 0, found 0\.0"),
            ({"margin": -1.0}, r"margin must be a finite number of 0 or more, found -1\.0"),
            ({"lipschitz": True, "radius": -1.0}, r"radius must be a finite number of 0 or more, found -1\.0"),
        ],
        ids=str,
    )
    def test_out_of_range_are_refused(self, options, message):
        with pytest.raises(ValueError, match=message):
            ImageClassifier(**options)

    def test_refuses_images_of_another_size_and_names_both(self):
        with pytest.raises(ValueError, match=r"images must be \(B, 1, 6, 5\), found \(2, 1, 5, 6\): set in_channels"):
            ImageClassifier(**SMALL)(torch.zeros(2, 1, 5, 6))

    def test_refuses_classes_beyond_its_own(self):
        with pytest.raises(ValueError, match="a target is no class below num_classes = 4"):
            ImageClassifier(**SMALL).training_step((torch.zeros(2, 1, 6, 5), torch.tensor([0, 4])), 0)


LIPSCHITZ = SMALL | {"lipschitz": True, "temperature": 0.125, "radius": 0.5, "size": (6, 6)}


class Halves(LightningDataModule):
    """Images of 6 x 6 whose upper or lower half is bright, as pixels without a scale."""

    def loader(self, seed):
        generator = torch.Generator().manual_seed(seed)
        labels = torch.randint(2, (256,), generator=generator)
        images = 0.3 * torch.rand(256, 1, 6, 6, generator=generator)
        for image, label in zip(images, labels.tolist(), strict=True):
            image[0, 3 * label : 3 * label + 3] += 0.5
        return DataLoader(TensorDataset(images, labels), batch_size=32)

    def train_dataloader(self):
        return self.loader(1)

    def val_dataloader(self):
        return self.loader(2)

    def test_dataloader(self):
        return self.loader(3)


class TestCertificates:
    def test_no_attack_within_the_radius_changes_a_certified_class(self):
        """A search by projected gradient steps from certified images, with the radius that their margins allow."""
        torch.manual_seed(0)
        model = ImageClassifier(**LIPSCHITZ, learning_rate=1e-2)
        trainer = Trainer(accelerator="cpu", callbacks=[ProjUNN()], max_epochs=8, **QUIET)
        trainer.fit(model, datamodule=Halves())
        assert {"val/certified_accuracy", "train/certified_accuracy"} <= set(trainer.callback_metrics)
        (result,) = trainer.test(model, datamodule=Halves(), verbose=False)
        assert 0.9 < result["test/certified_accuracy"] <= result["test/accuracy"]
        model.double().eval()
        x, y = (torch.cat(parts) for parts in zip(*Halves().test_dataloader(), strict=True))
        x = x.double()

        def margins(images):
            logits = model(images)
            right = logits.gather(1, y[:, None])[:, 0]
            return right - logits.scatter(1, y[:, None], -torch.inf).amax(1)

        margin = margins(x).detach()
        radius = margin / 2**0.5
        assert (radius > 0.5).float().mean() == pytest.approx(result["test/certified_accuracy"], abs=0.01)
        certified = radius > 0
        change = torch.zeros_like(x)
        for _ in range(30):
            change.requires_grad_()
            (gradient,) = torch.autograd.grad(margins(x + change).sum(), change)
            with torch.no_grad():
                change = change - gradient * (radius / 10)[:, None, None, None]
                norm = change.flatten(1).norm(dim=1)
                change = change * (radius / norm).clamp(max=1)[:, None, None, None]
        attacked = margins(x + change).detach()
        assert (attacked[certified] > -1e-6).all()
        assert (attacked[certified] < 0.7 * margin[certified]).float().mean() > 0.5  # the attack is strong

    def test_are_refused_once_a_weight_is_not_orthogonal(self):
        model = ImageClassifier(**LIPSCHITZ)
        trainer = Trainer(accelerator="cpu", max_epochs=1, num_sanity_val_steps=0, **QUIET)
        with pytest.raises(
            ValueError, match=r"not 1-Lipschitz: network\.body\.0\.0.* Train it with the callback ProjUNN"
        ):
            trainer.fit(model, datamodule=Halves())

    def test_need_images_that_are_not_divided_by_their_deviation(self):
        model = ImageClassifier("plain", 1, 28, width=4, depth=1, lipschitz=True)
        trainer = Trainer(accelerator="cpu", callbacks=[ProjUNN()], fast_dev_run=1, **QUIET)
        with pytest.warns(UserWarning, match="set its option standardize to false"):
            trainer.fit(model, datamodule=ImageClassification("rendered-digits"))

    def test_a_plain_network_has_none(self):
        model = ImageClassifier(**SMALL)
        trainer = Trainer(accelerator="cpu", **QUIET)
        (result,) = trainer.test(model, datamodule=Quadrants(), verbose=False)
        assert "test/certified_accuracy" not in result


class TestLoss:
    def test_is_the_cross_entropy_with_margin_and_temperature(self):
        output, target = torch.randn(5, 4), torch.tensor([0, 3, 1, 1, 2])
        shifted = output - 0.3 * nn.functional.one_hot(target, 4)
        expected = 0.25 * nn.functional.cross_entropy(shifted / 0.25, target)
        torch.testing.assert_close(
            ImageClassifier(**SMALL, margin=0.3, temperature=0.25).loss(output, target), expected
        )

    def test_is_the_plain_cross_entropy_by_default(self):
        output, target = torch.randn(5, 4), torch.tensor([0, 3, 1, 1, 2])
        assert torch.equal(ImageClassifier(**SMALL).loss(output, target), nn.functional.cross_entropy(output, target))

    @pytest.mark.parametrize(
        ("options", "comparable"), [({}, True), ({"margin": 0.3}, False), ({"temperature": 2.0}, False)]
    )
    def test_is_comparable_with_the_baseline_only_if_it_is_the_plain_cross_entropy(self, options, comparable):
        assert ImageClassifier(**SMALL, **options).comparable_loss == comparable
