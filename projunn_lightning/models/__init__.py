"""LightningModules."""

from projunn_lightning.models.sequence import SequenceModel
from projunn_lightning.models.unitary_match import UnitaryMatch

__all__ = ["SequenceModel", "UnitaryMatch"]
