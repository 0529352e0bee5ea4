#!/usr/bin/python3
"""The HTTP origin: GET /file, at a fixed pace, and GET /quick?N, the first N bytes at once;
PUT /upload, compared with the content as it comes; GET /hurry?NAME ends the pace of /file?NAME.

    origin.py PORT CONTENT BYTES_PER_SECOND

Two lines of JSON on standard output for each request: `begun`, and what became of it when it
ends; both have the port it came from. The pace is kept here and not by curl --limit-rate, so
that the sockets on the way are empty and no pause of the tunnel hides behind what they hold."""
import http.server
import json
import sys
import threading
import time

from content import Checker, Content

PIECE_BYTES = 65536
CONTROL = "/quick?1&control"  # what health checkers ask for directly


class Origin(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    content = rate = None
    write_lock = threading.Lock()
    hurried = set()  # NAMEs of /file?NAME

    def do_GET(self):
        path, _, query = self.path.partition("?")
        size = self.content.size
        if path == "/quick":
            size = min(size, int(query.partition("&")[0] or 65536))
        elif path == "/hurry":
            self.hurried.add(query)
            size = 0
        elif path != "/file":
            return self.send_error(404)
        self.say(begun=self.path)
        began = time.monotonic()
        sent, how = 0, "whole"
        try:
            self.send_response(200)
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(size))
            self.end_headers()
            for sent in self.pieces(size, query if path == "/file" else None):
                pass
        except OSError as e:
            how, self.close_connection = type(e).__name__, True
        self.say(path=self.path, size=size, sent=sent, how=how,
                 seconds=round(time.monotonic() - began, 3))

    def do_PUT(self):
        self.say(begun=self.path)
        checker, how, gap = Checker(self.content), "whole", 0.0
        began = last = time.monotonic()
        try:
            for part in self.chunks():
                now = time.monotonic()
                gap, last = max(gap, now - last), now
                checker.feed(part)
            answer = checker.prefix()[0].encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)
        except (OSError, ValueError) as e:
            how, self.close_connection = type(e).__name__, True
        got, want = checker.prefix()
        self.say(path=self.path, how=how, size=checker.received, **checker.faults(), sha256=got,
                 equal=got == want, longest_gap_ms=round(gap * 1000, 1),
                 seconds=round(time.monotonic() - began, 3))

    def chunks(self):
        """The body, of Transfer-Encoding: chunked (RFC 9112, section 7.1), in parts."""
        while left := int(self.rfile.readline(32).partition(b";")[0], 16):
            while left:
                part = self.rfile.read1(min(left, PIECE_BYTES))
                if not part:
                    raise ConnectionResetError
                left -= len(part)
                yield part
            self.rfile.readline(2)
        self.rfile.readline(2)

    def say(self, **what):
        with self.write_lock:
            print(json.dumps(what | {"from": self.client_address[1]}), flush=True)

    def pieces(self, size, name):
        """Sends, and yields how much has been sent; as the pace allows, if it has a name."""
        began, at = time.monotonic(), 0
        while at < size:
            if name is not None and name not in self.hurried:
                time.sleep(max(0.0, began + at / self.rate - time.monotonic()))
            end = min(at + PIECE_BYTES, size)
            self.wfile.write(self.content.map[at:end])
            at = end
            yield at

    def log_message(self, *_args):
        pass


def main():
    port, path, rate = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    Origin.content, Origin.rate = Content(path), rate
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Origin)
    server.daemon_threads = True
    server.serve_forever()


if __name__ == "__main__":
    main()
