import json
import signal
from functools import partial
from pathlib import Path

import pytest

from coupons.smtp import Deferred, Outcome, Refused, Relays, Sent, SmtpAddress, Uncertain, Unreachable
from tests.smtp_client import mail_to
from tests.smtp_server import PIPELINING, Script, process
from tests.waiting import until


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("way", [{}, PIPELINING], ids=["lock-step", "pipelining"])
async def test_a_relay_killed_at_full_speed_leaves_no_wrong_outcome(
    tmp_path: Path, way: Script, how: signal.Signals
) -> None:
    """In the relay's ledger, sent mails are present, unsent mails are absent, and no mail occurs twice."""
    ledger, names, outcomes = tmp_path / "ledger", [f"r{number}" for number in range(400)], dict[str, Outcome]()
    ledger.touch()
    with process(ledger, way) as (server, port):
        async with Relays(SmtpAddress.parse_all(f"smtp://127.0.0.1:{port}")) as relays:
            for name in names:
                relays.submit(mail_to(name), partial(outcomes.__setitem__, name))
            await until(lambda: len(outcomes) > 20)
            server.send_signal(how)
            await until(lambda: len(outcomes) == len(names))
    accepted = [json.loads(line)["to"][4:].partition("@")[0] for line in ledger.read_text().splitlines()]
    assert len(accepted) == len(set(accepted))
    for name, outcome in outcomes.items():
        match outcome:
            case Sent():
                assert name in accepted
            case Refused() | Deferred() | Unreachable():
                assert name not in accepted
    assert any(isinstance(outcome, Unreachable) for outcome in outcomes.values())
    assert sum(isinstance(outcome, Uncertain) for outcome in outcomes.values()) <= 10
