"""
A host on loopback that is no simulator: it answers every request as it is told, on a socket of its own.
"""

import ssl
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from attrs import define, field

from tests.test_aiohttp import CERTIFICATE, PRIVATE_KEY


@define
class Host:
    """
    Where it is, what it says, and what it was asked.
    """

    base_url: str
    status: int
    body: bytes
    headers: dict
    seen: list = field(factory=list)


@contextmanager
def answering(status=200, body=b"{}", *, certificate=None, **headers):
    """
    Serve until the block ends; status 0 hangs up without an answer, and a header that is None is not sent.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            host.seen.append((self.command, self.path, dict(self.headers)))
            self.close_connection = True
            if host.status:
                self.send_response_only(host.status)
                given = {"Date": self.date_time_string(), "Content-Length": str(len(host.body)), **host.headers}
                for name, value in given.items():
                    if value is not None:
                        self.send_header(name, value)
                self.end_headers()
                self.wfile.write(host.body)

        def do_CONNECT(self):
            """
            As a proxy: agree, and hang up.
            """
            host.seen.append((self.command, self.path, dict(self.headers)))
            self.send_response_only(200)
            self.end_headers()
            self.close_connection = True

        def log_message(self, *_given):
            """
            Nothing.
            """

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.handle_error = lambda *_given: None
        scheme = "http"
        if certificate is not None:
            server.socket, scheme = secured(server.socket, certificate), "https"
        host = Host(f"{scheme}://127.0.0.1:{server.server_port}/kling", status, body, headers)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield host
        finally:
            server.shutdown()
            thread.join()


def secured(socket, folder):
    """
    A socket behind a certificate that nobody has signed, which is left in a folder.
    """
    (folder / "key.pem").write_text(PRIVATE_KEY)
    (folder / "certificate.pem").write_text(CERTIFICATE)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    return context.wrap_socket(socket, server_side=True)
