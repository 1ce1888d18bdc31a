"""LightningModules: sequence tasks, image classification and the recovery of a unitary matrix."""

from projunn_lightning.models.image_classifier import ImageClassifier
from projunn_lightning.models.sequence import SequenceModel
from projunn_lightning.models.unitary_match import UnitaryMatch

__all__ = ["ImageClassifier", "SequenceModel", "UnitaryMatch"]
