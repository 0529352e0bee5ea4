"""Keys, passes and signed configs, written from proto/PROTOCOL.md section 8 alone: a second
implementation, so that tests can also make what sallyportctl refuses to make."""

import base64
import hashlib
import json
import os
import struct
import time

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

KINDS = {"pass": 1, "worker-config": 2, "client-config": 3}
RAW = (Encoding.Raw, PrivateFormat.Raw, NoEncryption())


def raw_public(key):
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def key_text(kind, secret, raw):
    half = "secret" if secret else "public"
    return f"sallyport-{kind}-{half}:{base64.b64encode(raw).decode()}"


def write_secret(path, text):
    path.write_text(text + "\n")
    path.chmod(0o600)


class SigningKey:
    def __init__(self, key=None):
        self.key = key or Ed25519PrivateKey.generate()
        self.public = raw_public(self.key)
        self.text = key_text("signing", False, self.public)
        self.id = hashlib.blake2b(self.public, digest_size=32).digest()[:8]

    def _sign(self, kind, body):
        message = b"sallyport signed blob v1" + bytes([KINDS[kind]]) + body
        return self.key.sign(message)

    def blob(self, kind, body):
        head = b"SPB1" + bytes([KINDS[kind]]) + self.id + struct.pack(">I", len(body))
        return head + body + self._sign(kind, body)

    def file(self, kind, body):
        sig = base64.b64encode(self._sign(kind, body)).decode()
        return f"sallyport-signed 1 {kind} {self.id.hex()} {sig}\n".encode() + body

    def json_file(self, kind, value):
        return self.file(kind, (json.dumps(value, indent=1) + "\n").encode())


class NodeKey:
    """An X25519 key: `worker` or `device`."""

    def __init__(self, kind):
        key = X25519PrivateKey.generate()
        self.kind, self.public, self.secret = kind, raw_public(key), key.private_bytes(*RAW)
        self.public_text = key_text(kind, False, self.public)

    def save(self, path):
        write_secret(path, key_text(self.kind, True, self.secret))
        return path


def save_route_key(path):
    write_secret(path, key_text("route", True, os.urandom(32)))


def text(value):
    return bytes([len(value)]) + value.encode()


def pass_body(
    device,
    user="alice",
    tier="standard",
    lifetime=3600,
    max_sessions=8,
    max_streams=8192,
    max_flows=8192,
    rate_bps=0,
    groups=(),
    serial=None,
):
    now = int(time.time())
    return (
        b"\x01"
        + (serial or os.urandom(16))
        + device
        + struct.pack(">QQ", now - 7200, now + lifetime)
        + text(user)
        + text(tier)
        + struct.pack(">HIIQ", max_sessions, max_streams, max_flows, rate_bps)
        + bytes([len(groups)])
        + b"".join(text(g) for g in groups)
    )
