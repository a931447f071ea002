"""Who may speak to the review page's server: the browser window that was given the token, on this machine, and nobody else.

Whoever listens on 127.0.0.1 is reached by every program and every web site that runs in a browser here. So

- the Host has to be this server's own: a name that was pointed at 127.0.0.1 (DNS rebinding) is refused;
- what is asked for under /api/ needs the token in a header, which a foreign site cannot set, and no Origin but this one;
- the page may load nothing from elsewhere, run no script but its own, and make no HTML from text (Trusted Types).

The token is no cookie: cookies go to every server on this machine, whatever its port, that of other users too.
"""

from __future__ import annotations

import secrets

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: The header that carries the token.
TOKEN = "x-facepipe-token"
POLICY = (
    "default-src 'self'; img-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    # Faces of people stay in no cache of the browser.
    "cache-control": "no-store",
}
#: The largest request that is read, in bytes: some ten thousand faces by their names.
_LARGEST = 1 << 20


def new_token() -> str:
    """Return a token that nobody guesses."""
    return secrets.token_urlsafe(32)


class Guard:
    """Lets a request through to the application, or refuses it; see the module."""

    def __init__(self, app: ASGIApp, token: str, port: int) -> None:
        self._app, self._token = app, token.encode()
        self._hosts = frozenset({f"127.0.0.1:{port}", f"localhost:{port}"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # a WebSocket, which this server has none of
            await send({"type": "websocket.close", "code": 1008})
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        refused = self._refusal(scope["path"], Headers(scope=scope))
        if refused is None:
            await self._app(scope, receive, with_headers)
        else:
            status, reason = refused
            await JSONResponse({"error": reason}, status)(scope, receive, with_headers)

    def _refusal(self, path: str, headers: Headers) -> tuple[int, str] | None:
        """Return why a request is refused, None for one that is not."""
        host = headers.get("host", "")
        if headers.getlist("host") != [host] or host not in self._hosts:
            return 421, "this server answers to 127.0.0.1 and localhost only"
        length = headers.get("content-length", "0")
        if "transfer-encoding" in headers or not length.isdecimal():
            return 411, "the request does not say how long it is"
        if int(length) > _LARGEST:
            return 413, "the request is too large"
        if not path.startswith("/api/"):
            return None
        if headers.get("origin", f"http://{host}") != f"http://{host}":
            return 403, "this server answers to its own page only"
        if not secrets.compare_digest(headers.get(TOKEN, "").encode(), self._token):
            return 401, "open the address that facepipe review has printed"
        return None
