"""README and docs: their length, their links, and that what the code refers to exists."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from fsd_tune.settings.methods import HYPERPARAMETERS, METHODS, default
from tests import ROOT

DOCS = ROOT / "docs"
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in [*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / ".github").rglob("*.md")]
)
# Written by docs/hooks/pages.py while the site is built; `make docs` checks links to them.
GENERATED = {
    "reference/settings.md",
    "reference/cli.md",
    "reference/python.md",
    "reference/published-flags.md",
    "tutorials/notebook.md",
    "contributing.md",
    "changelog.md",
}
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
# A document, and the section that is named behind it in quotation marks.
_REFERENCE = re.compile(r'((?:docs/[\w/\-]+|\w+)\.md)(?:\W{1,3}"([^"]{1,40})")?')
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def _headings(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MkDocs make them."""
    lines = _FENCE.sub("", path.read_text()).splitlines()
    titles = [line.lstrip("#").strip().lower() for line in lines if re.match(r"#{1,6} ", line)]
    return {re.sub(r"[^\w\- ]", "", title.replace("`", "")).replace(" ", "-") for title in titles}


def test_the_readme_is_one_page():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES)
def test_relative_links_exist(page):
    path = ROOT / page
    broken = []
    for link in _LINK.findall(_FENCE.sub("", path.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        if target.is_relative_to(DOCS) and target.relative_to(DOCS).as_posix() in GENERATED:
            # Links on the site; the files themselves are not in the repository.
            if not path.is_relative_to(DOCS):
                broken.append(link)
        elif not target.exists() or (anchor and anchor not in _headings(target)):
            broken.append(link)
    assert broken == []


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text().split("\nnav:\n")[1]
    listed = set(re.findall(r"[\w\-/]+\.md", navigation))
    assert listed == {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")} | GENERATED


def test_documents_that_the_code_names_exist():
    """A docstring may point to a section, as in: docs/explanation/method.md, "CKA"."""
    missing = []
    for path in [*(ROOT / "fsd_tune").rglob("*.py"), *(ROOT / "search_spaces").rglob("*.yaml")]:
        for name, section in _REFERENCE.findall(path.read_text()):
            if name == "README.md" or any(
                (ROOT / "fsd_tune").rglob(name)
            ):  # an exported student's file, or its template
                continue
            anchor = "-".join(re.sub(r"[^\w\- ]", " ", section.lower()).split())
            if not (ROOT / name).is_file() or (anchor and anchor not in _headings(ROOT / name)):
                missing.append(f"{path.relative_to(ROOT)}: {name} {section}".strip())
    assert missing == []


def test_the_table_of_methods_has_every_method_with_its_defaults():
    section = (DOCS / "explanation/method.md").read_text().split("\n## Loss terms\n")[1].split("\n## ")[0]
    lines = section.splitlines()
    rows = {match[1]: line for line in lines if (match := re.match(r"\| `(\w+)` \| \$", line))}
    assert list(rows) == list(METHODS)
    for method, row in rows.items():
        hyperparameters = METHODS[method].hyperparameters
        if "beta" in hyperparameters:
            assert f"beta {default(method, 'beta'):g}" in row
        mentioned = set(re.findall(r"\w+", row.split("|")[3])) & set(HYPERPARAMETERS)
        shared = {"alpha", "temperature"} if METHODS[method].terms else set()
        assert mentioned | shared == set(hyperparameters)


def test_the_workflow_calls_the_targets_of_ci():
    ran = re.findall(r"^make ([\w-]+)", (ROOT / ".ci/run").read_text(), re.MULTILINE)
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"].values()
    steps = [step["run"] for job in jobs for step in job["steps"] if "run" in step]
    assert [step.removeprefix("make ") for step in steps if step.startswith("make ")] == ran


def test_the_citation_has_the_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == project["version"] and citation["license"] == project["license"]
    assert citation["repository-code"] == project["urls"]["Source"]
