"""One file that a user has, and the right result of its import. The tables of such files are in the modules
`files_of_codes` and `files_of_recipients`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Case:
    """A file, the options of the command line for its import, and the result.

    `accepted` are the codes or addresses in the order of the file. `rejected` has the value of the `Reason` by line
    number. `refused` is a part of the error message if the whole file is refused. `notice` is a part of one notice.
    """

    name: str
    content: bytes
    options: tuple[str, ...] = ()
    accepted: tuple[str, ...] = ()
    rejected: Mapping[int, str] = field(default_factory=dict)
    refused: str | None = None
    notice: str | None = None
