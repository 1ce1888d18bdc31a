"""LightningModules: sequence tasks, image classification and the recovery of a unitary matrix."""

from projunn_lightning.models.certified_accuracy import CertifiedAccuracy
from projunn_lightning.models.image_classifier import ImageClassifier
from projunn_lightning.models.sequence import SequenceModel
from projunn_lightning.models.unitary_match import UnitaryMatch

__all__ = ["CertifiedAccuracy", "ImageClassifier", "SequenceModel", "UnitaryMatch"]
