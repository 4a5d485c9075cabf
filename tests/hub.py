"""Servers on this machine: a hub, in the protocol of `hf`, `huggingface_hub` and `datasets`, and a plain website."""

import base64
import hashlib
import io
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.error import HTTPError
from urllib.parse import parse_qs, unquote, urlsplit
from urllib.request import Request, urlopen

from fsspec import AbstractFileSystem  # type: ignore[import-untyped]

COMMIT = "0123456789abcdef0123456789abcdef01234567"
# /api/models/OWNER/NAME/tree/main/FOLDER, /datasets/OWNER/NAME/resolve/main/FILE; for models only /OWNER/NAME/resolve.
_ADDRESS = re.compile(
    r"/(?:api/)?(?:(?:models|datasets)/)?(?P<repo>.+?)"
    r"(?:/(?P<asked>resolve|tree|revision|paths-info)/[^/]+(?:/(?P<path>.*))?)?"
)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    repos: Mapping[str, Path]

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        named = parse_qs(self.rfile.read(length).decode()).get("paths", []) if length else []
        url = urlsplit(self.path)
        address = _ADDRESS.fullmatch(unquote(url.path))
        folder = self.repos.get(address["repo"])
        if folder is None:
            return self._refuse("RepoNotFound")
        place = folder / (address["path"] or "")
        if not place.exists():
            return self._refuse("EntryNotFound")
        if address["asked"] == "resolve":
            return self._answer(place.read_bytes())
        if address["asked"] == "paths-info":
            return self._answer([_entry(folder, folder / name) for name in named if (folder / name).exists()])
        if address["asked"] == "tree":
            inside = place.rglob("*") if "recursive=true" in url.query else place.iterdir()
            return self._answer([_entry(folder, path) for path in sorted(inside)])
        files = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
        siblings = [{"rfilename": name} for name in files]
        return self._answer({"id": address["repo"], "sha": COMMIT, "siblings": siblings})

    do_HEAD = do_POST = do_GET  # noqa: N815 - the names that http.server looks for

    def _refuse(self, reason: str) -> None:
        self._send(404, {"X-Error-Code": reason}, b"")

    def _answer(self, content: Any) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self._send(200, {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha1(body).hexdigest()}"'}, body)

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing on standard error."""


def _entry(folder: Path, path: Path) -> dict[str, Any]:
    name = path.relative_to(folder).as_posix()
    kind, size = ("directory", 0) if path.is_dir() else ("file", path.stat().st_size)
    return {"type": kind, "path": name, "oid": hashlib.sha1(name.encode()).hexdigest(), "size": size}


class _Website(SimpleHTTPRequestHandler):
    def __init__(self, *args: Any, asked: list[str], login: str | None, **kwargs: Any) -> None:
        self.asked, self.login = asked, login
        super().__init__(*args, **kwargs)

    def do_GET(self) -> None:
        self.asked.append(self.path)
        login = self.login and f"Basic {base64.b64encode(self.login.encode()).decode()}"
        if self.headers.get("Authorization") != login:
            return self.send_error(401)
        return super().do_HEAD() if self.command == "HEAD" else super().do_GET()

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_: Any) -> None:
        """Say nothing on standard error."""


class WebFileSystem(AbstractFileSystem):
    """As fsspec's own, whose library the tests do without: paths and errors hold the whole address."""

    protocol = "http"

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        return {"name": path, "type": "file", "size": len(self._read(path))}

    def isdir(self, path: str) -> bool:
        return False

    def open(self, path: str, mode: str = "rb", **_: Any) -> io.BytesIO:
        return io.BytesIO(self._read(path))

    def _read(self, path: str) -> bytes:
        before, _, after = path.rpartition("@")
        protocol, _, login = before.partition("://")
        request = Request(f"{protocol}://{after}" if login else path)
        if login:
            request.add_header("Authorization", f"Basic {base64.b64encode(login.encode()).decode()}")
        try:
            with urlopen(request) as answer:
                return answer.read()
        except HTTPError as error:
            with error:
                kind = FileNotFoundError if error.code == 404 else RuntimeError
                raise kind(f"{path}: {error.code}") from error


@contextmanager
def website(folder: Path, login: str | None = None) -> Iterator[tuple[str, list[str]]]:
    """Serve a folder for a while, to who has the login; gives `host:port`, and the paths that were asked for."""
    asked: list[str] = []
    handler = partial(_Website, directory=folder, asked=asked, login=login)
    with _serving(handler) as port:
        yield f"127.0.0.1:{port}", asked


@contextmanager
def hub(repos: Mapping[str, Path]) -> Iterator[str]:
    """Serve folders under their hub ids, for a while; gives the address for `HF_ENDPOINT`."""
    with _serving(type("_HubHandler", (_Handler,), {"repos": repos})) as port:
        yield f"http://127.0.0.1:{port}"


@contextmanager
def _serving(handler: Any) -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
