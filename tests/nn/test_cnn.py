from itertools import product

import pytest
import torch
from torch import nn

from examples.lipschitz import largest_ratio
from projunn_lightning import Projector
from projunn_lightning.constraint import declared
from projunn_lightning.functional import unitarity_error
from projunn_lightning.nn import (
    ACTIVATIONS,
    ARCHITECTURES,
    CONVOLUTIONS,
    CNNOptions,
    FourierConv2d,
    OrthogonalConv2d,
    PlainCNN,
    ResNet9,
)

KINDS = {"orthogonal": OrthogonalConv2d, "fourier": FourierConv2d, "plain": nn.Conv2d}
every_convolution = pytest.mark.parametrize("convolution", CONVOLUTIONS)
every_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES.values())


def convolutions(network):
    return [m for m in network.modules() if isinstance(m, tuple(KINDS.values()))]


@every_architecture
class TestEveryArchitecture:
    @every_convolution
    def test_maps_images_to_logits_by_the_convolutions_chosen(self, architecture, convolution):
        network = architecture(2, 3, (16, 17), width=4, convolution=convolution)
        assert network(torch.randn(5, 2, 16, 17)).shape == (5, 3)
        assert {type(c) for c in convolutions(network)} == {KINDS[convolution]}
        assert convolutions(network)[0].out_channels == 4

    def test_starts_from_the_identity_where_the_number_of_channels_stays(self, architecture):
        for convolution, init in product(("orthogonal", "fourier"), ("identity", "haar")):
            for layer in convolutions(architecture(1, 2, (16, 16), width=4, init=init, convolution=convolution)):
                side = layer.size[0] if convolution == "fourier" else 6
                x = torch.randn(2, layer.in_channels, side, side)
                y = layer(x)
                is_identity = y.shape == x.shape and torch.allclose(y, x, atol=1e-5)
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


@every_convolution
class TestResNet9:
    @pytest.mark.parametrize(("size", "features"), [((32, 32), 1024), ((28, 28), 256), ((16, 35), 512)])
    def test_is_the_papers_network(self, convolution, size, features):
        network = ResNet9(3, 10, size, convolution=convolution)
        channels = [(c.in_channels, c.out_channels) for c in convolutions(network)]
        assert channels == [
            (3, 64), (64, 128), (128, 128), (128, 128), (128, 256), (256, 256), (256, 256), (256, 256)
        ]  # fmt: skip
        assert network.classifier.in_features == features
        assert network(torch.randn(2, 3, *size)).shape == (2, 10)

    def test_scales_with_its_width(self, convolution):
        network = ResNet9(1, 4, (16, 17), width=3, convolution=convolution)
        assert [c.out_channels for c in convolutions(network)] == [3, 6, 6, 6, 12, 12, 12, 12]

    def test_has_skips_that_add(self, convolution):
        network = ResNet9(1, 2, (16, 16), width=2, convolution=convolution).eval()
        skips = [m for m in network.body if type(m).__name__ == "Residual"]
        assert len(skips) == 2
        x = torch.randn(1, 4, 8, 8)
        torch.testing.assert_close(skips[0](x), x + skips[0][1](skips[0][0](x)))

    def test_refuses_images_below_16(self, convolution):
        with pytest.raises(ValueError, match="size must be 16 or more, found 15"):
            ResNet9(3, 10, (32, 15), convolution=convolution)

    def test_refuses_a_depth(self, convolution):
        with pytest.raises(ValueError, match="ResNet9 has eight convolutions; leave out depth, found 5"):
            ResNet9(3, 10, (32, 32), depth=5, convolution=convolution)


class TestPlainCNN:
    @every_convolution
    @pytest.mark.parametrize("size", [(6, 6), (5, 8)])
    @pytest.mark.parametrize("depth", [1, 4])
    def test_has_the_depth_and_the_width_asked_for(self, convolution, size, depth):
        network = PlainCNN(2, 3, size, depth=depth, width=5, convolution=convolution)
        assert [c.out_channels for c in convolutions(network)] == [5] * depth
        assert network(torch.randn(2, 2, *size)).shape == (2, 3)

    def test_has_ten_convolutions_of_32_channels_by_default(self):
        assert [c.out_channels for c in convolutions(PlainCNN(1, 2, (6, 6)))] == [32] * 10

    def test_refuses_a_depth_of_0(self):
        with pytest.raises(ValueError, match="depth must be 1 or more, found 0"):
            PlainCNN(1, 2, (6, 6), depth=0)

    def test_refuses_fourier_convolutions_that_narrow(self):
        with pytest.raises(ValueError, match="out_channels must be at least in_channels = 3, found 2"):
            PlainCNN(3, 2, (6, 6), width=2, convolution="fourier")

    @pytest.mark.parametrize("convolution", ["orthogonal", "fourier"])
    def test_passes_a_signal_through_many_layers_that_start_from_the_identity(self, convolution):
        """Two inputs keep their difference; after layers that start from Haar they look alike."""
        x = torch.randn(64, 1, 8, 8)
        spread = {}
        for init in ("identity", "haar"):
            torch.manual_seed(0)
            features = PlainCNN(1, 2, (8, 8), depth=40, width=8, init=init, convolution=convolution).body(x).flatten(1)
            spread[init] = (features.var(0).sum() / features.square().mean(0).sum()).item()
        assert spread["haar"] < 0.75 < 0.9 < spread["identity"]

    @pytest.mark.parametrize("convolution", ["orthogonal", "fourier"])
    def test_keeps_every_matrix_unitary_in_training(self, convolution):
        network = PlainCNN(1, 3, (6, 7), depth=5, width=4, convolution=convolution)
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
        stacks = [network.get_parameter(name).detach() for name in declared(network)]
        assert max(unitarity_error(stack).max().item() for stack in stacks) < 1e-5
        assert len(projector.constraints) == len(stacks)


LIPSCHITZ = [
    pytest.param(
        architecture,
        convolution,
        pooling,
        id=f"{name}-{convolution}-{pooling}",
        marks=pytest.mark.slow if name == "plain" and pooling != "strided" else (),
    )
    for name, architecture in ARCHITECTURES.items()
    for convolution in ("orthogonal", "fourier")
    for pooling in ("average", "norm", "strided")
]


class TestLipschitzNetworks:
    @pytest.mark.parametrize(("architecture", "convolution", "pooling"), LIPSCHITZ)
    def test_a_search_finds_no_pair_of_images_whose_outputs_are_further_apart(self, architecture, convolution, pooling):
        options = {"width": 4, "lipschitz": True, "convolution": convolution, "pooling": pooling}
        network = architecture(2, 5, (16, 16), **options)
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
        Projector(network).attach(optimizer)
        x, y = torch.randn(32, 2, 16, 16), torch.randint(5, (32,))
        for _ in range(10):
            optimizer.zero_grad()
            nn.functional.cross_entropy(8 * network(x), y).backward()
            optimizer.step()
        ratio = largest_ratio(network.double(), x.double(), rounds=30)
        assert ratio < 1 + 1e-5
        if pooling != "average":
            assert ratio > 0.3  # the search finds something

    @pytest.mark.parametrize("activation", ACTIVATIONS)
    def test_have_every_activation_and_no_batch_normalisation(self, activation):
        network = PlainCNN(2, 5, (6, 6), width=4, depth=3, lipschitz=True, activation=activation)
        assert sum(isinstance(m, ACTIVATIONS[activation]) for m in network.modules()) == 3
        assert not any(isinstance(m, nn.BatchNorm2d) for m in network.modules())
        assert {"classifier.weight", "body.0.0.weight", "body.0.0.bases"} <= set(declared(network))

    def test_a_strided_pooling_keeps_the_norm_of_the_gradient_by_an_orthogonal_matrix(self):
        pool = CNNOptions(lipschitz=True).pool(4)
        assert torch.linalg.svdvals(pool.kernel().flatten(1)).sub(1).abs().max() < 1e-5
        assert pool(torch.randn(2, 4, 7, 6)).shape == (2, 4, 3, 3)

    def test_refuse_ordinary_convolutions(self):
        with pytest.raises(ValueError, match=r"a 1-Lipschitz network needs orthogonal convolutions: .* found plain"):
            PlainCNN(1, 2, (6, 6), lipschitz=True, convolution="plain")


@pytest.mark.parametrize(
    ("option", "value"), [("convolution", "wide"), ("pooling", "max"), ("activation", "gelu"), ("init", "xavier")]
)
def test_an_unknown_option_is_refused_with_the_choices(option, value):
    with pytest.raises(ValueError, match=f"unknown {option} '{value}', expected one of"):
        PlainCNN(1, 2, (6, 6), **{option: value})
