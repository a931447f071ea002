"""Which threshold holds: override, calibration, record; larger galleries are stricter."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facepipe.errors import GalleryModelError, ModelError, UsageError
from facepipe.models import statistics
from facepipe.models.card import card_lines
from facepipe.models.registry import get_record
from facepipe.models.statistics import load_statistics
from facepipe.predict.policy import policy_for

MINI = get_record("mini")


def calibration(**changes: Any) -> dict[str, Any]:
    return {
        "model": MINI.fingerprint,
        "gallery_size": 30,
        "target_fpir": 0.01,
        "threshold": 0.45,
        "margin": 0.02,
        "curve": {"similarity": [0.0, 1.0], "probability": [0.0, 0.9]},
        **changes,
    }


def test_the_record_of_mini_is_measured_for_its_own_weights() -> None:
    statistics = load_statistics(MINI)
    assert statistics is not None
    assert statistics.sizes[0].gallery_size == 1
    assert statistics.sizes[-1].gallery_size == 1_000_000
    text = "\n".join(card_lines(statistics))
    for part in ("LFW view 2, 6000 pairs", "FNIR", "FPIR of relatives", "1,000,000 people", "extrapolated"):
        assert part in text


@given(st.integers(1, 10**7), st.integers(1, 10**7), st.sampled_from([0.001, 0.004, 0.01, 0.1]))
def test_a_larger_gallery_and_a_smaller_rate_ask_for_more(one: int, other: int, target: float) -> None:
    small, large = sorted((one, other))
    low, high = (policy_for(MINI, size, target_fpir=target) for size in (small, large))
    assert low.threshold <= high.threshold
    assert policy_for(MINI, one, target_fpir=0.1).threshold <= policy_for(MINI, one, target_fpir=target).threshold
    assert high.curve is not None
    assert low.curve is not None
    assert high.curve(0.5) <= low.curve(0.5) + 0.01


def test_an_override_beats_the_calibration_and_that_beats_the_record() -> None:
    assert policy_for(MINI, 30).threshold != 0.45
    found = policy_for(MINI, 30, calibration())
    assert (found.threshold, found.margin) == (0.45, 0.02)
    assert found.curve is not None
    assert found.curve(1.0) == 0.9
    assert policy_for(MINI, 30, calibration(), threshold=0.3, margin=0.5).threshold == 0.3
    assert policy_for(MINI, 30, calibration(), threshold=0.3, margin=0.5).margin == 0.5
    other = policy_for(MINI, 30, calibration(), target_fpir=0.1)  # not what was calibrated: the record
    assert other.threshold == policy_for(MINI, 30, target_fpir=0.1).threshold


def test_a_gallery_that_grew_is_stricter_by_what_the_record_says() -> None:
    statistics = load_statistics(MINI)
    assert statistics is not None
    grown = policy_for(MINI, 300, calibration())
    step = statistics.threshold(300, 0.01) - statistics.threshold(30, 0.01)
    assert grown.threshold == pytest.approx(0.45 + step)
    assert policy_for(MINI, 10, calibration()).threshold == 0.45  # and none the laxer when it shrank


def test_wrong_models_and_targets_are_refused() -> None:
    with pytest.raises(GalleryModelError, match="facepipe calibrate"):
        policy_for(MINI, 30, calibration(model="other"))
    with pytest.raises(UsageError, match=r"choose 0\.001 to 0\.1"):
        policy_for(MINI, 30, target_fpir=0.5)
    unmeasured = dataclasses.replace(MINI, name="none", threshold=None)
    with pytest.raises(ModelError, match="no threshold is recorded"):
        policy_for(unmeasured, 30)
    with pytest.raises(ModelError, match="no error rates"):
        policy_for(unmeasured, 30, target_fpir=0.01)
    assert policy_for(unmeasured, 30, threshold=0.4).threshold == 0.4
    assert policy_for(unmeasured, 30, threshold=0.4).curve is None


def test_statistics_of_other_weights_or_a_damaged_file_are_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = json.loads((statistics.STATISTICS / "mini.json").read_text())
    monkeypatch.setattr(statistics, "STATISTICS", tmp_path)
    assert load_statistics(MINI) is None
    (tmp_path / "mini.json").write_text(json.dumps({**values, "fingerprint": "mini-other"}))
    assert load_statistics(MINI) is None
    (tmp_path / "mini.json").write_text("{")
    with pytest.raises(ModelError, match="damaged"):
        load_statistics(MINI)
    del values["sizes"][0]["thresholds"]
    (tmp_path / "mini.json").write_text(json.dumps(values))
    with pytest.raises(ModelError, match="damaged"):
        load_statistics(MINI)


def test_a_decision_loads_no_statistics_package() -> None:
    code = "import sys, facepipe.predict.policy; print(sorted({'sklearn', 'scipy', 'torch', 'matplotlib'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
