"""Files of a mail: attachments, and inline images, which the HTML shows (`<img src="cid:logo.png">`)."""

import re
from base64 import encodebytes
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

MAX_ENCODED = 10 << 20  # octets of all files in base64: many mailboxes accept a mail of this size
MAX_FILENAME = 255  # octets in UTF-8

_CONTENT_TYPE = re.compile(  # RFC 6838 4.2; charset is the only parameter, because text files need it
    r"[a-z0-9][a-z0-9!#$&^_.+-]{0,126}/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}(?:; charset=[a-z0-9-]{1,40})?", re.IGNORECASE
)
_CONTENT_ID = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9._+-]*(?:@[A-Za-z0-9.-]+)?")
_REFERENCE = re.compile(r"""[="'(]\s*cid:([^\s"'<>()]+)""", re.IGNORECASE)
_PATH = re.compile(r"[/\\:]|^\.{1,2}$")


@dataclass(frozen=True, slots=True)
class File:
    """A file of a mail: an `inline` image, which the HTML shows as `cid:<name>`, or an attachment."""

    name: str
    content_type: str
    content: bytes = field(repr=False)
    inline: bool = False


def file_problems(files: Sequence[File], html: str | None) -> list[str]:
    """The reasons why these files cannot be part of a mail with this HTML, one line each."""
    problems = [problem for file in files for problem in _own_problems(file)]
    names = [file.name for file in files]
    problems += [f"file {name!a}: duplicate name" for name in sorted(set(names)) if names.count(name) > 1]
    shown = {unquote(name) for name in _REFERENCE.findall(html or "")}
    inline = {file.name for file in files if file.inline}
    problems += [
        f'html: "cid:{name}" refers to no inline file' for name in sorted(shown - inline) if name.isprintable()
    ]
    problems += [f"file {name!a}: not shown by the HTML" for name in sorted(inline - shown)]
    if (size := sum(_encoded_size(file) for file in files)) > MAX_ENCODED:
        problems.append(f"the files take {size} bytes of a mail and exceed the limit of {MAX_ENCODED}")
    return problems


def file_part(file: File) -> bytes:
    """The file as a MIME part with CRLF line ends. No line begins with a dot."""
    head = [f"Content-Type: {file.content_type}", "Content-Transfer-Encoding: base64"]
    if file.inline:
        head.append(f"Content-ID: <{file.name}>")
    disposition = "inline" if file.inline else "attachment"
    head += [f"Content-Disposition: {disposition};", f" {_filename(file.name)}", "", ""]
    return "\r\n".join(head).encode("ascii") + encodebytes(file.content).replace(b"\n", b"\r\n")


def _own_problems(file: File) -> list[str]:
    name = file.name
    problems = []
    if not name.isprintable() or name != name.strip() or not name or _PATH.search(name):
        problems.append(f"file {name!a}: the name must be a file name, without folders and control characters")
    elif len(name.encode()) > MAX_FILENAME:
        problems.append(f"file {name[:20]!a}…: the name exceeds the limit of {MAX_FILENAME} bytes")
    if not _CONTENT_TYPE.fullmatch(file.content_type) or file.content_type.lower().startswith(
        ("multipart/", "message/")  # these types must not be in base64; RFC 2045 6.4
    ):
        problems.append(f"file {name!a}: the content type must be of the form image/png or application/pdf")
    elif file.inline and not file.content_type.lower().startswith("image/"):
        problems.append(f"file {name!a}: only images can be inline")
    if file.inline and not _CONTENT_ID.fullmatch(name):
        problems.append(f"file {name!a}: the name of an inline file consists of ASCII letters, digits, dots and dashes")
    return problems


def _filename(name: str) -> str:
    """The parameter with the file name, encoded (RFC 2231) if the name is not plain ASCII."""
    if name.isascii() and '"' not in name:
        return f'filename="{name}"'
    return f"filename*=utf-8''{quote(name, safe='')}"


def _encoded_size(file: File) -> int:
    """The size of a file in base64. Each line has 76 characters for 57 octets and ends with CRLF."""
    size = len(file.content)
    return (size + 2) // 3 * 4 + 2 * ((size + 56) // 57)
