"""The site of the documentation builds, and all links of its pages are valid."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
foreign_urls = runpy.run_path(str(ROOT / "docs" / "check_site.py"))["foreign_urls"]


def test_the_site_builds_without_a_warning_and_loads_nothing_from_other_hosts(tmp_path: Path) -> None:
    """`mkdocs build --strict` succeeds: every page is in the navigation, and every link and anchor exists."""
    mkdocs = Path(sys.executable).with_name("mkdocs")
    subprocess.run(
        [mkdocs, "build", "--strict", "--quiet", "--site-dir", tmp_path],
        cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, check=True, timeout=120,
    )  # fmt: skip
    assert (tmp_path / "index.html").exists()
    assert foreign_urls(tmp_path) == []


def test_a_url_on_another_host_is_found(tmp_path: Path) -> None:
    """The check finds scripts, images and style sheets in HTML and CSS, and allows links that a reader follows."""
    (tmp_path / "page.html").write_text(
        '<a href="https://example.org/">a link</a> <script src="https://example.org/a.js"></script>'
        '<img src="//example.org/b.png"> <link href="c.css"> <style>@import "https://example.org/d.css"</style>'
    )
    (tmp_path / "fonts.css").write_text("src: url(https://example.org/e.woff2), url(f.woff2)")
    names = [line.rpartition("/")[2] for line in foreign_urls(tmp_path)]
    assert sorted(names) == ["a.js", "b.png", "d.css", "e.woff2"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_relative_link_leads_to_a_file_of_the_repository(page: Path) -> None:
    """Links also work where the repository is browsed."""
    links = re.findall(r"\]\(([^)#:\s]+)(?:#[\w-]*)?\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []
