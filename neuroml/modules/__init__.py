"""Flax modules, and the adapters that make pure functions of them."""

from neuroml.modules.condensate_memory import CondensateMemory, Remembered
from neuroml.modules.network import Network, from_linen, from_nnx, standardized
from neuroml.modules.reference import CNN, MLP, cnn, mlp

__all__ = [
    "CNN",
    "MLP",
    "CondensateMemory",
    "Network",
    "Remembered",
    "cnn",
    "from_linen",
    "from_nnx",
    "mlp",
    "standardized",
]
