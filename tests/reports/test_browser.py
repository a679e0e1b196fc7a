"""A report in a browser without a window; skipped where there is no Chromium."""

import re
import shutil
import subprocess

import pytest

import metarl
from tests.foreign_runs import train_tiny

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
pytestmark = [
    pytest.mark.slow,  # how long a browser takes depends on the load of the machine
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium"),
]
SCHEMES = {"dark": 0, "light": 1}
"""numbers of colour schemes among Chromium's settings"""
FRAME = """<!doctype html><body><iframe width="{width}" height="900" src="report.html"></iframe>
<pre></pre><script>
const frame = document.querySelector("iframe");
frame.onload = () => {{
  const page = frame.contentDocument, root = page.documentElement;
  const images = [...page.images].map(image => image.decode());
  Promise.all(images).then(() => {{
    const tables = [...page.querySelectorAll(".wide")];
    const wide = tables.filter(one => one.scrollWidth > root.clientWidth);
    document.querySelector("pre").textContent = [
      root.scrollWidth, root.clientWidth, images.length, wide.length,
      frame.contentWindow.getComputedStyle(page.body).backgroundColor,
    ].join(";");
  }});
}};
</script>"""
"""shows the report in this width, and writes down what it measures there"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the report of two runs."""
    folder = tmp_path_factory.mktemp("page")
    one = train_tiny(folder / "a-run-with-a-name-of-some-length")
    two = train_tiny(folder / "another", gamma=0.9)
    metarl.report([one, two], out=folder / "report.html")
    return folder


def browse(page, scheme):
    """The document after its scripts have run, and what the browser logged about it."""
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    command += ["--allow-file-access-from-files", "--virtual-time-budget=20000", "--dump-dom"]
    command += ["--window-size=1600,1000", f"--user-data-dir={page.parent / 'profile'}"]
    command += [f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}", page.as_uri()]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return ended.stdout, re.findall(r"CONSOLE.*", ended.stderr)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", [360, 1400])
def test_the_page_fits_and_the_browser_finds_no_fault(folder, width, scheme):
    page = folder / "frame.html"
    page.write_text(FRAME.format(width=width))
    document, faults = browse(page, scheme)
    assert faults == []
    (measured,) = re.findall("<pre>(.*?)</pre>", document)
    scroll, client, images, wide, colour = measured.split(";")
    assert int(scroll) <= int(client) <= width
    assert int(images) == 2
    assert (int(wide) > 0) == (width == 360)  # tables scroll by themselves
    dark = sum(map(int, re.findall(r"\d+", colour))) < 3 * 128
    assert dark == (scheme == "dark")
