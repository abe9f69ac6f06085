"""The oracle notices an address or a code where rule O9 forbids it."""

import pytest

from tests.faults.lab import QUICK_TAKEOVER, Lab
from tests.waiting import eventually


def test_a_leaked_address_or_code_violates_o9(lab: Lab) -> None:
    """The sink echoes addresses in every refusal and deferral, and only an address in a log or a reason is reported."""
    lab.sink.kill()
    lab.sink.start(odds='{"REFUSE": 0.3, "DEFER": 0.3, "LATER": 0.5}')
    with lab.worker(**QUICK_TAKEOVER):
        sendout = lab.start_sendout(40, 1)
        states = {"refused", "deferred"}
        eventually(lambda: states <= {*lab.deliveries(sendout).values()}, "refusals and deferrals")
        eventually(lambda: "pending" not in lab.deliveries(sendout).values(), "an outcome of each mail")
        lab.coupons("pause", sendout)
    replies = lab.rows("SELECT reply FROM delivery WHERE state = 'refused'")
    assert all("@example.org>" in row["reply"] for row in replies)
    lab.check("a relay that refuses and defers many mails")
    for secret in (replies[0]["reply"], "FAULTQA-0000001"):
        lab.rows("UPDATE sendout SET reason = $1", secret)
        with pytest.raises(AssertionError, match=r"sendout\.reason"):
            lab.check_privacy()
    lab.rows("UPDATE sendout SET reason = NULL")
    with lab.worker_logs[0].open("a") as log:
        print(f"no relay available reason={replies[0]['reply']!r}", file=log)
    with pytest.raises(AssertionError, match="log worker-1"):
        lab.check_privacy()
