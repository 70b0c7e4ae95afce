"""Keeps a Python process off the network: loaded at its start where this folder is on PYTHONPATH.

Every notebook is built and checked under it, so a green run proves that none of them needs a
network. It refuses what goes through Python's `socket` module to anywhere but this machine; a
kernel's own messages pass.
"""

import socket

_getaddrinfo, _connect, _connect_ex = (
    socket.getaddrinfo,
    socket.socket.connect,
    socket.socket.connect_ex,
)


def _refuse_elsewhere(host):
    name = host.decode() if isinstance(host, bytes) else str(host or "")
    if name not in ("", "localhost", "::1", "0.0.0.0") and not name.startswith("127."):
        raise OSError(f"This run has no network on purpose, and something asked for {name}.")


def getaddrinfo(host, *args, **kwargs):
    _refuse_elsewhere(host)
    return _getaddrinfo(host, *args, **kwargs)


def connect(self, address):
    if self.family != getattr(socket, "AF_UNIX", None):
        _refuse_elsewhere(address[0])
    return _connect(self, address)


def connect_ex(self, address):
    if self.family != getattr(socket, "AF_UNIX", None):
        _refuse_elsewhere(address[0])
    return _connect_ex(self, address)


socket.getaddrinfo = getaddrinfo
socket.socket.connect = connect
socket.socket.connect_ex = connect_ex
