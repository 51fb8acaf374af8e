"""Files of models taken apart, and put together with what no model has in it, under a digest that is right."""

import copy
import json

import numpy as np

from fastrnn.checkpoint import FORMAT_VERSION, _digest


def header_of(content):
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def with_header(header, data):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def signed(path, content, arrays):
    """A file with a digest that is right, of content that is text already."""
    entries, place = {}, 0
    for name, array in arrays.items():
        entries[name] = {"dtype": {4: "F32", 8: "F64"}[array.itemsize], "shape": array.shape,
                         "data_offsets": [place, place + array.nbytes]}  # fmt: skip
        place += array.nbytes
    metadata = {"format": "fastrnn", "format_version": str(FORMAT_VERSION), "content": content,
                "sha256": _digest(content, arrays)}  # fmt: skip
    path.write_bytes(
        with_header(
            {"__metadata__": metadata, **entries}, b"".join(array.tobytes() for array in arrays.values())
        )
    )


def deep(n):
    """Dicts within each other."""
    nested = {}
    for _ in range(n):
        nested = {"a": nested}
    return nested


#: What a part of a file is replaced by.
ODDITIES = [
    None, True, False, -1, 0, 1, 2, 5, 2**31, 2**63, -(2**70), 10**4000, 0.5, -0.0, 1e308, 5e-324, float("inf"),
    float("nan"), "", "x", "float64", "numpy", "gru", "relu", "adam", "GRU", "2026", "\x1b[31m", "\u202e", "a" * 5000,
    "(1,f4", [], {}, [1], [[[]]], {"x": 1}, {"dtype": 1}, {"dtype": "uint64", "values": [1]}, [0.5] * 3, deep(40),
]  # fmt: skip

#: Names of arrays and of settings that some file may hold.
ARRAY_NAMES = [
    "x",
    "weight_ih_l1",
    "bias_out",
    "last.x",
    "optimizer.x.bias_out",
    "state.state",
    "\x1b[2J",
    "",
]
SETTING_NAMES = ["x", "dropout", "cell", "step", "lr", "\x1b[2J", ""]


def mutate(rng, content, arrays):
    """Change one thing in what a file holds."""
    if rng.random() < 0.25 and arrays:
        mutate_array(rng, arrays)
        return
    part = content
    while True:
        key = rng.choice(sorted(part)) if isinstance(part, dict) else rng.randrange(len(part))
        if not isinstance(part[key], (dict, list)) or not part[key] or rng.random() < 0.2:
            break
        part = part[key]
    change = rng.random()
    if change < 0.15:
        del part[key]
    elif change < 0.25 and isinstance(part, dict):
        part[rng.choice(SETTING_NAMES)] = copy.deepcopy(rng.choice(ODDITIES))
    else:
        part[key] = copy.deepcopy(rng.choice(ODDITIES))


def mutate_array(rng, arrays):
    """Another name, dtype, shape or number, or none."""
    name = rng.choice(sorted(arrays))
    change = rng.randrange(5)
    if change == 0:
        arrays[rng.choice(ARRAY_NAMES)] = arrays[name]
    elif change == 1:
        del arrays[name]
    elif change == 2:
        arrays[name] = arrays[name].astype(rng.choice(["f4", "f8"]))
    elif change == 3:
        arrays[name] = arrays[name].reshape(rng.choice([-1, (1, -1), (-1, 1)]))
    else:
        arrays[name] = np.full_like(arrays[name], rng.choice([np.nan, np.inf, 1e38, 0]))
