"""A notebook with the viewer in a real browser: JupyterLab, or the classic notebook."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

from helpers.repository import ROOT

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARTEFACTS = ROOT / "runs" / "browser"
SLOW_SECONDS = 0.25  # a frame on a machine that can hardly keep up
SETUP = f"""
import json, os, sys, time
sys.path.insert(0, {str(ROOT)!r})
from types import SimpleNamespace
import ipywidgets, numpy as np
from lits_helpers.viewer import SliceViewer, SurfaceView, slice_viewer

z, y, x = np.ogrid[:40, :160, :200]
hu = np.random.default_rng(0).normal(40, 15, (40, 160, 200)) + 4 * (z - 20)
hu = np.where(((y - 80) / 70) ** 2 + ((x - 100) / 90) ** 2 < 1, hu, -1000).astype(np.int16)
def labels(shift):
    liver = ((z - 20) / 18) ** 2 + ((y - 80) / 40) ** 2 + ((x - 70 - shift) / 45) ** 2 < 1
    tumor = ((z - 26) / 6) ** 2 + ((y - 85) / 12) ** 2 + ((x - 60 - shift) / 14) ** 2 < 1
    return (liver.astype(np.uint8) + (liver & tumor)).astype(np.uint8)
def unreadable():
    raise OSError("volume-9.nii is truncated")
def of(hu, trusted=True):
    geometry = SimpleNamespace(spacing_trusted=trusted)
    return SimpleNamespace(hu=hu, spacing_mm=(3.0, 1.0, 1.0), geometry=geometry)
volume = of(hu)
layers = {{"reference": labels(0), "prediction": labels(5)}}
uncertainty = np.float32(layers["reference"] != layers["prediction"])
specks = np.zeros((60, 256, 256), np.uint8)
specks[::2, ::2, ::13] = 2
specks_hu = np.full(specks.shape, 40, np.int16)
original = slice_viewer.encode_frame
def logged(picture):
    time.sleep({SLOW_SECONDS} if os.path.exists("slow") else 0)
    line = dict(index=viewer.controls.slider.value if "viewer" in globals() else None)
    line |= dict(at=time.time(), version=ipywidgets.__version__)
    with open("frames.jsonl", "a") as stream:
        stream.write(json.dumps(line) + "\\n")
    return original(picture)
slice_viewer.encode_frame = logged
def open_viewer(*cases, **options):
    global viewer
    start = time.process_time()
    viewer = SliceViewer(*cases, static=False, **options)
    with open("seconds", "w") as stream:
        stream.write(str(time.process_time() - start))
    return viewer
"""
TWO_CASES = 'open_viewer({"good": (volume, layers, uncertainty), "bad": unreadable})'

PIXELS = """
const done = arguments[0];
const image = document.querySelector('.lits-picture:not(.old), .widget-image:not(.old)');
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

PLACES = """
const image = document.querySelector('.lits-picture:not(.old), .widget-image:not(.old)');
const {left, top} = image.getBoundingClientRect();
return [left, top, document.querySelectorAll('.widget-box *').length];
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def write_notebook(folder: Path) -> None:
    blank = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
    sources = {"setup": SETUP + "print('ready')", "shown": ""}
    cells = [blank | {"id": name, "source": source} for name, source in sources.items()]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    content = {"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    (folder / "viewer.ipynb").write_text(json.dumps(content))


class Lab:
    """JupyterLab of this environment."""

    name, page, handle = "jupyterlab", "lab/tree/viewer.ipynb?reset", ".noUi-handle"
    major = "8"
    ready = """
        const panel = window.jupyterapp?.shell.currentWidget;
        return !!document.querySelector('.jp-Notebook .jp-Cell')
            && panel.sessionContext?.session?.kernel?.status === 'idle'"""
    run = """
        const notebook = window.jupyterapp.shell.currentWidget.content;
        notebook.activeCellIndex = arguments[0];
        if (arguments[1]) notebook.activeCell.model.sharedModel.setSource(arguments[1]);
        window.jupyterapp.commands.execute('notebook:run-cell')"""
    themes = ("JupyterLab Light", "JupyterLab Dark")
    use_theme = "window.jupyterapp.commands.execute('apputils:change-theme', {theme: arguments[0]})"

    @staticmethod
    def command(port: int, folder: Path) -> list[str]:
        options = [f"--port={port}", "--no-browser", "--allow-root", "--IdentityProvider.token="]
        options += [f"--ServerApp.root_dir={folder}", "--LabApp.expose_app_in_browser=True"]
        return [sys.executable, "-m", "jupyterlab", *options]


class Classic:
    """The classic notebook with ipywidgets 7.7.1, as in Colab, from its own environment."""

    name, page, handle = "classic", "notebooks/viewer.ipynb", ".ui-slider-handle"
    major = "7"
    ready = "return !!window.Jupyter?.notebook?.kernel?.is_connected()"
    run = """
        if (arguments[1]) Jupyter.notebook.get_cell(arguments[0]).set_text(arguments[1]);
        Jupyter.notebook.execute_cells([arguments[0]])"""
    themes = ("light",)
    use_theme = ""

    @staticmethod
    def command(port: int, folder: Path) -> list[str]:
        options = [f"--port={port}", "--no-browser", "--allow-root", "--NotebookApp.token="]
        options += [f"--notebook-dir={folder}"]
        return [os.environ["IPYWIDGETS7_PYTHON"], "-m", "notebook", *options]


@contextmanager
def open_chromium():
    """Open a headless Chromium with a fresh profile, for the length of the context."""
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService

    options = ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "no-first-run", "disable-sync"):
        options.add_argument(f"--{flag}")
    for flag in ("disable-background-networking", "disable-component-update"):
        options.add_argument(f"--{flag}")
    options.add_argument("--window-size=1300,1400")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = ChromeService(shutil.which("chromedriver"))
    with Chrome(options=options, service=service) as chrome:
        chrome.set_script_timeout(20)
        yield chrome


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
    """A notebook with the viewer in it, as a person meets it."""

    def __init__(self, kind, browser, folder: Path):
        self.kind, self.browser, self.folder = kind, browser, folder

    def __enter__(self):
        write_notebook(self.folder)
        port = free_port()
        home = {"JUPYTER_CONFIG_DIR": str(self.folder), "HOME": str(self.folder)}
        with open(self.folder / "server.log", "w") as log:
            self.server = subprocess.Popen(
                self.kind.command(port, self.folder),
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=os.environ | home,
            )
        address = f"http://127.0.0.1:{port}/"
        until(lambda: answers(address), 120, f"no answer from {self.kind.name}")
        self.browser.get(address + self.kind.page)
        until(lambda: self.js(self.kind.ready), 120, "the notebook did not open")
        time.sleep(1)  # the kernel's widget channel opens after the page
        self.js(self.kind.run, 0, "")
        output = ".jp-OutputArea-output, .output_subarea"
        until(lambda: "ready" in self.text(output), 60, "the set-up did not run")
        return self

    def __exit__(self, *_):
        self.log = (self.folder / "server.log").read_text()
        ARTEFACTS.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.folder / "server.log", ARTEFACTS / f"{self.kind.name}_server.log")
        lines = [json.dumps(entry) for entry in self.browser.get_log("browser")]
        (ARTEFACTS / f"{self.kind.name}_console.log").write_text("\n".join(lines))
        self.server.terminate()
        try:
            self.server.wait(20)
        except subprocess.TimeoutExpired:  # it waits for its kernels
            self.server.kill()

    def js(self, script: str, *arguments):
        return self.browser.execute_script(script, *arguments)

    def show(self, source: str = TWO_CASES, seconds: float = 60) -> dict:
        """Run a cell that shows something with a picture, and return its pixels."""
        (self.folder / "slow").unlink(missing_ok=True)
        marked = "document.querySelectorAll('.lits-picture, .widget-image, .lits-surface')"
        self.js(f"{marked}.forEach(part => part.classList.add('old'))")
        self.js(self.kind.run, 1, source)
        until(self.pixels, seconds, "no picture after running the cell")
        last = None
        while last != (last := self.js(PLACES)):  # views arrive one after the other
            time.sleep(0.3)
        return self.settled()

    def find(self, selector: str, text: str = ""):
        found = self.browser.find_elements("css selector", selector)
        return next(element for element in found if text in element.text)

    def text(self, selector: str) -> str:
        script = "return [...document.querySelectorAll(arguments[0])].map(p => p.innerText).join()"
        return self.js(script, selector)

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
        """Act, wait until the picture is another and at rest; return it as before and after."""
        before = self.settled()
        action()
        until(lambda: self.pixels() != before, 10, "the picture did not change")
        return before, self.settled()

    def click(self, selector: str, text: str = ""):
        element = self.find(selector, text)
        self.to_middle(element)
        element.click()

    def to_middle(self, element):
        self.js("arguments[0].scrollIntoView({block: 'center'})", element)

    def choose(self, label: str, option: str):
        from selenium.webdriver.support.ui import Select

        found = self.browser.find_elements("css selector", ".widget-dropdown")
        element = next(box for box in found if box.text.split("\n")[0] == label)
        Select(element.find_element("tag name", "select")).select_by_visible_text(option)

    def act(self, *steps):
        """Perform steps on the picture; each gets the chain of actions and the picture."""
        from selenium.webdriver import ActionChains

        picture = self.find(".lits-picture:not(.old)")
        self.to_middle(picture)
        chain = ActionChains(self.browser)
        for step in steps:
            step(chain, picture)
        chain.perform()

    def slice_shown(self) -> int:
        shown = self.find(".widget-label", " / ").text  # "26 / 39 · 78 mm", counted from 0
        return int(shown.split()[0])

    def readout(self) -> str:
        return self.find(".widget-html", "voxel").text

    def voxel(self) -> tuple[int, ...]:
        """Return the voxel (z, y, x) of the readout."""
        place = self.readout().split("= ")[1].split(")")[0]
        return tuple(int(at) for at in place.strip("(").split(","))

    def message(self) -> str:
        return self.text(".widget-html b")

    def size(self, width: int, height: int):
        """Give the page a size; `size(0, 0)` gives back the window's own."""
        if not width:
            self.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
            return
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def theme(self, name: str):
        if self.kind.use_theme:
            self.js(self.kind.use_theme, name)
            time.sleep(1.5)  # its stylesheet is loaded anew

    def picture(self, name: str):
        ARTEFACTS.mkdir(parents=True, exist_ok=True)
        self.browser.save_screenshot(str(ARTEFACTS / f"{self.kind.name}_{name}.png"))
