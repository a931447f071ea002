"""Step 1, crops: photos become shards of aligned crops; duplicates, non-faces and everything that tests need stay out."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from facepipe.errors import InputError, UsageError
from facepipe.types import Float32, UInt8
from scripts.train.faces import CropOptions, Found, PhotoCrops, PhotoWorker, detect_options, start_worker, work
from scripts.train.shards import Crop, read_json, write_json, write_shard
from scripts.train.sources import Photo, read_photos

Map = Callable[[Iterable[list[Photo]]], Iterator[list[PhotoCrops]]]
Say = Callable[[str], None]

#: Photos that a worker takes at once, and photos in a shard (about as many crops).
_BATCH = 16


#: Cosine that one pair of different people in ten thousand reaches, by model (60 people, 8 photos each, none of them of LFW).
SIMILARITY = {"mini": 0.51}


@dataclass(frozen=True, slots=True)
class CropsPlan:
    """All that decides what comes out; a folder of shards belongs to one plan.

    forbidden: photos of the people who must not be trained on (an evaluation set). similarity: a crop whose cosine with one of
    their faces, by `model`, is at or above this is dropped. exclude: patterns of identities. duplicate: crops whose perceptual
    hashes (256 bits) differ in at most this many bits are the same picture.
    """

    inputs: tuple[Path, ...]
    forbidden: tuple[Path, ...] = ()
    exclude: tuple[str, ...] = ()
    similarity: float = SIMILARITY["mini"]
    model: str = "mini"
    duplicate: int = 24
    per_shard: int = 1024
    options: CropOptions = field(default_factory=CropOptions)

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return json.loads(json.dumps(asdict(self), default=str))  # type: ignore[no-any-return]


class Seen:
    """Perceptual hashes of all crops so far."""

    def __init__(self, within: int) -> None:
        self._index = faiss.IndexBinaryFlat(256)
        self._within = within

    def near(self, dhash: bytes) -> bool:
        """Say whether a crop so far is the same picture."""
        if not self._index.ntotal:
            return False
        distances, _ = self._index.search(_bits(dhash), 1)
        return bool(distances[0, 0] <= self._within)

    def add(self, dhash: bytes) -> None:
        """Remember a crop."""
        self._index.add(_bits(dhash))


def _bits(dhash: bytes) -> UInt8:
    return np.frombuffer(dhash, np.uint8)[None]


@dataclass(slots=True)
class Forbidden:
    """What must stay out. vectors: float32 (n, d), unit. photos: SHA-256 of whole files. pictures: perceptual hashes."""

    vectors: Float32
    photos: frozenset[str]
    pictures: Seen

    def reason(self, crop: Found, similarity: float) -> str | None:
        """Say why a crop must be dropped, None when it may stay."""
        if crop.meta["sha256"] in self.photos:
            return "forbidden: the same photo"
        if self.pictures.near(crop.dhash):
            return "forbidden: the same picture"
        if len(self.vectors) and crop.embedding is not None:
            nearest = float((self.vectors @ crop.embedding).max())
            crop.meta["nearest_forbidden"] = round(nearest, 3)
            if nearest >= similarity:
                return "forbidden: a similar face"
        return None


@contextmanager
def photo_mapper(plan: CropsPlan, workers: int, device: str) -> Iterator[Map]:
    """Yield a function that works on batches of photos in order, in `workers` processes (0: in this one)."""
    model = plan.model if plan.forbidden else None
    if workers == 0:
        from facepipe.loading import load_describer

        extractor = load_describer(model or "mini", device, detect_options(plan.options))
        worker = PhotoWorker(extractor.detector, extractor.embedder if model else None, plan.options)
        yield lambda batches: map(worker, batches)
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), start_worker, (device, model, plan.options)) as pool:

        def run(batches: Iterable[list[Photo]]) -> Iterator[list[PhotoCrops]]:
            waiting: deque[Future[list[PhotoCrops]]] = deque()
            for batch in batches:
                waiting.append(pool.submit(work, batch))
                if len(waiting) >= 3 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

        yield run


def make_crops(plan: CropsPlan, out: Path, mapper: Map, say: Say = lambda _: None) -> dict[str, Any]:
    """Write the shards that are not there yet and return the totals (crops, photos, dropped by reason, seconds).

    Raises UsageError when the folder holds the shards of another plan, InputError when the photos changed since.
    """
    check_plan(plan, out)
    started = time.perf_counter()
    seen, photos_seen, totals, photos, last = _resume(plan, out)
    if totals["shards"]:
        say(f"goes on after {totals['shards']} shards, {photos} photos, {totals['crops']} crops")
    forbidden = _forbidden(plan, out, mapper, say)
    before = photos
    stream = _checked(plan, photos, last)
    results = (photo for batch in mapper(_batches(stream, totals)) for photo in batch)
    while chunk := list(islice(results, plan.per_shard)):
        number = totals["shards"]
        crops, dropped = _judge(plan, chunk, forbidden, seen, photos_seen, number)
        photos += len(chunk)
        # Only now: a command that failed before its first shard must not stand in the way of the corrected one.
        if number == 0:
            write_json(out / "plan.json", plan.as_dict())
        write_shard(out / f"shard-{number:06d}.tar", crops)
        receipt = {
            "photos": photos,
            "last": chunk[-1].name,
            "crops": len(crops),
            "dropped": dict(dropped),
            "sha256": [photo.sha256 for photo in chunk],
        }
        write_json(out / f"shard-{number:06d}.json", receipt)
        totals["shards"] += 1
        totals["crops"] += len(crops)
        totals["dropped"] += dropped
        rate = (photos - before) / (time.perf_counter() - started)
        say(f"shard {number}: {len(crops)} crops of {len(chunk)} photos, {rate:.1f} photos/s")
    if photos == 0:
        raise InputError(f"{', '.join(map(str, plan.inputs))}: no photo found; give folders or archives of photos")
    if plan.exclude and not totals["dropped"]["excluded identity"]:
        say(f"warning: --exclude: none of the {len(plan.exclude)} names matched anybody; names are those of folders")
    seconds = time.perf_counter() - started
    return {
        "crops": totals["crops"],
        "photos": photos,
        "unreadable_files": totals["unreadable"],
        "dropped": dict(totals["dropped"].most_common()),
        "seconds": round(seconds, 1),
        "photos_per_second": round((photos - before) / seconds, 2),
    }


def check_plan(plan: CropsPlan, out: Path) -> None:
    """Raise UsageError when a folder holds the crops of another plan."""
    known = out / "plan.json"
    if known.exists() and read_json(known) != plan.as_dict():
        raise UsageError(f"{out}: holds the crops of other photos or options; choose another folder or remove it")


def _resume(plan: CropsPlan, out: Path) -> tuple[Seen, set[str], dict[str, Any], int, str | None]:
    """Read what the finished shards hold: hashes of crops and photos, totals, how many photos, and the last one's name."""
    from scripts.train.shards import read_shard

    seen, photos_seen = Seen(plan.duplicate), set[str]()
    totals: dict[str, Any] = {"shards": 0, "crops": 0, "dropped": Counter(), "unreadable": 0}
    photos, last = 0, None
    for path in sorted(out.glob("shard-*.json")):
        receipt = read_json(path)
        photos, last = receipt["photos"], receipt["last"]
        photos_seen.update(receipt["sha256"])
        totals["shards"] += 1
        totals["crops"] += receipt["crops"]
        totals["dropped"] += Counter(receipt["dropped"])
        for crop in read_shard(path.with_suffix(".tar")):
            seen.add(bytes.fromhex(crop.meta["dhash"]))
    return seen, photos_seen, totals, photos, last


def _checked(plan: CropsPlan, done: int, last: str | None) -> Iterator[Photo | InputError]:
    """Yield the photos after the first `done`; InputError when the one before them is not the one that was last."""
    stream = read_photos(plan.inputs, max(0, done - 1))
    if done:
        first = next(stream, None)
        name = first.name if isinstance(first, Photo) else None
        if name is not None and name != last:
            raise InputError(f"{name}: expected {last} here; the photos changed, so crop into a new folder")
    return stream


def _batches(stream: Iterator[Photo | InputError], totals: dict[str, Any]) -> Iterator[list[Photo]]:
    """Group photos; a file that cannot be read keeps its place as an empty photo, so that numbers stay what they are."""
    while chunk := list(islice(stream, _BATCH)):
        photos = []
        for entry in chunk:
            if isinstance(entry, InputError):
                totals["unreadable"] += 1
                entry = Photo(str(entry).split(":", 1)[0], None, b"")
            photos.append(entry)
        yield photos


def _judge(
    plan: CropsPlan,
    chunk: Sequence[PhotoCrops],
    forbidden: Forbidden | None,
    seen: Seen,
    photos_seen: set[str],
    number: int,
) -> tuple[list[Crop], Counter[str]]:
    """Decide which crops stay, and count why the others do not."""
    crops: list[Crop] = []
    dropped: Counter[str] = Counter()
    for photo in chunk:
        dropped += photo.dropped
        repeated = photo.sha256 in photos_seen
        photos_seen.add(photo.sha256)
        excluded = plan.exclude and _excluded(photo.identity, root_names(photo.name, plan.inputs), plan.exclude)
        for found in photo.crops:
            if excluded:
                reason: str | None = "excluded identity"
            elif repeated:
                reason = "duplicate: the same photo"
            else:
                reason = forbidden.reason(found, plan.similarity) if forbidden else None
                if reason is None and seen.near(found.dhash):
                    reason = "duplicate: the same picture"
            if reason is not None:
                dropped[reason] += 1
                continue
            seen.add(found.dhash)
            crops.append(Crop(f"{number:06d}-{len(crops):05d}", found.jpeg, {**found.meta, "dhash": found.dhash.hex()}))
    return crops, dropped


def root_names(photo: str, inputs: Sequence[Path]) -> set[str]:
    """Return the names of the inputs that a photo lies in: of folders, of archives without suffix, of a single photo's folder."""
    names = set()
    for root in inputs:
        if photo == str(root):
            names.add(root.resolve().parent.name)
        elif photo.startswith(f"{root}:"):
            names.add(root.name.split(".", 1)[0])
        elif Path(photo).is_relative_to(root):
            names.add(root.resolve().name)
    return names


def _excluded(identity: str | None, roots: set[str], patterns: Sequence[str]) -> bool:
    """Say whether a pattern names the photo's person: by the folders below the input or, where there are none, by the input.

    A pattern without wildcards names the input always: a person's folder may have folders of its own. With wildcards it might
    match a word like `photos` by chance, and everything would be gone.
    """
    wanted = [pattern.casefold() for pattern in patterns]
    names = {identity, *identity.split("/")} if identity else roots
    if {root.casefold() for root in roots} & set(wanted):
        return True
    return any(fnmatch(name.casefold(), pattern) for pattern in wanted for name in names)


def read_patterns(path: Path) -> tuple[str, ...]:
    """Read a list of identities, one on a line, `*` and `?` allowed, `#` starts a comment; InputError when it is not there."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: the list of identities cannot be read ({error})") from error
    return tuple(name for line in lines if (name := line.split("#", 1)[0].strip()))


def _forbidden(plan: CropsPlan, out: Path, mapper: Map, say: Say) -> Forbidden | None:
    """Describe the forbidden photos, once; their description is kept beside the shards."""
    if not plan.forbidden:
        return None
    key = hashlib.sha256(json.dumps([str(p) for p in plan.forbidden] + [plan.model]).encode()).hexdigest()[:16]
    path = out / f"forbidden-{key}.npz"
    if not path.exists():
        photos, hashes, vectors = [], [], []
        stream = read_photos(plan.forbidden)
        unused: dict[str, Any] = {"unreadable": 0}
        for batch in mapper(_batches(stream, unused)):
            for photo in batch:
                photos.append(photo.sha256)
                hashes += [np.frombuffer(crop.dhash, np.uint8) for crop in photo.crops]
                vectors += [crop.embedding for crop in photo.crops if crop.embedding is not None]
        if not vectors:
            raise InputError(f"{', '.join(map(str, plan.forbidden))}: no face found in the forbidden photos")
        from facepipe.files.atomic import atomic_file

        with atomic_file(path) as file:
            np.savez(file, photos=np.asarray(photos), hashes=np.stack(hashes), vectors=np.stack(vectors))
    with np.load(path, allow_pickle=False) as stored:
        pictures = Seen(plan.duplicate)
        for dhash in stored["hashes"]:
            pictures.add(dhash.tobytes())
        say(f"forbidden: {len(stored['photos'])} photos with {len(stored['vectors'])} faces")
        return Forbidden(stored["vectors"], frozenset(str(p) for p in stored["photos"]), pictures)
