"""OpenVINO on the exported graph: float32 (its default on new CPUs would be bfloat16), and int8 by NNCF."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from importlib.util import find_spec
from typing import Any

from engine_onnxruntime import calibration, exported
from measure import Array, Engine, Job, MissingEngine, Workload, timed

ONE_THREAD = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}


def _jobs(workload: Workload, batches: list[list[int]], change: Callable[[Any, int], Any]) -> list[Job]:
    if find_spec("openvino") is None:
        raise MissingEngine("openvino is not installed; pip install '.[bench]'")
    import openvino

    core = openvino.Core()
    size = len(batches[0])
    model = core.compile_model(change(core.read_model(exported(workload, size)), size), "CPU", ONE_THREAD)
    threads = model.get_property("INFERENCE_NUM_THREADS")
    if threads != 1:
        raise MissingEngine(f"{threads} threads found; expected 1")
    request = model.create_infer_request()

    def call(x: Array) -> Callable[[], Array]:
        return lambda: request.infer([x], share_inputs=True)[0]

    return [timed(call(workload.dense([workload.samples[i] for i in batch]))) for batch in batches]


def float32(workload: Workload, batches: list[list[int]]) -> list[Job]:
    return _jobs(workload, batches, lambda graph, _: graph)


def int8(workload: Workload, batches: list[list[int]]) -> list[Job]:
    """Post-training quantisation as NNCF does it unasked."""
    if find_spec("nncf") is None:
        raise MissingEngine("nncf is not installed; pip install '.[bench]'")

    def quantised(graph: Any, size: int) -> Any:
        import nncf

        nncf.set_log_level(logging.ERROR)
        inputs = calibration(workload, size)
        with redirect_stdout(sys.stderr):  # its progress
            return nncf.quantize(graph, nncf.Dataset(inputs), subset_size=len(inputs))

    return _jobs(workload, batches, quantised)


ENGINES = (Engine("OpenVINO f32", True, float32), Engine("OpenVINO int8", False, int8))
