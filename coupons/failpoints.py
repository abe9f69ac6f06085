"""Points in the code where a test makes the process die, stop, fail or wait, to check that no work is lost or doubled.

`COUPONS_FAILPOINTS="deliver.intended=kill deliver.recorded=stop@3"` kills the process at the first failpoint, and stops
it when it hits the second failpoint for the third time. The variable is read once, when the process starts. Without the
variable, a failpoint costs one comparison with an empty table. No failpoint is hit for each single mail.
"""

import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass

VARIABLE = "COUPONS_FAILPOINTS"
FAILPOINTS = {
    "intake.received": "a command has arrived, nothing is written",
    "intake.committed": "the command is committed, its message is not acknowledged",
    "intake.acknowledged": "the message is acknowledged, no worker is woken",
    "wait.ended": "a wait has ended: its sendout can be prepared, or is resumed or failed; no worker is woken",
    "wait.dead_lettered": "a command that was rejected while it waited is in the dead queue, but not removed here",
    "sendout.claimed": "a sendout is leased, nothing is done",
    "sendout.prepared": "its recipients are copied, no code is reserved",
    "sendout.admitted": "its codes are reserved or it is interrupted, no worker is woken",
    "deliver.claimed": "a batch is leased, no code is assigned",
    "deliver.assigned": "its codes are assigned, no mail is rendered",
    "deliver.intended": "intents to send are committed, no mail is handed over",
    "deliver.handed_over": "mails are queued for the relays, none has an outcome",
    "deliver.settled": "mails have outcomes, none is recorded",
    "deliver.recorded": "outcomes are committed, the next mails are not handed over",
    "deliver.delivered": "every mail of the batch is recorded, the batch is not released",
    "deliver.released": "the batch is released, its sendout is not finished",
    "deliver.closed": "a batch of a cancelled or failed sendout is closed and not released",
    "import.claimed": "an import is leased, nothing is read",
    "import.staged": "lines are staged, none is accepted",
    "import.committed": "a chunk is committed",
    "import.removing": "some of the codes that a file replaces are removed",
    "import.complete": "every line is processed, the import is not finished",
    "import.finished": "the import is finished, its upload is left and no sendout is resumed",
    "schedule.created": "a recurring import has created its import, in a transaction that is not committed",
    "schedule.committed": "the import of a recurring import is committed, no worker is woken",
    "sweep.recovered": "mails in flight of dead workers are uncertain, nothing else is swept",
}
"""Every failpoint, with the work that is already done there and the work that is not done yet."""
ACTIONS = ("kill", "stop", "fail", "delay")
DELAY_SECONDS = 0.3


class Failed(Exception):
    """A failpoint with the action `fail` was hit."""


@dataclass(slots=True)
class _Armed:
    action: str
    hits_left: int
    """The action happens when this number reaches zero."""


def parse(text: str) -> dict[str, _Armed]:
    """Parse the value of the variable. Raises ValueError for an unknown failpoint or action."""
    armed = {}
    for each in text.split():
        failpoint, _, what = each.partition("=")
        action, _, times = what.partition("@")
        if failpoint not in FAILPOINTS or action not in ACTIONS or not (times or "1").isdigit():
            raise ValueError(f"{VARIABLE}: {each} is not FAILPOINT=ACTION or FAILPOINT=ACTION@TIMES")
        armed[failpoint] = _Armed(action, int(times or 1))
    return armed


_armed = parse(os.environ.get(VARIABLE, ""))


def armed() -> Mapping[str, str]:
    """The armed failpoints and their actions."""
    return {failpoint: each.action for failpoint, each in _armed.items()}


def arm(text: str) -> None:
    """Arm the given failpoints and disarm all others. Raises ValueError as `parse` does."""
    _armed.clear()
    _armed.update(parse(text))


def hit(failpoint: str) -> None:
    """Run the action of this failpoint if it is armed and due. Raises Failed if the action is `fail`."""
    if not _armed or (due := _armed.get(failpoint)) is None:
        return
    due.hits_left -= 1
    if due.hits_left == 0:
        _act(failpoint, due.action)


def _act(failpoint: str, action: str) -> None:
    match action:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "delay":
            time.sleep(DELAY_SECONDS)
        case _:
            raise Failed(failpoint)
