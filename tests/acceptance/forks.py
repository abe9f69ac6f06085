"""`coupons …` as a process of its own, without the start of an interpreter.

A third to four fifths of a second of each command and worker is Python reading its modules. One process reads them
once for a test session and forks: each child is `coupons` from its first line on, with arguments, environment, folder
and files of its own, and ends as a program does; only the seed of its hashes is not its own. With COUPONS_TEST_FORKS=0
every one is the installed program.
"""

import gc
import importlib
import json
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TextIO, cast

from coupons import failpoints

ROOT = Path(__file__).parents[2]
PRELOADED = ("producers.cli", "producers.cli.progress", "producers.doctor", "producers.web.server", "workers.main")
FORKS = os.environ.get("COUPONS_TEST_FORKS") != "0"
ENVIRONMENT = {**os.environ}
"""Of the process that forks: what a test changes is its children's."""
READ_AT_START = ("LD_", "PYTHON", "LC_", "LANG", "TZ")
"""These variables are read before the first module is, or by it."""
LARGEST_REQUEST = 1 << 20
STANDARD_FILES = (0, 1, 2)


def can_be_forked(environment: dict[str, str]) -> bool:
    return FORKS and _read_at_start(environment) == _read_at_start(ENVIRONMENT)


def _read_at_start(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(READ_AT_START)}


class Forked:
    """A child, with what the tests use of subprocess.Popen."""

    def __init__(self, status: int, outputs: Sequence[int]) -> None:
        """It tells its pid and then its exit code on `status`; `outputs` are the ends of its pipes that are read."""
        self._status = status
        self._outputs = outputs
        self.returncode: int | None = None
        self.pid = int(self._told())

    def poll(self) -> int | None:
        return self._ends_within(0)

    def wait(self, timeout: float | None = None) -> int:
        if (code := self._ends_within(timeout)) is None:
            raise subprocess.TimeoutExpired("coupons", timeout or 0)
        return code

    def communicate(self, timeout: float) -> tuple[bytes, ...]:
        """All that it writes into its pipes until it ends."""
        deadline = time.monotonic() + timeout
        pieces: dict[int, list[bytes]] = {output: [] for output in self._outputs}
        unread = {*self._outputs}
        while unread:
            ready, _, _ = select.select([*unread], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise subprocess.TimeoutExpired("coupons", timeout)
            for output in ready:
                piece = os.read(output, 65_536)
                pieces[output].append(piece)
                if not piece:
                    unread.remove(output)
                    os.close(output)
        self._outputs = ()
        self.wait(max(0.0, deadline - time.monotonic()))
        return tuple(b"".join(each) for each in pieces.values())

    def send_signal(self, number: int) -> None:
        with suppress(ProcessLookupError):  # it has just ended
            if self.poll() is None:
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _ends_within(self, seconds: float | None) -> int | None:
        if self.returncode is None and select.select([self._status], [], [], seconds)[0]:
            self.returncode = int(self._told())
            os.close(self._status)
        return self.returncode

    def _told(self) -> str:
        line = b""
        while not line.endswith(b"\n"):
            piece = os.read(self._status, 1)
            assert piece, "the process that forks has ended"
            line += piece
        return line.decode()


def start(
    arguments: Sequence[str], environment: dict[str, str], folder: Path, *, stdin: int, stdout: int, stderr: int
) -> Forked:
    """As subprocess.Popen: the files are numbers, PIPE or DEVNULL."""
    status, told = os.pipe()
    pipes = [os.pipe() if file == subprocess.PIPE else None for file in (stdout, stderr)]
    nothing = os.open(os.devnull, os.O_RDWR)
    files = [
        nothing if stdin == subprocess.DEVNULL else stdin,
        *(pipe[1] if pipe else file for pipe, file in zip(pipes, (stdout, stderr), strict=True)),
    ]
    request = json.dumps([arguments, environment, str(folder)]).encode()
    assert len(request) < LARGEST_REQUEST
    socket.send_fds(_forking(), [request], [told, *files])
    for number in [told, nothing, *(pipe[1] for pipe in pipes if pipe)]:
        os.close(number)
    return Forked(status, [pipe[0] for pipe in pipes if pipe])


@cache
def _forking() -> socket.socket:
    """The process that forks, started when it is first needed; it ends with the socket."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LARGEST_REQUEST)
    with theirs:
        command = [sys.executable, "-m", __spec__.name, str(theirs.fileno())]
        subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, pass_fds=[theirs.fileno()])
    return ours


# --- the process that forks ---


def _serve(requests: socket.socket) -> None:
    """Fork for each request, and tell who ended; a child returns from here."""
    with selectors.DefaultSelector() as selector:
        selector.register(requests, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is not requests:
                    selector.unregister(key.fileobj)
                    _tell_end(*key.data)
                    os.close(key.fd)
                    continue
                message, files, _, _ = socket.recv_fds(requests, LARGEST_REQUEST, 4)
                if not message:
                    raise SystemExit
                if (pid := os.fork()) == 0:
                    arguments, environment, folder = json.loads(message)
                    _close_others([files[0], *(each for key in selector.get_map().values() for each in _numbers(key))])
                    _become(arguments, environment, folder, files[1:])
                    return
                os.write(files[0], b"%d\n" % pid)
                selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, files[0]))
                for file in files[1:]:
                    os.close(file)


def _tell_end(pid: int, status: int) -> None:
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with suppress(BrokenPipeError):  # nobody wants to know
        os.write(status, b"%d\n" % code)
    os.close(status)


def _numbers(key: selectors.SelectorKey) -> list[int]:
    """Of the files that stand for another child."""
    return [key.fd, key.data[1]] if key.data else []


def _close_others(numbers: list[int]) -> None:
    for number in numbers:
        os.close(number)


def _become(arguments: list[str], environment: dict[str, str], folder: str, files: list[int]) -> None:
    """The program that was asked for, just started."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["coupons", *arguments]
    for ours, standard in zip(files, STANDARD_FILES, strict=True):
        os.dup2(ours, standard)
        os.close(ours)
    sys.stdin = _text(sys.stdin, "r")
    sys.stdout = _text(sys.stdout, "w", 1 if os.isatty(1) else -1)
    sys.stderr = _text(sys.stderr, "w", 1)
    failpoints.arm(environment.get(failpoints.VARIABLE, ""))


def _text(before: TextIO, mode: str, buffering: int = -1) -> TextIO:
    """The same standard file anew: whether it is a terminal has changed."""
    return cast(
        "TextIO", open(before.fileno(), mode, buffering, encoding=before.encoding, errors=before.errors, closefd=False)
    )


if __name__ == "__main__":
    for module in PRELOADED:
        importlib.import_module(module)
    gc.freeze()
    ctrl_c = signal.signal(signal.SIGINT, signal.SIG_IGN)  # for a terminal's it is one of many
    with socket.socket(fileno=int(sys.argv[1])) as _requests:
        _serve(_requests)
    signal.signal(signal.SIGINT, ctrl_c)
    importlib.import_module("producers.cli").main(prog_name="coupons")
