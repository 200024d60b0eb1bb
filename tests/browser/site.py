"""The web server of the browser test: the page as Proxmox's template makes it, and the part of its API the dialog uses."""

from __future__ import annotations

import json
import mimetypes
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from urllib.parse import parse_qsl, unquote, urlsplit

ROOT = Path(__file__).resolve().parents[2]
OURS = ROOT / "gui" / "drbdocfs2.js"
DIGEST = "c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00"  # of storage.cfg, as the API gives and wants it back
NODES = ["pve1", "pve2"]
FOLDERS = {
    "extjs": ROOT / ".cache" / "extjs",
    "doubles": Path(__file__).parent / "doubles",
    "fa": Path("/usr/share/fonts-font-awesome"),
}

# The order is the one of Proxmox's template: its own scripts, then ours, then what starts the GUI.
PAGE = """<!DOCTYPE html>
<html>
  <head>
    <meta charset="utf-8">
    <title>test of the dialog</title>
    <link rel="icon" href="data:,">
    <link rel="stylesheet" href="/extjs/classic/theme-crisp/resources/theme-crisp-all.css">
    <link rel="stylesheet" href="/fa/css/font-awesome.css">
    <link rel="stylesheet" href="/doubles/light.css">
    {dark}
    <script src="/extjs/ext-all.js"></script>
    <script src="/extjs/classic/theme-crisp/theme-crisp.js"></script>
    <script>PVEDouble = {{ release: {release}, nodes: {nodes} }};</script>
    <script src="/doubles/toolkit.js"></script>
    <script src="/doubles/window.js"></script>
    <script src="/doubles/manager.js"></script>
    <script>{before}</script>
    {ours}
    <script>Ext.onReady(() => Ext.create('PVE.StdWorkspace'));</script>
  </head>
  <body></body>
</html>
"""
SCRIPT_LINE = '<script type="text/javascript" src="/pve2/js/drbdocfs2.js?ver=0123456789ab"></script>'


@dataclass(frozen=True)
class Request:
    """One request that would change something: its method, its path, and its parameters in the order sent."""

    method: str
    path: str
    parameters: list[tuple[str, str]]

    def __getitem__(self, key: str) -> list[str]:
        return [value for name, value in self.parameters if name == key]

    @property
    def keys(self) -> set[str]:
        return {name for name, _value in self.parameters}


@dataclass
class State:
    """What the site shows and has been asked; a test changes it before it opens the page."""

    release: int = 9
    dark: bool = False
    before_ours: str = ""  # JavaScript that runs when Proxmox's scripts have, and ours has not
    script_line: str = SCRIPT_LINE
    ours: str | None = field(default_factory=OURS.read_text)  # None: there is no such file
    storages: dict[str, dict[str, object]] = field(default_factory=dict)
    refusal: dict[str, object] | None = None  # how the API answers a change: {"message": ...} and perhaps errors
    requests: list[Request] = field(default_factory=list)

    def page(self) -> str:
        dark = '<link rel="stylesheet" href="/doubles/dark.css">' if self.dark else ""
        return PAGE.format(
            dark=dark, release=self.release, nodes=json.dumps(NODES), before=self.before_ours, ours=self.script_line
        )

    def refuse(self, text: str, **errors: str) -> None:
        """Answer changes as PVE does when the plugin dies with ``text``."""
        self.refusal = {"success": 0, "status": 500, "message": text, "data": None}
        if errors:
            self.refusal |= {"status": 400, "errors": errors}

    def answer(self, request: Request) -> dict[str, object] | None:
        """The API's answer as a dictionary, None for a path it does not have."""
        match request.method, request.path.split("/")[1:]:
            case "GET", ["api2", "json", "storage"]:
                return {"data": [section | {"storage": name} for name, section in self.storages.items()]}
            case "GET", ["api2", "extjs", "storage", name] if name in self.storages:
                section = self.storages[name] | {"storage": name, "digest": DIGEST}
                return {"success": 1, "data": section}
            case ("POST", ["api2", "extjs", "storage"]) | ("PUT", ["api2", "extjs", "storage", _]):
                self.requests.append(request)
                return self.refusal or {"success": 1, "data": None}
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        state = self.server.state
        kind, _, rest = path.removeprefix("/").partition("/")
        if path == "/":
            self._send(200, "text/html; charset=utf-8", state.page().encode())
        elif path == "/pve2/js/drbdocfs2.js":
            text = "not found" if state.ours is None else state.ours
            self._send(404 if state.ours is None else 200, "text/javascript; charset=utf-8", text.encode())
        elif kind == "api2":
            self._api("GET", path)
        elif kind in FOLDERS and (FOLDERS[kind] / rest).is_file() and ".." not in rest:
            mime = mimetypes.guess_type(rest)[0] or "application/octet-stream"
            # the same for all tests of a run, whose server is the same
            self._send(200, mime, (FOLDERS[kind] / rest).read_bytes(), cache="max-age=600")
        else:
            self._send(404, "text/plain", b"not found")

    def do_POST(self) -> None:
        self._api(self.command, unquote(urlsplit(self.path).path))

    do_PUT = do_POST  # noqa: N815 the name http.server wants

    def _api(self, method: str, path: str) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        parameters = parse_qsl(body, keep_blank_values=True, strict_parsing=bool(body))
        answer = self.server.state.answer(Request(method, path, parameters))
        self._send(200 if answer else 404, "application/json", json.dumps(answer).encode())

    def _send(self, status: int, mime: str, body: bytes, cache: str = "no-store") -> None:
        self.send_response(status)
        for name, value in (("Content-Type", mime), ("Content-Length", str(len(body))), ("Cache-Control", cache)):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    state: State


class Site:
    """The server on a free port of this machine alone. ``state`` is replaced by a new one for every test."""

    def __init__(self) -> None:
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self.reset()
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    def reset(self) -> State:
        self._server.state = State()
        return self._server.state

    def __enter__(self) -> Site:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()
