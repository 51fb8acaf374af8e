"""Names that a checkpoint, its lock and a text may have: of a folder, of a link, of no file at all."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from fastrnn.checkpoint import check_is_no_text, check_writable, only_writer, write_checkpoint

posix = pytest.mark.skipif(os.name != "posix", reason="symbolic links need rights on Windows")


@pytest.mark.parametrize(
    "write", [check_writable, lambda path: write_checkpoint(path, {}, {"a": np.ones(2)})]
)
def test_a_folder_is_called_one(write, tmp_path):
    with pytest.raises(IsADirectoryError, match=r"cannot write checkpoint '.*': \w+") as error:
        write(tmp_path)
    assert error.value.strerror.endswith(os.strerror(error.value.errno))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with a name on this system")
def test_the_number_of_the_error_for_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "m")
    with pytest.raises(OSError, match="is not a regular file") as error:
        check_writable(tmp_path / "m")
    assert error.value.errno == errno.EINVAL


@posix
def test_a_lock_that_is_a_link_is_not_followed(tmp_path):
    """Whoever may write to the folder could have any file of this user made, or locked."""
    lock, elsewhere = tmp_path / ".m.lock", tmp_path / "elsewhere"
    lock.symlink_to(elsewhere)
    with only_writer(tmp_path / "m"):
        write_checkpoint(tmp_path / "m", {}, {"a": np.ones(2)})
        assert not elsewhere.exists()
    assert lock.is_symlink()
    assert (tmp_path / "m").exists()


def test_a_text_of_a_name_that_no_file_has(tmp_path):
    check_is_no_text(tmp_path / "m", [Path("a\0b")])
