"""The primitives that networks are composed of, one file each, in rooms by what they do.

``synapses`` multiply by weights, ``neurons`` fire, ``attention`` lets positions attend to each other, ``pooling``
brings several positions or channels down to one, ``joins`` have two inputs, ``scaling`` acts element by element,
``shapes`` only rearranges, ``time`` mixes time steps. `Input` and `Readout` are the two ends of every network.
"""

from eventsim.layers.attention.global_context import GlobalContext
from eventsim.layers.attention.softmax_attention import SoftmaxAttention
from eventsim.layers.attention.spiking_attention import SpikingAttention
from eventsim.layers.attention.table_attention import TableAttention
from eventsim.layers.input import Input
from eventsim.layers.joins.concat import Concat
from eventsim.layers.joins.gate import Gate
from eventsim.layers.joins.integer_residual import IntegerResidual
from eventsim.layers.joins.residual import Residual
from eventsim.layers.layer import Layer, LayerError, Op
from eventsim.layers.neurons.adaptive_lif import AdaptiveLIF
from eventsim.layers.neurons.decay_lif import DecayLIF
from eventsim.layers.neurons.integer_activation import IntegerActivation
from eventsim.layers.neurons.integer_lif import IntegerLIF
from eventsim.layers.neurons.leaky_integrator import LeakyIntegrator
from eventsim.layers.neurons.pliaf import PLIAF
from eventsim.layers.neurons.spiking import IF, LIF, PLIF
from eventsim.layers.neurons.threshold import Threshold
from eventsim.layers.pooling.adaptive_avg_pool2d import AdaptiveAvgPool2d
from eventsim.layers.pooling.adaptive_max_pool2d import AdaptiveMaxPool2d
from eventsim.layers.pooling.attention_pool import AttentionPool
from eventsim.layers.pooling.avg_pool2d import AvgPool2d
from eventsim.layers.pooling.max_pool2d import MaxPool2d
from eventsim.layers.pooling.mean_over_positions import MeanOverPositions
from eventsim.layers.pooling.sum_over_channels import SumOverChannels
from eventsim.layers.pooling.sum_over_positions import SumOverPositions
from eventsim.layers.pooling.sum_pool2d import SumPool2d
from eventsim.layers.readout import Readout
from eventsim.layers.scaling.activation import Activation
from eventsim.layers.scaling.affine import Affine
from eventsim.layers.scaling.layer_norm import LayerNorm
from eventsim.layers.scaling.position_encoding import PositionEncoding
from eventsim.layers.shapes.flatten import Flatten
from eventsim.layers.shapes.rearrange import Rearrange
from eventsim.layers.shapes.reshape import Reshape
from eventsim.layers.shapes.select_channels import SelectChannels
from eventsim.layers.synapses.conv2d import Conv2d
from eventsim.layers.synapses.conv3d import Conv3d
from eventsim.layers.synapses.integer_conv2d import IntegerConv2d
from eventsim.layers.synapses.integer_conv3d import IntegerConv3d
from eventsim.layers.synapses.integer_linear import IntegerLinear
from eventsim.layers.synapses.integer_windowed_linear import IntegerWindowedLinear
from eventsim.layers.synapses.linear import Linear
from eventsim.layers.synapses.sparse_linear import SparseLinear
from eventsim.layers.synapses.windowed_linear import WindowedLinear
from eventsim.layers.time.crop_over_time import CropOverTime
from eventsim.layers.time.delay_each import DelayEach
from eventsim.layers.time.join_over_time import JoinOverTime
from eventsim.layers.time.mean_over_time import MeanOverTime
from eventsim.layers.time.slice_over_time import SliceOverTime
from eventsim.layers.time.tile_over_time import TileOverTime

__all__ = [
    "IF",
    "LIF",
    "PLIAF",
    "PLIF",
    "Activation",
    "AdaptiveAvgPool2d",
    "AdaptiveLIF",
    "AdaptiveMaxPool2d",
    "Affine",
    "AttentionPool",
    "AvgPool2d",
    "Concat",
    "Conv2d",
    "Conv3d",
    "CropOverTime",
    "DecayLIF",
    "DelayEach",
    "Flatten",
    "Gate",
    "GlobalContext",
    "Input",
    "IntegerActivation",
    "IntegerConv2d",
    "IntegerConv3d",
    "IntegerLIF",
    "IntegerLinear",
    "IntegerResidual",
    "IntegerWindowedLinear",
    "JoinOverTime",
    "Layer",
    "LayerError",
    "LayerNorm",
    "LeakyIntegrator",
    "Linear",
    "MaxPool2d",
    "MeanOverPositions",
    "MeanOverTime",
    "Op",
    "PositionEncoding",
    "Readout",
    "Rearrange",
    "Reshape",
    "Residual",
    "SelectChannels",
    "SliceOverTime",
    "SoftmaxAttention",
    "SparseLinear",
    "SpikingAttention",
    "SumOverChannels",
    "SumOverPositions",
    "SumPool2d",
    "TableAttention",
    "Threshold",
    "TileOverTime",
    "WindowedLinear",
]
