"""A Kaggle on loopback: the real client's wire protocol, and the misbehaviour a test asks for."""

import base64
import contextlib
import hashlib
import io
import json
import math
import random
import struct
import threading
import time
import urllib.parse
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from lits_helpers.download import KaggleClient, fetch_cases
from lits_helpers.download.source import FileUnavailable, Patience

TOKEN = "KGAT_the-secret-token"
USER, KEY = "a-user", "the-secret-key"
REFRESH = "the-secret-refresh-token"  # for which a new TOKEN is given
SIGNATURE = "the-secret-signature"  # of the storage address
CHUNK = 4096
FIRST = "andrewmvd/liver-tumor-segmentation"
VOLUME, LABELS = "volume_pt1/volume-3.nii", "segmentations/segmentation-3.nii"
PATIENCE = Patience(tries=3, first_wait_s=0.0, longest_wait_s=0.05, timeout_s=5.0)


def nifti(seed: int, shape: tuple[int, ...] = (40, 48, 12), bits: int = 16) -> bytes:
    """Return a small single-file NIfTI-1 (int16, or uint8 for 8 bits) with random voxels."""
    head = bytearray(352)
    struct.pack_into("<i", head, 0, 348)
    struct.pack_into("<8h", head, 40, len(shape), *shape, *[1] * (7 - len(shape)))
    struct.pack_into("<2h", head, 70, {16: 4, 8: 2}[bits], bits)
    struct.pack_into("<8f", head, 76, 1.0, 0.7, 0.8, 5.0, 0, 0, 0, 0)
    struct.pack_into("<3f", head, 108, 352.0, 1.0, 0.0)
    head[344:348] = b"n+1\0"
    return bytes(head) + random.Random(seed).randbytes(math.prod(shape) * bits // 8)


def zipped(**members: bytes) -> bytes:
    """Return a zip with these members."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


@dataclass
class Fault:
    """One misbehaviour, used up by one request.

    Attributes:
        status: answer with this error status.
        after: send so many bytes, then cut the connection (or stall, with `stall`).
        stall: hold the connection open, silent.
        announce: Content-Length to claim; less than the content sends only that much.
        ignore_range: send everything though a part was asked for.
        garbled: flip bytes in the middle.
        no_length: no Content-Length at all.
        retry_after: seconds to put into Retry-After.
        body: send this instead.
        hidden: put the error's code into a 200 answer.
        elsewhere: claim to send the bytes so much further on.
    """

    status: int = 0
    after: int | None = None
    stall: bool = False
    announce: int | None = None
    ignore_range: bool = False
    garbled: bool = False
    no_length: bool = False
    retry_after: float | None = None
    body: bytes | None = None
    hidden: bool = False
    elsewhere: int = 0


@dataclass
class StandIn:
    """What the servers hold and what they saw.

    Attributes:
        sets: data set -> file name -> content.
        sizes: file name -> size that the listing claims, where it is not the content's.
        api_faults, storage_faults: file name ("*" for any) -> faults, each used once.
        seen: (method and service or "GET", file name, Range header).
        storage_headers: headers that the storage server got.
        sent: bytes that the storage server sent.
        pace_s: seconds to wait after each chunk.
    """

    sets: dict[str, dict[str, bytes]]
    sizes: dict[str, int] = field(default_factory=dict)
    api_faults: dict[str, list[Fault]] = field(default_factory=dict)
    storage_faults: dict[str, list[Fault]] = field(default_factory=dict)
    seen: list[tuple[str, str, str]] = field(default_factory=list)
    storage_headers: list[dict[str, str]] = field(default_factory=list)
    sent: int = 0
    pace_s: float = 0.0
    page: int = 200
    with_md5: bool = True
    with_etag: bool = True
    url: str = ""
    storage_url: str = ""

    def fault(self, faults: dict[str, list[Fault]], name: str) -> Fault:
        for key in (name, "*"):
            if faults.get(key):
                return faults[key].pop(0)
        return Fault()

    def gets(self, name: str | None = None) -> list[tuple[str, str, str]]:
        """Return the storage requests, of one file if named."""
        return [entry for entry in self.seen if entry[0] == "GET" and name in (None, entry[1])]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # small answers come at once
    stand_in: StandIn

    def log_message(self, *_):
        pass

    def answer(
        self, status: int, content: bytes, kind: str = "application/json", **headers
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(content)

    def fail(self, fault: Fault) -> None:
        message = {"code": fault.status, "message": f"error {fault.status}"}
        extra = {} if fault.retry_after is None else {"Retry_After": fault.retry_after}
        status = 200 if fault.hidden else fault.status
        self.answer(status, json.dumps(message).encode(), **extra)

    def pour(self, body: bytes, fault: Fault) -> None:
        if fault.garbled:
            middle = len(body) // 2
            body = (
                body[:middle]
                + bytes(255 - b for b in body[middle : middle + 8])
                + body[middle + 8 :]
            )
        end = len(body) if fault.after is None else fault.after
        self.close_connection = (
            fault.after is not None or fault.announce is not None or fault.no_length
        )
        with contextlib.suppress(ConnectionError):  # the client may be gone
            for offset in range(0, end, CHUNK):
                chunk = body[offset : min(offset + CHUNK, end)]
                self.wfile.write(chunk)
                self.stand_in.sent += len(chunk)
                time.sleep(self.stand_in.pace_s)
            if fault.stall:
                time.sleep(3.0)


class _Api(Handler):
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        service = self.path.rsplit("/", 1)[-1]
        name = asked.get("fileName") or ""
        self.stand_in.seen.append((service, name, ""))
        fault = self.stand_in.fault(self.stand_in.api_faults, service)
        if fault.status:
            return self.fail(fault)
        if fault.body is not None:
            return self.answer(200, fault.body)
        if service == "GenerateAccessToken" and asked.get("refreshToken") == REFRESH:
            return self.answer(200, json.dumps({"token": TOKEN, "expiresIn": 43_200}).encode())
        if not self.signed_in():
            return self.fail(Fault(status=401))
        files = self.stand_in.sets.get(f"{asked['ownerSlug']}/{asked['datasetSlug']}")
        if files is None or (service == "DownloadDataset" and name not in files):
            return self.fail(Fault(status=404))
        if service == "ListDatasetFiles":
            return self.listing(files, asked)
        where = urllib.parse.quote(f"/{asked['ownerSlug']}/{asked['datasetSlug']}/{name}")
        address = f"{self.stand_in.storage_url}{where}?X-Goog-Signature={SIGNATURE}"
        return self.answer(302, b"", Location=address)

    def signed_in(self) -> bool:
        basic = base64.b64encode(f"{USER}:{KEY}".encode()).decode()
        return self.headers.get("Authorization") in (f"Bearer {TOKEN}", f"Basic {basic}")

    def listing(self, files: dict[str, bytes], asked: dict) -> None:
        names = list(files)
        start = int(asked.get("pageToken") or 0)
        end = start + min(self.stand_in.page, asked.get("pageSize") or 20)
        lines = [
            {"name": name, "totalBytes": self.stand_in.sizes.get(name, len(files[name]))}
            for name in names[start:end]
        ]
        following = {"nextPageToken": str(end)} if end < len(names) else {}
        self.answer(200, json.dumps({"datasetFiles": lines, **following}).encode())


class _Storage(Handler):
    def do_GET(self):
        path = urllib.parse.unquote(self.path.partition("?")[0])
        _, owner, slug, name = path.split("/", 3)
        content = self.stand_in.sets[f"{owner}/{slug}"][name]
        self.stand_in.seen.append(("GET", name, self.headers.get("Range", "")))
        self.stand_in.storage_headers.append(dict(self.headers))
        fault = self.stand_in.fault(self.stand_in.storage_faults, name)
        if fault.status:
            return self.fail(fault)
        if fault.body is not None:
            return self.answer(200, fault.body, "text/html")
        self.deliver(content, fault)

    def deliver(self, content: bytes, fault: Fault) -> None:
        etag = f'"{hashlib.md5(content).hexdigest()}"'
        asked, same = self.headers.get("Range"), self.headers.get("If-Range") in (None, etag)
        start = int(asked[6:-1]) if asked and same and not fault.ignore_range else 0
        if start >= len(content):
            return self.answer(416, b"", "application/xml", Content_Range=f"bytes */{len(content)}")
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if self.stand_in.with_etag:
            self.send_header("ETag", etag)
        if self.stand_in.with_md5:
            md5 = base64.b64encode(hashlib.md5(content).digest()).decode()
            self.send_header("x-goog-hash", f"crc32c=AAAAAA==,md5={md5}")
        self.send_header("Accept-Ranges", "bytes")
        body = content[start:]
        if not fault.no_length:
            length = len(body) if fault.announce is None else fault.announce - start
            self.send_header("Content-Length", str(length))
            body = body[:length]
        self.end_headers()
        self.pour(body, fault)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        pass  # clients are killed on purpose


@contextlib.contextmanager
def serving(stand_in: StandIn, kinds: tuple[type, type] = (_Api, _Storage)) -> Iterator[StandIn]:
    """Serve until the block ends; fills in `url` and `storage_url`."""
    servers = []
    for kind in kinds:
        handler = type(kind.__name__, (kind,), {"stand_in": stand_in})
        server = _Server(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, args=(0.005,), daemon=True).start()
        servers.append(server)
    stand_in.url, stand_in.storage_url = (
        f"http://127.0.0.1:{s.server_address[1]}" for s in servers
    )
    try:
        yield stand_in
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


def point_client_at(url: str) -> None:
    """Make the real client talk to the stand-in."""
    from kagglesdk import kaggle_env

    kaggle_env._env_to_endpoint[kaggle_env.KaggleEnv.PROD] = url


def lits_sets(numbers=(3, 60), zipped_numbers=(), second_from=51) -> dict[str, dict[str, bytes]]:
    """Return both sets with a few tiny cases in Kaggle's layout."""
    first: dict[str, bytes] = {"lits_train.csv": b"a,b\n"}
    second: dict[str, bytes] = {}
    for number in numbers:
        folder = f"volume_pt{min(number // 10 + 1, 8)}"
        volume, labels = nifti(number), nifti(number, bits=8)
        if number in zipped_numbers:
            volume = zipped(**{f"volume-{number}.nii": volume})
        (first if number < second_from else second)[f"{folder}/volume-{number}.nii"] = volume
        first[f"segmentations/segmentation-{number}.nii"] = labels
    return {
        "andrewmvd/liver-tumor-segmentation": first,
        "andrewmvd/liver-tumor-segmentation-part-2": second,
    }


def fetch_one(number: int, folder: Path, client=None) -> tuple[Path, Path]:
    """Fetch a case, keep its raw files and return them.

    Raises:
        FileUnavailable: it could not be had.
    """
    pairs: list[tuple[Path, Path]] = []
    failed = fetch_cases(
        client or KaggleClient(), [number], folder, lambda _, *p: pairs.append(p), keep_raw=True
    )
    if failed:
        raise FileUnavailable(failed[number])
    return pairs[0]


def files_below(folder: Path) -> list[str]:
    """Return the relative paths of all files, temporary ones too."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
