"""One process at a time writes a folder, and a dead one leaves no lock."""

import os
import re
import signal
import socket
import time
from multiprocessing import get_context

import pytest
from filelock import FileLock, Timeout

from rftf_torchrl import FolderInUseError, own_folder


def hold(folder, held):
    with own_folder(folder):
        held.set()
        time.sleep(60)


@pytest.fixture
def holder(tmp_path):
    context = get_context("fork")
    held = context.Event()
    process = context.Process(target=hold, args=[tmp_path, held])
    process.start()
    assert held.wait(30)
    yield process
    process.kill()
    process.join()


def test_the_second_process_is_told_who_has_the_folder(tmp_path, holder):
    message = (
        rf"the stage 'run' of {re.escape(str(tmp_path))} is being written by process "
        rf"{holder.pid} on {re.escape(socket.gethostname())}, since \S+: wait for it to end, "
        r"stop it, or choose "
        r"another output folder\."
    )
    with pytest.raises(FolderInUseError, match=f"^{message}$"), own_folder(tmp_path):
        pass


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_that_is_killed_leaves_the_folder_free(tmp_path, holder, sign):
    os.kill(holder.pid, sign)
    holder.join()
    with own_folder(tmp_path) as folder:
        assert (folder / ".run.json").is_file()


def test_the_owner_may_enter_again_and_an_error_frees_the_folder(tmp_path):
    with pytest.raises(KeyError), own_folder(tmp_path), own_folder(tmp_path):
        raise KeyError
    with own_folder(tmp_path):
        with own_folder(tmp_path):
            pass
        assert (tmp_path / ".run.json").is_file(), "it is still the outer one's"
        with pytest.raises(Timeout):
            FileLock(tmp_path / ".run.lock", timeout=0).acquire()
    assert not (tmp_path / ".run.json").exists()


def test_another_stage_of_the_run_is_free(tmp_path, holder):
    with own_folder(tmp_path, "evaluation"):
        assert (tmp_path / ".run.json").is_file()
