"""Settings and strategies of the fuzz tests.

They take seconds by default, and minutes with COUPONS_FUZZ_EXAMPLES=20000 (`make fuzz`).
"""

import os
from collections.abc import Sequence
from datetime import timedelta
from itertools import pairwise

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

SHORT = 100
EXAMPLES = int(os.environ.get("COUPONS_FUZZ_EXAMPLES", str(SHORT)))
LIMIT_SECONDS = 10
"""Limit for one example, enough on a busy machine. An input that could control the running time would exceed it."""


def fuzzed(share: float = 1, *suppressed: HealthCheck) -> settings:
    """Settings of a fuzz test. It runs `share` times the usual number of examples, less than 1 for a slow test."""
    return settings(
        max_examples=max(10, round(EXAMPLES * share)),
        deadline=timedelta(seconds=LIMIT_SECONDS),
        derandomize=EXAMPLES == SHORT,  # `make test` tries the same examples each time
        suppress_health_check=[
            HealthCheck.too_slow,
            HealthCheck.data_too_large,
            HealthCheck.filter_too_much,
            *suppressed,
        ],
    )


CUTS = st.lists(st.floats(0, 1), max_size=8)


def cut(data: bytes, cuts: Sequence[float]) -> list[bytes]:
    """Split the data at places that are given as fractions of its length."""
    places = sorted({0, len(data), *(round(each * len(data)) for each in cuts)})
    return [data[start:end] for start, end in pairwise(places)]


@st.composite
def damaged(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> bytes:
    """Valid data with up to four spans replaced, repeated or removed."""
    data = bytearray(draw(whole))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 40)) | st.integers(start, len(data)))
        data[start:end] = draw(st.binary(max_size=12) | st.just(bytes(data[start:end]) * 2) | st.just(b""))
    return bytes(data)
