"""inference/studio_guard.py: which requests reach the page."""

import pytest

pytest.importorskip("starlette", reason="needs requirements-studio.txt")
pytest.importorskip("httpx", reason="needs requirements-studio.txt")

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from inference.studio_guard import MAX_BODY, Guard, read_body

HOST = "127.0.0.1:8000"


async def count_bytes(request: Request) -> Response:
    return PlainTextResponse(str(len(await read_body(request))))


def make_client(token: str | None = None) -> TestClient:
    routes = [Route("/", count_bytes, methods=["GET", "POST"])]
    app = Starlette(routes=routes, middleware=[Middleware(Guard, {HOST, "localhost:8000"}, token)])
    return TestClient(app, f"http://{HOST}", follow_redirects=False)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "localhost:8000"}, 200),
        ({"host": "127.0.0.1"}, 403),
        ({"host": "evil.example:8000"}, 403),  # a name that was pointed at the loopback address
        ({"host": ""}, 403),
        ({"origin": f"http://{HOST}"}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://localhost:8000"}, 403),  # not the page's own
        ({"origin": f"https://{HOST}"}, 403),
        ({"origin": "null"}, 403),
    ],
)
def test_guard_checks_host_and_origin(headers, status):
    answer = make_client().post("/", headers=headers)
    assert answer.status_code == status
    assert "access-control-allow-origin" not in answer.headers
    assert answer.headers["content-security-policy"].startswith("default-src 'self';")
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_guard_refuses_large_bodies_by_their_header_and_by_their_bytes():
    client = make_client()
    assert client.post("/", content=b"x" * MAX_BODY).text == str(MAX_BODY)
    assert client.post("/", content=b"x" * (MAX_BODY + 1)).status_code == 413
    parts = (b"x" * 2**20 for _ in range(20))  # no content-length
    assert client.post("/", content=parts).status_code == 413
    assert client.post("/", headers={"content-length": "-1"}).status_code == 413


def test_guard_with_a_token_admits_any_host_that_knows_it():
    client = make_client("secret")
    lan = {"host": "192.168.1.5:8000"}
    for path, headers in (("/", {}), ("/?token=wrong", {}), ("/", {"cookie": "dptn_studio_secret=wrong"})):
        assert client.get(path, headers=lan | headers).status_code == 403
    first = client.get("/?token=secret", headers=lan)
    assert (first.status_code, first.headers["location"]) == (303, "/")
    cookie = first.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=lax" in cookie.lower()  # strict would not be sent where another web site links here
    other = make_client("another").get("/?token=another", headers=lan).headers["set-cookie"]
    assert other.split("=")[0] != cookie.split("=")[0]  # ports of one host share their cookies
    client.cookies.clear()
    assert client.get("/", headers=lan | {"cookie": cookie.split(";")[0]}).status_code == 200
    evil = {"origin": "http://evil.example", "cookie": cookie.split(";")[0]}
    assert client.post("/", headers=lan | evil).status_code == 403
