"""The viewer in a real browser: JupyterLab with ipywidgets 8, the classic notebook with 7.7.1.

    python -m pytest -m browser tests/viewer/test_browser.py

needs Chromium with its driver, selenium and jupyterlab. For ipywidgets 7.7.1 make a second
environment (``pip install "ipywidgets==7.7.1" "notebook<7" "ipykernel<7"`` and what else
requirements.txt names but torch, torchvision and kaggle) and name its Python in IPYWIDGETS7_PYTHON.
Screenshots and logs are left in runs/browser/.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from helpers.repository import ROOT

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

ARTEFACTS = ROOT / "runs" / "browser"
OPENED = 26  # the slice with most tumor
SLOW_SECONDS = 0.25  # a frame on a machine that can hardly keep up
CELL = """
import json, os, sys, time
sys.path.insert(0, {root!r})
from types import SimpleNamespace
import ipywidgets, numpy as np
from lits_helpers.viewer import SliceViewer, slice_viewer

z, y, x = np.ogrid[:40, :160, :200]
hu = np.random.default_rng(0).normal(40, 15, (40, 160, 200)) + 4 * (z - 20)
hu = np.where(((y - 80) / 70) ** 2 + ((x - 100) / 90) ** 2 < 1, hu, -1000).astype(np.int16)
def labels(shift):
    liver = ((z - 20) / 18) ** 2 + ((y - 80) / 40) ** 2 + ((x - 70 - shift) / 45) ** 2 < 1
    tumor = ((z - 26) / 6) ** 2 + ((y - 85) / 12) ** 2 + ((x - 60 - shift) / 14) ** 2 < 1
    return (liver.astype(np.uint8) + (liver & tumor)).astype(np.uint8)
def unreadable():
    raise OSError("volume-9.nii is truncated")
volume = SimpleNamespace(hu=hu, spacing_mm=(3.0, 1.0, 1.0))
layers = {{"reference": labels(0), "prediction": labels(5)}}
viewer = SliceViewer({{"good": (volume, layers), "bad": unreadable}}, static=False)
encode_frame = slice_viewer.encode_frame
def logged(picture):
    time.sleep(SLOW_SECONDS if os.path.exists("slow") else 0)
    line = dict(index=viewer.controls.slider.value, at=time.time())
    line |= dict(version=ipywidgets.__version__)
    with open("frames.jsonl", "a") as stream:
        stream.write(json.dumps(line) + "\\n")
    return encode_frame(picture)
slice_viewer.encode_frame = logged
viewer
"""
SURFACE_CELL = """
from lits_helpers.viewer import SurfaceView
SurfaceView(layers["reference"], volume.spacing_mm)
"""

PIXELS = """
const done = arguments[0], image = document.querySelector('.lits-picture, .widget-image');
const canvas = document.createElement('canvas');
if (!image || !image.naturalWidth) { done(null); return; }
canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;
const context = canvas.getContext('2d');
context.drawImage(image, 0, 0);
const data = context.getImageData(0, 0, canvas.width, canvas.height).data;
let colored = 0, sum = 0, hash = 0;
for (let i = 0; i < data.length; i += 4) {
  const top = Math.max(data[i], data[i+1], data[i+2]);
  const bottom = Math.min(data[i], data[i+1], data[i+2]);
  if (top - bottom > 40) colored += 1;
  sum += data[i+1];
  hash = (hash * 31 + data[i] + 7 * data[i+1]) | 0;
}
done({colored, mean: sum / (data.length / 4), hash, width: canvas.width, height: canvas.height});
"""

FITS = """
const parts = [...document.querySelectorAll('.widget-box, .widget-box *')];
const scrolls = parts.filter(part => {
  const style = getComputedStyle(part), way = ['auto', 'scroll'];
  return part.tagName !== 'SELECT' && (
    part.scrollHeight > part.clientHeight + 1 && way.includes(style.overflowY)
    || part.scrollWidth > part.clientWidth + 1 && way.includes(style.overflowX));
});
const nameless = parts.filter(part => ['title', 'alt', 'aria-label'].some(
  name => ['null', 'undefined'].includes(part.getAttribute(name))));
const names = elements => elements.map(element => element.className);
const height = document.querySelector('.widget-box').getBoundingClientRect().height;
return [height, names(scrolls), names(nameless)];
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def write_notebook(folder: Path) -> None:
    blank = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
    sources = {
        "viewer": CELL.format(root=str(ROOT)).replace("SLOW_SECONDS", str(SLOW_SECONDS)),
        "surface": SURFACE_CELL,
    }
    cells = [blank | {"id": name, "source": source} for name, source in sources.items()]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    content = {"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    (folder / "viewer.ipynb").write_text(json.dumps(content))


class Lab:
    """JupyterLab of this environment."""

    name, page, handle = "jupyterlab", "lab/tree/viewer.ipynb?reset", ".noUi-handle"
    ready = "return !!(window.jupyterapp && document.querySelector('.jp-Notebook .jp-Cell'))"
    run = "window.jupyterapp.commands.execute('notebook:run-all-cells')"

    @staticmethod
    def command(port: int, folder: Path) -> list[str]:
        options = [f"--port={port}", "--no-browser", "--allow-root", "--IdentityProvider.token="]
        options += [f"--ServerApp.root_dir={folder}", "--LabApp.expose_app_in_browser=True"]
        return [sys.executable, "-m", "jupyterlab", *options]


class Classic:
    """The classic notebook with ipywidgets 7.7.1, as in Colab, from its own environment."""

    name, page, handle = "classic", "notebooks/viewer.ipynb", ".ui-slider-handle"
    ready = "return !!window.Jupyter?.notebook?.kernel?.is_connected()"
    run = "Jupyter.notebook.execute_all_cells()"

    @staticmethod
    def command(port: int, folder: Path) -> list[str]:
        options = [f"--port={port}", "--no-browser", "--allow-root", "--NotebookApp.token="]
        options += [f"--notebook-dir={folder}"]
        return [os.environ["IPYWIDGETS7_PYTHON"], "-m", "notebook", *options]


@pytest.fixture(scope="module")
def browser():
    selenium = pytest.importorskip("selenium", reason="pip install selenium")
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    if not program or not driver:
        pytest.skip("no Chromium with chromedriver on this machine")
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService

    assert selenium
    options = ChromeOptions()
    options.binary_location = program
    for flag in ("headless", "no-sandbox", "disable-gpu", "no-first-run", "disable-sync"):
        options.add_argument(f"--{flag}")
    for flag in ("disable-background-networking", "disable-component-update"):
        options.add_argument(f"--{flag}")
    options.add_argument("--window-size=1300,1400")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with Chrome(options=options, service=ChromeService(driver)) as chrome:  # a fresh profile
        chrome.set_script_timeout(20)
        yield chrome


@pytest.fixture(scope="module", params=[Lab, Classic], ids=lambda kind: kind.name)
def page(request, browser, tmp_path_factory):
    """Open the notebook in a front end, run it, and yield the page with the viewer in it."""
    kind = request.param
    if kind is Classic and "IPYWIDGETS7_PYTHON" not in os.environ:
        pytest.skip("IPYWIDGETS7_PYTHON names no Python with ipywidgets 7.7.1")
    folder = tmp_path_factory.mktemp(kind.name)
    write_notebook(folder)
    port = free_port()
    environment = os.environ | {"JUPYTER_CONFIG_DIR": str(folder), "HOME": str(folder)}
    with open(folder / "server.log", "w") as log:
        command = kind.command(port, folder)
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env=environment)
    try:
        address = f"http://127.0.0.1:{port}/"
        until(lambda: answers(address), 60, f"no answer from {kind.name}")
        browser.get(address + kind.page)
        opened = Page(kind, browser, folder)
        opened.start()
        yield opened
        opened.keep_logs()
    finally:
        server.terminate()
        server.wait(20)


def answers(address: str) -> bool:
    try:
        return urllib.request.urlopen(address, timeout=5).status == 200
    except OSError:
        return False


def until(condition, seconds: float, message: str):
    """Wait for a true value of `condition` and return it."""
    end = time.time() + seconds
    while time.time() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(message)


class Page:
    """The viewer as a person meets it."""

    def __init__(self, kind, browser, folder):
        self.kind, self.browser, self.folder = kind, browser, folder

    def start(self):
        until(lambda: self.browser.execute_script(self.kind.ready), 60, "the notebook did not open")
        time.sleep(2)  # the kernel's widget channel opens after the page
        self.browser.execute_script(self.kind.run)
        until(self.pixels, 60, "no picture after running the cell")
        self.picture("1_opened")

    def find(self, selector: str, text: str = ""):
        found = self.browser.find_elements("css selector", selector)
        return next(element for element in found if text in element.text)

    def pixels(self) -> dict | None:
        return self.browser.execute_async_script(PIXELS)

    def frames(self) -> list[dict]:
        log = self.folder / "frames.jsonl"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def settled(self) -> dict:
        """Wait until the picture has not changed for half a second and return it."""
        last, since = self.pixels(), time.time()
        while time.time() - since < 0.5:
            now = self.pixels()
            if now != last:
                last, since = now, time.time()
        return last

    def after(self, action) -> tuple[dict, dict]:
        before = self.settled()
        action()
        until(lambda: self.pixels() != before, 10, "the picture did not change")
        return before, self.settled()

    def click(self, selector: str, text: str):
        element = self.find(selector, text)
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()

    def choose(self, label: str, option: str):
        from selenium.webdriver.support.ui import Select

        found = self.browser.find_elements("css selector", ".widget-dropdown")
        element = next(box for box in found if box.text.split("\n")[0] == label)
        Select(element.find_element("tag name", "select")).select_by_visible_text(option)

    def drag_slices(self, pixels: int, steps: int):
        """Drag the slice slider to and fro and end `pixels` away, as fast as it goes."""
        from selenium.webdriver import ActionChains

        handle = self.find(".widget-slider", "slice").find_element("css selector", self.kind.handle)
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", handle)
        actions = ActionChains(self.browser, duration=4).click_and_hold(handle)
        for step in range(steps):
            actions.move_by_offset(3 if step % 40 < 20 else -3, 0)
        actions.move_by_offset(pixels - 3 * steps_away(steps), 0).release().perform()

    def slice_shown(self) -> int:
        shown = self.find(".widget-label", " / ").text  # "27 / 40 · 78 mm"
        return int(shown.split()[0]) - 1

    def message(self) -> str:
        return self.browser.execute_script(
            "return [...document.querySelectorAll('.widget-html b')].map(b => b.innerText).join()"
        )

    def picture(self, name: str):
        ARTEFACTS.mkdir(parents=True, exist_ok=True)
        self.browser.save_screenshot(str(ARTEFACTS / f"{self.kind.name}_{name}.png"))

    def keep_logs(self):
        shutil.copy(self.folder / "server.log", ARTEFACTS / f"{self.kind.name}_server.log")
        lines = [json.dumps(entry) for entry in self.browser.get_log("browser")]
        (ARTEFACTS / f"{self.kind.name}_console.log").write_text("\n".join(lines))


def steps_away(steps: int) -> int:
    """Return where `steps` of the to and fro end, in steps."""
    return sum(1 if step % 40 < 20 else -1 for step in range(steps))


def test_a_fast_drag_ends_at_the_slice_under_the_mouse(page):
    count = len(page.frames())
    before = page.settled()
    page.drag_slices(80, steps=200)
    released = time.time()
    after = page.settled()
    page.picture("2_dragged")
    drawn = page.frames()[count:]
    assert after["hash"] != before["hash"]
    assert page.slice_shown() > OPENED
    assert drawn[-1]["index"] == page.slice_shown()
    assert len({frame["index"] for frame in drawn}) > 10, "the picture does not follow the drag"
    assert len(drawn) <= 201, "more frames than moves"
    assert drawn[-1]["at"] < released + 0.3, "frames were still queued"


def test_a_drag_does_not_queue_up_even_if_frames_are_slow(page):
    (page.folder / "slow").touch()
    count = len(page.frames())
    page.drag_slices(-60, steps=200)
    released = time.time()
    until(lambda: page.frames()[-1]["index"] == page.slice_shown(), 10, "the last slice is missing")
    page.settled()
    drawn = page.frames()[count:]
    (page.folder / "slow").unlink()
    assert drawn[-1]["index"] == page.slice_shown()
    assert len(drawn) < 40, "200 moves drew a frame each"
    assert drawn[-1]["at"] < released + 3 * SLOW_SECONDS, "frames were still queued"


def test_layers_come_and_go(page):
    until(lambda: page.slice_shown() == OPENED, 10, "the button does not go to the lesion")
    page.after(lambda: page.click(".widget-checkbox label", "cross"))
    for label in ("reference tumor", "reference liver", "predicted tumor", "predicted liver"):
        page.after(lambda label=label: page.click(".widget-checkbox label", label))
    without = page.settled()
    page.picture("3_no_layers")
    assert without["colored"] == 0
    page.after(lambda: page.click(".widget-checkbox label", "reference liver"))
    outline = page.settled()["colored"]
    assert outline > 0
    page.after(lambda: page.choose("as", "fill"))
    assert page.settled()["colored"] > 5 * outline
    page.picture("4_filled")


def test_a_preset_changes_the_gray_values(page):
    before, after = page.after(lambda: page.choose("window", "lung"))
    page.picture("5_lung")
    assert after["mean"] > before["mean"] + 10


def test_coronal_pictures_have_the_aspect_of_the_spacing(page):
    _, after = page.after(lambda: page.click(".widget-toggle-button", "coronal"))
    page.picture("6_coronal")
    assert after["width"] / after["height"] == pytest.approx(200 * 1.0 / (40 * 3.0), abs=0.01)
    page.after(lambda: page.click(".widget-toggle-button", "axial"))


def test_play_moves_through_the_slices(page):
    count, start = len(page.frames()), page.slice_shown()
    page.click(".widget-play button", "")
    until(lambda: len(page.frames()) >= count + 6, 15, "play does not play")
    page.browser.execute_script("document.querySelector('.widget-play .fa-pause').click()")
    page.settled()
    page.picture("7_played")
    indices = [frame["index"] for frame in page.frames()[count:]]
    assert indices == sorted(set(indices)), "play goes back or repeats"
    assert indices[0] > start
    assert indices[-1] <= start + 2 * len(indices), "it skips more than a busy machine explains"


def act(page, *steps):
    """Perform steps on the picture; each gets the chain of actions and the picture."""
    from selenium.webdriver import ActionChains

    picture = page.find(".lits-picture")
    page.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", picture)
    chain = ActionChains(page.browser)
    for step in steps:
        step(chain, picture)
    chain.perform()


def readout(page) -> str:
    return page.find(".widget-html", "voxel").text


def test_wheel_and_keys_move_through_the_slices_and_not_the_page(page):
    from selenium.webdriver import Keys
    from selenium.webdriver.common.actions.wheel_input import ScrollOrigin

    act(page, lambda chain, picture: chain.click(picture))
    page.settled()
    start = page.slice_shown()
    top = "return document.querySelector('.lits-picture').getBoundingClientRect().top"
    where = page.browser.execute_script(top)
    wheel = ScrollOrigin.from_element
    act(page, lambda chain, picture: chain.scroll_from_origin(wheel(picture), 0, -120))
    until(lambda: page.slice_shown() == start + 1, 10, "the wheel does not move the slice")
    act(page, lambda chain, _: chain.send_keys(Keys.ARROW_DOWN, Keys.ARROW_DOWN))
    until(lambda: page.slice_shown() == start - 1, 10, "the arrows do not move the slice")
    act(page, lambda chain, _: chain.send_keys(Keys.PAGE_DOWN))
    until(lambda: page.slice_shown() == start - 11, 10, "the page key does not move the slices")
    assert page.browser.execute_script(top) == where
    colored = page.settled()["colored"]
    act(page, lambda chain, _: chain.send_keys(" "))
    until(lambda: page.pixels()["colored"] < colored, 10, "space does not hide the layers")
    act(page, lambda chain, _: chain.send_keys(" "))


def test_a_click_reads_the_voxel_and_a_change_of_plane_keeps_it(page):
    act(page, lambda chain, picture: chain.move_to_element_with_offset(picture, 40, 20).click())
    until(lambda: page.settled() and "voxel" in readout(page), 10, "no readout")
    read = readout(page).split("=")[1].split(")")[0]
    for name in ("coronal", "sagittal", "axial"):
        page.after(lambda name=name: page.click(".widget-toggle-button", name))
        assert readout(page).split("=")[1].split(")")[0] == read


def test_the_ruler_measures_and_the_list_goes_to_a_lesion(page):
    page.click("button", "ruler")
    before = page.settled()
    act(
        page,
        lambda chain, picture: chain.move_to_element(picture).click_and_hold(),
        lambda chain, _: chain.move_by_offset(40, 30).move_by_offset(10, 0).release(),
    )
    assert page.settled() != before
    page.picture("10_ruler")
    page.click("button", "ruler")
    page.click(".widget-select option", "1:")
    page.settled()
    assert page.slice_shown() == OPENED


def test_everything_fits_1280_by_720_and_is_named_in_words(page):
    size = {"width": 1280, "height": 720, "deviceScaleFactor": 1, "mobile": False}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    page.browser.execute_script("document.querySelector('.widget-box').scrollIntoView()")
    page.settled()
    page.picture("11_fits")
    height, scrolls, nameless = page.browser.execute_script(FITS)
    page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert height <= 590
    assert not scrolls
    assert not nameless


def test_an_error_is_shown_in_the_viewer_and_the_next_case_works(page):
    page.choose("case", "bad")
    until(lambda: "volume-9.nii is truncated" in page.message(), 10, "the error is not shown")
    page.picture("8_error")
    page.choose("case", "good")
    until(lambda: page.message() == "", 10, "the error stays")
    until(page.pixels, 10, "no picture")


def test_the_surface_turns_with_the_mouse(page):
    from selenium.webdriver import ActionChains

    look = "return document.querySelector('canvas.lits-surface[data-started]').toDataURL()"
    canvas = page.find("canvas.lits-surface")
    page.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
    ActionChains(page.browser).click(canvas).perform()  # stops the turning
    time.sleep(0.5)
    before = page.browser.execute_script(look)
    time.sleep(0.5)
    assert page.browser.execute_script(look) == before
    ActionChains(page.browser).click_and_hold(canvas).move_by_offset(60, 20).release().perform()
    time.sleep(0.5)
    page.picture("9_surface")
    assert page.browser.execute_script(look) != before


def test_the_logs_are_clean(page):
    log = (page.folder / "server.log").read_text()
    assert "Traceback" not in log
    assert "Exception" not in log
    assert not [line for line in log.splitlines() if line.startswith("[E ") or " ERROR " in line]
    assert {frame["version"].split(".")[0] for frame in page.frames()} == {
        "8" if page.kind is Lab else "7"
    }
