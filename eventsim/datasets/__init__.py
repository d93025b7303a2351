"""Data sets: samples as plain data, and evaluation over them."""

from eventsim.datasets.evaluation import Evaluation, LayerSum, Outcome, evaluate
from eventsim.datasets.label_list import labelled_parts
from eventsim.datasets.samples import Sample, TonicReference, labelled_files, labelled_tonic, open_sample

__all__ = [
    "Evaluation",
    "LayerSum",
    "Outcome",
    "Sample",
    "TonicReference",
    "evaluate",
    "labelled_files",
    "labelled_parts",
    "labelled_tonic",
    "open_sample",
]
