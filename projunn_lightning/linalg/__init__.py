"""The classes that hold matrices, and the algebra of small dense matrices."""

from projunn_lightning.linalg.dense import Dense, nearest_unitary, newton_schulz
from projunn_lightning.linalg.holders import matrices_of
from projunn_lightning.linalg.matrices import Matrices
from projunn_lightning.linalg.precision import full_precision
from projunn_lightning.linalg.random import Generators, draw_, generator_for, seed_for
from projunn_lightning.linalg.sharded import gathered, reshard, scattered_
from projunn_lightning.linalg.small import exp_minus_identity, identity, orthonormalise, polar

__all__ = [
    "Dense",
    "Generators",
    "Matrices",
    "draw_",
    "exp_minus_identity",
    "full_precision",
    "gathered",
    "generator_for",
    "identity",
    "matrices_of",
    "nearest_unitary",
    "newton_schulz",
    "orthonormalise",
    "polar",
    "reshard",
    "scattered_",
    "seed_for",
]
