import torch

from projunn_lightning.functional import modrelu
from projunn_lightning.nn import ModReLU


def test_the_module_is_the_function_with_a_learnable_bias():
    module = ModReLU(5, dtype=torch.float64)
    torch.nn.init.normal_(module.bias)
    z = torch.randn(3, 5, dtype=torch.complex128)
    torch.testing.assert_close(module(z), modrelu(z, module.bias))
    assert repr(module) == "ModReLU(5)"
