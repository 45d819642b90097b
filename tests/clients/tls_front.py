"""For a client whose host is written into it: an HTTPS proxy on loopback that answers for Google's names.

`HTTPS_PROXY` and `SSL_CERT_FILE` point the client here; what it says inside of TLS goes to the gateway, byte for byte,
and so does the way a connection ends.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

_PATIENCE_S = 60


@contextlib.contextmanager
def tls_front(folder: Path, name: str, gateway: str) -> Iterator[dict[str, str]]:
    """Variables for a client that asks for `name`; `gateway` is the URL that serves it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate = _certificate(folder, name)
    context.load_cert_chain(certificate)
    target = urlsplit(gateway)
    listener = socket.create_server(("127.0.0.1", 0))
    place = f"http://127.0.0.1:{listener.getsockname()[1]}"

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            work = threading.Thread(target=_tunnel, args=(client, context, (target.hostname, target.port)))
            work.daemon = True
            work.start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield {"HTTPS_PROXY": place, "https_proxy": place, "SSL_CERT_FILE": str(certificate)}
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _tunnel(client: socket.socket, context: ssl.SSLContext, target: tuple[str | None, int | None]) -> None:
    """One CONNECT and what follows. A request is small and an answer comes at once: one thread does both ways."""
    client.settimeout(_PATIENCE_S)
    with contextlib.suppress(OSError), client:
        head = b""
        while b"\r\n\r\n" not in head:
            got = client.recv(4096)
            if not got:
                return
            head += got
        assert head.startswith(b"CONNECT ")
        client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        with (
            context.wrap_socket(client, server_side=True) as secure,
            socket.create_connection((target[0], target[1])) as plain,
        ):
            up = threading.Thread(target=_pump, args=(secure, plain), daemon=True)
            up.start()
            _pump(plain, secure)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


def _certificate(folder: Path, name: str) -> Path:
    """A certificate for `name` and its key, in one file, trusted by whoever is told to trust that file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / "front.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(secret + made.public_bytes(serialization.Encoding.PEM))
    return file
