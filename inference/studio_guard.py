"""What may reach the page of scripts/studio.py: this computer's browser at the page's own address, and small requests.

Without --host, a request must name the loopback address (a web site whose name was pointed at it is refused), and a
request that names its origin must come from the page itself. With --host, the address may have any name, but each
request needs the token that the command prints, which the first one stores in a cookie.
"""

import secrets
from functools import partial

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "dptn_studio"
MAX_BODY = 16 * 2**20  # bytes of a request: a photo, at most
TOO_LARGE = f"more than {MAX_BODY // 2**20} MB; use a smaller file"
POLICY = "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
SECURITY_HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


class Guard:
    """ASGI middleware that refuses a request with a JSON object {"error": ...} before anything of it is decoded."""

    def __init__(self, app: ASGIApp, hosts: set[str], token: str | None = None) -> None:
        """`hosts`: what the header Host may be, with ports; with a `token`, it may be anything."""
        self.app, self.hosts, self.token = app, hosts, token
        self.cookie = f"{COOKIE}_{token[:8]}" if token else COOKIE  # the ports of a host share its cookies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # the server's start and end; websockets, for which the app has no route
            await self.app(scope, receive, send)
            return
        await (self._refusal(Request(scope)) or self.app)(scope, receive, partial(_send_with_headers, send))

    def _refusal(self, request: Request) -> Response | None:
        """The answer to a request that must not reach the app; None if it may."""
        host = request.headers.get("host", "")
        if self.token is None and host not in self.hosts:
            return _error(403, f"this page is at http://{min(self.hosts)}, not at {host!r}")
        if request.headers.get("origin", f"http://{host}") != f"http://{host}":
            return _error(403, "requests of other pages are refused")
        if self.token is not None and not _is_equal(request.cookies.get(self.cookie, ""), self.token):
            if not _is_equal(request.query_params.get("token", ""), self.token):
                return _error(403, "open the address that the command printed, with its token")
            page = RedirectResponse("/", 303)  # so that the token is not in the address that the browser keeps
            # "strict" would not be sent where the link is opened from another web site
            page.set_cookie(self.cookie, self.token, httponly=True, samesite="lax")
            return page
        length = request.headers.get("content-length", "0")
        return _error(413, TOO_LARGE) if not length.isdigit() or int(length) > MAX_BODY else None


async def _send_with_headers(send: Send, message: Message) -> None:
    if message["type"] == "http.response.start":
        message["headers"] += [(name.encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]
    await send(message)


async def read_body(request: Request) -> bytes:
    """The body of a request. HTTPException 413 after MAX_BODY bytes, whatever its header says."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY:
            raise HTTPException(413, TOO_LARGE)
    return bytes(body)


def _error(status: int, message: str) -> Response:
    return JSONResponse({"error": message}, status)


def _is_equal(given: str, token: str) -> bool:
    return secrets.compare_digest(given.encode(), token.encode())
