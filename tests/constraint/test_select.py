import pytest
from torch import nn

from projunn_lightning import ConstraintError, orthogonal
from projunn_lightning.constraint import Constraint, left_out, select


class TestPatterns:
    def model(self):
        return nn.ModuleDict(
            {
                "encoder": nn.LSTM(3, 4, num_layers=2, proj_size=2),
                "gru": nn.GRU(3, 4),
                "attention": nn.MultiheadAttention(4, 2),
                "conv": nn.Conv2d(2, 4, 3),
                "depthwise": nn.Conv2d(4, 4, 3, groups=4),
                "head": nn.Linear(4, 2),
            }
        )

    def test_patterns_match_names_and_split_the_stacked_weights_of_torch(self):
        found = select(
            self.model(),
            ["encoder.weight_hh_l*", "gru.weight_*", "*in_proj_weight", "conv.weight", "depth*.weight", "head.w*"],
        )
        assert found == {
            "encoder.weight_hh_l0": Constraint(chunks=4),
            "encoder.weight_hh_l1": Constraint(chunks=4),
            "gru.weight_ih_l0": Constraint(chunks=3),
            "gru.weight_hh_l0": Constraint(chunks=3),
            "attention.in_proj_weight": Constraint(chunks=3),
            "conv.weight": Constraint(flatten=True),
            "depthwise.weight": Constraint(4, flatten=True),
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

    def test_parameters_that_are_not_matrices_are_left_out(self):
        model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
        assert list(select(model, ["*.weight"])) == ["0.weight"]
        assert left_out(model, ["*.weight"]) == ["1.weight"]
        assert left_out(model, ["0.*", "1.b*"]) == ["0.bias", "1.bias"]

    def test_a_pattern_that_matches_only_them_is_refused(self):
        message = r"'head\.b\*' matches only parameters of ModuleDict that are no matrices: head\.bias has shape \(2,\)"
        with pytest.raises(ConstraintError, match=message):
            select(self.model(), ["head.w*", "head.b*"])

    @pytest.mark.parametrize("pattern", ["enc[0].weight", "enc[0].*", "*[0].weight", "*.weight", "enc?0?.weight"])
    def test_a_name_with_brackets(self, pattern):
        model = nn.ModuleDict({"enc[0]": nn.Linear(4, 4)})
        assert list(select(model, [pattern])) == ["enc[0].weight"]

    def test_brackets_are_a_set_of_characters_too(self):
        assert list(select(nn.LSTM(3, 4), ["weight_[ih]h_l[!1-9]"])) == ["weight_ih_l0", "weight_hh_l0"]

    @pytest.mark.parametrize(
        ("pattern", "found"),
        [
            ("encoder.*.weight_hh_l*", ["encoder.weight_hh_l0", "encoder.weight_hh_l1"]),
            ("*.encoder.*.weight_hh_l1", ["encoder.weight_hh_l1"]),
            ("*.out_proj.*.weight", ["attention.out_proj.weight"]),
        ],
    )
    def test_a_star_between_dots_stands_for_any_number_of_modules(self, pattern, found):
        assert list(select(self.model(), [pattern])) == found
        assert list(select(nn.ModuleDict({"model": self.model()}), [f"*.{pattern}"])) == [f"model.{n}" for n in found]

    def test_a_star_at_the_end_stands_for_a_name(self):
        with pytest.raises(ConstraintError, match="matches no parameter"):
            select(nn.Linear(3, 3), ["weight.*"])

    @pytest.mark.parametrize("kind", [nn.Embedding, nn.EmbeddingBag])
    def test_an_embedding_that_shortens_its_rows_is_refused(self, kind):
        model = nn.ModuleDict({"words": kind(5, 3, max_norm=1.0)})
        with pytest.raises(ConstraintError, match=rf"words\.weight belongs to an {kind.__name__} with max_norm=1\.0"):
            select(model, ["*.weight"])
        assert select(nn.ModuleDict({"words": kind(5, 3)}), ["*.weight"])


class TestChunks:
    def test_of_all_that_a_pattern_chooses(self):
        model = nn.ModuleList([nn.Linear(4, 8), nn.MultiheadAttention(8, 2)])
        assert select(model, ["0.weight", "1.in_proj_weight"], 4) == {
            "0.weight": Constraint(4),
            "1.in_proj_weight": Constraint(4),
        }
        assert select(model, ["0.weight"], (4, 2, 2)) == {"0.weight": Constraint((4, 2, 2))}

    def test_that_do_not_fit_are_refused_with_the_name_of_the_weight(self):
        model = nn.ModuleList([nn.Linear(4, 8), nn.Linear(4, 9)])
        with pytest.raises(ConstraintError, match=r"1\.weight has 9 rows, which cannot be divided into 4 equal chunks"):
            select(model, ["*.weight"], 4)
        with pytest.raises(ConstraintError, match=r"1\.weight has 9 rows, and its chunks \[4, 4\] have 8"):
            select(model, ["*.weight"], (4, 4))

    def test_that_contradict_a_declaration_are_refused(self):
        model = nn.ModuleList([orthogonal(nn.Linear(4, 8), chunks=2)])
        assert select(model, ["*.weight"], (4, 4)) == {"0.weight": Constraint((4, 4))}  # the same matrices
        with pytest.raises(ConstraintError, match=r"0\.weight is declared orthogonal with chunks=2, and a .* chunks=4"):
            select(model, ["*.weight"], 4)
