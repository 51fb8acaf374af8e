"""Sweeps by joblib and Dask: the results of a plain loop, and no worker that takes all cores."""

import joblib
import numpy as np
import pytest
from mpi_support import need
from sklearn.model_selection import GridSearchCV, ParameterGrid
from sweep_support import GRID, data, fit, score_of

import fastrnn
from fastrnn import RNNClassifier, cores


def without_cores(results):
    return [result[:2] for result in results]


@pytest.fixture(scope="module")
def loop():
    """What a plain loop comes to."""
    results = [fit(settings) for settings in ParameterGrid(GRID)]
    assert len(results) == 12
    return without_cores(results)


@pytest.fixture(params=[None, 1, 3])
def inner(request):
    return request.param


def test_processes_of_joblib(loop, inner, monkeypatch):
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    with joblib.parallel_config("loky", n_jobs=2, inner_max_num_threads=inner):
        results = joblib.Parallel()(joblib.delayed(fit)(settings) for settings in ParameterGrid(GRID))
    assert without_cores(results) == loop
    mine = cores.usable_cores()
    wanted = max(1, joblib.cpu_count() // 2) if inner is None else inner
    assert {used for *_, used in results} == {min(mine, wanted)}


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_a_grid_search(backend):
    X, y = data()
    grid = {"lr": GRID["lr"], "cell": GRID["cell"]}
    searches = []
    for jobs in (1, 2):
        with joblib.parallel_config(backend):
            estimator = RNNClassifier(8, epochs=3, random_state=0)
            searches.append(GridSearchCV(estimator, grid, cv=2, n_jobs=jobs).fit(X, y))
    one, two = searches
    np.testing.assert_array_equal(one.cv_results_["mean_test_score"], two.cv_results_["mean_test_score"])
    assert one.best_params_ == two.best_params_


# -- Dask ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def client():
    """A cluster of two processes on this machine."""
    need("distributed")
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        yield client


dask = pytest.mark.filterwarnings("default")  # those of Dask are not ours


@dask
def test_a_cluster_of_dask(loop, client):
    results = client.gather(client.map(fit, list(ParameterGrid(GRID)), pure=False))
    assert without_cores(results) == loop
    assert {used for *_, used in results} == {1}


@dask
def test_joblib_over_a_cluster(loop, client):
    with joblib.parallel_config("dask"):
        results = joblib.Parallel()(joblib.delayed(fit)(settings) for settings in ParameterGrid(GRID))
    assert without_cores(results) == loop
    assert {used for *_, used in results} == {1}


@dask
def test_a_grid_search_over_a_cluster(client):
    X, y = data()
    search = GridSearchCV(RNNClassifier(8, epochs=3, random_state=0), {"lr": GRID["lr"]}, cv=2)
    alone = search.fit(X, y).cv_results_["mean_test_score"]
    with joblib.parallel_config("dask"):
        together = search.fit(X, y).cv_results_["mean_test_score"]
    np.testing.assert_array_equal(alone, together)


@dask
def test_texts_over_a_cluster(client):
    rates = [0.003, 0.01, 0.03]
    assert client.gather(client.map(score_of, rates)) == [score_of(lr) for lr in rates]


@dask
def test_a_worker_with_several_threads(loop):
    need("distributed")
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=1, threads_per_worker=4, processes=False, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        results = client.gather(client.map(fit, list(ParameterGrid(GRID)), pure=False))
    assert without_cores(results) == loop
    assert {used for *_, used in results} <= {1, 2, 4}


def test_backends_are_those_of_the_workers():
    with joblib.parallel_config("loky", n_jobs=2):
        names = joblib.Parallel()(joblib.delayed(fastrnn.backend)() for _ in range(2))
    assert set(names) == {fastrnn.backend()}
