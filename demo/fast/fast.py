"""Stock vLLM and vtprune side by side, on a decoder whose prefill is what takes the time.

    make demo-fast                     starts both, about two minutes, and a page on port 8000

The page (`index.html`) asks both in turn and draws requests per second. The model is `bench-small`,
whose weights are random: it shows the speed, and says nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import tempfile
from contextlib import ExitStack
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from vllm_process import VllmProcess

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PHOTOS = ROOT / "assets" / "photos"
KINDS = {".html": "text/html", ".js": "text/javascript", ".jpg": "image/jpeg"}
FILES = {
    "/": HERE / "index.html",
    "/race.js": HERE / "race.js",
    "/server.js": ROOT / "server/vtprune_server/playground/server.js",
    **{f"/photos/{photo.name}": photo for photo in sorted(PHOTOS.glob("*.jpg"))},
}


class Page(BaseHTTPRequestHandler):
    """The page, its photographs, and the two servers behind it: a browser asks no other origin."""

    def __init__(self, servers: dict[str, str], *connection: object) -> None:
        photos = [path for path in FILES if path.startswith("/photos/")]
        self._servers = servers
        self._told = json.dumps({"photos": photos}).encode()
        super().__init__(*connection)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        """Answer with a file, or what there is to ask."""
        path = self.path.partition("?")[0]
        if path == "/race.json":
            self._answer("application/json", self._told)
        elif path in FILES:
            self._answer(KINDS[FILES[path].suffix], FILES[path].read_bytes())
        else:
            self.send_error(404)

    def do_POST(self) -> None:
        """Hand `/stock/...` and `/vtprune/...` on, and each piece of an answer as it comes."""
        _, name, rest = self.path.split("/", 2)
        if name not in self._servers:
            self.send_error(404)
            return
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {"Content-Type": "application/json"}
        try:
            answer = urlopen(Request(f"{self._servers[name]}/{rest}", body, headers))
        except HTTPError as error:
            answer = error
        except URLError as error:
            self.send_error(502, str(error.reason))
            return
        with answer, contextlib.suppress(ConnectionError):
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.headers["Content-Type"])
            self.end_headers()
            while piece := answer.read1():
                self.wfile.write(piece)

    def _answer(self, kind: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing: a person watches this terminal."""


def serve(port: int, servers: dict[str, str]) -> ThreadingHTTPServer:
    """A server of the page, which is not running yet; port 0 is any free one."""
    return ThreadingHTTPServer(("127.0.0.1", port), partial(Page, servers))


def main() -> None:
    """Start what is not given, and serve the page until interrupted."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with ExitStack() as stack:
        servers = _servers(stack, arguments)
        page = stack.enter_context(serve(arguments.port, servers))
        print(f"open http://localhost:{page.server_port}/ (Ctrl-C ends all)", flush=True)
        try:
            page.serve_forever()
        except KeyboardInterrupt:
            print("\nstopping both servers")


def _servers(stack: ExitStack, arguments: argparse.Namespace) -> dict[str, str]:
    """The servers' addresses; those that are not given are started."""
    logs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    flags = ["--dtype", arguments.dtype, "--max-num-seqs", "16"]
    wanted = {
        "stock": (arguments.stock_url, [], {"VLLM_PLUGINS": "none"}),
        "vtprune": (
            arguments.vtprune_url,
            ["--plugin", "vtprune", "--prune-tokens", str(arguments.keep)],
            {},
        ),
    }
    urls = {}
    for name, (url, own, env) in wanted.items():
        if url is None:
            print(f"starting {name} ...", flush=True)
            log = logs / f"{name}.log"
            server = VllmProcess(log, arguments.checkpoint, *flags, *own, **env)
            url = stack.enter_context(server).url
        urls[name] = url
    return urls


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=8000, help="of the page")
    parser.add_argument("--checkpoint", default="bench-small", help="a folder of .cache/models")
    parser.add_argument("--keep", type=int, default=64, help="visual tokens of 576")
    parser.add_argument("--dtype", default="float32", help="bfloat16 wants AVX-512")
    parser.add_argument("--stock-url", help="a server that runs already, instead of a new one")
    parser.add_argument("--vtprune-url", help="the same for vtprune")
    return parser.parse_args()


if __name__ == "__main__":
    main()
