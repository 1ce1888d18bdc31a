import torch

from projunn_lightning.functional import modrelu
from projunn_lightning.nn import ModReLU


def test_the_module_is_the_function_with_a_learnable_bias():
    module = ModReLU(5, dtype=torch.float64)
    torch.nn.init.normal_(module.bias)
    z = torch.randn(3, 5, dtype=torch.complex128)
    torch.testing.assert_close(module(z), modrelu(z, module.bias))
    assert repr(module) == "ModReLU(5)"


def test_is_made_on_the_meta_device_and_drawn_by_to_empty_and_reset_parameters():
    module = ModReLU(5, device="meta").to_empty(device="cpu")
    module.reset_parameters()
    assert torch.equal(module.bias, torch.zeros(5))
