#!/usr/bin/python3
"""The HTTP origin: GET /file, at a fixed pace, and GET /quick?N, the first N bytes at once.

    origin.py PORT CONTENT BYTES_PER_SECOND

A line of JSON on standard output for each request, when it ends. The pace is kept here and
not by curl --limit-rate, so that the sockets on the way are empty and no pause of the tunnel
hides behind what they hold."""
import http.server
import json
import sys
import threading
import time

from content import Content

PIECE_BYTES = 65536
CONTROL = "/quick?1&control"  # what health checkers ask for directly


class Origin(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    content = rate = None
    write_lock = threading.Lock()

    def do_GET(self):
        path, _, query = self.path.partition("?")
        size = self.content.size
        if path == "/quick":
            size = min(size, int(query.partition("&")[0] or 65536))
        elif path != "/file":
            return self.send_error(404)
        began = time.monotonic()
        sent, how = 0, "whole"
        try:
            self.send_response(200)
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(size))
            self.end_headers()
            for sent in self.pieces(size, self.rate if path == "/file" else None):
                pass
        except OSError as e:
            how, self.close_connection = type(e).__name__, True
        with self.write_lock:
            print(json.dumps({"path": self.path, "from": self.client_address[1],
                              "size": size, "sent": sent, "how": how,
                              "seconds": round(time.monotonic() - began, 3)}), flush=True)

    def pieces(self, size, rate):
        """Sends, and yields how much has been sent, as the pace allows."""
        began, at = time.monotonic(), 0
        while at < size:
            if rate:
                time.sleep(max(0.0, began + at / rate - time.monotonic()))
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
