"""Recurrent layers of other methods, to compare with projUNN.

Each file holds one parametrization of a unitary matrix and the recurrent layers that use it. They are listed in
:data:`projunn_lightning.nn.RNNS`.
"""
