"""Whole programs, run in interpreters of their own."""

import os
import subprocess
import sys
from pathlib import Path

import fastrnn

#: The notes' program, with a seed so that every class must print the same.
HELLO = """\
import numpy as np
from fastrnn import {cls} as RNN
np.random.seed(0)
chars = sorted(set("hello"))
char_to_ix = {{ch: i for i, ch in enumerate(chars)}}
data = [char_to_ix[ch] for ch in "hello"]
inputs, targets = data[:-1], data[1:]
rnn = RNN(len(chars), 100, len(chars))
h_prev = np.zeros((100, 1))
for epoch in range(100):
    xs, hs, ps = rnn.forward(inputs, h_prev)
    loss = 0
    for t in range(len(targets)):
        loss += -np.log(ps[t][targets[t], 0])
    if epoch % 10 == 0:
        print(f"Epoch {{epoch}}, Loss: {{loss:.4f}}")
    rnn.update_weights(rnn.backward(xs, hs, ps, targets))
print("h", *(chars[i] for i in rnn.sample(h_prev, char_to_ix["h"], 4)))
"""

REFERENCE_HELLO = HELLO.format(cls="ReferenceRNN")

#: Loads the kernels, then times compiling them (or reading them from the cache).
WARM_UP = """\
import time
import fastrnn
fastrnn.set_backend({backend!r})
began = time.perf_counter()
fastrnn.warmup("float64")
print(time.perf_counter() - began)
"""

COLD, CACHED = "cold cache", "warm cache"

#: label -> (program, backend or None, state of Numba's cache or None)
PROCESSES = {
    "python": ("pass", None, None),
    "import numpy": ("import numpy", None, None),
    "import fastrnn": ("import fastrnn", None, None),
    "hello, reference": (REFERENCE_HELLO, None, None),
    "hello, cython": (HELLO.format(cls="SimpleRNN"), "cython", None),
    "hello, numba, cold cache": (HELLO.format(cls="SimpleRNN"), "numba", COLD),
    "hello, numba, warm cache": (HELLO.format(cls="SimpleRNN"), "numba", CACHED),
    "hello, numpy": (HELLO.format(cls="SimpleRNN"), "numpy", None),
}

WARM_UPS = {
    "cython": ("cython", None),
    "numba, cold cache": ("numba", COLD),
    "numba, warm cache": ("numba", CACHED),
}


def environment(backend: str | None) -> dict[str, str]:
    """The environment of a child that imports this fastrnn with `backend`, None for the one it chooses."""
    home = str(Path(fastrnn.__file__).parents[1])
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([home, os.environ.get("PYTHONPATH", "")])}
    env.pop("FASTRNN_BACKEND", None)
    return env if backend is None else env | {"FASTRNN_BACKEND": backend}


class Runner:
    """Runs a program in a fresh interpreter, with a compile cache of its own."""

    def __init__(self, program, backend, cache, folder):
        self._program, self._cache, self._folder = program, cache, folder
        self._number = 0
        self._env = environment(backend)
        self.new_cache()

    def new_cache(self):
        """A folder in which nothing was compiled yet; as a benchmark's setup, before each round."""
        self._number += 1
        self._env["NUMBA_CACHE_DIR"] = str(self._folder / str(self._number))

    def setup(self):
        if self._cache == COLD:
            self.new_cache()

    def compiled_files(self):
        return list(Path(self._env["NUMBA_CACHE_DIR"]).rglob("*.nbc"))

    def __call__(self):
        command = [sys.executable, "-c", self._program]
        done = subprocess.run(command, env=self._env, cwd=self._folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout
