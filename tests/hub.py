"""A hub on this machine: folders, in the protocol that `hf`, `huggingface_hub` and `datasets` speak."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

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


@contextmanager
def hub(repos: Mapping[str, Path]) -> Iterator[str]:
    """Serve folders under their hub ids, for a while; gives the address for `HF_ENDPOINT`."""
    handler = type("_HubHandler", (_Handler,), {"repos": repos})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
