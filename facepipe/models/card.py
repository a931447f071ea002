"""Say in plain lines what was measured of a model: the text of `facepipe models show`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from facepipe.models.registry import ModelRecord, is_here, locate
from facepipe.models.statistics import ModelStatistics, load_statistics


def statistics_of(record: ModelRecord) -> ModelStatistics | None:
    """Return what facepipe's own scripts/model_card measured for an embedder, None when nothing was."""
    return load_statistics(record) if record.kind == "embedder" else None


def model_facts(record: ModelRecord) -> dict[str, Any]:
    """Return a record and its state on this machine as JSON values."""
    here, statistics = is_here(record), statistics_of(record)
    return {
        **record.as_dict(),
        "here": here,
        "paths": [str(path) for path in locate(record)] if here else [],
        "fingerprint": record.fingerprint if record.kind == "embedder" and here else None,
        "card": statistics.card if statistics else None,
    }


def card_lines(statistics: ModelStatistics) -> list[str]:
    """Return the model card, a line each; rates in percent, intervals 95 % over people."""
    card = statistics.card
    lines = [f"measured {card['date']} by scripts/model_card, facepipe {card['facepipe']}, detector {card['detector']}"]
    if "lfw" in card:
        lines += _verification(card["lfw"])
    if "identification" in card:
        lines += _identification(card["identification"])
    lines += _thresholds(statistics)
    for row in card.get("lfw_open_set", []):
        lines.append(
            f"check on LFW, gallery of {row['gallery_size']:,}: FPIR {100 * row['fpir']['0.01']:.2f} % "
            "at the threshold for 1 %"
        )
    return [*lines, *card["limits"]]


def _verification(lfw: Mapping[str, Any]) -> list[str]:
    interval = lfw["intervals_95"]
    tars = ", ".join(
        f"{100 * value:.1f} % at FAR {key} ({_span(interval[f'tar_at_far_{key}'])})"
        for key, value in lfw["tar_at_far"].items()
    )
    return [
        f"LFW view 2, {lfw['pairs']} pairs: accuracy {100 * lfw['accuracy']:.2f} ± {100 * lfw['accuracy_sd']:.2f} %, "
        f"AUC {lfw['auc']:.4f}, EER {100 * lfw['eer']:.2f} %, {lfw['failed_to_enrol']} of {lfw['photos']} photos failed",
        f"LFW TAR: {tars}",
    ]


def _identification(found: Mapping[str, Any]) -> list[str]:
    interval = found["intervals_95"]
    lines = [
        f"open set, {found['enrolled']} of {found['people']} people enrolled, {found['strangers']} strangers: "
        f"rank-1 {100 * found['rank1']:.1f} % ({_span(interval['rank1'])}), "
        + ", ".join(
            f"FNIR {100 * value:.1f} % at FPIR {100 * float(key):g} % ({_span(interval[f'fnir_at_fpir_{key}'])})"
            for key, value in found["fnir_at_fpir"].items()
        )
    ]
    shipped = found["as_shipped"]
    lines.append(
        f"as shipped, threshold {shipped['threshold']:.3f}: FNIR {100 * shipped['fnir']:.1f} %, "
        f"FPIR {100 * shipped['fpir']:.2f} %"
    )
    for row in (*found["by_source"], *([found["relatives"]] if found["relatives"] else [])):
        lines.append(
            f"FPIR of {row['source']}: {100 * row['fpir']:.2f} % ({_span(row['fpir_interval_95'])}), {row['people']} people"
        )
    for row in found["groups"]:
        if row["fpir"] is not None:
            lines.append(
                f"FPIR of the group {row['group']}: {100 * row['fpir']:.2f} % ({_span(row['fpir_interval_95'])})"
                + (" - over twice the overall rate" if row["warning"] else "")
            )
    return lines


def _thresholds(statistics: ModelStatistics) -> list[str]:
    lines = [f"margin {statistics.margin}; thresholds for FPIR 10 %, 1 %, 0.1 % (95 % bound of FPIR; * extrapolated):"]
    for size in statistics.sizes:
        cells = ", ".join(
            f"{value:.3f} ({100 * size.bounds[rate]:.2g} %){'' if size.measured[rate] else '*'}"
            for rate, value in size.thresholds.items()
        )
        lines.append(f"  {size.gallery_size:>9,} people: {cells}")
    return lines


def _span(pair: tuple[float, float]) -> str:
    return f"{100 * pair[0]:.1f} to {100 * pair[1]:.1f}"
