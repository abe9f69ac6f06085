"""TCP options, where available, by which this end of a connection notices that the other machine is gone."""

import socket

SILENCE_SECONDS = 25
"""A connection whose other end does not respond for this long is closed."""
_OPTIONS = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 1_000 * SILENCE_SECONDS}
"""Without these options, Linux retransmits unacknowledged data for 15 minutes, and waits forever for a reply."""


def notice_silence(end: socket.socket) -> None:
    if end.family == socket.AF_UNIX:
        return
    end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _OPTIONS.items():
        if option := getattr(socket, name, None):
            end.setsockopt(socket.IPPROTO_TCP, option, value)
