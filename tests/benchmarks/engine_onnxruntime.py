"""ONNX Runtime on the exported graph: float32, and int8 by its own static quantisation."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import dense
import torch
from measure import Array, Engine, Job, MissingEngine, Workload, timed


@lru_cache(maxsize=1)
def exported(workload: Workload, size: int) -> bytes:
    """Return the network for batches of this size as ONNX."""
    if find_spec("onnx") is None:
        raise MissingEngine("onnx is not installed; pip install '.[bench]'")
    example = torch.from_numpy(workload.dense(workload.samples[:1] * size))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        dense.export(dense.prepared(workload.model, example), example, path)
        return path.read_bytes()


def calibration(workload: Workload, size: int) -> list[Array]:
    """Return every calibration input in a batch of the given size, which repeats it."""
    return [workload.dense([sample] * size) for sample in workload.calibration]


def _jobs(workload: Workload, batches: list[list[int]], change: Callable[[bytes, int], bytes]) -> list[Job]:
    if find_spec("onnxruntime") is None:
        raise MissingEngine("onnxruntime is not installed; pip install '.[bench]'")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    size = len(batches[0])
    graph = change(exported(workload, size), size)
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def call(x: Array) -> Callable[[], Array]:
        return lambda: session.run(None, {"x": x})[0]

    return [timed(call(workload.dense([workload.samples[i] for i in batch]))) for batch in batches]


def float32(workload: Workload, batches: list[list[int]]) -> list[Job]:
    return _jobs(workload, batches, lambda graph, _: graph)


def int8(workload: Workload, batches: list[list[int]]) -> list[Job]:
    """Weights per output channel, inputs as unsigned bytes, of convolutions and matrix products."""

    def quantised(graph: bytes, size: int) -> bytes:
        from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process

        class Inputs(CalibrationDataReader):
            def __init__(self) -> None:
                self.left = iter(calibration(workload, size))

            def get_next(self) -> dict[str, Any] | None:
                x = next(self.left, None)
                return None if x is None else {"x": x}

        logging.getLogger().setLevel(logging.ERROR)  # it advises the pre-processing that was just done
        kinds = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8, "per_channel": True}
        with tempfile.TemporaryDirectory() as folder:
            given, ready, small = (Path(folder) / f"{name}.onnx" for name in ("given", "ready", "int8"))
            given.write_bytes(graph)
            quant_pre_process(given, ready, skip_symbolic_shape=True)  # every shape is a constant
            quantize_static(ready, small, Inputs(), op_types_to_quantize=["Conv", "MatMul", "Gemm"], **kinds)
            return small.read_bytes()

    return _jobs(workload, batches, quantised)


ENGINES = (Engine("ONNX Runtime f32", True, float32), Engine("ONNX Runtime int8", False, int8))
