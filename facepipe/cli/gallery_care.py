"""`facepipe gallery not|audit|check|salvage|compact|index|reembed`: keeps a gallery right."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from facepipe.cli.common import (
    FiniteRange,
    PlacePath,
    device_option,
    echo,
    err_console,
    gallery_option,
    json_option,
    note,
    quiet_option,
)
from facepipe.cli.gallery_people import echo_json, open_database, table
from facepipe.cli.options import face_option
from facepipe.cli.process import settle
from facepipe.gallery.names import gallery_command
from facepipe.text import plural

if TYPE_CHECKING:
    from facepipe.detect.selection import FaceRule
    from facepipe.gallery.care.audit import AuditReport


@click.command()
@gallery_option
@click.option("--threshold", type=FiniteRange(-1, 1), help="Cosine that counts as one person; default: the model's.")
@click.option("--page", type=PlacePath(dir_okay=False), help="Write an HTML page with the faces.")
@click.option("--top", type=click.IntRange(min=1), default=20, show_default=True, help="Rows shown of each list.")
@click.option(
    "--keep",
    "kept",
    multiple=True,
    type=int,
    metavar="FACE",
    help="Mark this face (id) as correct; audit stops listing it.",
)
@json_option
def audit(
    gallery: Path, threshold: float | None, page: Path | None, top: int, kept: tuple[int, ...], as_json: bool
) -> None:
    """Find doubtful faces, mixed-up labels, people who look alike, and people with too few photos.

    Each face is compared with the mean of its person's other faces and with everybody else; the largest doubts come first.
    """
    from facepipe.api import Gallery
    from facepipe.files.guard import check_outputs

    check_outputs((page,), gallery=gallery)
    with Gallery.open(gallery) as opened:
        report = opened.audit(threshold=threshold, correct=kept, page=page, tell=note)
    if page is not None:
        note(f"{page}: written; it shows faces, keep it as carefully as the gallery")
    if as_json:
        echo_json(**asdict(report))
    else:
        _print_audit(report, top)


def _print_audit(report: AuditReport, top: int) -> None:
    test = report.leave_one_out
    echo(
        f"{plural(report.people, 'person', 'people')}, {plural(report.faces, 'face')}, threshold {report.threshold:.2f}; "
        f"leave-one-out over {plural(test.faces, 'face')}: {test.right} right, {test.wrong} taken for somebody else, "
        f"{test.unknown} not recognised"
    )
    if report.doubts:
        echo(f"\n{plural(len(report.doubts), 'doubtful face')}, largest doubt first:")
        rows = [
            [
                f"{d.doubt:.2f}",
                str(d.face_id),
                d.person,
                "-" if d.own is None else f"{d.own:.2f}",
                d.other_person,
                f"{d.other:.2f}",
                d.verdict(report.threshold),
            ]
            for d in report.doubts[:top]
        ]
        table(["doubt", "face", "person", "own", "nearest other", "other", ""], rows)
        echo("gallery split or gallery remove corrects a face; gallery audit --keep FACE marks it as correct")
    if report.alike:
        echo(f"\n{plural(len(report.alike), 'pair')} of people who look alike:")
        table(["", "", "cosine"], [[a.first, a.second, f"{a.similarity:.2f}"] for a in report.alike[:top]])
    if report.few:
        echo(
            f"\n{plural(len(report.few), 'person', 'people')} with fewer than 3 photos: "
            + ", ".join(n for n, _ in report.few[:top])
        )


@click.command()
@gallery_option
@click.option("--repair", "mend", is_flag=True, help="Repair what can be repaired.")
@click.option("--sources", is_flag=True, help="Also compare the photos with what was enrolled.")
@json_option
def check(gallery: Path, mend: bool, sources: bool, as_json: bool) -> int:
    """Verify the database, vectors, checksums, journal, and derived files.

    Exit code 5 when something is wrong, or when --repair could not mend it without loss.
    """
    from facepipe.errors import ExitCode
    from facepipe.gallery.care.check import check_and_repair

    with open_database(gallery, accept_loss=True) as database:
        findings, done, lost = check_and_repair(database, sources=sources, mend=mend)
    if as_json:
        echo_json(findings=[asdict(finding) for finding in findings], repaired=done, lost=lost)
    else:
        for line in done:
            note(line)
        for line in lost:
            note(f"lost: {line}")
        for finding in findings:
            echo(f"{finding.kind}: {finding.text}: {finding.advice}")
        if not findings:
            echo("all well, except for what was lost" if lost else "all well")
    return ExitCode.GALLERY if findings or lost else ExitCode.OK


@click.command()
@click.argument("into", type=PlacePath(file_okay=False))
@gallery_option
@json_option
def salvage(into: Path, gallery: Path, as_json: bool) -> int:
    """Copy every intact face of a damaged gallery into a new one in the folder INTO. Exit code 7 when some are lost."""
    from facepipe.errors import ExitCode
    from facepipe.files.guard import require_outside
    from facepipe.gallery.care.salvage import salvage as run_salvage

    require_outside(gallery, into)
    found = run_salvage(gallery, into)
    if as_json:
        echo_json(**asdict(found), into=str(into))
    else:
        for line in found.lost:
            note(f"lost: {line}")
        people = plural(found.people, "person", "people")
        echo(f"{found.faces} of {plural(found.known, 'face')}, of {people}, carried into {into}")
    return ExitCode.PARTIAL if found.lost else ExitCode.OK


@click.command()
@gallery_option
@json_option
def compact(gallery: Path, as_json: bool) -> None:
    """Delete expired faces, free unused disk space, and leave no bytes of what was removed."""
    from facepipe.gallery.privacy.erasing import compact as run_compact

    with open_database(gallery) as database:
        before, after = run_compact(database)
    if as_json:
        echo_json(before=before, after=after)
    else:
        echo(f"{before:,} bytes before, {after:,} after")


@click.command()
@click.option(
    "--kind",
    type=click.Choice(["exact", "pq", "ivf", "hnsw", "milvus"]),
    help="Choose it; pq is nearly always best on one machine.",
)
@click.option(
    "--uri", metavar="URI", help="Of a Milvus server, with --kind milvus; its token is read from FACEPIPE_MILVUS_TOKEN."
)
@click.option("--forget", is_flag=True, help="Go without a vector database that cannot be reached any more.")
@click.option(
    "--min-recall",
    type=FiniteRange(0, 1),
    default=0.999,
    show_default=True,
    help="Refuse an index that finds the exact answer less often.",
)
@gallery_option
@json_option
def index(kind: str | None, uri: str | None, forget: bool, min_recall: float, gallery: Path, as_json: bool) -> None:
    """Show or choose how people are searched, and measure what an approximate search misses.

    Search is exact until you choose otherwise. pq: 4-bit codes, 17 to 47 times faster, 60 bytes a person. ivf, hnsw: for
    comparison. milvus: people's templates, without names, are kept in a vector database as well. Every kind is re-ranked
    exactly; `--kind exact` takes the index away.
    """
    from facepipe.gallery.arrays.index_file import build_index, show_index

    if kind is None and (uri is not None or forget):
        raise click.UsageError("--uri and --forget go with --kind: without it the present index is shown")
    with open_database(gallery) as database:
        report = (
            show_index(database) if kind is None else build_index(database, kind, min_recall, uri=uri, forget=forget)
        )
        server = database.server()
    if as_json:
        echo_json(**asdict(report), uri=server)
    elif report.kind == "exact":
        echo(f"search is exact over {report.people:,} people")
    else:
        echo(
            f"{report.kind}: recall@1 against exact {report.recall:.4f} of {report.probes} probes, {report.people:,} people, "
            f"built in {report.build_seconds:.1f} s, {report.bytes:,} bytes"
            + ("" if server is None else f" at {server}")
        )


@click.command("not")
@click.argument("name")
@click.argument("images", nargs=-1, required=True, type=PlacePath())
@click.option(
    "--faces",
    "rule",
    type=click.Choice(["clear", "largest", "only"]),
    default="clear",
    show_default=True,
    help="Which face to take of a photo with several.",
)
@face_option
@gallery_option
@device_option
@json_option
@quiet_option
def not_person(
    name: str,
    images: tuple[Path, ...],
    rule: FaceRule,
    number: int | None,
    gallery: Path,
    device: str,
    as_json: bool,
    quiet: bool,
) -> int:
    """Say that the face in IMAGES is not NAME: a face that is more like it than like NAME does not get that name again."""
    from facepipe.api import Gallery
    from facepipe.cli.options import FEW
    from facepipe.errors import ExitCode, FacepipeError
    from facepipe.gallery.people import require_person

    settle()
    done: list[dict[str, Any]] = []
    with Gallery.open(gallery) as opened:
        require_person(opened.database, name)
        opened.database.require_writable()
        for path in images:
            try:
                found = opened.refute(name, path, faces=number or rule, device=device, quick=len(images) <= FEW)
            except FacepipeError as error:
                if len(images) == 1:
                    raise
                note(f"facepipe: {error}")
                done.append({"path": str(path), "status": "failed", "reason": str(error)})
                continue
            status = "noted" if found.fresh else "already"
            done.append({"path": str(path), "status": status, "enrolled": list(found.enrolled)})
            for face_id in found.enrolled:
                note(
                    f"facepipe: {path}: is enrolled as {name}: "
                    f"{gallery_command(gallery, 'remove', name, '--face', face_id)} takes it out"
                )
    if as_json:
        echo_json(name=name, photos=done)
    elif not quiet:
        note(f"{plural(sum(d['status'] == 'noted' for d in done), 'face')} noted as not {name}")
    return ExitCode.PARTIAL if any(d["status"] == "failed" for d in done) else ExitCode.OK


@click.command()
@click.option("--model", default="mini", show_default=True, metavar="NAME", help="The network to move to.")
@click.option("--drop-missing", is_flag=True, help="Drop faces whose chip and photo are both lost.")
@gallery_option
@device_option
@json_option
@quiet_option
def reembed(model: str, drop_missing: bool, gallery: Path, device: str, as_json: bool, quiet: bool) -> None:
    """Move the gallery to another network: every face is embedded again, from its chip or its photo.

    May be interrupted and started again: it continues where it stopped. The old vectors serve until the new are whole.
    """
    from facepipe.api import Gallery
    from facepipe.gallery.care.reembed import ReembedReport

    console = err_console()
    live = console.is_terminal and not quiet

    def progress(done: int, total: int) -> None:
        if live:
            console.print(f"{done} of {total} faces", end="\r")

    with Gallery.open(gallery) as opened:
        report = opened.reembed(model, device=device, drop_missing=drop_missing, progress=progress)
        fingerprint = opened.fingerprint
    if as_json:
        echo_json(model=fingerprint, **asdict(report or ReembedReport(0, 0, (), 0)))
    elif report is None:  # no error: after an interruption at the very end the command is started again to be sure
        echo(f"made by {fingerprint} already: nothing to move")
    else:
        gone = f", {len(report.dropped)} dropped" if report.dropped else ""
        again = f" ({report.resumed} by an earlier run)" if report.resumed else ""
        echo(f"{plural(report.faces, 'face')} moved to {fingerprint}{again}{gone}")
