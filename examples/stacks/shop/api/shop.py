"""The shop's API over Redis, and its migration: `shop.py serve`, `shop.py migrate FILE`, `shop.py check`."""

import json
import os
import signal
import socket
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Store:
    """One connection to Redis, speaking RESP."""

    def __init__(self) -> None:
        address = (os.environ.get("STORE_HOST", "store"), 6379)
        self._socket = socket.create_connection(address, timeout=3)
        self._file = self._socket.makefile("rb")
        with open(os.environ["STORE_PASSWORD_FILE"]) as file:
            self("AUTH", file.read())

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_) -> None:
        self._socket.close()

    def __call__(self, *words: str):
        parts = [f"*{len(words)}\r\n".encode()]
        for word in words:
            data = str(word).encode()
            parts.append(b"$%d\r\n%s\r\n" % (len(data), data))
        self._socket.sendall(b"".join(parts))
        return self._answer()

    def _answer(self):
        line = self._file.readline().rstrip(b"\r\n")
        kind, rest = line[:1], line[1:]
        if kind == b"-":
            raise RuntimeError(rest.decode())
        if kind == b"$":
            size = int(rest)
            return None if size < 0 else self._file.read(size + 2)[:-2].decode()
        if kind == b"*":
            return [self._answer() for _ in range(int(rest))]
        return int(rest) if kind == b":" else rest.decode()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        try:
            with Store() as store:
                if self.path == "/api/products":
                    products = [json.loads(text) for text in store("HVALS", "products")]
                    self._send(200, {
                        "products": sorted(products, key=lambda p: p["id"]),
                        "served_by": socket.gethostname(),
                        "visits": store("INCR", "visits"),
                    })
                elif self.path == "/api/health":
                    self._send(200, {"store": store("PING")})
                else:
                    self._send(404, {"error": f"no such resource: {self.path}"})
        except (OSError, RuntimeError) as error:
            self._send(503, {"error": f"the store does not answer: {error}"})

    def _send(self, code: int, body: dict) -> None:
        data = json.dumps(body).encode() + b"\n"
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def serve() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print(f"serving on port 8000 as {socket.gethostname()}")
    ThreadingHTTPServer(("", 8000), Handler).serve_forever()


def migrate(path: str) -> None:
    with open(path) as file, Store() as store:
        for product in json.load(file):
            store("HSET", "products", product["id"], json.dumps(product))
        print(f"{store('HLEN', 'products')} products in the store")


def check() -> None:
    import urllib.request

    urllib.request.urlopen("http://127.0.0.1:8000/api/health", timeout=2)


if __name__ == "__main__":
    {"serve": serve, "migrate": migrate, "check": check}[sys.argv[1]](*sys.argv[2:])
