"""The primitives that networks are composed of, one file each."""

from eventsim.layers.affine import Affine
from eventsim.layers.avg_pool2d import AvgPool2d
from eventsim.layers.conv2d import Conv2d
from eventsim.layers.flatten import Flatten
from eventsim.layers.input import Input
from eventsim.layers.layer import Layer, LayerError, Op
from eventsim.layers.linear import Linear
from eventsim.layers.max_pool2d import MaxPool2d
from eventsim.layers.mean_over_positions import MeanOverPositions
from eventsim.layers.mean_over_time import MeanOverTime
from eventsim.layers.neuron import IF, LIF, PLIF
from eventsim.layers.readout import Readout
from eventsim.layers.residual import Residual
from eventsim.layers.sparse_linear import SparseLinear
from eventsim.layers.spiking_attention import SpikingAttention
from eventsim.layers.sum_pool2d import SumPool2d

__all__ = [
    "IF",
    "LIF",
    "PLIF",
    "Affine",
    "AvgPool2d",
    "Conv2d",
    "Flatten",
    "Input",
    "Layer",
    "LayerError",
    "Linear",
    "MaxPool2d",
    "MeanOverPositions",
    "MeanOverTime",
    "Op",
    "Readout",
    "Residual",
    "SparseLinear",
    "SpikingAttention",
    "SumPool2d",
]
