"""Install Debian's packages of services, without starting the services."""

import os
import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress

from sandbox.process import ServiceError

LIMIT_SECONDS = 600
CHECK_SECONDS = 10
TAIL_LINES = 5

# The programs do not inherit descriptor 9: a daemon that a package starts would otherwise keep the lock.
SCRIPT = """
set -e
answers=$1 service=$2
shift 2
exec 9>/var/lock/coupons-install
flock 9  # parallel tests may install packages at the same time
{
  policy=/usr/sbin/policy-rc.d  # Debian starts the service of a new package, unless this program exits with 101
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\\nexit 101\\n' >"$policy"
    chmod 755 "$policy"
    trap 'rm -f "$policy"' EXIT
  fi
  [ -z "$answers" ] || echo "$answers" | debconf-set-selections
  export DEBIAN_FRONTEND=noninteractive
  install() { apt-get install -y -qq --no-install-recommends "$@"; }
  install "$@" || { apt-get update -qq; install "$@"; }
  if [ "$service" ] && [ -d /run/systemd/system ]; then systemctl --quiet disable "$service"; fi
} 9>&-
"""


def can_install() -> bool:
    """Return whether packages can be installed without a password."""
    return shutil.which("apt-get") is not None and (os.geteuid() == 0 or _sudo_needs_no_password())


def install_packages(*packages: str, answers: str = "", service: str = "") -> None:
    """Install packages and disable their `service`. `answers` are lines for debconf-set-selections.

    Raises ServiceError if that is impossible or takes longer than LIMIT_SECONDS.
    """
    command = f"apt-get install {' '.join(packages)}"
    if not can_install():
        raise ServiceError(f"cannot install packages without a password; run: sudo {command}")
    as_root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    with (
        tempfile.TemporaryFile() as output
    ):  # a pipe would stay open as long as any process that the script has started
        process = subprocess.Popen(  # noqa: S603 - our own script
            [*as_root, "/bin/sh", "-c", SCRIPT, "install", answers, service, *packages],
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait(LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            with suppress(PermissionError):  # with sudo, its processes belong to root
                os.killpg(process.pid, signal.SIGKILL)
            raise ServiceError(f"{command} did not finish within {LIMIT_SECONDS} s") from None
        if code != 0:
            output.seek(0)
            last = output.read().decode(errors="replace").splitlines()[-TAIL_LINES:]
            raise ServiceError("\n".join([f"{command} failed with exit code {code}:", *last]))


def _sudo_needs_no_password() -> bool:
    if not shutil.which("sudo"):
        return False
    done = subprocess.run(["sudo", "-n", "true"], check=False, capture_output=True, timeout=CHECK_SECONDS)  # noqa: S607 - sudo is where the system has it
    return done.returncode == 0
