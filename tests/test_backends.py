"""The choice of a backend: names, environment, nesting, threads, and never a silent fallback."""

import concurrent.futures
import contextlib
import sys

import numpy as np
import pytest
from support import run_python

import fastrnn
from fastrnn import BackendUnavailable, SimpleRNN, backends, set_backend, use_backend

SHOW = "import fastrnn; print(fastrnn.backend())"


@pytest.fixture(autouse=True)
def restore_the_choice():
    before = backends._process_wide
    yield
    backends._process_wide = before


@pytest.fixture
def missing(monkeypatch):
    """A backend that is listed and cannot be imported."""
    monkeypatch.setitem(
        backends.BACKENDS, "missing", ("fastrnn.kernels.no_such_kernels", "'buy a bigger boat'")
    )
    return "missing"


def test_names():
    assert list(backends.BACKENDS) == ["cython", "numba", "numpy"]


def test_module_says_its_name(backend):
    assert backend == backends.load(backend).NAME
    assert backends.kernels(backend) is backends.load(backend)


def test_set_backend(backend):
    set_backend(backend)
    assert fastrnn.backend() == backend
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert pool.submit(fastrnn.backend).result() == backend
    set_backend(None)
    assert fastrnn.backend() in backends.BACKENDS


def test_use_backend_nests_and_ends_after_an_exception(backend):
    set_backend("numpy")
    with use_backend(backend):
        assert fastrnn.backend() == backend
        with use_backend("numpy"):
            assert fastrnn.backend() == "numpy"
            with contextlib.suppress(ZeroDivisionError), use_backend(backend):
                assert fastrnn.backend() == backend
                raise ZeroDivisionError
            assert fastrnn.backend() == "numpy"
        assert fastrnn.backend() == backend
        set_backend("numpy")
        assert fastrnn.backend() == backend  # the innermost with block wins
    assert fastrnn.backend() == "numpy"


def test_use_backend_is_of_one_thread(backend, monkeypatch):
    set_backend("numpy")
    with use_backend(backend), concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert pool.submit(fastrnn.backend).result() == "numpy"
        assert fastrnn.backend() == backend


@pytest.mark.parametrize("name", ["", "Cython", "cuda", "NUMPY", 3, b"numpy", [], ("numpy",), 0.5])
def test_unknown_names(name):
    before = fastrnn.backend()

    def use():
        with use_backend(name):
            pytest.fail("the block was entered")

    for attempt in (lambda: set_backend(name), use, lambda: SimpleRNN(2, 3, 2, backend=name)):
        with pytest.raises(
            ValueError, match="backend must be one of 'cython', 'numba', 'numpy', got"
        ) as caught:
            attempt()
        assert repr(name) in str(caught.value)
    assert fastrnn.backend() == before


def test_use_backend_wants_a_name():
    with pytest.raises(ValueError, match="got None"), use_backend(None):
        pytest.fail("the block was entered")


def test_a_missing_backend_never_falls_back(missing, monkeypatch):
    before = fastrnn.backend()

    def use():
        with use_backend(missing):
            pytest.fail("the block was entered")

    for attempt in (lambda: set_backend(missing), use, lambda: SimpleRNN(2, 3, 2, backend=missing)):
        with pytest.raises(BackendUnavailable) as caught:
            attempt()
        text = str(caught.value)
        assert "backend 'missing' is not available" in text
        assert "no_such_kernels" in text  # the reason
        assert "'buy a bigger boat'" in text  # how to get it
        assert isinstance(caught.value.__cause__, ImportError)
        assert fastrnn.backend() == before
    set_backend(None)
    monkeypatch.setenv("FASTRNN_BACKEND", missing)
    with pytest.raises(BackendUnavailable):
        fastrnn.backend()
    with pytest.raises(BackendUnavailable):
        SimpleRNN(2, 3, 2, rng=0).forward([0], np.zeros((3, 1)))


def test_when_nobody_asks_each_is_tried_in_turn(missing, monkeypatch):
    monkeypatch.delenv("FASTRNN_BACKEND", raising=False)
    numpy = backends.BACKENDS["numpy"]
    monkeypatch.setattr(backends, "BACKENDS", {missing: backends.BACKENDS[missing], "numpy": numpy})
    set_backend(None)
    assert fastrnn.backend() == "numpy"
    monkeypatch.setattr(backends, "BACKENDS", {missing: backends.BACKENDS[missing]})
    set_backend(None)
    with pytest.raises(BackendUnavailable, match="buy a bigger boat"):
        fastrnn.backend()


def built_without_vectors(monkeypatch):
    """Let the Cython kernels be those of a compiler without vector extensions; nobody has chosen a backend."""
    scalar = type(sys)("scalar_kernels")
    scalar.NAME, scalar.simd_level = "cython", lambda: backends.SCALAR
    monkeypatch.setitem(backends._loaded, "cython", scalar)
    monkeypatch.delenv("FASTRNN_BACKEND", raising=False)
    monkeypatch.delenv("FASTRNN_SIMD", raising=False)
    set_backend(None)


def test_numba_is_preferred_to_cython_kernels_without_vectors(monkeypatch):
    pytest.importorskip("numba")
    built_without_vectors(monkeypatch)
    assert fastrnn.backend() == "numba"
    # Who asks gets them.
    monkeypatch.setenv("FASTRNN_SIMD", backends.SCALAR)
    set_backend(None)
    assert fastrnn.backend() == "cython"
    monkeypatch.delenv("FASTRNN_SIMD")
    monkeypatch.setenv("FASTRNN_BACKEND", "cython")
    set_backend(None)
    assert fastrnn.backend() == "cython"
    monkeypatch.delenv("FASTRNN_BACKEND")
    set_backend("cython")
    assert fastrnn.backend() == "cython"


def test_cython_kernels_without_vectors_are_better_than_numpy(monkeypatch):
    built_without_vectors(monkeypatch)
    monkeypatch.setitem(backends.BACKENDS, "numba", ("fastrnn.kernels.no_such_kernels", "install it"))
    monkeypatch.delitem(backends._loaded, "numba", raising=False)
    assert fastrnn.backend() == "cython"


def test_an_error_inside_a_backend_is_not_swallowed(tmp_path, monkeypatch):
    """Only ImportError means missing; a backend that is broken says so."""
    (tmp_path / "broken_kernels_of_a_test.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(backends.BACKENDS, "broken", ("broken_kernels_of_a_test", "'mend it'"))
    with pytest.raises(ZeroDivisionError):
        backends.load("broken")
    assert "broken" not in backends._loaded


def test_an_object_keeps_the_backend_it_was_given(backend, monkeypatch):
    """Its own name beats with block, set_backend and environment."""
    called = []
    kernels = backends.load(backend)
    spied = type(sys)("spied")
    spied.__dict__.update(vars(kernels))
    spied.forward = lambda *a: (called.append(backend), kernels.forward(*a))
    monkeypatch.setitem(backends._loaded, backend, spied)
    rnn = SimpleRNN(2, 3, 2, rng=0, backend=backend)
    monkeypatch.setenv("FASTRNN_BACKEND", "no such thing")
    with use_backend("numpy"):
        rnn.forward([0, 1], np.zeros((3, 1)))
    assert called == [backend]


def test_environment_variable(backend):
    done = run_python("-c", SHOW, FASTRNN_BACKEND=backend)
    assert (done.returncode, done.stdout.strip()) == (0, backend)


def test_environment_variable_is_beaten_by_code(backend):
    code = (
        "import fastrnn\n"
        f"with fastrnn.use_backend({backend!r}): print(fastrnn.backend())\n"
        f"fastrnn.set_backend({backend!r}); print(fastrnn.backend())\n"
        "fastrnn.set_backend(None); print(fastrnn.backend())"
    )
    done = run_python("-c", code, FASTRNN_BACKEND="numpy")
    assert done.stdout.split() == [backend, backend, "numpy"], done.stderr


def test_unknown_name_in_the_environment():
    done = run_python("-c", SHOW, FASTRNN_BACKEND="fortran")
    assert done.returncode != 0
    assert "ValueError: environment variable FASTRNN_BACKEND: backend must be one of 'cython'" in done.stderr
    assert "got 'fortran'" in done.stderr
    imported = run_python("-c", "import fastrnn", FASTRNN_BACKEND="fortran")
    assert (imported.returncode, imported.stderr) == (0, "")


def test_empty_variable_is_no_choice():
    done = run_python("-c", SHOW, FASTRNN_BACKEND="")
    assert done.stdout.strip() in backends.BACKENDS, done.stderr


HIDE_NUMBA = "import sys; sys.modules['numba'] = None; sys.modules['fastrnn.kernels.cython_kernels'] = None\n"


@pytest.mark.parametrize("name", ["numba", "cython"])
def test_really_missing_backends(name):
    """In a process that can import neither Numba nor the compiled kernels."""
    asked = run_python("-c", HIDE_NUMBA + SHOW, FASTRNN_BACKEND=name)
    assert asked.returncode != 0
    assert f"BackendUnavailable: backend '{name}' is not available" in asked.stderr
    assert "how to get it" in asked.stderr
    assert asked.stdout == ""
    unasked = run_python("-c", HIDE_NUMBA + SHOW, FASTRNN_SIMD="")
    assert unasked.stdout.strip() == "numpy", unasked.stderr


def test_import_loads_neither_numba_nor_scipy():
    code = "import sys, fastrnn; print([m for m in ('numba', 'scipy', 'fastrnn.kernels.numba_kernels') if m in sys.modules])"
    done = run_python("-c", code)
    assert done.stdout.strip() == "[]", done.stderr


def test_kernels_under_their_bare_name_are_refused():
    from pathlib import Path

    from fastrnn import kernels

    folder = Path(kernels.__file__).parent
    if folder.parent.name == "fastrnn":
        pytest.skip("the kernels are installed inside fastrnn: there is no folder to import by mistake")
    done = run_python("-c", "import sys; sys.path.insert(0, sys.argv[1]); import kernels", folder.parent)
    assert "installed as fastrnn.kernels" in done.stderr
    assert done.returncode != 0


@pytest.mark.parametrize("level", ["avx51", "AVX512", "\udcff"])
def test_an_unknown_instruction_set_is_refused(level):
    try:
        backends.load("cython")
    except BackendUnavailable as error:
        pytest.skip(str(error))
    done = run_python("-c", SHOW, FASTRNN_SIMD=level)
    assert done.returncode == 1
    assert "BackendUnavailable" in done.stderr
    assert "FASTRNN_SIMD is" in done.stderr
