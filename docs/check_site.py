"""Checks that a built site loads nothing from other hosts; `python docs/check_site.py FOLDER` lists such URLs."""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

LOADING = {
    "audio": ("src",),
    "embed": ("src",),
    "iframe": ("src",),
    "img": ("src", "srcset"),
    "link": ("href",),
    "object": ("data",),
    "script": ("src",),
    "source": ("src", "srcset"),
    "video": ("src", "poster"),
}
"""The attributes whose URL a browser loads when it shows the page. `<a href>` is not one of them."""
FOREIGN = re.compile(r"(^|[\s,])(https?:)?//", re.IGNORECASE)
CSS_URL = re.compile(r"(?:url\(|@import)\s*[\"']?((?:https?:)?//[^\"')\s]+)", re.IGNORECASE)


def foreign_urls(site: Path) -> list[str]:
    """Return a line for each URL on another host: the file, relative to `site`, and the URL."""
    found = []
    for file in sorted(site.rglob("*")):
        if file.suffix == ".html":
            text = file.read_text(encoding="utf-8")
            urls = _loaded_by(text) + CSS_URL.findall(text)
        elif file.suffix in (".css", ".svg"):
            urls = CSS_URL.findall(file.read_text(encoding="utf-8"))
        else:
            continue
        found += [f"{file.relative_to(site)}: {url}" for url in urls]
    return found


def _loaded_by(html: str) -> list[str]:
    parser = _Parser()
    parser.feed(html)
    return parser.urls


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = LOADING.get(tag, ())
        self.urls += [value for name, value in attrs if name in names and value and FOREIGN.search(value)]


if __name__ == "__main__":
    lines = foreign_urls(Path(sys.argv[1]))
    print(*lines, sep="\n", end="\n" if lines else "")
    sys.exit(1 if lines else 0)
