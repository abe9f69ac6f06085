"""Recognizes files that contain something else than a list: web pages, JSON, pictures, archives, programs …

Only the structure counts. A code may begin with `{`, `<`, `BM` or `GIF`, so a first character alone proves nothing.
"""

import binascii
import re
from collections.abc import Callable
from dataclasses import dataclass

HEAD_BYTES = 4_096
"""The number of bytes at the beginning of a file by which its content is recognized."""

_TABLE = "export the table as CSV"
_OFFICE = "save the table as .xlsx or CSV"


@dataclass(frozen=True, slots=True)
class Content:
    """What a file contains, with its article, and what the user can do about it."""

    what: str
    remedy: str

    def __str__(self) -> str:
        return f"looks like {self.what}, not a list of codes or recipients: {self.remedy}"


_PICTURE = Content("a picture", _TABLE)
_ARCHIVE_REMEDY = "unpack it and import the file in it, or compress the file as .gz or .zip"
_PROGRAM = Content("a program", "choose another file")
WEB_PAGE = Content("a web page", "open the page in a browser, or download the file itself; some pages need a login")
_ENCODED = Content("a file in Base64", "decode it, or download the file itself")
_TWICE = "a file compressed twice"


def _archive(kind: str) -> Content:
    return Content(f"an archive ({kind})", _ARCHIVE_REMEDY)


def _starts(*magic: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.startswith(magic)


def _binary(*magic: bytes) -> Callable[[bytes], bool]:
    """The file begins with these letters, which could begin a code, and contains bytes that a text never contains."""
    return lambda head: head.startswith(magic) and bool(re.search(rb"[\x00-\x08\x0e-\x1a]", head[:64]))


_BY_BYTES: tuple[tuple[Callable[[bytes], bool], Content], ...] = (
    # One layer of gzip or zip is already removed, and a zip with a spreadsheet is read as one.
    (_starts(b"PK\x03\x04", b"PK\x05\x06"), Content(_TWICE, "compress it once")),
    (_starts(b"\x1f\x8b\x08"), Content(_TWICE, "compress it once")),
    (_starts(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"), Content("an old Office document", _OFFICE)),
    (
        # the first record of BIFF 2 to 5; the shorter 09 00 is also a tab in UTF-16
        _starts(b"\t\0\x04\0", b"\t\x02\x06\0", b"\t\x04\x06\0", b"\t\x08\x08\0", b"\t\x08\x10\0"),
        Content("a very old Excel file", _OFFICE),
    ),
    (_starts(b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\x00", b"MM\x00*", b"\x00\x00\x01\x00"), _PICTURE),
    (_binary(b"GIF87a", b"GIF89a", b"BM"), _PICTURE),
    (lambda head: head[:4] == b"RIFF" and head[8:12] == b"WEBP", _PICTURE),
    (lambda head: head[4:8] == b"ftyp" and head[:3] == b"\0\0\0", Content("a picture or a film", _TABLE)),
    (_starts(b"7z\xbc\xaf\x27\x1c"), _archive("7z")),
    (_starts(b"Rar!\x1a\x07"), _archive("rar")),
    (lambda head: head[257:262] == b"ustar", _archive("tar")),
    (_starts(b"\xfd7zXZ\x00"), _archive("xz")),
    (lambda head: bool(re.match(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)", head)), _archive("bz2")),
    (_starts(b"\x28\xb5\x2f\xfd"), _archive("zstd")),
    (_starts(b"\x04\x22\x4d\x18"), _archive("lz4")),
    (_starts(b"MSCF\x00\x00\x00\x00"), _archive("cab")),
    (_starts(b"\x1f\x9d", b"\x1f\xa0"), _archive("compress")),
    (_starts(b"\x7fELF", b"\xfe\xed\xfa\xce", b"\xfe\xed\xfa\xcf", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe"), _PROGRAM),
    (_binary(b"MZ"), _PROGRAM),
    (_starts(b"L\x00\x00\x00\x01\x14\x02\x00"), Content("a shortcut", "choose the file itself")),
    (_starts(b"SQLite format 3\x00"), Content("a database (SQLite)", _TABLE)),
    (_binary(b"PAR1"), Content("a Parquet file", _TABLE)),
)

# Text before the beginning of the content: white space, and the comments of HTML, XML and JSON.
_LEADING = re.compile(r"(?:[\s\ufeff]+|<!--.*?(?:-->|\Z)|/\*.*?(?:\*/|\Z)|//[^\n]*(?:\n|\Z))*", re.DOTALL)
_HTML_TAGS = (
    "html|head|body|title|meta|link|base|style|script|noscript|table|thead|tbody|tr|td|th|div|span|p|br|hr|h[1-6]|"
    "center|font|form|iframe|frameset|main|header|footer|section|article|nav|ul|ol|pre|img|a|b|i"
)
_TAG = re.compile(rf"<(?:{_HTML_TAGS})(?:\s[^<>]*)?/?>", re.IGNORECASE).match
_XML_ELEMENT = re.compile(r"<([A-Za-z_][\w.:-]*)(\s+[A-Za-z_][\w.:-]*\s*=\s*[\"'][^<>]*)?\s*/?>").match
_CLOSING_TAG = re.compile(r"</[A-Za-z_][\w.:-]*\s*>").search
_WEB_PAGE_START = re.compile(r"<!doctype\s+html\b|<html[\s>]", re.IGNORECASE).match
_STRING = r'"(?:[^"\\\n]|\\.)*"'
_JSON = (
    rf"\{{\s*{_STRING}\s*:"
    rf"|\{{\s*\}}\s*\Z"
    rf"|\[\s*\{{\s*(?:{_STRING}\s*:|\}}|\Z)"
    rf"|\[\s*(?:\[\s*)?{_STRING}\s*[,\]]"
    r"|\[\s*-?\d[\d.]*\s*,\s*-?\d"
    r"|\[\s*\]\s*\Z"
)
_MAIL_FIELDS = (
    "From|To|Cc|Bcc|Subject|Date|Sent|Reply-To|Return-Path|Received|Delivered-To|Message-ID|MIME-Version|Content-[a-z-]+|"
    "DKIM-Signature|Authentication-Results|X-[a-z0-9-]+|Von|An|Betreff|Gesendet|Datum|De|À|Objet|Envoyé|Para|Asunto|Da|A|"
    "Oggetto|Van|Aan|Onderwerp|Od|Do|Temat|Från|Till|Ämne|Fra|Til|Emne"
)
_MAIL = Content("an e-mail", "save the attachment, or copy the list into a text file")
_LOG = (
    r"\[?\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d)?(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?\]?[ :][^\n;,\t|]{0,40}?"
    r"\b(?-i:TRACE|DEBUG|INFO|NOTICE|WARN|WARNING|ERROR|CRITICAL|FATAL)\b"
    r"|\S+ \S+ \S+ \[\d\d/[A-Z]{3}/\d{4}:\d\d:"
    r"|[A-Z]{3} [ \d]\d \d\d:\d\d:\d\d \S+ [^\n:;,\t|]+: "
)
_PAGE_LATER = re.compile(r"(?:[^\n\"]*\n){1,20}?\s*(?:<!doctype\s+html\b|<html[\s>])", re.IGNORECASE).match
_BASE64 = re.compile(r"(?:data:[\w/+.-]+;base64,)?((?:[A-Za-z0-9+/]{4}){16,})").match
_BY_TEXT = tuple(
    (re.compile(pattern, re.IGNORECASE).match, content)
    for pattern, content in (
        (r"\{\\rtf", Content("a formatted document (RTF)", "save it as plain text or CSV")),
        (r"%PDF-\d", Content("a PDF file", _TABLE)),
        (r"%!PS", Content("a PostScript file", _TABLE)),
        (r"#!\s*/\S*/", Content("a program (script)", "choose another file")),
        (r"BEGIN:V(?:CARD|CALENDAR)\s", Content("a file of contacts or dates (vCard, iCalendar)", _TABLE)),
        (r"MIME-Version:\s*1\.0", Content("an e-mail or a web archive (MIME)", _TABLE)),
        (_JSON, Content("JSON", "export the table as CSV, or write one code per line")),
        (
            r"version https://git-lfs\.github\.com/spec/|(?:\.\./)*(?:\.git)?/annex/objects/",
            Content("a pointer to a file in Git LFS or git-annex", "download the file itself"),
        ),
        (r"HTTP/\d(?:\.\d)? [1-5]\d\d\b", Content("an answer of a web server (HTTP)", "save only the file in it")),
        (rf"(?:(?:{_MAIL_FIELDS}):[^\n]*\n(?:[ \t][^\n]*\n)*){{2}}|From \S+@\S+ [^\n]*\d{{4}}\s*\n", _MAIL),
        (
            r"-----BEGIN (?:PGP |CERTIFICATE|[A-Z0-9 ]*(?:KEY|REQUEST|CRL|PKCS7|CMS|PARAMETERS)-----)",
            Content("a key, a certificate or an encrypted message (PEM, PGP)", "decrypt it, or choose another file"),
        ),
        (
            r"\[[A-Z][\w .-]*\][ \t\r]*\n(?:\s*[;#][^\n]*\n)*\s*[A-Z][\w.\[\]-]*\s*=",
            Content("a shortcut or a file of settings (INI)", "choose the file itself"),
        ),
        (r"TABLE\s+0\s*,\s*1\s|ID;P\w*[^\n]*\n[A-Z];", Content("a table in an old format (DIF, SYLK)", _OFFICE)),
        (r"(?:%[^\n]*\n\s*)*\\(?:documentclass|documentstyle|usepackage|begin)\b", Content("a LaTeX file", _TABLE)),
        (
            r"(?:version:\s*\d+\s+)?(?:#[^\n]*\n\s*)*dn::?[ \t]*\S[^\n]*\n[\w;-]+::? ",
            Content("a directory (LDIF)", _TABLE),
        ),
        (
            r"(?:--[^\n]*\n\s*)*(?:INSERT\s+INTO|CREATE\s+TABLE|DROP\s+TABLE|SELECT\s[^;]*\sFROM)\s",
            Content("a script for a database (SQL)", _TABLE),
        ),
        (r"%YAML|---[ \t\r]*\n\s*(?:[\w-]+:\s|- )|(?:- [\w-]+: [^\n]*\n\s*){2}", Content("YAML", _TABLE)),
        (_LOG, Content("a log file", "choose another file")),
    )
)


def recognize(head: bytes, encoding: str = "utf-8") -> Content | None:
    """The content of a file that is not a list of codes or recipients, by the first HEAD_BYTES. None if it may be one.

    `encoding` is the encoding of the text, without a byte order mark.
    """
    for matches, content in _BY_BYTES:
        if matches(head):
            return content
    return recognize_text(head.decode(encoding, "ignore"))


def recognize_text(text: str) -> Content | None:
    """The content of a text that is not a list of codes or recipients, by its beginning."""
    text = _skip_leading(text)
    if text.startswith("<"):
        return _recognize_markup(text)
    if _PAGE_LATER(text):  # behind a warning of the program that writes the page
        return WEB_PAGE
    return next((content for matches, content in _BY_TEXT if matches(text)), None) or _recognize_base64(text)


def _recognize_base64(text: str) -> Content | None:
    """A file in Base64 contains another content, or lines of text. The letters of a long code decode to neither."""
    if not (found := _BASE64(text)):
        return None
    data = binascii.a2b_base64(found[1])
    is_text = data.isascii() and b"\n" in data and data.decode().replace("\r", "").replace("\n", "").isprintable()
    return _ENCODED if is_text or any(matches(data) for matches, _ in _BY_BYTES) else None


def _skip_leading(text: str) -> str:
    leading = _LEADING.match(text)
    return text[leading.end() :] if leading else text


def _recognize_markup(text: str) -> Content | None:
    """A list of codes such as `<SPRING>` has no closing tag, no attribute and no declaration."""
    if re.match(r"<\?(?:php\b|=)", text, re.IGNORECASE):
        return _PROGRAM
    if declaration := re.match(r"<\?xml\b[^>]*\?>", text, re.IGNORECASE):
        rest = _skip_leading(text[declaration.end() :])
        return WEB_PAGE if _WEB_PAGE_START(rest) else _xml(rest)
    if _WEB_PAGE_START(text):
        return WEB_PAGE
    if re.match(r"<!DOCTYPE\b|<!\[CDATA\[", text, re.IGNORECASE):
        return _xml(text)
    tag = _TAG(text)
    if tag and ("=" in tag[0] or _CLOSING_TAG(text) or re.match(r"<(?:table|meta|br)[\s/>]", text, re.IGNORECASE)):
        return WEB_PAGE
    element = _XML_ELEMENT(text)
    return _xml(text) if element and (element[2] or _CLOSING_TAG(text)) else None


def _xml(text: str) -> Content:
    if re.search(r"<svg[\s>]", text):
        return _PICTURE
    if "urn:schemas-microsoft-com:office:spreadsheet" in text or 'progid="Excel.Sheet"' in text:
        return Content("an Excel 2003 file (XML)", _OFFICE)
    if "urn:oasis:names:tc:opendocument" in text:
        return Content("a flat OpenDocument file (XML)", "save the table as .ods or CSV")
    return Content("XML", _TABLE)
