"""`GRU` and `LSTM` on the node tests of ONNX: weights by the order of their blocks, results as ONNX's.

The figures are those of ONNX 1.23's own evaluator in float64.  In `gru_seq_length` and `lstm_seq_length` ONNX draws its
weights anew at each run; here they are sines, and the GRU has ``linear_before_reset=1``, the form that PyTorch and this
package have.  In the other tests of a GRU all weights of a matrix are one number, and all units of a state then too: so
both forms are one.  Tests with peepholes are of another cell, and left out.
"""

from dataclasses import dataclass

import numpy as np
import pytest

from fastrnn import GRU, LSTM, functional

LAYERS = {"gru": GRU, "lstm": LSTM}
FORWARD = {"gru": functional.gru_forward, "lstm": functional.lstm_forward}

#: Our blocks among ONNX's: r, z, n among z, r, h, and i, f, g, o among i, o, f, c.
ORDER = {"gru": (1, 0, 2), "lstm": (0, 2, 3, 1)}


@dataclass(frozen=True)
class Node:
    """A test whose matrices are of one number each."""

    name: str
    #: Of X, which counts from 1: time steps, sequences and inputs, or with `layout` 1 sequences, steps and inputs.
    shape: tuple[int, int, int]
    hidden_size: int
    #: Of every weight, one number for each direction.
    scale: tuple[float, ...]
    #: Y, of which all units are the same: for each step those of each direction, and for each of these the sequences'.
    #: With ONNX's `layout` 1 for each sequence those of each step.
    Y: list
    #: Y_h, and Y_c of an LSTM: for each direction those of the sequences.
    last: list
    #: Of B's first half; the other, of the recurrent part, is zero.
    bias: float | None = None
    layout: int = 0
    reverse: bool = False

    @property
    def cell(self):
        return self.name.partition("_")[0]


NODES = [
    Node("gru_defaults", (1, 3, 2), 5, (0.1,),
         [[[0.123970262, 0.200536619, 0.199916541]]],
         [[[0.123970262, 0.200536619, 0.199916541]]]),
    Node("gru_with_initial_bias", (1, 3, 3), 3, (0.1,),
         [[[0.200536619, 0.154823372, 0.074842765]]],
         [[[0.200536619, 0.154823372, 0.074842765]]], bias=0.1),
    Node("gru_batchwise", (3, 1, 2), 6, (0.2,),
         [[[0.190300127]], [[0.175136820]], [[0.097330854]]],
         [[[0.190300127, 0.175136820, 0.097330854]]], layout=1),
    Node("gru_reverse", (3, 1, 2), 5, (0.1,),
         [[[0.355675532]], [[0.338319725]], [[0.199916541]]],
         [[[0.355675532]]], reverse=True),
    Node("gru_bidirectional", (3, 1, 2), 5, (0.5, 2.0),
         [[[0.165122144], [0.002473402]], [[0.181463848], [8.31807e-07]], [[0.183583493], [2.78947e-10]]],
         [[[0.183583493], [0.002473402]]]),
    Node("lstm_defaults", (1, 3, 2), 3, (0.1,),
         [[[0.095241188, 0.256064434, 0.403237736]]],
         [[[0.095241188, 0.256064434, 0.403237736]], [[0.167342350, 0.403831159, 0.600582481]]]),
    Node("lstm_with_initial_bias", (1, 3, 3), 4, (0.1,),
         [[[0.256064434, 0.536727767, 0.667213249]]],
         [[[0.256064434, 0.536727767, 0.667213249]], [[0.403831159, 0.766845182, 0.911771533]]], bias=0.1),
    Node("lstm_batchwise", (3, 1, 2), 7, (0.3,),
         [[[0.333692601]], [[0.622393183]], [[0.718578963]]],
         [[[0.333692601, 0.622393183, 0.718578963]], [[0.509251615, 0.864578715, 0.961808419]]], layout=1),
    Node("lstm_reverse", (3, 1, 2), 3, (0.1,),
         [[[0.404125003]], [[0.492726865]], [[0.403237736]]],
         [[[0.404125003]], [[0.797023303]]], reverse=True),
    Node("lstm_bidirectional", (3, 1, 2), 3, (0.5, 2.0),
         [[[0.514385923], [0.995046941]], [[0.924436575], [0.964027571]], [[0.990224378], [0.761594156]]],
         [[[0.990224378], [0.995046941]], [[2.712913083], [2.999977110]]]),
]  # fmt: skip

#: Y (2, 3, 5) of `gru_seq_length` and `lstm_seq_length`, whose weights are not all alike, and Y_c of the latter.
SEQ_LENGTH = {
    "gru": [
        [
            [0.232194501, -0.101796019, -0.171062144, -0.031103795, 0.026926986],
            [0.109902487, 0.068258511, -0.153551680, 0.217234802, -0.177474399],
            [0.028156628, 0.290543450, -0.119260162, 0.456550725, -0.269864729],
        ],
        [
            [0.166593650, 0.496833309, -0.226097737, 0.601221514, -0.279206572],
            [0.071034867, 0.684039997, -0.208719392, 0.792289060, -0.357423346],
            [0.007246261, 0.816037703, -0.172377435, 0.903530923, -0.384944514],
        ],
    ],
    "lstm": [
        [
            [0.045374367, 0.049002601, -0.020718688, -0.481046165, -0.347783665],
            [0.055722662, 0.010376831, 0.141527683, -0.449419414, -0.132858350],
            [0.062016910, -0.018252021, 0.216543402, -0.405047109, 0.240504673],
        ],
        [
            [0.050701175, 0.003572841, 0.215874191, -0.722260429, 0.521530510],
            [0.056042011, -0.004605881, 0.227932663, -0.647638360, 0.632132137],
            [0.051983697, -0.024836117, 0.265337674, -0.540781855, 0.656853223],
        ],
    ],
}
SEQ_LENGTH_C = [
    [0.692571411, 0.027881083, 0.892528284, -1.286891575, 0.628813133],
    [0.867664176, -0.026870626, 0.960354596, -1.143132295, 0.819509148],
    [0.980701100, -0.099112838, 0.994379192, -0.953482847, 0.888101910],
]


def parts(state):
    return state if isinstance(state, tuple) else (state,)


def parameters(cell, W, R, B, dtype):
    """One direction's weights, (gates h, d), (gates h, h) and (2 gates h,), as ours."""
    arrays = {"weight_ih": W, "weight_hh": R}
    if B is not None:
        arrays["bias_ih"], arrays["bias_hh"] = np.split(B, 2)
    blocks = {name: np.split(array, len(ORDER[cell])) for name, array in arrays.items()}
    return {
        name: np.concatenate([parts[i] for i in ORDER[cell]]).astype(dtype) for name, parts in blocks.items()
    }


def assert_figures(got, want, dtype, what):
    """`want` has nine decimals."""
    assert got.shape == np.shape(want), what
    assert got.dtype == dtype, what
    assert np.abs(got - want).max() <= (1e-9 if dtype == np.float64 else 1e-6), what


@pytest.mark.parametrize("node", NODES, ids=lambda node: node.name)
def test_nodes(node, backend, dtype):
    h, d, gates = node.hidden_size, node.shape[-1], len(ORDER[node.cell])
    X = np.arange(1.0, np.prod(node.shape) + 1).reshape(node.shape).astype(dtype)
    B = None if node.bias is None else np.repeat([node.bias, 0.0], gates * h)
    directions = [
        parameters(node.cell, np.full((gates * h, d), scale), np.full((gates * h, h), scale), B, dtype)
        for scale in node.scale
    ]
    if node.reverse:
        output, state = FORWARD[node.cell](X, None, directions[0], reverse=True, backend=backend)
        last = [a[None] for a in parts(state)]
    else:
        layer = LAYERS[node.cell](
            d, h, bias=B is not None, batch_first=node.layout == 1, bidirectional=len(directions) == 2,
            dtype=dtype, backend=backend,
        )  # fmt: skip
        layer.load_state_dict({
            f"{name}_l0{ending}": W
            for ending, weights in zip(("", "_reverse"), directions, strict=False)
            for name, W in weights.items()
        })  # fmt: skip
        output, state = layer.forward(X)
        last = parts(state)
    Y = np.array(node.Y)
    if node.layout == 0:
        Y = Y.swapaxes(1, 2)  # (T, N, directions)
    assert_figures(output, np.repeat(Y, h, axis=2), dtype, "Y")
    for got, want in zip(last, node.last, strict=True):
        assert_figures(got, np.repeat(np.array(want)[..., None], h, axis=2), dtype, "last states")


def waves(start, *shape):
    return np.sin(np.arange(start, start + np.prod(shape))).reshape(shape)


@pytest.mark.parametrize("cell", LAYERS)
def test_seq_length(cell, backend, dtype):
    T, N, d, h, gates = 2, 3, 3, 5, len(ORDER[cell])
    X = np.arange(1.0, T * N * d + 1).reshape(T, N, d) / 10
    W, R, B = waves(0, gates * h, d), waves(100, gates * h, h), waves(300, 2 * gates * h)
    output, state = FORWARD[cell](X, None, parameters(cell, W, R, B, dtype), backend=backend)
    assert_figures(output, SEQ_LENGTH[cell], dtype, "Y")
    assert_figures(parts(state)[0], SEQ_LENGTH[cell][-1], dtype, "Y_h")
    if cell == "lstm":
        assert_figures(state[1], SEQ_LENGTH_C, dtype, "Y_c")
