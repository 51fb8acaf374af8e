"""One time step at a call, for live data: a stepper on each backend, NumPy's line, and other libraries.

A net of one layer reads `INPUTS` real numbers, and its state is carried from call to call.  Each contender is
checked over `CHECKED` steps before it is timed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from agreement import check_result
from installed import BACKEND_NAMES, kind_of, require

from fastrnn import RNN

#: Real inputs of a step, and hidden sizes of the tables.
INPUTS, HIDDEN = 8, (8, 32, 100, 256, 512, 1024)

#: Steps that are compared with the plain loop.
CHECKED = 20

TOLERANCE = {"float64": 1e-12, "float32": 1e-5}

#: What a net with few units and a user without a library would write.
LINE = "numpy line"

Step = Callable[[np.ndarray], Any]


@functools.cache
def problem(h: int) -> tuple[tuple[np.ndarray, ...], np.ndarray, np.ndarray]:
    """W_ih, W_hh and the bias of a contractive net; inputs; and what the plain loop makes of them, in float64."""
    rng = np.random.default_rng(0)
    U, W, b = (
        rng.normal(size=(h, INPUTS)) * 0.3,
        rng.normal(size=(h, h)) * 0.5 / np.sqrt(h),
        rng.normal(size=h) * 0.1,
    )
    # Numbers that float32 holds just so: both dtypes have the same net.
    U, W, b, xs = (
        a.astype(np.float32).astype(np.float64) for a in (U, W, b, rng.normal(size=(CHECKED, INPUTS)))
    )
    hs = np.zeros((CHECKED + 1, h))
    for t, x in enumerate(xs):
        hs[t + 1] = np.tanh(W @ hs[t] + U @ x + b)
    return (U, W, b), xs, hs[1:]


def fastrnn_step(backend: str, h: int, dtype: str) -> tuple[Step, Callable[[Any], np.ndarray]]:
    """The `step` of a stepper of `RNN`."""
    rnn = RNN(INPUTS, h, dtype=dtype, backend=backend, rng=0, num_threads=1)
    for name, value in zip(("weight_ih_l0", "weight_hh_l0", "bias_ih_l0"), problem(h)[0], strict=True):
        rnn.parameters[name][...] = value
    rnn.parameters["bias_hh_l0"][...] = 0
    return rnn.stepper().step, np.asarray


def numpy_line(h: int, dtype: str) -> tuple[Step, Callable[[Any], np.ndarray]]:
    """``h = np.tanh(W @ h + U @ x + b)``."""
    U, W, b = (a.astype(dtype) for a in problem(h)[0])
    state = np.zeros(h, dtype)

    def step(x: np.ndarray) -> np.ndarray:
        nonlocal state
        state = np.tanh(W @ state + U @ x + b)
        return state

    return step, np.asarray


def torch_step(h: int, dtype: str) -> tuple[Step, Callable[[Any], np.ndarray]]:
    """`torch.nn.RNNCell` in inference mode, on a tensor that is there already."""
    import torch

    torch.set_num_threads(1)
    kind = getattr(torch, dtype)
    cell = torch.nn.RNNCell(INPUTS, h, dtype=kind)
    U, W, b = problem(h)[0]
    with torch.no_grad():
        for parameter, value in zip(cell.parameters(), (U, W, b, np.zeros(h)), strict=True):
            parameter.copy_(torch.from_numpy(value))
    state = torch.zeros(1, h, dtype=kind)

    def step(x: np.ndarray) -> Any:
        nonlocal state
        with torch.inference_mode():
            state = cell(torch.from_numpy(x)[None], state)
        return state

    return step, lambda y: y.numpy()[0]


def onnxruntime_step(h: int, dtype: str) -> tuple[Step, Callable[[Any], np.ndarray]]:
    """ONNX's RNN of one step, the state given to each call."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    U, W, b = problem(h)[0]
    constants = {"W": U[None], "R": W[None], "B": np.concatenate([b, np.zeros(h)])[None]}
    graph = helper.make_graph(
        [helper.make_node("RNN", ["x", "W", "R", "B", "", "before"], ["", "after"], hidden_size=h)],
        "step",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, INPUTS]),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, [1, 1, h]),
        ],
        [helper.make_tensor_value_info("after", TensorProto.FLOAT, [1, 1, h])],
        [numpy_helper.from_array(value.astype(dtype), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    state, outputs = np.zeros((1, 1, h), np.float32), ["after"]

    def step(x: np.ndarray) -> Any:
        nonlocal state
        (state,) = session.run(outputs, {"x": x.reshape(1, 1, INPUTS), "before": state})
        return state

    return step, lambda y: y[0, 0]


_OTHERS = {LINE: numpy_line, "torch": torch_step, "onnxruntime": onnxruntime_step}

CONTENDERS = (*BACKEND_NAMES, *_OTHERS)


def contenders_of(dtype: str) -> list[str]:
    """Those that have this dtype: ONNX Runtime's RNN is of float32 only."""
    return [name for name in CONTENDERS if name != "onnxruntime" or dtype == "float32"]


def describe(contender: str, h: int, dtype: str) -> dict[str, Any]:
    """What a row of results says of itself, as JSON."""
    return {
        "suite": "steps", "kind": kind_of(contender), "operation": "step", "h": h, "T": 1, "N": 1, "dtype": dtype,
        "threads": 1, "contender": contender,
    }  # fmt: skip


def checked_step(contender: str, h: int, dtype: str) -> tuple[Step, np.ndarray]:
    """The step to time, and an input for it.

    Raises
    ------
    Unavailable
        If the contender is not installed.
    WrongResult
        If its states are not those of the plain loop.
    """
    require(contender)
    if contender in BACKEND_NAMES:
        step, array = fastrnn_step(contender, h, dtype)
    else:
        step, array = _OTHERS[contender](h, dtype)
    _, xs, expected = problem(h)
    inputs = xs.astype(dtype)
    # As one array: a state of few units is near zero now and then, where its own size is no measure.
    got = np.array([array(step(x)).astype(np.float64) for x in inputs])
    check_result(f"{contender}: step of h={h} {dtype}", "step", [got], [expected], TOLERANCE[dtype], 1.0)
    return step, inputs[0]


def checked_call(contender: str, h: int, dtype: str, steps: int = 1) -> Callable[[], Any]:
    """The same as a call without arguments, of as many steps."""
    step, x = checked_step(contender, h, dtype)

    def call() -> None:
        for _ in range(steps):
            step(x)

    return call
