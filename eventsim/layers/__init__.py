"""The primitives that networks are composed of, one file each."""

from eventsim.layers.adaptive_lif import AdaptiveLIF
from eventsim.layers.affine import Affine
from eventsim.layers.attention_pool import AttentionPool
from eventsim.layers.avg_pool2d import AvgPool2d
from eventsim.layers.concat import Concat
from eventsim.layers.conv2d import Conv2d
from eventsim.layers.conv3d import Conv3d
from eventsim.layers.flatten import Flatten
from eventsim.layers.global_context import GlobalContext
from eventsim.layers.input import Input
from eventsim.layers.layer import Layer, LayerError, Op
from eventsim.layers.layer_norm import LayerNorm
from eventsim.layers.linear import Linear
from eventsim.layers.max_pool2d import MaxPool2d
from eventsim.layers.mean_over_positions import MeanOverPositions
from eventsim.layers.mean_over_time import MeanOverTime
from eventsim.layers.neuron import IF, LIF, PLIF
from eventsim.layers.pliaf import PLIAF
from eventsim.layers.position_encoding import PositionEncoding
from eventsim.layers.readout import Readout
from eventsim.layers.residual import Residual
from eventsim.layers.slice_over_time import SliceOverTime
from eventsim.layers.softmax_attention import SoftmaxAttention
from eventsim.layers.sparse_linear import SparseLinear
from eventsim.layers.spiking_attention import SpikingAttention
from eventsim.layers.sum_pool2d import SumPool2d
from eventsim.layers.table_attention import TableAttention
from eventsim.layers.threshold import Threshold
from eventsim.layers.tile_over_time import TileOverTime
from eventsim.layers.windowed_linear import WindowedLinear

__all__ = [
    "IF",
    "LIF",
    "PLIAF",
    "PLIF",
    "AdaptiveLIF",
    "Affine",
    "AttentionPool",
    "AvgPool2d",
    "Concat",
    "Conv2d",
    "Conv3d",
    "Flatten",
    "GlobalContext",
    "Input",
    "Layer",
    "LayerError",
    "LayerNorm",
    "Linear",
    "MaxPool2d",
    "MeanOverPositions",
    "MeanOverTime",
    "Op",
    "PositionEncoding",
    "Readout",
    "Residual",
    "SliceOverTime",
    "SoftmaxAttention",
    "SparseLinear",
    "SpikingAttention",
    "SumPool2d",
    "TableAttention",
    "Threshold",
    "TileOverTime",
    "WindowedLinear",
]
