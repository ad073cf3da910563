"""Cuts Python off from every network but loopback; Python imports it by itself from a folder on its path.

conftest.py puts it on the path of each kernel and subprocess the tests start: once the assets are cached, all
else must work without a network.
"""

import ipaddress
import socket

MESSAGE = "the tests cut this process off the network"
_connect, _getaddrinfo = socket.socket.connect, socket.getaddrinfo


def _is_loopback(host):
    if host in (None, "", b"", "localhost", b"localhost", socket.gethostname()):
        return True
    try:
        return ipaddress.ip_address(host.decode() if isinstance(host, bytes) else host).is_loopback
    except ValueError:
        return False


def _guarded_connect(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_loopback(address[0]):
        raise OSError(MESSAGE)
    return _connect(self, address)


def _guarded_getaddrinfo(host, *args, **kwargs):
    if not _is_loopback(host):
        raise socket.gaierror(MESSAGE)
    return _getaddrinfo(host, *args, **kwargs)


socket.socket.connect = _guarded_connect
socket.getaddrinfo = _guarded_getaddrinfo
