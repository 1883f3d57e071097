"""The page in a real browser, where there is one: it draws every chart, complains of nothing and asks for nothing."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fsd_tune.report import compare_page, html_report
from fsd_tune.report.compare import compare
from tests.helpers.result_folders import write_search

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")]

_LISTEN = """<script>addEventListener("message", (sent) => { document.title = `SEEN|${sent.data}|`; })</script>"""
# Sorts by score twice with the page's own buttons, then tells the window around it (or itself) what it sees.
_USE = """
<script>
addEventListener("load", () => setTimeout(() => {
  const seen = [document.documentElement.dataset.drawn, document.querySelectorAll(".plot .main-svg").length > 0];
  const button = [...document.querySelectorAll("th button")].find((each) => each.textContent === "score");
  for (const click of [1, 2]) {
    button.click();
    const scores = [...document.querySelectorAll("table.sortable tbody tr")].map((row) => row.cells[3].dataset.value);
    seen.push(button.parentElement.getAttribute("aria-sort"), scores.join(" "));
  }
  const field = document.querySelector(".filter input");
  field.value = "STOPPED";
  field.dispatchEvent(new Event("input"));
  const left = [...document.querySelectorAll("table.filtered tbody tr:not([hidden])")];
  seen.push(left.length, new Set(left.map((row) => row.cells[2].dataset.value)).size);
  seen.push(document.documentElement.scrollWidth <= innerWidth, performance.getEntriesByType("resource").length);
  const inks = [...document.querySelectorAll(".plot .xtick text")].map((text) => getComputedStyle(text).fill);
  seen.push(new Set(inks).size, inks[0]);
  parent.postMessage(seen.join("|"), "*");
}, 4000));
</script>
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_search(tmp_path_factory.mktemp("search") / "R")
    path = html_report.write_report(folder)
    used = folder / "used.html"
    used.write_text(path.read_text(encoding="utf-8").replace("</body>", _USE + _LISTEN + "</body>"), encoding="utf-8")
    # A headless window cannot be as narrow as a phone; a frame can.
    frame = '<iframe src="used.html" style="width: 390px; height: 6000px; border: 0"></iframe>'
    (folder / "narrow.html").write_text(f"<!doctype html><title></title>{_LISTEN}{frame}")
    return folder


def browse(page: Path, profile: Path, *options: str) -> tuple[str, str]:
    """Standard output and what the browser logged."""
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        f"--user-data-dir={profile}", "--virtual-time-budget=20000", "--enable-logging=stderr", "--v=0",
        *options, page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    return done.stdout, done.stderr


@pytest.mark.parametrize(
    ("name", "scheme", "ink"), [("used.html", "0", "rgb(160, 170, 179)"), ("narrow.html", "1", "rgb(90, 100, 109)")]
)
def test_the_page_works(page: Path, tmp_path: Path, name: str, scheme: str, ink: str) -> None:
    html, log = browse(page / name, tmp_path, "--dump-dom", f"--blink-settings=preferredColorScheme={scheme}")
    assert "CONSOLE" not in log, log
    match = re.search(r"<title>SEEN\|(.*?)\|</title>", html)
    assert match, html[-2000:]
    drawn, svg, first, highest, second, lowest, left, states, fits, requests, inks, seen_ink = match[1].split("|")
    assert (drawn, svg) == ("10", "true")
    stopped = (html_report.load(page).trials["state"] == "stopped").sum()
    assert (left, states) == (str(stopped), "1")
    assert (first, second) == ("descending", "ascending")
    descending, ascending = [float(word) for word in highest.split()], [float(word) for word in lowest.split()]
    assert len(descending) == 22 and descending == sorted(descending, reverse=True)
    assert ascending == sorted(ascending)
    assert (fits, requests) == ("true", "0")
    assert (inks, seen_ink) == ("1", ink)


def test_a_complaint_would_be_seen(page: Path, tmp_path: Path) -> None:
    html = (page / "report.html").read_text(encoding="utf-8")
    # The page's own policy refuses the request before it leaves.
    (page / "asks.html").write_text(html.replace("</body>", '<img src="https://host.invalid/x.png"></body>'))
    picture = tmp_path / "page.png"
    options = (f"--screenshot={picture}", "--window-size=1280,6000")
    _, log = browse(page / "asks.html", tmp_path / "profile", *options)
    assert "CONSOLE" in log and "Content Security Policy" in log
    _, log = browse(page / "report.html", tmp_path / "profile", *options)
    assert "CONSOLE" not in log, log
    assert picture.stat().st_size > 50_000


@pytest.mark.parametrize("width", [1280, 390])
def test_the_comparison_works(tmp_path: Path, width: int) -> None:
    folders = [write_search(tmp_path / name, name=f"{name} <i>") for name in "AB"]
    path = compare_page.write_comparison(compare(folders), tmp_path / "out")
    use = """<script>addEventListener("load", () => setTimeout(() => {
      document.querySelector("th button").click();
      const seen = [document.documentElement.dataset.drawn, document.documentElement.scrollWidth <= innerWidth,
        performance.getEntriesByType("resource").length, document.querySelector("th").getAttribute("aria-sort")];
      parent.postMessage(seen.join("|"), "*");
    }, 4000));</script>"""
    used = path.with_name("used.html")
    used.write_text(path.read_text(encoding="utf-8").replace("</body>", use + "</body>"), encoding="utf-8")
    frame = f'<iframe src="used.html" style="width: {width}px; height: 6000px; border: 0"></iframe>'
    path.with_name("framed.html").write_text(f"<!doctype html><title></title>{_LISTEN}{frame}", encoding="utf-8")
    html, log = browse(path.with_name("framed.html"), tmp_path / "profile", "--dump-dom", "--window-size=1400,900")
    assert "CONSOLE" not in log, log
    assert "<title>SEEN|2|true|0|ascending|</title>" in html, html[:500]
