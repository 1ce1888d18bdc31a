"""Lightning callbacks: the method, its monitor, a writer of predictions and the state of random numbers."""

from projunn_lightning.callbacks.prediction_writer import PredictionWriter
from projunn_lightning.callbacks.projunn import ProjUNN
from projunn_lightning.callbacks.rng_state import RNGState
from projunn_lightning.callbacks.unitarity_monitor import UnitarityMonitor

__all__ = ["PredictionWriter", "ProjUNN", "RNGState", "UnitarityMonitor"]
