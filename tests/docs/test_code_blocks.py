"""Every Python block of README and docs runs as a reader would paste it, and prints what the page shows."""

import contextlib
import io
import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

sybil = pytest.importorskip("sybil")
from sybil.parsers.myst import PythonCodeBlockParser, SkipParser  # noqa: E402

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PAGES = [
    path for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) if "```python" in path.read_text()
]
NUMBER = re.compile(r"[-−]?\d*\.?\d+(?:[eE][-+]?\d+)?%?")


def shown_after(text, end):
    """The block of text that directly follows a block of code, as lines; None if there is none."""
    found = re.match(r"(?:```)?\s*\n+```text\n(.*?)```", text[end:], re.DOTALL)
    return found and found.group(1).splitlines()


def assert_same(printed, shown):
    """Words are the same, and numbers nearly: the last digits of fits and of Monte Carlo differ between machines."""
    assert len(printed) == len(shown), f"printed {printed}, the page shows {shown}"
    for line, expected in zip(printed, shown, strict=True):
        words, numbers = NUMBER.sub("#", line).split(), NUMBER.findall(line)
        assert words == NUMBER.sub("#", expected).split(), f"printed {line!r}, the page shows {expected!r}"
        for number, other in zip(numbers, NUMBER.findall(expected), strict=True):
            value, wanted = (float(text.rstrip("%").replace("−", "-")) for text in (number, other))
            assert value == pytest.approx(wanted, rel=0.1, abs=0.05), f"printed {line!r}, the page shows {expected!r}"


# Pages use the embeddings that come with distpert: one of their sources lacks a gene of the bundled screen.
@pytest.mark.filterwarnings("ignore:of .* perturbations with an embedding:UserWarning")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_blocks_run_in_order_and_print_what_is_shown(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plt.switch_backend("Agg")
    document = sybil.Sybil(parsers=[PythonCodeBlockParser(), SkipParser()]).parse(page)
    for example in document.examples():
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            example.evaluate()
        shown = shown_after(document.text, example.region.end)
        if shown is not None and printed.getvalue():
            assert_same(printed.getvalue().splitlines(), shown)
    plt.close("all")


def test_every_page_is_in_the_navigation():
    index = (ROOT / "docs" / "index.md").read_text()
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")} - {"index"}
    assert pages == {page for page in pages if re.search(rf"^{page}$", index, re.MULTILINE)}
