import pytest
from torch import nn

from projunn_lightning import ConstraintError, orthogonal
from projunn_lightning.constraint import Constraint, select


class TestPatterns:
    def model(self):
        return nn.ModuleDict(
            {
                "encoder": nn.LSTM(3, 4, num_layers=2, proj_size=2),
                "gru": nn.GRU(3, 4),
                "attention": nn.MultiheadAttention(4, 2),
                "conv": nn.Conv2d(2, 4, 3),
                "head": nn.Linear(4, 2),
            }
        )

    def test_patterns_match_names_and_split_the_stacked_weights_of_torch(self):
        found = select(
            self.model(), ["encoder.weight_hh_l*", "gru.weight_*", "*in_proj_weight", "conv.weight", "head.w*"]
        )
        assert found == {
            "encoder.weight_hh_l0": Constraint(chunks=4),
            "encoder.weight_hh_l1": Constraint(chunks=4),
            "gru.weight_ih_l0": Constraint(chunks=3),
            "gru.weight_hh_l0": Constraint(chunks=3),
            "attention.in_proj_weight": Constraint(chunks=3),
            "conv.weight": Constraint(flatten=True),
            "head.weight": Constraint(),
        }

    def test_the_projection_of_an_lstm_is_not_stacked(self):
        assert select(self.model(), ["encoder.weight_hr_l0"]) == {"encoder.weight_hr_l0": Constraint()}

    def test_a_declaration_takes_precedence(self):
        model = self.model()
        orthogonal(model["encoder"], "weight_hh_l0", chunks=1)
        assert select(model, ["*.weight_hh_l0"])["encoder.weight_hh_l0"] == Constraint(chunks=1)

    def test_a_pattern_that_matches_nothing_lists_near_misses(self):
        with pytest.raises(ConstraintError, match=r"'encodr.weight_hh' matches no parameter.*encoder.weight_hh_l0"):
            select(self.model(), ["encodr.weight_hh"])

    def test_a_pattern_that_matches_a_bias_is_refused(self):
        with pytest.raises(ConstraintError, match=r"head.bias has shape \(2,\).*Narrow the pattern"):
            select(self.model(), ["head.*"])
