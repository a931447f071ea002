"""What the command line sets for its process, and what the library borrows and puts back."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from facepipe.borrowing import Borrowed
from facepipe.cli.process import cores, settle
from facepipe.errors import UsageError


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))


def test_the_command_line_takes_one_thread_for_an_operation_or_as_many_as_it_is_told(environment: None) -> None:
    code = "import cv2, faiss, torch; print(cv2.getNumThreads(), faiss.omp_get_max_threads(), torch.get_num_threads())"
    for wanted, expected in (("", "1 1 1"), ("2", "2 2 2")):
        os.environ["FACEPIPE_THREADS"] = wanted
        settle()
        run = subprocess.run([sys.executable, "-c", code], env=os.environ, capture_output=True, text=True, check=True)
        assert run.stdout.strip() == expected
    for wrong in ("0", "-1", "many"):
        os.environ["FACEPIPE_THREADS"] = wrong
        with pytest.raises(UsageError, match="FACEPIPE_THREADS"):
            settle()


def test_a_library_that_is_loaded_is_told_in_every_thread() -> None:
    code = (
        "import threading, cv2, faiss, torch; from facepipe.cli import process; seen = []\n"
        "def work(): process.limit(1); seen.append(torch.get_num_threads()); seen.append(faiss.omp_get_max_threads())\n"
        "thread = threading.Thread(target=work); thread.start(); thread.join()\n"
        "assert seen == [1, 1], seen; assert cv2.getNumThreads() == 1\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_library_that_another_thread_is_loading_is_waited_for(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("import time; time.sleep(0.5); told = []; set_num_threads = told.append")
    code = (
        f"import sys, threading, time; sys.path.insert(0, {str(tmp_path)!r}); from facepipe.cli import process\n"
        "loading = threading.Thread(target=lambda: __import__('torch')); loading.start()\n"
        "while 'torch' not in sys.modules: time.sleep(0.01)\n"
        "process.limit(1); assert sys.modules['torch'].told == [1]; loading.join()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_it_loads_nothing_itself() -> None:
    code = "import sys; from facepipe.cli import process; process.limit(1); assert not {'torch', 'cv2', 'faiss'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert cores() >= 1


def test_what_is_borrowed_is_put_back_by_the_last_who_needs_it() -> None:
    setting = ["theirs"]

    def change() -> object:
        setting[0] = "ours"
        return lambda: setting.__setitem__(0, "theirs")

    borrowed = Borrowed(change)  # type: ignore[arg-type]
    inside, leave = threading.Event(), threading.Event()

    def work() -> None:
        with borrowed:
            inside.set()
            leave.wait()

    thread = threading.Thread(target=work)
    with borrowed:
        thread.start()
        inside.wait()
    assert setting == ["ours"]
    leave.set()
    thread.join()
    assert setting == ["theirs"]
    with pytest.raises(KeyError), borrowed:
        raise KeyError
    assert setting == ["theirs"]
