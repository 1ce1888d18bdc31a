"""Tasks as LightningDataModules, and the base classes for tasks of one's own."""

from projunn_lightning.data.adding import AddingProblem
from projunn_lightning.data.batches import Batches, Sample
from projunn_lightning.data.copying import CopyingMemory
from projunn_lightning.data.image_classification import ImageClassification
from projunn_lightning.data.image_task import ImageTask
from projunn_lightning.data.pixel_sequence import PixelSequence
from projunn_lightning.data.random_unitary import RandomUnitary
from projunn_lightning.data.synthetic import SyntheticTask
from projunn_lightning.data.task import Task

TASKS: dict[str, type[Task]] = {
    task.__name__: task for task in (AddingProblem, CopyingMemory, ImageClassification, PixelSequence, RandomUnitary)
}
"""The tasks by name."""

__all__ = [
    "TASKS",
    "AddingProblem",
    "Batches",
    "CopyingMemory",
    "ImageClassification",
    "ImageTask",
    "PixelSequence",
    "RandomUnitary",
    "Sample",
    "SyntheticTask",
    "Task",
]
