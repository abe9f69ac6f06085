"""Runs the tests of each mutant in a copy of the tree. All mutants share services that stay up."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from tests.mutants.mutant import Mutant
from tests.services import VirtualHosts, choose_kind, postgres_server, rabbitmq_server, session_folder

ROOT = Path(__file__).parents[2]
LIMIT_SECONDS = 60
"""Limit for the tests of one mutant. A mutant whose tests hang counts as caught."""
BASE_LIMIT_SECONDS = 600
NO_TESTS = 5
"""Exit code of pytest when it selects no test."""
PACKAGES = ("coupons", "producers", "sandbox", "workers", "tests.factories")
_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+?::\S+.*?)(?: - (.*))?$", re.MULTILINE)
_BROKEN = re.compile(
    r"^E +\S*(?:SyntaxError|NameError|ImportError|UnboundLocalError|IndentationError"
    r"|Undefined\w+Error|IndeterminateDatatypeError|AmbiguousColumnError|DatatypeMismatchError)\b.*",
    re.MULTILINE,
)
"""Errors of a broken mutant, which would make any test fail."""


class Fate(Enum):
    CAUGHT = "caught"
    TIMED_OUT = "caught, timed out"
    SURVIVED = "SURVIVED"
    BROKEN = "BROKEN"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result for a mutant. `by` is the first test that failed or, for any fate but CAUGHT, the reason."""

    mutant: Mutant
    fate: Fate
    by: str
    seconds: float

    @property
    def caught(self) -> bool:
        return self.fate in (Fate.CAUGHT, Fate.TIMED_OUT)


class BaselineError(Exception):
    """The tests fail on the unchanged code, or import other code than the copy."""


class Runner:
    """Copies `base`, a snapshot of the tree, for each mutant. Tests run in lanes, each with its own virtual host."""

    def __init__(self, base: Path, lanes: Sequence[Mapping[str, str]]) -> None:
        self.lanes = lanes
        self._base = base

    def check(self, mutants: Sequence[Mutant]) -> float:
        """Run the tests of these mutants on the unchanged code; return the seconds they took.

        Raises BaselineError, or StaleError if a patch does not apply.
        """
        for mutant in mutants:
            mutant.changed(self._base)
        where = "import importlib, sys; print(*(importlib.import_module(name).__file__ for name in sys.argv[1:]))"
        found = self._python(self._base, self.lanes[0], "-c", where, *PACKAGES, limit_seconds=LIMIT_SECONDS)[1]
        if not all(Path(each).is_relative_to(self._base) for each in found.split()):
            raise BaselineError(f"the tests import other code than the copy: {found}")
        begun = time.monotonic()
        tests = sorted({each for mutant in mutants for each in mutant.tests if each.startswith("tests/")})
        code, out = self._pytest(self._base, self.lanes[0], tests, limit_seconds=BASE_LIMIT_SECONDS)
        if code != 0:
            raise BaselineError(f"the tests fail on the unchanged code:\n{out}")
        return time.monotonic() - begun

    def run(self, mutant: Mutant, lane: Mapping[str, str]) -> Verdict:
        """Run the tests of a mutant. Raises StaleError if its patch does not apply."""
        begun = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="coupons-mutant-") as folder:
            tree = Path(folder) / "tree"
            shutil.copytree(self._base, tree, ignore=shutil.ignore_patterns(".test"))
            mutant.apply(tree)
            code, out = self._pytest(tree, lane, ["-x", *mutant.tests], limit_seconds=LIMIT_SECONDS)
        fate, by = _classify(code, out)
        return Verdict(mutant, fate, by, time.monotonic() - begun)

    def _pytest(
        self, tree: Path, lane: Mapping[str, str], arguments: Sequence[str], *, limit_seconds: float
    ) -> tuple[int | None, str]:
        options = ("-q", "--no-header", "-p", "no:cacheprovider", "--tb=short", "-rfE")
        return self._python(tree, lane, "-m", "pytest", *options, *arguments, limit_seconds=limit_seconds)

    def _python(
        self, tree: Path, lane: Mapping[str, str], *arguments: str, limit_seconds: float
    ) -> tuple[int | None, str]:
        """Run Python with `tree` first on its path; return the exit code (None after the time limit) and the output."""
        environment = os.environ | lane | {"PYTHONPATH": str(tree), "COLUMNS": "200"}
        with subprocess.Popen(
            [sys.executable, *arguments], cwd=tree, env=environment, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        ) as process:  # fmt: skip
            try:
                out = process.communicate(timeout=limit_seconds)[0]
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                return None, process.communicate()[0]
            return process.returncode, out


def _classify(code: int | None, out: str) -> tuple[Fate, str]:
    failed, broken = _FAILED.search(out), _BROKEN.search(out)
    if code is None:
        return Fate.TIMED_OUT, f"not finished within {LIMIT_SECONDS} s"
    if code in (0, NO_TESTS):
        return Fate.SURVIVED, "every test passes" if code == 0 else "no test is selected"
    if code != 1 or failed is None or broken:
        return Fate.BROKEN, broken[0] if broken else out[-2_000:]
    return Fate.CAUGHT, failed[1].rpartition("/")[2]


@contextmanager
def open_runner() -> Iterator[Runner]:
    """Yields a runner with a snapshot of the tree, including untracked files, and with running services."""
    with (
        session_folder(ROOT / ".test") as services,
        tempfile.TemporaryDirectory(prefix="coupons-mutants-") as folder,
        postgres_server(kind := choose_kind(os.environ), services) as database_url,
        rabbitmq_server(kind, services, say=print) as broker,
    ):
        base = Path(folder)
        _snapshot(base)
        hosts = VirtualHosts(broker)
        urls = [hosts.take() for _ in range(2)] if broker.control else [broker.url]
        service = {"COUPONS_TEST_SERVICES": "address", "COUPONS_TEST_DATABASE_URL": database_url}
        yield Runner(base, [service | {"COUPONS_TEST_BROKER_URL": url} for url in urls])


def _snapshot(base: Path) -> None:
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, names.split("\0")):
        if (source := ROOT / name).is_file():
            (base / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, base / name)
