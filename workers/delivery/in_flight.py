"""The mails of one batch that are in flight: their intent to send is committed, but their outcome is not yet."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from coupons.store.deliveries import DeliveryResult


@dataclass(frozen=True, slots=True)
class Flush:
    """The content of one transaction: outcomes, and the intents to send the next mails."""

    results: tuple[DeliveryResult, ...]
    intents: tuple[int, ...]
    unused: Mapping[int, Sequence[int]]
    """For list ids, the mails of `intents` that do not print their code of the list."""
    in_flight: frozenset[int]
    """Mails that were handed over earlier and have no outcome yet."""
    settled: frozenset[int]
    """Mails that are no longer in flight once the transaction is committed."""


class InFlight:
    """The set of mails that are uncertain if the worker dies now, and the results that are not recorded yet.

    A mail enters with the commit of its intent, and leaves with the commit of its outcome. Outcomes may come in at any
    time, also during a flush; they belong to the next one.
    """

    def __init__(self) -> None:
        self._numbers: set[int] = set()
        self._settled: set[int] = set()
        self._results: list[DeliveryResult] = []
        self._flush: Flush | None = None

    def __len__(self) -> int:
        """The number of mails in flight, including those whose intent is being committed."""
        return len(self._numbers) + (len(self._flush.intents) if self._flush else 0)

    @property
    def settled(self) -> int:
        """The number of mails that are no longer in flight after the next flush."""
        return len(self._settled)

    @property
    def is_empty(self) -> bool:
        """Whether no mail is in flight."""
        return not self._numbers

    @property
    def is_half_settled(self) -> bool:
        return 2 * len(self._settled) >= len(self._numbers)

    @property
    def needs_flush(self) -> bool:
        """Whether any mail is in flight or any result is not recorded."""
        return bool(self._numbers or self._results)

    def settle(self, number: int, result: DeliveryResult | None) -> None:
        """Settle a mail in flight. Without a result the mail was not handed over, and its delivery stays as it was."""
        self._settled.add(number)
        if result is not None:
            self._results.append(result)

    def add_result(self, result: DeliveryResult) -> None:
        """Add the result of a mail that was never in flight."""
        self._results.append(result)

    def begin_flush(self, intents: Iterable[int], unused: Iterable[tuple[int, Sequence[int]]] = ()) -> Flush:
        """`unused` has the intended mails that do not print some of their codes, with the ids of the codes' lists."""
        of_list = defaultdict[int, list[int]](list)
        for number, list_ids in unused:
            for list_id in list_ids:
                of_list[list_id].append(number)
        self._flush = Flush(
            results=tuple(self._results),
            intents=tuple(intents),
            unused=of_list,
            in_flight=frozenset(self._numbers - self._settled),
            settled=frozenset(self._settled),
        )
        return self._flush

    def commit(self, *, may_send: bool) -> None:
        """Mark the flush as committed. If `may_send`, the mails of its intents are in flight now."""
        flush = self._take_flush()
        self._numbers -= flush.settled
        self._settled -= flush.settled
        del self._results[: len(flush.results)]
        if may_send:
            self._numbers.update(flush.intents)

    def rollback(self) -> None:
        """Mark the flush as failed. The next flush records its results; the intended mails were not handed over."""
        self._take_flush()

    def _take_flush(self) -> Flush:
        flush, self._flush = self._flush, None
        if flush is None:
            raise RuntimeError("no flush has begun")
        return flush
