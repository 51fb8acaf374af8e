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
from gated_contenders import GATES, onnx_session
from installed import BACKEND_NAMES, kind_of, require

import fastrnn

#: Real inputs of a step, and hidden sizes of the tables.
INPUTS, HIDDEN = 8, (8, 32, 100, 256, 512, 1024)

#: Those of cells with gates, in float32.
GATED_HIDDEN = (32, 100, 256)

#: Steps that are compared with the plain loop.
CHECKED = 20

TOLERANCE = {"float64": 1e-12, "float32": 1e-5}

#: What a net with few units and a user without a library would write.
LINE = "numpy line"

Step = Callable[[np.ndarray], Any]


@functools.cache
def problem(h: int, cell: str = "rnn") -> tuple[tuple[np.ndarray, ...], np.ndarray, np.ndarray]:
    """W_ih, W_hh and the bias of a contractive net; inputs; and what the plain loop makes of them, in float64."""
    rng, rows = np.random.default_rng(0), GATES[cell] * h
    U, W, b = (
        rng.normal(size=(rows, INPUTS)) * 0.3,
        rng.normal(size=(rows, h)) * 0.5 / np.sqrt(h),
        rng.normal(size=rows) * 0.1,
    )
    # Numbers that float32 holds just so: both dtypes have the same net.
    U, W, b, xs = (
        a.astype(np.float32).astype(np.float64) for a in (U, W, b, rng.normal(size=(CHECKED, INPUTS)))
    )
    if cell == "rnn":
        hs = np.zeros((CHECKED + 1, h))
        for t, x in enumerate(xs):
            hs[t + 1] = np.tanh(W @ hs[t] + U @ x + b)
        return (U, W, b), xs, hs[1:]
    plain = getattr(fastrnn, f"Reference{cell.upper()}")(INPUTS, h)
    plain.parameters = parameters(U, W, b)
    return (U, W, b), xs, plain.forward(xs)[0]


def parameters(U: np.ndarray, W: np.ndarray, b: np.ndarray) -> dict[str, np.ndarray]:
    """Under the names of a layer, whose second bias is zero."""
    return {"weight_ih_l0": U, "weight_hh_l0": W, "bias_ih_l0": b, "bias_hh_l0": np.zeros_like(b)}


def fastrnn_step(backend: str, h: int, dtype: str, cell: str) -> tuple[Step, Callable[[Any], np.ndarray]]:
    """The `step` of a stepper of `RNN`, `GRU` or `LSTM`."""
    layers = getattr(fastrnn, cell.upper())
    layer = layers(INPUTS, h, dtype=dtype, backend=backend, rng=0, num_threads=1)
    layer.load_state_dict(parameters(*problem(h, cell)[0]))
    return layer.stepper().step, np.asarray


def numpy_line(h: int, dtype: str, cell: str) -> tuple[Step, Callable[[Any], np.ndarray]]:
    """``h = np.tanh(W @ h + U @ x + b)``, and the lines of a GRU and of an LSTM."""
    U, W, b = (a.astype(dtype) for a in problem(h, cell)[0])
    state, c = np.zeros(h, dtype), np.zeros(h, dtype)

    def sigmoid(z: np.ndarray) -> Any:
        return 1 / (1 + np.exp(-z))

    def step(x: np.ndarray) -> np.ndarray:
        nonlocal state
        state = np.tanh(W @ state + U @ x + b)
        return state

    def gru(x: np.ndarray) -> np.ndarray:
        nonlocal state
        inputs, recurrent = U @ x + b, W @ state
        r = sigmoid(inputs[:h] + recurrent[:h])
        z = sigmoid(inputs[h : 2 * h] + recurrent[h : 2 * h])
        state = (1 - z) * np.tanh(inputs[2 * h :] + r * recurrent[2 * h :]) + z * state
        return state

    def lstm(x: np.ndarray) -> np.ndarray:
        nonlocal state, c
        gates = W @ state + U @ x + b
        c = sigmoid(gates[h : 2 * h]) * c + sigmoid(gates[:h]) * np.tanh(gates[2 * h : 3 * h])
        state = sigmoid(gates[3 * h :]) * np.tanh(c)
        return state

    return {"rnn": step, "gru": gru, "lstm": lstm}[cell], np.asarray


def torch_step(h: int, dtype: str, cell: str) -> tuple[Step, Callable[[Any], np.ndarray]]:
    """PyTorch's cell in inference mode, on a tensor that is there already."""
    import torch

    torch.set_num_threads(1)
    kind = getattr(torch, dtype)
    module = getattr(torch.nn, f"{cell.upper()}Cell")(INPUTS, h, dtype=kind)
    with torch.no_grad():
        values = parameters(*problem(h, cell)[0]).values()
        for parameter, value in zip(module.parameters(), values, strict=True):
            parameter.copy_(torch.from_numpy(value))
    state: Any = torch.zeros(1, h, dtype=kind)
    if cell == "lstm":
        state = state, state.clone()

    def step(x: np.ndarray) -> Any:
        nonlocal state
        with torch.inference_mode():
            state = module(torch.from_numpy(x)[None], state)
        return state

    return step, lambda y: (y[0] if cell == "lstm" else y).numpy()[0]


def onnxruntime_step(h: int, dtype: str, cell: str) -> tuple[Step, Callable[[Any], np.ndarray]]:
    """ONNX's layer of one step, the states given to each call."""
    session = onnx_session(cell, parameters(*problem(h, cell)[0]), INPUTS, h, 1, step=True)
    names = ["h", "c"][: 1 + (cell == "lstm")]
    states = {f"{name}_before": np.zeros((1, 1, h), np.float32) for name in names}
    outputs = [f"{name}_after" for name in names]

    def step(x: np.ndarray) -> Any:
        nonlocal states
        after = session.run(outputs, {"x": x.reshape(1, 1, INPUTS), **states})
        states = dict(zip(states, after, strict=True))
        return after

    return step, lambda y: y[0][0, 0]


_OTHERS = {LINE: numpy_line, "torch": torch_step, "onnxruntime": onnxruntime_step}

CONTENDERS = (*BACKEND_NAMES, *_OTHERS)


def contenders_of(dtype: str) -> list[str]:
    """Those that have this dtype: ONNX Runtime's RNN is of float32 only."""
    return [name for name in CONTENDERS if name != "onnxruntime" or dtype == "float32"]


def describe(contender: str, h: int, dtype: str, cell: str = "rnn") -> dict[str, Any]:
    """What a row of results says of itself, as JSON."""
    return {
        "suite": "steps", "kind": kind_of(contender), "operation": "step", "h": h, "T": 1, "N": 1, "dtype": dtype,
        "threads": 1, "contender": contender, "cell": cell,
    }  # fmt: skip


def checked_step(contender: str, h: int, dtype: str, cell: str = "rnn") -> tuple[Step, np.ndarray]:
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
        step, array = fastrnn_step(contender, h, dtype, cell)
    else:
        step, array = _OTHERS[contender](h, dtype, cell)
    _, xs, expected = problem(h, cell)
    inputs = xs.astype(dtype)
    # As one array: a state of few units is near zero now and then, where its own size is no measure.
    got = np.array([array(step(x)).astype(np.float64) for x in inputs])
    check_result(
        f"{contender}: step of {cell} h={h} {dtype}", "step", [got], [expected], TOLERANCE[dtype], 1.0
    )
    return step, inputs[0]


def checked_call(contender: str, h: int, dtype: str, steps: int = 1, cell: str = "rnn") -> Callable[[], Any]:
    """The same as a call without arguments, of as many steps."""
    step, x = checked_step(contender, h, dtype, cell)

    def call() -> None:
        for _ in range(steps):
            step(x)

    return call
