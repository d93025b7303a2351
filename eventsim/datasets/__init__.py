"""Data sets: samples as plain data, evaluation over them here or on a cluster, and outcomes as rows of a file."""

from eventsim.datasets.evaluation import Evaluation
from eventsim.datasets.label_list import labelled_by, labelled_parts
from eventsim.datasets.outcome import LayerSum, Outcome, outcome_of
from eventsim.datasets.rows import RowsFile
from eventsim.datasets.running import evaluate
from eventsim.datasets.samples import (
    ArrayReference,
    Given,
    Sample,
    TonicReference,
    labelled_arrays,
    labelled_files,
    labelled_tonic,
    open_sample,
    part,
)

__all__ = [
    "ArrayReference",
    "Evaluation",
    "Given",
    "LayerSum",
    "Outcome",
    "RowsFile",
    "Sample",
    "TonicReference",
    "evaluate",
    "labelled_arrays",
    "labelled_by",
    "labelled_files",
    "labelled_parts",
    "labelled_tonic",
    "open_sample",
    "outcome_of",
    "part",
]
