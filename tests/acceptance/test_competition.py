"""Sendouts that need the same codes at the same time."""

from tests.acceptance.mails import assert_own_codes
from tests.acceptance.processes import DONE, INTERRUPTED
from tests.acceptance.system import Shop, addresses, codes


def test_one_of_two_sendouts_that_need_too_many_codes_is_sent(shop: Shop) -> None:
    """Two sendouts each need 800 of 1,000 codes. One sends 800 mails; the other is interrupted and reserves none."""
    customers, spring = addresses(800), codes("SPRING", 1_000)
    with shop.worker(), shop.worker():
        shop.has("spring-voucher", "customers", customers, {"spring-10": spring})
        arguments = ("send", "--message", "spring-voucher", "--group", "customers", "--wait", "--json")
        results = [end() for end in [shop.begin(*arguments), shop.begin(*arguments)]]
        sent, interrupted = sorted(results, key=lambda result: result.code)
        assert (sent.code, interrupted.code) == (DONE, INTERRUPTED)
        assert (sent.json["state"], sent.json["sent"]) == ("finished", 800)
        assert interrupted.json["lists"][0]["missing"] == 600
        assert_own_codes(shop.mails(sent.json["id"]), customers, spring)
        assert shop.mails(interrupted.json["id"]) == []
        assert shop.get_list("spring-10").available == 200
        shop.verify()
