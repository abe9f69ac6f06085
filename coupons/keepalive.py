"""Our own end of a connection notices that the other machine is gone, where the platform can."""

import socket

SILENCE_SECONDS = 25
"""What the other end's machine may keep silent before its connections are given up."""
_OPTIONS = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 1_000 * SILENCE_SECONDS}
"""Without them Linux sends what nobody acknowledges again for 15 minutes, and waits for an answer for ever."""


def notice_silence(end: socket.socket) -> None:
    if end.family == socket.AF_UNIX:
        return
    end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _OPTIONS.items():
        if option := getattr(socket, name, None):
            end.setsockopt(socket.IPPROTO_TCP, option, value)
