import pytest
import torch
from torch import nn

from projunn_lightning import Projector
from projunn_lightning.constraint import declared
from projunn_lightning.functional import unitarity_error
from projunn_lightning.nn import ARCHITECTURES, FourierConv2d, PlainCNN, ResNet9

KINDS = {True: FourierConv2d, False: nn.Conv2d}
either_convolution = pytest.mark.parametrize("orthogonal", [True, False])
every_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES.values())


def convolutions(network):
    return [m for m in network.modules() if isinstance(m, (FourierConv2d, nn.Conv2d))]


@every_architecture
class TestEveryArchitecture:
    @either_convolution
    def test_maps_images_to_logits_by_the_convolutions_chosen(self, architecture, orthogonal):
        network = architecture(2, 3, (16, 17), width=4, orthogonal=orthogonal)
        assert network(torch.randn(5, 2, 16, 17)).shape == (5, 3)
        assert {type(c) for c in convolutions(network)} == {KINDS[orthogonal]}
        assert convolutions(network)[0].out_channels == 4

    def test_starts_from_the_identity_where_the_number_of_channels_stays(self, architecture):
        for init in ("identity", "haar"):
            for layer in convolutions(architecture(1, 2, (16, 16), width=4, init=init)):
                spectrum = layer.spectrum()
                is_identity = torch.equal(spectrum, torch.eye(*spectrum.shape[1:]).expand_as(spectrum) + 0j)
                assert is_identity == (init == "identity" and layer.in_channels == layer.out_channels)

    def test_is_made_on_the_meta_device_and_drawn_by_to_empty_and_reset_parameters(self, architecture):
        with torch.device("meta"):
            network = architecture(1, 2, (16, 16), width=4)
        network.to_empty(device="cpu")
        for module in network.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
        assert torch.isfinite(network(torch.randn(2, 1, 16, 16))).all()
        constraints = declared(network)
        assert constraints == declared(architecture(1, 2, (16, 16), width=4))
        assert all(unitarity_error(network.get_parameter(name).detach()).max() < 1e-5 for name in constraints)

    @pytest.mark.usefixtures("double_by_default")
    def test_has_the_default_dtype(self, architecture):
        assert architecture(1, 2, (16, 16), width=4)(torch.randn(2, 1, 16, 16)).dtype == torch.float64

    def test_refuses_a_width_of_0(self, architecture):
        with pytest.raises(ValueError, match="width must be 1 or more, found 0"):
            architecture(1, 2, (16, 16), width=0)

    def test_refuses_an_option_that_it_does_not_have(self, architecture):
        with pytest.raises(TypeError, match="unexpected keyword argument 'widht'"):
            architecture(1, 2, (16, 16), widht=3)


@either_convolution
class TestResNet9:
    @pytest.mark.parametrize(("size", "features"), [((32, 32), 1024), ((28, 28), 256), ((16, 35), 512)])
    def test_is_the_papers_network(self, orthogonal, size, features):
        network = ResNet9(3, 10, size, orthogonal=orthogonal)
        channels = [(c.in_channels, c.out_channels) for c in convolutions(network)]
        assert channels == [
            (3, 64), (64, 128), (128, 128), (128, 128), (128, 256), (256, 256), (256, 256), (256, 256)
        ]  # fmt: skip
        assert network.classifier.in_features == features
        assert network(torch.randn(2, 3, *size)).shape == (2, 10)

    def test_scales_with_its_width(self, orthogonal):
        network = ResNet9(1, 4, (16, 17), width=3, orthogonal=orthogonal)
        assert [c.out_channels for c in convolutions(network)] == [3, 6, 6, 6, 12, 12, 12, 12]

    def test_has_skips_that_add(self, orthogonal):
        network = ResNet9(1, 2, (16, 16), width=2, orthogonal=orthogonal).eval()
        skips = [m for m in network.body if type(m).__name__ == "Residual"]
        assert len(skips) == 2
        x = torch.randn(1, 4, 8, 8)
        torch.testing.assert_close(skips[0](x), x + skips[0][1](skips[0][0](x)))

    def test_refuses_images_below_16(self, orthogonal):
        with pytest.raises(ValueError, match="size must be 16 or more, found 15"):
            ResNet9(3, 10, (32, 15), orthogonal=orthogonal)

    def test_refuses_a_depth(self, orthogonal):
        with pytest.raises(ValueError, match="ResNet9 has eight convolutions; leave out depth, found 5"):
            ResNet9(3, 10, (32, 32), depth=5, orthogonal=orthogonal)


class TestPlainCNN:
    @either_convolution
    @pytest.mark.parametrize("size", [(6, 6), (5, 8)])
    @pytest.mark.parametrize("depth", [1, 4])
    def test_has_the_depth_and_the_width_asked_for(self, orthogonal, size, depth):
        network = PlainCNN(2, 3, size, depth=depth, width=5, orthogonal=orthogonal)
        assert [c.out_channels for c in convolutions(network)] == [5] * depth
        assert network(torch.randn(2, 2, *size)).shape == (2, 3)

    def test_has_ten_convolutions_of_32_channels_by_default(self):
        assert [c.out_channels for c in convolutions(PlainCNN(1, 2, (6, 6)))] == [32] * 10

    def test_refuses_a_depth_of_0(self):
        with pytest.raises(ValueError, match="depth must be 1 or more, found 0"):
            PlainCNN(1, 2, (6, 6), depth=0)

    def test_refuses_orthogonal_convolutions_that_narrow(self):
        with pytest.raises(ValueError, match="out_channels must be at least in_channels = 3, found 2"):
            PlainCNN(3, 2, (6, 6), width=2)

    def test_passes_a_signal_through_many_layers_that_start_from_the_identity(self):
        """Two inputs keep their difference; after layers that start from Haar they look alike."""
        x = torch.randn(64, 1, 8, 8)
        spread = {}
        for init in ("identity", "haar"):
            torch.manual_seed(0)
            features = PlainCNN(1, 2, (8, 8), depth=40, width=8, init=init).body(x).flatten(1)
            spread[init] = (features.var(0).sum() / features.square().mean(0).sum()).item()
        assert spread["haar"] < 0.6 < 0.9 < spread["identity"]

    def test_keeps_every_matrix_unitary_in_training(self):
        network = PlainCNN(1, 3, (6, 7), depth=5, width=4)
        optimizer = torch.optim.RMSprop(network.parameters(), lr=1e-2)
        projector = Projector(network).attach(optimizer)
        x, y = torch.randn(32, 1, 6, 7), torch.randint(3, (32,))
        losses = []
        for _ in range(30):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(network(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < 0.5 * losses[0]
        stacks = [p for c in convolutions(network) for p in (c.weight, c.weight_real)]
        assert max(unitarity_error(stack).max().item() for stack in stacks) < 1e-5
        assert len(projector.constraints) == len(stacks)
