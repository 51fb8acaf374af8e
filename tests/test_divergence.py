"""Trainings that come to NaN or infinity: what they leave in files, and how one goes on."""

import _thread
import itertools
import re
import shlex

import numpy as np
import pytest
from cli_support import invoke, run

from fastrnn import CharRNN, CheckpointError
from fastrnn.checkpoint import is_finite, previous_of, read_checkpoint, write_checkpoint
from fastrnn.language_model import LanguageModel

TEXT = "the cat sat on the mat. " * 60
SMALL = ["--hidden-size", "16", "--seq-len", "8", "--batch-size", "4", "--random-state", "3"]

pytestmark = pytest.mark.filterwarnings("ignore:overflow|invalid value|divide by zero:RuntimeWarning")


def small(**params):
    defaults = {"hidden_size": 12, "seq_len": 8, "batch_size": 4, "random_state": 0, "epochs": 2}
    return CharRNN(**defaults | params, backend="numpy", verbose=0)


@pytest.fixture
def poison(monkeypatch):
    """Have something come to be no number after a step; the loss of that step is as it was."""

    def poisoned(step, what, number=np.nan):
        train_step, calls = LanguageModel.train_step, itertools.count(1)

        def poisoning(self, x, y, h, optimizer, **options):
            loss, h = train_step(self, x, y, h, optimizer, **options)
            if next(calls) == step:
                if what == "weights":
                    self.parameters["bias_out"][0] = number
                elif what == "optimizer":
                    optimizer._state["exp_avg_sq"]["bias_out"][0] = number
                elif what == "state":
                    h = np.full_like(h, number)
                else:
                    loss = number
            return loss, h

        monkeypatch.setattr(LanguageModel, "train_step", poisoning)

    yield poisoned
    monkeypatch.undo()


def files(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


# -- fit -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("what", ["weights", "optimizer", "state", "loss"])
def test_the_file_keeps_the_last_state_that_is_finite(tmp_path, poison, what, number):
    model = small(checkpoint=tmp_path / "m", checkpoint_every=1)
    poison(23, what, number)
    with pytest.warns(
        RuntimeWarning, match=r"training stopped at step 23; .* goes on after step 22"
    ) as warned:
        model.fit(TEXT)
    assert [w.filename for w in warned] == [__file__]
    assert repr(str(tmp_path / "m")) in str(warned[0].message)
    assert model.step_ == 23 == model.history_[-1]["step"]
    assert CharRNN.load(tmp_path / "m").step_ == 22
    assert CharRNN.load(tmp_path / "m.previous").step_ == 21
    assert is_finite(tmp_path / "m")
    assert is_finite(tmp_path / "m.previous")


def test_the_way_that_the_warning_names(tmp_path, poison, monkeypatch):
    file = tmp_path / "m"
    poison(40, "weights")
    with pytest.warns(RuntimeWarning, match=r"checkpoint='.*m', lr=\.\.\.\)\.fit\(text, resume=True\)"):
        small(checkpoint=file, checkpoint_every=7).fit(TEXT)
    monkeypatch.undo()
    model = CharRNN.load(file, checkpoint=file, lr=1e-3).fit(TEXT, resume=True)
    assert CharRNN.load(file).step_ == model.step_ > 40


def test_weights_that_end_as_no_numbers_after_a_last_finite_loss(tmp_path, poison):
    steps = small().fit(TEXT).step_
    poison(steps, "weights")
    with pytest.warns(
        RuntimeWarning, match=f"no longer finite: training stopped at step {steps}; a smaller lr"
    ):
        model = small().fit(TEXT)
    assert np.isfinite(model.history_[-1]["train_nats"])
    poison(steps, "weights")
    with pytest.warns(RuntimeWarning, match=r"no longer finite.*; nothing of it was written to '.*m'"):
        small(checkpoint=tmp_path / "m").fit(TEXT)
    assert files(tmp_path) == {}


@pytest.mark.parametrize("every", [None, 1])
def test_a_run_that_diverges_at_once_leaves_no_file(tmp_path, every):
    # After one step the weights are finite, and no loss comes of them any more.
    model = small(lr=1e38, checkpoint=tmp_path / "m", checkpoint_every=every)
    with pytest.warns(RuntimeWarning, match=r"; nothing of it was written to '.*m'"):
        model.fit(TEXT)
    assert files(tmp_path) == {}
    small(epochs=1).fit(TEXT).save(tmp_path / "m")
    before = files(tmp_path)
    with pytest.warns(RuntimeWarning, match=r"; nothing of it was written to '.*m'"):
        model.fit(TEXT)
    assert files(tmp_path) == before


def test_ctrl_c_after_the_weights_are_no_numbers(tmp_path, poison, monkeypatch):
    file = tmp_path / "m"
    poison(25, "weights")
    poisoned, calls = LanguageModel.train_step, itertools.count(1)

    def interrupted(self, *arguments, **options):
        if next(calls) == 26:
            _thread.interrupt_main()
        return poisoned(self, *arguments, **options)

    monkeypatch.setattr(LanguageModel, "train_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        small(checkpoint=file, checkpoint_every=20).fit(TEXT)
    assert CharRNN.load(file).step_ == 20
    assert is_finite(file)


def test_the_best_weights_of_a_run_that_diverges(tmp_path, poison):
    model = small(checkpoint=tmp_path / "m", checkpoint_every=10, validate_every=5, patience=50, epochs=4)
    poison(32, "weights")
    with pytest.warns(RuntimeWarning, match="goes on after step 30"):
        model.fit(TEXT)
    assert model.weights_ == "best"
    assert np.isfinite(model.score(TEXT))
    assert is_finite(tmp_path / "m")
    assert CharRNN.load(tmp_path / "m").best_step_ == 30


def test_a_piece_of_a_text_that_diverges(tmp_path, poison):
    file = tmp_path / "m"
    model = small(checkpoint=file).partial_fit(TEXT)
    poison(9, "weights")
    with pytest.warns(
        RuntimeWarning, match=rf"\.partial_fit\(text\) goes on after step {model.step_}, the last"
    ):
        model.partial_fit(TEXT)
    assert is_finite(file)
    with pytest.raises(CheckpointError, match=r"cannot go on: .*m' holds an earlier state: load it"):
        model.partial_fit(TEXT)
    CharRNN.load(file, checkpoint=file, lr=1e-3).partial_fit("the mat. " * 30)


# -- what holds NaN already ------------------------------------------------------------------------


def diverged():
    with pytest.warns(RuntimeWarning):
        return small(optimizer="sgd", lr=1e38, clip=None).fit(TEXT)


def write_as_older_versions(model, file):
    """A file of NaN, whatever was there."""
    file.unlink(missing_ok=True)
    model.save(file)


def test_save_writes_what_diverged_under_a_name_of_its_own(tmp_path):
    model, good = diverged(), small(epochs=1).fit(TEXT)
    model.save(tmp_path / "diverged")
    assert not is_finite(tmp_path / "diverged")
    good.save(tmp_path / "m")
    good.save(tmp_path / "m")
    before = files(tmp_path)
    with pytest.raises(CheckpointError, match=r"'.*m' holds a model of finite numbers, and is not rep"):
        model.save(tmp_path / "m")
    assert files(tmp_path) == before
    (tmp_path / "notes").write_text("no model")
    model.save(tmp_path / "notes")
    assert (tmp_path / "notes.previous").read_text() == "no model"


def test_no_file_of_nan_takes_the_place_of_the_one_before(tmp_path):
    model, good, file = diverged(), small(epochs=1).fit(TEXT), tmp_path / "m"
    good.save(file)
    good.set_params(epochs=2, checkpoint=None)
    good.save(file)
    before = previous_of(file).read_bytes()
    write_as_older_versions(model, file)
    model.save(file)
    assert not is_finite(file)
    assert previous_of(file).read_bytes() == before
    good.save(file)
    assert is_finite(file)
    assert previous_of(file).read_bytes() == before


@pytest.mark.parametrize("part", ["last.bias_out", "optimizer.exp_avg_sq.bias_out", "state"])
def test_a_run_of_nan_cannot_be_resumed(tmp_path, part):
    file = tmp_path / "m"
    small(epochs=1).fit(TEXT).save(file)
    content, arrays = read_checkpoint(file)
    arrays[part] = np.full_like(arrays[part], np.nan)
    for previous, said in (
        ("finite", r"'.*m\.previous' holds an earlier state: put it in"),
        ("nan", "begin anew"),
    ):
        file.unlink(missing_ok=True)
        if previous == "nan":
            write_checkpoint(previous_of(file), content, arrays)
        else:
            small(epochs=1).fit(TEXT).save(previous_of(file))
        write_checkpoint(file, content, arrays)
        before = files(tmp_path)
        model = CharRNN.load(file, checkpoint=file, epochs=3)
        with pytest.raises(CheckpointError, match=rf"cannot go on: after step \d+ .* no lr mends; {said}"):
            model.fit(TEXT, resume=True)
        if part.startswith("last"):
            with pytest.raises(CheckpointError, match="cannot go on"):
                model.partial_fit(TEXT)
        assert files(tmp_path) == before
        previous_of(file).unlink()
    with pytest.raises(CheckpointError, match=r"; begin anew with a lr of less than 0.002"):
        CharRNN.load(file, epochs=3).fit(TEXT, resume=True)


def test_a_model_that_diverged_is_told_where_its_last_finite_state_is(tmp_path, poison):
    model = small(checkpoint=tmp_path / "m", checkpoint_every=5)
    poison(12, "weights")
    with pytest.warns(RuntimeWarning, match="after step 10"):
        model.fit(TEXT)
    with pytest.raises(
        CheckpointError, match=r"'.*m' holds an earlier state: load it, and resume with a lr of"
    ):
        model.fit(TEXT, resume=True)
    model.set_params(checkpoint=None, epochs=1).fit(TEXT)  # anew
    assert np.isfinite(model.score(TEXT))


# -- the command line ------------------------------------------------------------------------------


@pytest.fixture
def text(tmp_path):
    file = tmp_path / "text"
    file.write_text(TEXT, encoding="utf-8")
    return file


def test_the_command_says_what_is_kept_and_how_to_go_on(text, tmp_path):
    out = tmp_path / "m"
    first = run("train", text, "-o", out, *SMALL, "--max-steps", 5)
    assert first.returncode == 0
    good = out.read_bytes()
    done = run("train", text, "-o", out, "--resume", "--max-steps", 90, "--lr=1e38", "--checkpoint-every=1")
    assert (done.returncode, done.stdout) == (1, "")
    *_, said, command = done.stderr.splitlines()
    kept = CharRNN.load(out).step_
    assert re.fullmatch(
        rf"Error: the training diverged: .* after step \d+; {re.escape(str(out))} holds step {kept}; to go on "
        rf"from there with a lower --lr than 1e\+38:",
        said,
    )
    assert kept == 5
    assert out.read_bytes() == good
    assert command.endswith(" --max-steps 90 --checkpoint-every=1 --lr 1e+37")
    program, *going_on = shlex.split(command.strip())
    going_on[-1] = "0.002"
    again = run(*going_on[2:])
    assert again.returncode == 0, again.stderr
    assert CharRNN.load(out).step_ == 90


def test_a_file_of_another_run_is_none_to_go_on_from(tmp_path):
    other, text = tmp_path / "other", "the cat sat on the mat. " * 80
    small = {"seq_len": 8, "batch_size": 2, "random_state": 0, "verbose": 0, "epochs": 1}
    CharRNN(8, **small, checkpoint=other).fit(text)
    kept = other.read_bytes()
    model = CharRNN(8, **small).fit(text).set_params(epochs=2, lr=1e38, checkpoint=other)
    with pytest.warns(RuntimeWarning, match="nothing of it was written to '.*other'$"):
        model.fit(text, resume=True)
    assert other.read_bytes() == kept


def test_the_command_that_goes_on_has_its_options_before_the_texts(text, tmp_path):
    out = tmp_path / "m"
    assert invoke("train", text, "-o", out, *SMALL, "--max-steps", 5, "-q").exit_code == 0
    options = ["--resume", "--max-steps", 90, "--lr=1e38", "--checkpoint-every=1", "-q"]
    result = invoke("train", "-o", out, *options, "--", text)
    assert result.exit_code == 1
    command = shlex.split(result.stderr.splitlines()[-1])
    assert command[-4:] == ["--lr", "1e+37", "--", str(text)]


def test_the_command_of_a_run_that_diverges_at_once(text, tmp_path):
    out = tmp_path / "m"
    result = invoke("train", text, "-o", out, *SMALL, "--max-steps", 50, "--lr=1e38", "-q")
    assert result.exit_code == 1
    assert re.fullmatch(
        r"Error: the training diverged: the loss is nan after step \d+, and nothing was saved; "
        r"try a lower --lr than 1e\+38\n",
        result.stderr,
    )
    assert not out.exists()


def test_the_command_resumes_no_nan(text, tmp_path):
    out = tmp_path / "m"
    assert invoke("train", text, "-o", out, *SMALL, "--max-steps", 5, "-q").exit_code == 0
    content, arrays = read_checkpoint(out)
    out.rename(previous_of(out))
    arrays["last.bias_out"][:] = np.nan
    write_checkpoint(out, content, arrays)
    result = invoke("train", text, "-o", out, "--resume", "--max-steps", 10, "-q")
    assert result.exit_code == 1
    assert re.fullmatch(
        r"Error: training cannot go on: after step 5 .*; '.*m\.previous' holds an earlier state: put it in .*\n",
        result.stderr,
    )
    previous_of(out).replace(out)
    assert invoke("train", text, "-o", out, "--resume", "--max-steps", 10, "-q").exit_code == 0
