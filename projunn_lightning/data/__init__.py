"""LightningDataModules of the tasks."""

from projunn_lightning.data.adding import AddingProblem
from projunn_lightning.data.copying import CopyingMemory
from projunn_lightning.data.image_classification import ImageClassification
from projunn_lightning.data.pixel_sequence import PixelSequence
from projunn_lightning.data.random_unitary import RandomUnitary

__all__ = ["AddingProblem", "CopyingMemory", "ImageClassification", "PixelSequence", "RandomUnitary"]
