"""How matrices are held, and small dense algebra."""

from projunn_lightning.linalg.random import generator_for

__all__ = ["generator_for"]
