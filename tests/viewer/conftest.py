"""The browser and the two notebooks, shared by all browser tests of the viewer."""

import os
import shutil

import pytest
from helpers.front_ends import CHROMIUM, Classic, Lab, Page, open_chromium


@pytest.fixture(scope="session")
def browser():
    selenium = pytest.importorskip("selenium", reason="pip install selenium")
    if not CHROMIUM or not shutil.which("chromedriver"):
        pytest.skip("no Chromium with chromedriver on this machine")
    assert selenium
    with open_chromium() as chrome:
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
