"""The review page's server: routes to the groups, which have a thread of their own, to photos, and to the page's files."""

from __future__ import annotations

import asyncio
import struct
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from importlib import resources
from typing import TypeVar

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from facepipe.errors import ExitCode, FacepipeError
from facepipe.groups.values import FaceKey
from facepipe.review.asked import Asked
from facepipe.review.calls import POSTS, READS, Calls
from facepipe.review.guard import Guard
from facepipe.review.pictures import picture, thumbnails
from facepipe.review.shown import Json

_T = TypeVar("_T")
#: The kinds of the page's files; nothing else is served.
_KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_STATUS = {ExitCode.USAGE: 400, ExitCode.INPUT: 404, ExitCode.GALLERY: 409}
#: So many pictures that were cut out of photos are kept.
_REMEMBERED = 10_000
#: Photos are decoded two at a time, beside the groups' thread.
_DECODERS = 2


class Review:
    """The application. open: opens the groups; called in the one thread that they belong to."""

    def __init__(self, open: Callable[[], Calls], token: str, port: int) -> None:
        self._thread = ThreadPoolExecutor(1, "groups")
        self._made: dict[FaceKey, bytes] = {}
        self._decoders = ThreadPoolExecutor(_DECODERS, "photos")
        try:
            self._calls = self._thread.submit(open).result()
        except BaseException:
            self._thread.shutdown()
            raise
        routes = [Route("/", self._file), Route("/page/{name}", self._file)]
        routes += [Route(f"/api/{name}", self._told(getattr(Calls, name)), methods=["GET"]) for name in READS]
        routes += [Route(f"/api/{name}", self._told(getattr(Calls, name)), methods=["POST"]) for name in POSTS]
        routes += [
            Route("/api/thumbnails", self._thumbnails, methods=["POST"]),
            Route("/api/picture", self._picture, methods=["GET"]),
        ]
        self._files = _page_files()
        self.app = Starlette(
            routes=routes,
            middleware=[Middleware(Guard, token=token, port=port)],
            exception_handlers={FacepipeError: _refused},
            lifespan=self._lifespan,
        )

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        yield
        self.close()

    def close(self) -> None:
        """End the threads, after what they are doing."""
        self._decoders.shutdown(cancel_futures=True)
        self._thread.submit(self._calls.close)
        self._thread.shutdown()

    def _told(self, call: Callable[[Calls, Asked], Json]) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            asked = await Asked.of(request)
            return JSONResponse(await _in(self._thread, lambda: call(self._calls, asked)))

        return endpoint

    async def _thumbnails(self, request: Request) -> Response:
        asked = await Asked.of(request)
        found = await _in(self._thread, lambda: self._calls.thumbnails(asked))
        made = await self._cut([face for face in found if isinstance(face, FaceKey)])
        jpegs = [made.get(face, b"") if isinstance(face, FaceKey) else face for face in found]
        # For each a length in four bytes, the highest first, and a JPEG.
        data = b"".join(struct.pack(">I", len(jpeg)) + jpeg for jpeg in jpegs)
        return Response(data, media_type="application/octet-stream")

    async def _cut(self, faces: Sequence[FaceKey]) -> dict[FaceKey, bytes]:
        """Return small pictures of faces of which the scan kept none; they are remembered, the last ones."""
        lacking: dict[str, list[FaceKey]] = defaultdict(list)
        for face in faces:
            if face not in self._made:
                lacking[face.content].append(face)
        photos = await _in(self._thread, lambda: self._calls.photos_of(lacking)) if lacking else {}
        work = [
            _in(self._decoders, partial(thumbnails, photo, [face.number for face in lacking[content]]))
            for content, photo in photos.items()
        ]
        for content, jpegs in zip(photos, await asyncio.gather(*work), strict=True):
            self._made.update(zip(lacking[content], jpegs, strict=True))
        while len(self._made) > _REMEMBERED:
            del self._made[next(iter(self._made))]
        return {face: self._made[face] for face in faces if face in self._made}

    async def _picture(self, request: Request) -> Response:
        asked = await Asked.of(request)
        side, number = asked.number("side", 1600), asked.number("number") if asked.has("number") else None
        whole = asked.has("whole")
        photo = await _in(self._thread, lambda: self._calls.photo_of(asked))
        return Response(
            await _in(self._decoders, lambda: picture(photo, side, number, whole=whole)),
            media_type="image/jpeg",
        )

    async def _file(self, request: Request) -> Response:
        file = self._files.get(request.path_params.get("name", "page.html"))
        return Response("not found", 404) if file is None else Response(file[0], media_type=file[1])


async def _in(executor: Executor, work: Callable[[], _T]) -> _T:
    return await asyncio.get_running_loop().run_in_executor(executor, work)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, FacepipeError)
    return JSONResponse({"error": str(error)}, _STATUS.get(error.exit_code, 500))


def _page_files() -> dict[str, tuple[bytes, str]]:
    """Return the page's files by name: read once, so that no name a browser sends ever becomes a path."""
    files = {}
    for file in resources.files("facepipe.review").joinpath("page").iterdir():
        if kind := _KINDS.get(file.name.rpartition(".")[2]):
            files[file.name] = file.read_bytes(), kind
    return files
