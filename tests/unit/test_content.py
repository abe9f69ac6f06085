"""Files that contain something else than a list are recognized by their structure."""

import base64
import io
import lzma
import tarfile
from bz2 import compress

import pytest

from coupons.files.code_reader import CodeReader
from coupons.files.content import recognize
from coupons.files.decoding import FileError
from coupons.files.format import FileFormat
from coupons.files.recipient_reader import RecipientReader


def tar() -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("codes.csv"), io.BytesIO())
    return content.getvalue()


OTHERS = {
    "a login page": (b"<!DOCTYPE html>\n<html><head><title>Login</title></head><body></body></html>", "a web page"),
    "a page after its comment": (b"\n<!-- saved -->\n<html lang='de'>", "a web page"),
    "a page in XHTML": (b'<?xml version="1.0"?>\n<!DOCTYPE html PUBLIC "x">\n<html>', "a web page"),
    "a table of a page, as shops name it .xls": (b"<table border=1><tr><td>code</td></tr></table>", "a web page"),
    "a part of a page": (b"<div class='error'>Bitte melden Sie sich an</div>", "a web page"),
    "a page in capitals": (b"<HTML><BODY>", "a web page"),
    "a page in UTF-16": ("\ufeff<html><body></body></html>".encode("utf-16-le"), "a web page"),
    "a JSON object": (b'{\n  "codes": ["A1"]\n}', "JSON"),
    "JSON with a byte order mark": (b'\xef\xbb\xbf {"error": "login"}', "JSON"),
    "JSON lines": (b'{"code": "A1"}\n{"code": "B2"}\n', "JSON"),
    "a JSON array": (b'["A1", "B2"]', "JSON"),
    "a JSON array of objects": (b'[\n  {\n    "code": "A1"\n  }\n]', "JSON"),
    "a JSON array of numbers": (b"[\n  4711,\n  4712\n]", "JSON"),
    "JSON after a comment": (b'// generated\n{"codes": []}', "JSON"),
    "XML": (b'<?xml version="1.0" encoding="UTF-8"?>\n<codes><code>A1</code></codes>', "XML"),
    "XML without a declaration": (b"<codes>\n  <code>A1</code>\n</codes>", "XML"),
    "an Excel 2003 file": (
        b'<?xml version="1.0"?>\n<?mso-application progid="Excel.Sheet"?>\n<Workbook/>', "an Excel 2003 file (XML)",
    ),
    "a drawing": (b'<svg xmlns="http://www.w3.org/2000/svg"></svg>', "a picture"),
    "RTF": (b"{\\rtf1\\ansi\\deff0 {\\fonttbl {\\f0 Courier;}}}", "a formatted document (RTF)"),
    "PDF": (b"%PDF-2.0\n%\xe2\xe3\xcf\xd3\n", "a PDF file"),
    "PNG": (b"\x89PNG\r\n\x1a\n", "a picture"),
    "JPEG": (b"\xff\xd8\xff\xe0\x00\x10JFIF", "a picture"),
    "GIF": (b"GIF89a\x01\x00\x01\x00", "a picture"),
    "BMP": (b"BM\x46\x00\x00\x00\x00\x00", "a picture"),
    "7z": (b"7z\xbc\xaf\x27\x1c\x00\x04", "an archive (7z)"),
    "rar": (b"Rar!\x1a\x07\x01\x00", "an archive (rar)"),
    "tar": (tar(), "an archive (tar)"),
    "xz": (lzma.compress(b"A1\n"), "an archive (xz)"),
    "bz2": (compress(b"A1\n"), "an archive (bz2)"),
    "an empty bz2": (compress(b""), "an archive (bz2)"),
    "zstd": (b"\x28\xb5\x2f\xfd\x04\x00", "an archive (zstd)"),
    "a Linux program": (b"\x7fELF\x02\x01\x01", "a program"),
    "a Windows program": (b"MZ\x90\x00\x03\x00\x00\x00", "a program"),
    "a script": (b"#!/usr/bin/env python3\n", "a program (script)"),
    "an SQLite database": (b"SQLite format 3\x00", "a database (SQLite)"),
    "contacts": (b"BEGIN:VCARD\r\nVERSION:3.0\r\n", "a file of contacts or dates (vCard, iCalendar)"),
    "a pointer of Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "a pointer to a file"),
    "an e-mail": (b"From: a@b.example\nTo: c@d.example\n\nAB12CD\n", "an e-mail"),
    "an e-mail with its route": (b"Received: from x\r\n\tby y; Mon\r\nMIME-Version: 1.0\r\n\r\nA1\r\n", "an e-mail"),
    "a German e-mail": (b"Von: Anna\nGesendet: Montag\nAn: Max\nBetreff: Codes\n\nAB12CD\n", "an e-mail"),
    "a mailbox": (b"From a@b.example Sun Nov  1 10:00:00 2026\nSubject: Codes\n", "an e-mail"),
    "an answer": (b"HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\n\r\nAB12CD\n", "an answer of a web server (HTTP)"),
    "a certificate": (b"-----BEGIN CERTIFICATE-----\nMIIBszCCAVmgAwIBAgIUQ1\n", "a key, a certificate"),
    "a key": (b"-----BEGIN RSA PRIVATE KEY-----\nMIIBszCCAVmgAwIBAgIUQ1\n", "a key, a certificate"),
    "an encrypted message": (b"-----BEGIN PGP MESSAGE-----\n\nhQEMA0abc\n", "a key, a certificate"),
    "a shortcut": (b"[InternetShortcut]\r\nURL=https://shop.example/codes\r\n", "a shortcut or a file of settings"),
    "a shortcut of Windows": (b"L\0\0\0\x01\x14\x02\0\0\0\0\0\xc0", "a shortcut"),
    "DIF": (b'TABLE\r\n0,1\r\n"EXCEL"\r\nVECTORS\r\n0,2\r\n""\r\n', "a table in an old format"),
    "SYLK": (b'ID;PWXL;N;E\r\nP;PGeneral\r\nC;Y1;X1;K"Code"\r\nE\r\n', "a table in an old format"),
    "LaTeX": (b"% codes\n\\documentclass{article}\n\\begin{document}\nAB12\n", "a LaTeX file"),
    "LDIF": (b"version: 1\n\ndn: cn=a\nmail: a@example.org\n", "a directory (LDIF)"),
    "SQL": (b"-- dump\nINSERT INTO codes VALUES ('AB12');\n", "a script for a database (SQL)"),
    "YAML": (b"---\ncodes:\n  - AB12CD\n", "YAML"),
    "YAML without a start": (b"- code: AB12CD\n- code: EF34GH\n", "YAML"),
    "a log": (b"2026-11-01 10:00:00,123 [main] INFO start\n2026-11-01 10:00:01 INFO AB12\n", "a log file"),
    "a log of a web server": (b'10.0.0.1 - - [01/Nov/2026:10:00:00 +0000] "GET / HTTP/1.1" 200 5\n', "a log file"),
    "a log of a system": (b"Nov  1 10:00:00 host cron[7]: AB12\n", "a log file"),
    "a spreadsheet in Base64": (base64.b64encode(b"PK\x03\x04" + b"x" * 80), "a file in Base64"),
    "codes in Base64": (base64.b64encode(b"Code;Value\nAB12CD;5\n" * 5), "a file in Base64"),
    "a page after a warning": (b"Warning: mysql_connect() failed\n<html><body></body></html>\n", "a web page"),
    "a program in PHP": (b"<?php\n$codes = ['AB12CD'];\n", "a program"),
}  # fmt: skip

CODES = [
    "{SPRING}\n{SUMMER}\n", "<SPRING-1>\n<SPRING-2>\n", "<A>\n<B>\n", "[A-1]\n[A-2]\n", "[1234]\n[5678]\n",
    "BM12345\nBM12346\n", "GIF89a-1\nGIF89a-2\n", "MZ-1\n", "PK-1\n", "%PDF\n", "7z-1\n", "Rar!1\n", "BZh91\n",
    "# codes of spring\nA1\n", "//A1\n", '{"A"}\n', "<HTML-1>\nA2\n", "<TABLE2>\nA2\n", "<P>\n<Q>\n",
    "From: A1\n", "[Spring]\n[Summer]\n", "TABLE\nCHAIR\n", "-----BEGIN-----\nA1\n", "2026-11-01 10:00:00;Info\n",
    "---\nA1\n", "SELECT-1\nINSERT-2\n", "A" * 64 + "\n", "q9Zk" * 20 + "\n", "de: A1\nB2\n", "dn: A1\n",
    'email;text\na@b.example;"a\n<html>\n"\n',
]  # fmt: skip


@pytest.mark.parametrize(("content", "what"), OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("reader", [CodeReader, RecipientReader])
def test_other_content_is_refused_with_a_remedy(
    content: bytes, what: str, reader: type[CodeReader | RecipientReader]
) -> None:
    """A file that is not a list is refused. The error says what it looks like, and what the user can do."""
    reading = reader(FileFormat(), "codes.csv")
    with pytest.raises(FileError) as caught:
        reading.feed(content)
        reading.finish()
    message, remedy = str(caught.value).split(", not a list of codes or recipients: ")
    assert message.startswith(f"codes.csv looks like {what}")
    assert remedy


@pytest.mark.parametrize("text", CODES)
def test_a_code_may_begin_like_other_content(text: str) -> None:
    """Codes that begin like JSON, a page, a picture or a program are not mistaken for it."""
    assert recognize(text.encode()) is None


def test_a_tab_in_utf_16_is_text() -> None:
    """Its first bytes are those of the oldest Excel files, whose next bytes are a control character in UTF-16."""
    assert recognize("\tAB12CD".encode("utf-16-le"), "utf-16-le") is None
    assert "very old Excel" in str(recognize(b"\t\0\x04\0\x02\0\x10\0"))
