"""Places at which a test makes the process die, stop, fail or dawdle, to see that nothing is lost and nothing twice.

`COUPONS_FAILPOINTS="deliver.intended=kill deliver.recorded=stop@3"`: what happens at a place, at its third time. Read
once, when the process starts; where it is unset, a place costs a comparison with an empty table, and none is passed
mail by mail.
"""

import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass

VARIABLE = "COUPONS_FAILPOINTS"
PLACES = {
    "intake.received": "a command has come, nothing is written",
    "intake.noted": "it is committed, and not acknowledged",
    "intake.acknowledged": "it is acknowledged, nobody is woken",
    "sendout.claimed": "a sendout is leased, nothing is done",
    "sendout.prepared": "its recipients are snapshot, no code is promised",
    "sendout.admitted": "the codes are promised or it is interrupted, nobody is told",
    "deliver.claimed": "a batch is leased, no code is bound",
    "deliver.bound": "its codes are bound, no mail is written",
    "deliver.intended": "the intent is committed, no mail is handed over",
    "deliver.handed_over": "mails were given to connections, none has an outcome",
    "deliver.outcomes": "outcomes have come in, none is recorded",
    "deliver.recorded": "outcomes are committed, the next mails are not handed over",
    "deliver.delivered": "every mail of the batch is recorded, it is not handed back",
    "deliver.released": "the batch is handed back, its sendout is not settled",
    "deliver.closed": "a batch of a cancelled sendout is closed and not handed back",
    "import.claimed": "an import is leased, nothing is read",
    "import.staged": "lines are staged, none is taken",
    "import.taken": "a chunk is committed",
    "import.removing": "some of what a file replaces is removed",
    "import.whole": "everything is taken, the import is not finished",
    "import.finished": "the import is finished, its upload and what it covers are left",
    "sweep.recovered": "what dead workers had in hand is uncertain, nothing else is swept",
}
"""Every place, with what is done there and what is not."""
ACTIONS = ("kill", "stop", "fail", "dawdle")
DAWDLE_SECONDS = 0.3


class Failed(Exception):
    """A failpoint was told to fail."""


@dataclass(slots=True)
class _Armed:
    action: str
    left: int
    """Times that it is passed until something happens."""


def parse(text: str) -> dict[str, _Armed]:
    """What stands in the variable. Raises ValueError: no such place, or nothing that can happen there."""
    armed = {}
    for each in text.split():
        place, _, what = each.partition("=")
        action, _, times = what.partition("@")
        if place not in PLACES or action not in ACTIONS or not (times or "1").isdigit():
            raise ValueError(f"{VARIABLE}: {each} is no place with something that can happen at it")
        armed[place] = _Armed(action, int(times or 1))
    return armed


_armed = parse(os.environ.get(VARIABLE, ""))


def armed() -> Mapping[str, str]:
    """What is going to happen, by its place."""
    return {place: each.action for place, each in _armed.items()}


def arm(text: str) -> None:
    """Instead of what was armed before, in this process; "" for nothing. As `parse`."""
    _armed.clear()
    _armed.update(parse(text))


def reached(place: str) -> None:
    """The process is at this place. Raises Failed, if that is what shall happen here."""
    if not _armed or (due := _armed.get(place)) is None:
        return
    due.left -= 1
    if due.left == 0:
        _happen(place, due.action)


def _happen(place: str, action: str) -> None:
    match action:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "dawdle":
            time.sleep(DAWDLE_SECONDS)
        case _:
            raise Failed(place)
