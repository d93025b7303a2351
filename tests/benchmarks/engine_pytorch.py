"""PyTorch: eager, and compiled by its inductor where a C++ compiler is found."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable

import dense
import torch
from measure import Array, Engine, Job, MissingEngine, Workload, timed
from torch import Tensor


def _jobs(workload: Workload, batches: list[list[int]], wrap: Callable[[torch.nn.Module], Callable]) -> list[Job]:
    inputs = [torch.from_numpy(workload.dense([workload.samples[i] for i in batch])) for batch in batches]
    model = wrap(dense.prepared(workload.model, inputs[0]))

    def call(x: Tensor) -> Callable[[], Array]:
        def function() -> Array:
            with torch.inference_mode():
                return model(x).numpy()

        return function

    return [timed(call(x)) for x in inputs]


def eager(workload: Workload, batches: list[list[int]]) -> list[Job]:
    return _jobs(workload, batches, lambda model: model)


def compiled(workload: Workload, batches: list[list[int]]) -> list[Job]:
    """Compile for the one shape, with the weights as constants."""
    if not any(map(shutil.which, ("c++", "g++", "clang++"))):
        raise MissingEngine("no C++ compiler on PATH, which torch.compile needs")
    import torch._inductor.config as inductor

    torch._logging.set_logs(all=logging.ERROR)  # where it cannot compile all of a graph it says so at length
    inductor.freezing = True
    torch._dynamo.reset()
    return _jobs(workload, batches, lambda model: torch.compile(model, dynamic=False))


ENGINES = (Engine("PyTorch eager", True, eager), Engine("PyTorch compiled", True, compiled))
