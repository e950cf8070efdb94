"""Requests that no client library would send: byte for byte over HTTP/1.1, and HTTP/2 with any header list."""

import json
import socket
from dataclasses import dataclass

import h2.config
import h2.connection
import h2.events


@dataclass
class Answer:
    status: int
    headers: dict
    body: bytes

    def json(self):
        return json.loads(self.body)


def http1(address, path, headers=(), method="GET"):
    """`path` and the header values may be bytes or text; nothing is encoded or checked."""
    head = [_bytes(method) + b" " + _bytes(path) + b" HTTP/1.1", b"host: gateway", b"connection: close"]
    head += [_bytes(name) + b": " + _bytes(value) for name, value in headers]
    with _connect(address) as connection, connection.makefile("rb") as received:
        connection.sendall(b"\r\n".join(head) + b"\r\n\r\n")
        status = int(received.readline().split(b" ")[1])
        fields = {}
        while line := received.readline().strip():
            name, _, value = line.decode("latin-1").partition(": ")
            fields[name] = value
        # Not to the end of the connection: Envoy keeps it open for a second after a reply of its own.
        return Answer(status, fields, received.read(int(fields["content-length"])))


def http2(address, path, headers=(), method="GET", body=b""):
    """HTTP/2 without TLS, by prior knowledge. `path` None leaves `:path` out."""
    # Neither validated nor normalised: the point is to send what a decent client would not.
    config = h2.config.H2Configuration(validate_outbound_headers=False, normalize_outbound_headers=False)
    client = h2.connection.H2Connection(config)
    client.initiate_connection()
    fields = [(":method", method), (":scheme", "http"), (":authority", "gateway")]
    fields += [(":path", path)] if path is not None else []
    client.send_headers(1, [*fields, *headers], end_stream=not body)
    if body:
        client.send_data(1, body, end_stream=True)
    answer = Answer(0, {}, b"")
    with _connect(address) as connection:
        connection.sendall(client.data_to_send())
        while chunk := connection.recv(65536):
            for event in client.receive_data(chunk):
                if isinstance(event, h2.events.ResponseReceived):
                    answer.headers = {_text(name): _text(value) for name, value in event.headers}
                    answer.status = int(answer.headers.pop(":status"))
                elif isinstance(event, h2.events.DataReceived):
                    answer.body += event.data
                    client.acknowledge_received_data(event.flow_controlled_length, 1)
                elif isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset)):
                    return answer
            connection.sendall(client.data_to_send())
    return answer


def _connect(address):
    host, port = address.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=10)


def _bytes(value):
    return value if isinstance(value, bytes) else value.encode("latin-1")


def _text(value):
    return value if isinstance(value, str) else value.decode("latin-1")
