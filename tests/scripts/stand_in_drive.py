"""A stand-in for Google Drive: a server on this machine that answers as Google does, for tests with the real gdown."""

import re
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlsplit

QUOTA = "Too many users have viewed or downloaded this file recently."


@dataclass
class StandInDrive:
    """What the server has, and how it behaves."""

    folders: dict[str, dict] = field(default_factory=dict)  # id -> name -> bytes, or a dict for a folder
    titles: dict[str, str] = field(default_factory=dict)  # id -> name, of folders below those
    files: dict[str, tuple[str, bytes]] = field(default_factory=dict)  # id -> name, content; of all listed folders
    requests: list[str] = field(default_factory=list)  # the paths that were asked for
    ranges: list[str] = field(default_factory=list)  # the parts of files that were asked for
    refused: str = ""  # the name of a file that is not given
    cut: str = ""  # the name of a file whose connection breaks in the middle, once
    confirm: bool = False  # files are given after a page that says that they are too large for a virus scan

    def list_folder(self, folder_id: str) -> str:
        rows = []
        for name, content in self.folders[folder_id].items():
            new_id = f"{len(self.files) + len(self.folders):025d}"  # ids have at least 25 characters
            if isinstance(content, dict):
                self.folders[new_id], self.titles[new_id] = content, name
                rows.append(f'<a href="https://drive.google.com/drive/folders/{new_id}">{name}</a>')
            else:
                self.files[new_id] = name, content
                rows.append(f'<a href="https://drive.google.com/file/d/{new_id}/view">{name}</a>')
        return f"<html><title>{self.titles.get(folder_id, 'DPTN')}</title><body>{''.join(rows)}</body></html>"


class Handler(BaseHTTPRequestHandler):
    """`drive` is set in a subclass for each server."""

    drive: StandInDrive

    def do_GET(self) -> None:  # noqa: N802  (http.server's name)
        self.drive.requests.append(self.path)
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        if url.path != "/embeddedfolderview":
            self._give(query["id"], confirmed="confirm" in query)
        elif query["id"] in self.drive.folders:
            self._answer(self.drive.list_folder(query["id"]).encode())
        else:
            self._answer(b"<html><title>Not found</title></html>", status=404)

    def _give(self, file_id: str, confirmed: bool) -> None:
        name, content = self.drive.files[file_id]
        if name == self.drive.refused:
            self._answer(f'<p class="uc-error-subcaption">{QUOTA}</p>'.encode())
        elif self.drive.confirm and not confirmed:
            inputs = f'<input type="hidden" name="id" value="{file_id}"><input type="hidden" name="confirm" value="t">'
            action = "https://drive.usercontent.google.com/download"
            self._answer(f'<form id="download-form" action="{action}">{inputs}</form>'.encode())
        else:
            self._send(name, content)

    def _send(self, name: str, content: bytes) -> None:
        start, end, headers = 0, len(content), {"Content-Disposition": f'attachment; filename="{name}"'}
        if wanted := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            self.drive.ranges.append(wanted[0])
            start = int(wanted[1])
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{end}"
        headers |= {"Content-Type": "application/octet-stream", "Content-Length": str(end - start)}
        if name == self.drive.cut:
            self.drive.cut, end = "", end // 2
        self._answer(content[start:end], 206 if wanted else 200, headers)

    def _answer(self, body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for header in (headers or {"Content-Type": "text/html", "Content-Length": str(len(body))}).items():
            self.send_header(*header)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep the console quiet."""
