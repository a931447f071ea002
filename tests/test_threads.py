"""What the command line sets for its process, and what the library borrows and puts back."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from facepipe.borrowing import Borrowed
from facepipe.cli.process import settle
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


def test_every_thread_takes_as_many_as_the_process_was_told() -> None:
    code = (
        "import sys; from facepipe.cli.process import cores, settle; settle(); assert cores() >= 1\n"
        "assert not {'torch', 'cv2', 'faiss'} & {*sys.modules}, 'they must be loaded afterwards'\n"
        "import cv2, faiss, torch; from concurrent.futures import ThreadPoolExecutor\n"
        "counts = lambda _: (cv2.getNumThreads(), faiss.omp_get_max_threads(), torch.get_num_threads())\n"
        "print(*{*ThreadPoolExecutor(2).map(counts, range(4)), counts(0)})"
    )
    for wanted, expected in (("", "(1, 1, 1)"), ("2", "(2, 2, 2)")):
        environment = {**os.environ, "FACEPIPE_THREADS": wanted}
        run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert run.stdout.strip() == expected


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
