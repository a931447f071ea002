"""The one place that decides about threads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from facepipe import threads
from facepipe.errors import UsageError


def test_wanted_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FACEPIPE_THREADS", raising=False)
    assert threads.wanted() == 1 and threads.wanted(4) == 4
    monkeypatch.setenv("FACEPIPE_THREADS", "3")
    assert threads.wanted() == 3
    for wrong in ("0", "-1", "many"):
        monkeypatch.setenv("FACEPIPE_THREADS", wrong)
        with pytest.raises(UsageError, match="FACEPIPE_THREADS"):
            threads.wanted()


def test_a_library_that_is_loaded_is_told_in_every_thread() -> None:
    code = (
        "import threading, cv2, faiss, torch; from facepipe import threads; seen = []\n"
        "def work(): threads.limit(1); seen.append(torch.get_num_threads()); seen.append(faiss.omp_get_max_threads())\n"
        "thread = threading.Thread(target=work); thread.start(); thread.join()\n"
        "assert seen == [1, 1], seen; assert cv2.getNumThreads() == 1\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_library_that_another_thread_is_loading_is_waited_for(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("import time; time.sleep(0.5); told = []; set_num_threads = told.append")
    code = (
        f"import sys, threading, time; sys.path.insert(0, {str(tmp_path)!r}); from facepipe import threads\n"
        "loading = threading.Thread(target=lambda: __import__('torch')); loading.start()\n"
        "while 'torch' not in sys.modules: time.sleep(0.01)\n"
        "threads.limit(1); assert sys.modules['torch'].told == [1]; loading.join()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_it_loads_nothing_itself() -> None:
    code = "import sys; from facepipe import threads; threads.limit(1); assert not {'torch', 'cv2', 'faiss'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert threads.cores() >= 1
