"""A batch in three passes: scan photos into the catalog, decide who they show, bring the outputs up to date.

scan    sources ──▶ catalog            steps 1 and 2 for new and changed photos
decide  catalog + gallery ──▶ records  steps 3 and 4 for what is not decided yet
outputs records ──▶ files              each compares what should be there with what is there
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from facepipe.catalog.catalog import Catalog, Decider
from facepipe.catalog.counts import Counts, Show
from facepipe.catalog.remote import is_url
from facepipe.catalog.scan import Scanned, ScanOptions
from facepipe.catalog.shards import WHOLE, Shard
from facepipe.catalog.sources import (
    MEMBER,
    Source,
    count_sources,
    file_of,
    find_sources,
    is_missing,
    no_such_root,
    none_exists,
)
from facepipe.catalog.store import catalog_path
from facepipe.embed.describer import Describer
from facepipe.errors import InputError, UsageError
from facepipe.files.atomic import is_folder, is_gone
from facepipe.groups.said import Said
from facepipe.images import Passing
from facepipe.outputs.owned import check_files, check_folders, mark_folders, sweep
from facepipe.outputs.results import write_failures, write_output, write_report
from facepipe.outputs.sidecars import Sidecars
from facepipe.outputs.sync import Decided, Fate, Folder, Output, Pixels, synchronise
from facepipe.records import face_record
from facepipe.text import plural, printable

if TYPE_CHECKING:
    from facepipe.outputs.kinds import How
    from facepipe.types import Face, Image

#: When nothing that was asked for is there, so many are named.
_NAMED = 20
#: So often it is tried to make outputs of photos that change while it works.
_TURNS = 3


class Recognizer(Decider, Protocol):
    """All four steps: `facepipe.Recognizer`, or one like it."""

    @property
    def describer(self) -> Describer:
        """Steps 1 and 2."""
        ...


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a batch writes.

    results: `.jsonl`, `.csv` or `.parquet`; the catalog and the list of failures lie beside it.
    annotate: folder for copies of the photos with frames and names.
    crops: folder for each face as a picture.
    sort_into: folder for the photos by who is in them.
    sort_how: `link`, `hardlink` or `copy`.
    report: HTML page.
    csv_raw: text in CSV files as it is, formulas and control characters as well.
    sidecars: who is where goes into photo.jpg.xmp beside each photo.
    catalog: what it goes on from, and keeps what it finds in; None: NAME.catalog beside the results.
    """

    results: Path
    annotate: Path | None = None
    crops: Path | None = None
    sort_into: Path | None = None
    sort_how: How = "link"
    report: Path | None = None
    csv_raw: bool = False
    sidecars: bool = False
    catalog: Path | None = None

    def catalog_file(self) -> Path:
        """Where the catalog lies."""
        return self.catalog or catalog_path(self.results)

    def folders(self) -> list[Path]:
        """The folders that are written."""
        return [path for path in (self.annotate, self.crops, self.sort_into) if path is not None]

    def open(self) -> list[Folder]:
        """Open those folders."""
        from facepipe.outputs.kinds import Annotated, Crops, Sorted

        folders: list[Folder] = []
        if self.annotate is not None:
            folders.append(Annotated(self.annotate, self.results))
        if self.crops is not None:
            folders.append(Crops(self.crops, self.results))
        if self.sort_into is not None:
            folders.append(Sorted(self.sort_into, self.results, self.sort_how))
        return folders


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """How a batch goes about it.

    workers: threads that scan photos and draw.
    shard: the part of the input that is looked at.
    stream: see `ScanOptions`.
    exclude: patterns of files and folders that are passed over, as in a .gitignore file.
    fail_on_empty: InputError when there are no photos at all.
    every: seconds after which it looks for new photos again, for ever; None: it does not.
    give_back: called now and then, to return freed memory to the system.
    tell: is given what there is to say, a line at a time.
    progress: shows the first pass; is given the number of photos, as far as it is known.
    """

    workers: int = 1
    shard: Shard = WHOLE
    stream: Callable[..., Iterator[list[Scanned]]] | None = None
    exclude: tuple[str, ...] = ()
    fail_on_empty: bool = False
    every: float | None = None
    give_back: Callable[[], object] = lambda: None
    tell: Callable[[str], object] = lambda line: None
    progress: Callable[[int], AbstractContextManager[Show]] | None = None


#: Opens the gallery: returns the recognizer and whether vectors may be kept. It is given what it returned before, and returns that
#: again when nothing has changed since; None: for the first time. late: its networks may be loaded when they are needed.
Opener = Callable[["tuple[Recognizer, bool] | None", bool], "tuple[Recognizer, bool]"]


def run(roots: Sequence[str], outputs: Outputs, opener: Opener, options: BatchOptions) -> Generator[Counts, None, None]:
    """Name the people in many photos; yield what each pass came to that changed something, the first one in any case.

    roots: files, folders (searched recursively), patterns and archives. Stopped at any moment, the same call continues where it was.
    Errors: InputError when nothing that was named is there, or there are no photos and `fail_on_empty`; UsageError when an output
    would replace what a batch did not write, or not one photo of the earlier run is there any more; OutputError; those of model,
    device and gallery.
    """
    started = time.time()
    catalog_file, folders = outputs.catalog_file(), outputs.folders()
    ours = catalog_path(outputs.results).exists() or _wrote(catalog_file, outputs.results)
    check_files(outputs.results, catalog_file, outputs.report, roots, ours=ours)
    if none_exists(roots):
        _say_none_exists(roots, options.tell)
    check_folders(folders, roots)
    # Without a catalog there is something to scan; then a model that is missing is said before anything is written.
    opened = opener(None, catalog_file.exists())
    _say_old_ledger(outputs.results, catalog_file, options.tell)
    with Catalog(catalog_file, write=True) as catalog:
        batch = _Batch(catalog, list(roots), outputs, options)
        if (problem := batch.all_gone()) is not None:
            raise UsageError(problem)
        catalog.note_results(outputs.results)
        batch.begin(*opened)
        sweep(outputs.results, outputs.report, folders, started)
        counts = batch.first()
        if not counts.found and options.every is None:
            passed = f" (passed over: {counts.passed})" if counts.passed else ""
            if options.fail_on_empty:
                raise InputError(f"no photos found in {batch.where}{passed}; name a folder with pictures in it")
            options.tell(f"no photos found in {batch.where}{passed}")
        yield counts
        while options.every is not None:
            time.sleep(options.every)
            told = problem is not None
            if (problem := batch.all_gone()) is not None:
                if not told:
                    options.tell(f"{problem}; waiting for them")
                continue
            opened = opener(opened, True)
            batch.begin(*opened)
            counts = batch.update(first=False)
            if is_new(counts):
                yield counts


def _wrote(catalog_file: Path, results: Path) -> bool:
    """Say whether a batch that went on from this catalog wrote these results."""
    if not results.is_file() or not catalog_file.is_file() or not catalog_file.stat().st_size:
        return False
    with Catalog(catalog_file) as catalog:
        return catalog.wrote(results)


def is_new(counts: Counts) -> bool:
    """Say whether a pass changed the results."""
    return bool(counts.decided or counts.gone or counts.left)


def named(roots: Sequence[str]) -> str:
    """Return what was asked for in a few words."""
    return ", ".join(map(printable, roots[:3])) + (", ..." if len(roots) > 3 else "")


class _Batch:
    """The three passes over one input, with the catalog in hand."""

    def __init__(self, catalog: Catalog, roots: list[str], outputs: Outputs, options: BatchOptions) -> None:
        self._catalog, self._roots, self._outputs, self._options = catalog, roots, outputs, options
        self._folders = outputs.folders()
        self._recognizer: Recognizer
        self._keep = True
        self._unwritten: list[str] = []

    def begin(self, recognizer: Recognizer, keep: bool) -> None:
        """Take another recognizer, or the same for another pass, and say what is to be done again for it."""
        mark_folders(self._folders)
        self._recognizer, self._keep = recognizer, keep
        catalog = self._catalog
        changed = self._begin()
        if not keep and (forgotten := catalog.forget_vectors(thumbnails=self._outputs.report is None)):
            self._options.tell(f"the embeddings of {plural(forgotten, 'photo')} were deleted from {catalog.path}")
        if (why := why_again(changed, catalog)) is not None:
            self._options.tell(why)

    def _begin(self) -> tuple[str, ...]:
        describer, facts = self._recognizer.describer, self._recognizer.facts
        return self._catalog.begin(describer.facts, facts, videos=describer.video_facts, keep=self._keep)

    def all_gone(self) -> str | None:
        """Say so when not one photo of the earlier run is among those of this one; None when there is one, or was no earlier run.

        A folder was emptied or is not mounted, or is another.
        """
        catalog, out = self._catalog, printable(self._outputs.results)
        earlier, sources = catalog.earlier(), self._options.shard.share(self._sources())
        if not earlier or any(source.problem is None and catalog.earlier_has(source.name) for _, source in sources):
            return None
        return (
            f"{out}: not one photo of the earlier run ({plural(earlier, 'photo')}) is found in {self.where} now, and "
            "nothing was changed; check that the folder is mounted and not empty, or choose another --out; to begin anew, delete "
            f"{out} and {printable(catalog.path)} first"
        )

    @property
    def where(self) -> str:
        """What is looked at, for messages."""
        whole = named(self._roots)
        return whole if self._options.shard == WHOLE else f"part {self._options.shard} of {whole}"

    def _sources(self, passing: Passing | None = None) -> Iterator[Source]:
        return find_sources(self._roots, self._folders, passing or Passing(self._options.exclude))

    def first(self) -> Counts:
        """Do the first pass, with its progress shown."""
        if self._options.progress is None:
            return self.update()
        photos = count_sources(self._roots, self._folders, Passing(self._options.exclude))
        with self._options.progress(self._options.shard.count(photos)) as show:
            return self.update(show)

    def update(self, show: Show = lambda counts: None, *, first: bool = True) -> Counts:
        """Scan, decide, and make the outputs. first: also what failed is tried again, and the outputs are made in any case."""
        counts = Counts()
        self._scan_and_decide(counts, show, retry_failed=first)
        if not (first or is_new(counts)):
            return counts
        counts.sidecars = 0
        for _ in range(_TURNS):
            if not (stale := self._synchronise(counts, show)):
                break
            self._catalog.scan_again(stale)
            self._scan_again(counts, show)
        catalog, results = self._catalog, self._outputs.results
        write_output(results, catalog.lines(), csv_raw=self._outputs.csv_raw)
        damaged = list(catalog.damages())
        counts.cut_short = len(damaged)
        write_failures(results, chain(catalog.failures(), damaged), csv_raw=self._outputs.csv_raw)
        if self._outputs.report is not None:
            seconds, scanned = counts.at("outputs", counts.found).seconds, counts.fresh + counts.problems
            write_report(self._outputs.report, catalog.records_with_thumbnails(), seconds, scanned)
        self._tell_unwritten(counts)
        counts.at("outputs", counts.found)
        return counts

    def _tell_unwritten(self, counts: Counts) -> None:
        counts.unwritten = len(self._unwritten)
        for line in self._unwritten[:_NAMED]:
            self._options.tell(line)
        if len(self._unwritten) > _NAMED:
            self._options.tell(f"{len(self._unwritten) - _NAMED:,} more sidecars were not written")

    def _scan_and_decide(self, counts: Counts, show: Show, *, retry_failed: bool) -> None:
        options, catalog, recognizer = self._options, self._catalog, self._recognizer
        passing = Passing(options.exclude)
        catalog.scan(
            self._sources(passing),
            recognizer.describer,
            ScanOptions(
                options.workers,
                options.give_back,
                thumbnails_of if self._keep or self._outputs.report is not None else None,
                options.shard,
                options.stream,
            ),
            decider=recognizer,
            retry_failed=retry_failed,
            counts=counts,
            show=show,
        )
        counts.passed = passing.told()
        catalog.decide(recognizer, counts=counts, show=show)
        if counts.damaged:
            faces = f"the faces of {plural(counts.damaged, 'photo')} are damaged in it; they are found again"
            options.tell(f"{catalog.path}: {faces}")
            self._scan_again(counts, show)
        counts.resumed = counts.found - counts.fresh - counts.compared - counts.problems

    def _scan_again(self, counts: Counts, show: Show) -> None:
        """Scan and decide those photos that turned out not to be what the catalog says."""
        self._begin()
        self._scan_and_decide(counts, show, retry_failed=False)

    def _synchronise(self, counts: Counts, show: Show) -> list[str]:
        catalog, options = self._catalog, self._options
        with ExitStack() as stack:
            outputs: list[Output] = []
            for folder in self._outputs.open():
                stack.callback(folder.close)
                outputs.append(folder)
            if self._outputs.report is not None and catalog.lacks_thumbnails():
                outputs.append(_Thumbnails(catalog))
            sidecars = Sidecars(catalog.vanished, Said(catalog.path).told if self._outputs.sidecars else None)
            if self._outputs.sidecars:
                outputs.append(sidecars)
            if not outputs:
                return []
            stale = synchronise(
                self._decided(),
                outputs,
                self._fate,
                options.workers,
                lambda done: show(counts.at("outputs", done)),
            )
            counts.sidecars += sidecars.written
            self._unwritten = sidecars.problems
            return stale

    def _decided(self) -> Iterator[Decided]:
        """Yield the photos of the results with where they are, in the order of the input."""
        max_side = self._recognizer.describer.facts.get("max_side")
        for source in self._sources():
            row = self._catalog.decided(source.name)
            if row is not None and not (row[1]["error"] is not None and is_missing(source.name)):
                yield Decided(source.name, *row, source.path, source.load, source.streamed, max_side)

    def _fate(self, name: str) -> Fate:
        file = file_of(name)
        if not is_url(name) and is_gone(file):
            return "gone" if is_folder(Path(file).parent) else "away"
        if self._catalog.decided(name) is not None:
            return "listed"
        if is_url(name):
            return "gone" if is_missing(name) else "left"
        return "gone" if MEMBER in name and file != name else "left"


class _Thumbnails(Output):
    """The thumbnails of faces for the report, where the scan did not make them."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._made: dict[str, list[bytes]] = {}

    def plan(self, photo: Decided) -> list[str]:
        """See `Output.plan`."""
        return ["thumbnails"] if photo.record["faces"] and self._catalog.lacks_thumbnails(photo.content) else []

    def make(self, photo: Decided, names: Sequence[str], pixels: Pixels) -> None:
        """See `Output.make`."""
        from facepipe.outputs.html import thumbnail

        faces = enumerate(photo.record["faces"])
        self._made[photo.content] = [thumbnail(pixels.of(number), face) for number, face in faces]

    def note(self, made: Sequence[tuple[Decided, Sequence[str]]]) -> None:
        """See `Output.note`."""
        self._catalog.put_thumbnails(self._made)
        self._made.clear()


def thumbnails_of(image: Image, faces: Sequence[Face]) -> list[bytes]:
    """Return a small picture of each face, for a catalog."""
    from facepipe.outputs.html import thumbnail

    return [thumbnail(image, face_record(face)) for face in faces]


#: What is said of a fact that changed. Those before `policy` may change the policy too, which is then not worth a word.
_CHANGES = {
    "detector": "the detector changed",
    "detect": "facepipe finds faces differently",
    "embed": "facepipe describes faces differently",
    "model": "the model changed",
    "gallery": "another gallery is used",
    "generation": "the gallery changed",
    "predict": "facepipe decides differently",
    "policy": "--threshold, --margin, --top-k, --repeat or the calibration changed",
    "min_face": "--min-face changed",
    "min_score": "--min-score changed",
    "second_chance": "--second-chance changed",
    "max_side": "--max-side changed",
    "videos": "the frames of videos are chosen in another way",
}
#: Facts that steps 1 and 2 depend on.
_OF_SCAN = frozenset({"detector", "detect", "embed", "model", "min_face", "min_score", "max_side", "second_chance"})


def why_again(changed: Sequence[str], catalog: Catalog) -> str | None:
    """Say why what an earlier run did is done again, and whether photos are scanned for that or only their faces compared."""
    told = [name for name in _CHANGES if name in changed]
    if not told or not catalog.earlier():
        return None
    if "gallery" in told and "generation" in told:
        told.remove("generation")
    if told == ["videos"]:
        return f"{_CHANGES['videos']} since the earlier run: all videos are scanned again"
    if "policy" in told and told[0] in ("detector", "model", "gallery", "generation"):
        told.remove("policy")
    reasons = ", ".join(_CHANGES[name] for name in told)
    known, photos = catalog.described()
    if known:
        whose = "all photos" if known == photos else plural(known, "photo")
        others = "" if known == photos else ", all other photos are scanned again"
        what = f"the faces of {whose} are compared again{others}"
    elif not photos or not _OF_SCAN.isdisjoint(changed):
        what = "all photos are scanned again"
    else:
        what = "all photos are scanned again, because their embeddings were not kept"
    return f"{reasons} since the earlier run: {what}"


def _say_none_exists(roots: Sequence[str], tell: Callable[[str], object]) -> None:
    """Name what is not there; InputError with the last of it."""
    *others, last = map(no_such_root, roots[:_NAMED])
    for text in others:
        tell(text)
    more = len(roots) - _NAMED
    raise InputError(last + (f"; {more:,} more do not exist either" if more > 0 else ""))


def _say_old_ledger(out: Path, catalog: Path, tell: Callable[[str], object]) -> None:
    """Say that the file that an earlier facepipe kept beside the output is of no use any more."""
    ledger = out.with_name(f"{out.name}.ledger")
    if ledger.exists() and not catalog.exists():
        tell(
            f"{printable(ledger)}: written by an earlier facepipe and not used any more: all photos are scanned again; delete it"
        )
