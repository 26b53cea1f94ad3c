"""The browser and the two notebooks, shared by all browser tests of the viewer."""

import os
import shutil

import pytest
from helpers.front_ends import Classic, Lab, Page


@pytest.fixture(scope="session")
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
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "no-first-run", "disable-sync"):
        options.add_argument(f"--{flag}")
    for flag in ("disable-background-networking", "disable-component-update"):
        options.add_argument(f"--{flag}")
    options.add_argument("--window-size=1300,1400")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with Chrome(options=options, service=ChromeService(driver)) as chrome:  # a fresh profile
        chrome.set_script_timeout(20)
        yield chrome


@pytest.fixture(scope="session", params=[Lab, Classic], ids=lambda kind: kind.name)
def notebook(request, browser, tmp_path_factory):
    """Open the notebook in a front end; what its logs say at the end must be clean."""
    kind = request.param
    if kind is Classic and "IPYWIDGETS7_PYTHON" not in os.environ:
        pytest.skip("IPYWIDGETS7_PYTHON names no Python with ipywidgets 7.7.1")
    with Page(kind, browser, tmp_path_factory.mktemp(kind.name)) as page:
        yield page
    bad = [word for word in ("Traceback", "Exception", "[E ", " ERROR ") if word in page.log]
    assert not bad, page.log
    assert {frame["version"].split(".")[0] for frame in page.frames()} == {kind.major}


@pytest.fixture
def page(notebook):
    """The notebook with a viewer that was just opened."""
    notebook.show()
    return notebook
