"""`show_config`, `warmup`, and what importing the package does and costs."""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastrnn
from fastrnn import backends, config

ROOT = Path(__file__).resolve().parent.parent


def run_python(code, *options, **environment):
    """Standard output and error of a new process that runs `code`."""
    env = {name: value for name, value in os.environ.items() if name != "FASTRNN_BACKEND"}
    # What a bare `python` would import here may be another copy than the one under test.
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [package_folder(), env.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, *options, "-c", code],
        env={**env, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def package_folder():
    return str(Path(fastrnn.__file__).parent.parent)


# -- importing -----------------------------------------------------------------------------------


def test_import_loads_no_heavy_package():
    heavy = ["numba", "llvmlite", "scipy", "matplotlib", "tqdm", "click", "fastrnn.cli"]
    out, _ = run_python(f"import sys, fastrnn; print([m for m in {heavy} if m in sys.modules])")
    assert out == "[]\n"


#: What `import fastrnn` executes; every further file costs each program that imports it some
#: 0.3 ms.  `benchmarks/bench_first_use.py` measures the time.
IMPORTED = {
    "", "._version", ".backends", ".checks", ".cores", ".errors", ".kernels", ".layout", ".random_stream",
    ".sharing", ".simple", ".simple_weights", ".states", ".stepper", ".steps", ".threads",
}  # fmt: skip


def test_import_executes_few_files_beyond_numpy():
    program = (
        "import sys, numpy; before = set(sys.modules); import fastrnn; print(*set(sys.modules) - before)"
    )
    names = set(run_python(program)[0].split())
    ours = {name for name in names if name.split(".")[0] == "fastrnn"}
    assert ours == {f"fastrnn{name}" for name in IMPORTED}
    assert {name.split(".")[0] for name in names - ours} <= sys.stdlib_module_names


def test_every_public_name_is_there():
    for name in fastrnn.__all__:
        assert getattr(fastrnn, name) is not None
        assert name in dir(fastrnn)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'fastrnn' has no attribute 'nothing'"):
        fastrnn.nothing  # noqa: B018


def test_star_import_gives_the_lazy_names():
    out, _ = run_python("from fastrnn import *; print(ReferenceRNN.__name__, warmup.__name__)")
    assert out == "ReferenceRNN warmup\n"
    # Without scikit-learn, which only the estimators need, and say so.
    hidden = "import sys; sys.modules['sklearn'] = None; from fastrnn import *; import fastrnn; print(RNN.__name__)"
    assert run_python(hidden)[0] == "RNN\n"
    assert {"RNNClassifier", "RNNRegressor"} <= set(dir(fastrnn))
    said = run_python(f"{hidden}\ntry: fastrnn.RNNClassifier\nexcept ImportError as error: print(error)")[0]
    assert "pip install 'fastrnn[sklearn]'" in said


def test_kernels_refuses_its_bare_name():
    out, _ = run_python(
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "try:\n    import kernels\nexcept ImportError as error:\n    print(error)"
    )
    assert "import that instead" in out


def test_version_is_the_installed_one():
    try:
        installed = importlib.metadata.version("fastrnn")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("fastrnn is not installed here, but imported from its checkout")
    assert fastrnn.__version__ == installed


# -- show_config ---------------------------------------------------------------------------------


def test_show_config_prints_what_it_returns(capsys):
    returned = fastrnn.show_config(mode="dict")
    assert capsys.readouterr().out == ""
    assert fastrnn.show_config() is None
    out = capsys.readouterr().out
    for name, version in returned["versions"].items():
        assert re.search(rf"^{name} +{re.escape(version or 'not installed')}$", out, re.MULTILINE)
    for name, found in returned["backends"].items():
        assert re.search(rf"^{name} +{'available' if found['available'] else 'missing'}", out, re.MULTILINE)
    assert re.search(rf"^backend in use +{returned['backend']}$", out, re.MULTILINE)
    assert f"{returned['cores']['usable']} usable" in out
    assert returned["blas"] in out


def test_show_config_as_json():
    json.dumps(fastrnn.show_config(mode="dict"))


def test_show_config_reports_versions():
    versions = fastrnn.show_config(mode="dict")["versions"]
    assert versions["fastrnn"] == fastrnn.__version__
    assert versions["numpy"] == np.__version__
    assert versions["Python"].startswith(".".join(map(str, sys.version_info[:3])))


@pytest.mark.parametrize("mode", ["dicts", "", None, 1])
def test_show_config_refuses_another_mode(mode):
    with pytest.raises(ValueError, match="mode must be one of 'stdout', 'dict'"):
        fastrnn.show_config(mode=mode)


def test_show_config_follows_the_backend(backend):
    with fastrnn.use_backend(backend):
        shown = fastrnn.show_config(mode="dict")
    assert shown["backend"] == backend
    assert shown["backends"][backend]["available"]


def test_show_config_survives_a_wrong_environment():
    code = "import fastrnn; fastrnn.show_config()"
    out, _ = run_python(code, FASTRNN_BACKEND="fortran")
    assert re.search(
        r"^backend in use +none: environment variable FASTRNN_BACKEND: backend must be", out, re.M
    )


def test_show_config_says_why_the_build_is_missing(monkeypatch, tmp_path, capsys):
    why = "compiling with 'gcc' failed: fatal error: Python.h: No such file or directory"
    record = {"built": False, "reason": why, "compiler": None, "flags": [], "cython": None}
    (tmp_path / "build_info.json").write_text(json.dumps(record))
    without_cython(monkeypatch, tmp_path)
    fastrnn.show_config()
    assert f"missing: {why}\n" in capsys.readouterr().out


def test_show_config_without_a_record(monkeypatch, tmp_path):
    without_cython(monkeypatch, tmp_path)
    found = fastrnn.show_config(mode="dict")["backends"]["cython"]
    assert not found["available"]
    assert "was not built" in found["detail"]


@pytest.mark.parametrize("text", ["{", "[]", "1", '{"built": true}', "\x00"])
def test_show_config_with_a_damaged_record(monkeypatch, tmp_path, text):
    (tmp_path / "build_info.json").write_text(text)
    without_cython(monkeypatch, tmp_path)
    found = fastrnn.show_config(mode="dict")["backends"]["cython"]
    assert not found["available"]
    assert "the record of the build" in found["detail"]


def without_cython(monkeypatch, folder):
    """Let the Cython kernels be missing, and the kernels' folder be `folder`."""
    monkeypatch.setitem(backends.BACKENDS, "cython", ("fastrnn.kernels.missing", "build it"))
    monkeypatch.delitem(backends._loaded, "cython", raising=False)
    monkeypatch.setattr(fastrnn.kernels, "__file__", str(folder / "__init__.py"))


def test_show_config_does_not_import_numba_for_cython():
    try:
        backends.load("cython")
    except fastrnn.BackendUnavailable as error:
        pytest.skip(str(error))
    out, _ = run_python(
        "import sys, fastrnn\nconfig = fastrnn.show_config('dict')\n"
        "print(config['backend'], config['simd'], 'numba' in sys.modules)"
    )
    assert re.fullmatch(r"cython \w+ False\n", out)


def test_show_config_says_that_a_build_has_no_vectors(monkeypatch, capsys):
    scalar = type(sys)("scalar_kernels")
    scalar.NAME, scalar.simd_level = "cython", lambda: "scalar"
    monkeypatch.setitem(backends._loaded, "cython", scalar)
    with fastrnn.use_backend("numpy"):
        assert fastrnn.show_config(mode="dict")["simd"] == "scalar"
        fastrnn.show_config()
    assert re.search(
        r"^SIMD level +scalar: built by a compiler without vector extensions \(such as MSVC\); "
        r"Numba is preferred$",
        capsys.readouterr().out,
        re.M,
    )


def test_usable_cores_follow_the_affinity():
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system cannot bind a process to a core")
    out, _ = run_python(
        "import os\nfrom fastrnn.config import usable_cores\n"
        "os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\nprint(usable_cores())"
    )
    assert out == "1\n"


# -- warmup --------------------------------------------------------------------------------------


def compiled(kernels):
    """How many specialisations of its functions a backend has compiled."""
    modules = [module for name, module in sys.modules.items() if name.startswith("fastrnn.kernels.numba")]
    functions = {id(f): f for module in [kernels, *modules] for f in vars(module).values()}
    return sum(len(getattr(f, "signatures", ())) for f in functions.values())


@pytest.mark.few(1)
def test_nothing_is_compiled_after_warmup(backend, dtype):
    fastrnn.warmup(dtype, backend=backend)
    kernels = backends.load(backend)
    before = compiled(kernels)
    if backend == "numba":
        assert before > 0
    rnn = fastrnn.SimpleRNN(5, 7, 4, dtype=dtype, rng=0, backend=backend)
    h = np.zeros((7, 1))
    vectors = np.asfortranarray(np.ones((3, 5), np.float16))
    vectors.flags.writeable = False
    for inputs in ([0, 1, 4], vectors):
        steps = rnn.forward(inputs, h)
        rnn.update_weights(rnn.backward(*steps, [0, 1, 3]), lr=1)
        for clip in ("step", "value", "norm", None):
            rnn.loss_and_grads(inputs, [0, 1, 3], h, clip=clip, clip_threshold=1)
            rnn.train_step(inputs, [0, 1, 3], h, clip=clip)
    rnn.Whh = np.asfortranarray(rnn.Whh)
    rnn.sample(h, 2, 3, rng=0)
    rnn.sample(h, 2, 3)
    use_layers(dtype, backend)
    use_language_model(dtype, backend)
    assert compiled(kernels) == before


def use_layers(dtype, backend):
    """Every kind of layer and input, read-only ones as well."""
    batch = np.ones((4, 3, 5), dtype)
    batch.flags.writeable = False
    for options in ({}, {"nonlinearity": "relu"}, {"bidirectional": True, "num_layers": 2, "dropout": 0.5}):
        run_layers(fastrnn.RNN(5, 7, dtype=dtype, rng=0, backend=backend, **options), batch)
    for kind in (fastrnn.GRU, fastrnn.LSTM):
        for options in ({}, {"bidirectional": True, "num_layers": 2, "dropout": 0.5}):
            run_layers(kind(5, 7, dtype=dtype, rng=0, backend=backend, **options), batch)
        for batch_size, x in ((None, batch[0, 0]), (3, batch[0]), (3, np.array([0, 1, 4]))):
            kind(5, 7, 2, dtype=dtype, rng=0, backend=backend).stepper(batch_size).step(x)


def run_layers(layers, batch):
    for x, lengths in (
        (batch, None),
        (batch, [4, 1, 3]),
        (batch[:, :1], None),
        (batch[..., 0] > 0, None),
    ):
        if x.ndim == 2:
            x = x.astype(np.int64)
        output, h_n = layers.forward(x, lengths=lengths)
        output.flags.writeable = False
        layers.backward(output, h_n)


def use_language_model(dtype, backend):
    for layers, cell in ((1, "rnn"), (2, "rnn"), (2, "gru"), (1, "lstm")):
        model = fastrnn.LanguageModel(4, 7, layers, cell=cell, dtype=dtype, rng=0, backend=backend)
        indices = np.ones((3, 2), np.int64)
        indices.flags.writeable = False
        for clip in ("value", "norm", None):
            model.train_step(indices, indices, None, fastrnn.optim.SGD(0.1, backend=backend), clip=clip)
        adam = fastrnn.optim.Adam(0.1, backend=backend)
        model.train_step(indices, indices, model.initial_state(2), adam)
        model.loss(indices, indices)
        model.forward(indices)
        for temperature, top_k, top_p in ((1.0, None, None), (0.5, 2, 0.9), (0.0, None, None)):
            model.sample(None, [0, 1], 3, temperature=temperature, top_k=top_k, top_p=top_p, rng=0)


def test_warmup_leaves_the_global_stream(backend):
    np.random.seed(3)
    before = np.random.get_state(legacy=False)
    fastrnn.warmup(backend=backend)
    after = np.random.get_state(legacy=False)
    assert after["state"]["pos"] == before["state"]["pos"]
    np.testing.assert_array_equal(after["state"]["key"], before["state"]["key"])


def test_everything_is_warmed_up_on_the_backend_that_is_named(backend, monkeypatch):
    def choose():
        pytest.fail("the backend in use was asked for")

    monkeypatch.setattr(backends, "_process_wide", None)
    monkeypatch.setattr(backends, "_choose", choose)
    fastrnn.warmup("float32", backend=backend)
    fastrnn.SimpleRNN(2, 3, 2, rng=0, backend=backend).stepper().step([1.0, 2.0])


def test_warmup_uses_the_backend_in_use(backend, monkeypatch):
    used = []
    monkeypatch.setattr(config, "_warmup_steps", lambda dtype, name: used.append((dtype, name)) or [])
    with fastrnn.use_backend(backend):
        fastrnn.warmup()
    assert used == [("float64", backend), ("float32", backend)]


def test_warmup_is_silent_unless_asked(capfd):
    fastrnn.warmup("float32", backend="numpy")
    assert capfd.readouterr() == ("", "")
    fastrnn.warmup("float32", backend="numpy", verbose=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert "warm-up (numpy)" in err
    assert "100%" in err


@pytest.mark.parametrize("dtype", ["float16", int, "text", 3])
def test_warmup_refuses_another_dtype(dtype):
    with pytest.raises(TypeError, match="dtype must be float32 or float64"):
        fastrnn.warmup(dtype)


def test_warmup_refuses_another_backend():
    with pytest.raises(ValueError, match="backend must be one of"):
        fastrnn.warmup(backend="fortran")
