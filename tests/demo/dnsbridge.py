#!/usr/bin/python3
"""Lets a DNS client that knows no proxy ask through one: UDP here, SOCKS5 UDP ASSOCIATE there.

    dnsbridge.py LISTEN_PORT SOCKS_PORT DNS_PORT        all on 127.0.0.1

As a forwarder in a router does, it has one association for all questions, which lives as long
as the bridge, and gives an answer to whoever asked last with its id. It adds and removes the
header of RFC 1928, section 7, and nothing else: it never repeats, caches or answers itself."""
import select
import socket
import struct
import sys

LOOPBACK = socket.inet_aton("127.0.0.1")
IPV4, HEADER_BYTES = 1, 10
ADDRESS_BYTES = {IPV4: 4, 4: 16}


def recv_exactly(sock, count):
    data = b""
    while len(data) < count:
        part = sock.recv(count - len(data))
        if not part:
            raise EOFError("the proxy closed")
        data += part
    return data


def associate(socks_port):
    """(control connection, address of the relay)"""
    control = socket.create_connection(("127.0.0.1", socks_port), 10)
    control.sendall(b"\x05\x01\x00")
    if recv_exactly(control, 2) != b"\x05\x00":
        raise OSError("the proxy wants a method other than none")
    control.sendall(b"\x05\x03\x00" + bytes([IPV4]) + b"\0" * 6)
    _version, reply, _reserved, kind = recv_exactly(control, 4)
    if reply or kind not in ADDRESS_BYTES:
        raise OSError(f"UDP ASSOCIATE refused: reply {reply}")
    recv_exactly(control, ADDRESS_BYTES[kind])
    port = struct.unpack(">H", recv_exactly(control, 2))[0]
    control.settimeout(None)
    return control, ("127.0.0.1", port)


def answer_of(datagram):
    """The payload behind the header, or None if it is none."""
    if len(datagram) < HEADER_BYTES or datagram[:3] != b"\0\0\0":
        return None
    length = ADDRESS_BYTES.get(datagram[3])
    return datagram[4 + length + 2:] if length else None


def main():
    listen_port, socks_port, dns_port = map(int, sys.argv[1:])
    control, relay = associate(socks_port)
    header = b"\0\0\0" + bytes([IPV4]) + LOOPBACK + struct.pack(">H", dns_port)
    near = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    near.bind(("127.0.0.1", listen_port))
    far = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    far.bind(("127.0.0.1", 0))
    asked = {}  # id of a question -> who asked; at most 65,536
    print("ready", flush=True)
    while True:
        for sock in select.select([near, far, control], [], [])[0]:
            if sock is control:
                sys.exit("the proxy ended the association")
            data, who = sock.recvfrom(65535)
            if sock is near:
                asked[data[:2]] = who
                far.sendto(header + data, relay)
            elif who == relay and (answer := answer_of(data)) and answer[:2] in asked:
                near.sendto(answer, asked[answer[:2]])


if __name__ == "__main__":
    main()
