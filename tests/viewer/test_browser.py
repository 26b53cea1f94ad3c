"""The viewer's controls in a browser: JupyterLab with ipywidgets 8, the classic one with 7.7.1.

    python -m pytest -m browser tests/viewer

needs Chromium with its driver, selenium and jupyterlab. For ipywidgets 7.7.1 make a second
environment (``pip install "ipywidgets==7.7.1" "notebook<7" "ipykernel<7"`` and what else
requirements.txt names but torch, torchvision and kaggle) and name its Python in IPYWIDGETS7_PYTHON.
Screenshots and logs are left in runs/browser/.
"""

import time

import pytest
from helpers.front_ends import SLOW_SECONDS, until

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

OPENED = 26  # the slice with most tumor
UNCERTAIN = "open_viewer(volume, layers, uncertainty=uncertainty)"
TYPED = "open_viewer(volume, layers, answers=False)"


def drag_slices(page, pixels: int, steps: int):
    """Drag the slice slider to and fro and end `pixels` away, as fast as it goes."""
    from selenium.webdriver import ActionChains

    handle = page.find(".widget-slider", "slice").find_element("css selector", page.kind.handle)
    page.to_middle(handle)
    actions = ActionChains(page.browser, duration=4).click_and_hold(handle)
    ways = [3 if step % 40 < 20 else -3 for step in range(steps)]
    for way in ways:
        actions.move_by_offset(way, 0)
    actions.move_by_offset(pixels - sum(ways), 0).release().perform()


def test_a_fast_drag_ends_at_the_slice_under_the_mouse(page):
    count = len(page.frames())
    before = page.settled()
    drag_slices(page, 80, steps=200)
    released = time.time()
    after = page.settled()
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
    drag_slices(page, -60, steps=200)
    released = time.time()
    until(lambda: page.frames()[-1]["index"] == page.slice_shown(), 10, "the last slice is missing")
    page.settled()
    drawn = page.frames()[count:]
    (page.folder / "slow").unlink()
    assert drawn[-1]["index"] == page.slice_shown()
    assert len(drawn) < 40, "200 moves drew a frame each"
    assert drawn[-1]["at"] < released + 3 * SLOW_SECONDS, "frames were still queued"


def test_it_opens_at_the_largest_lesion_and_layers_come_and_go(page):
    assert page.slice_shown() == OPENED
    page.after(lambda: page.click(".widget-checkbox label", "cross"))
    layers = ("reference tumor", "reference liver", "predicted tumor", "predicted liver")
    for label in (*layers, "uncertain"):
        page.after(lambda label=label: page.click(".widget-checkbox label", label))
    assert page.settled()["colored"] == 0
    page.after(lambda: page.click(".widget-checkbox label", "reference liver"))
    outline = page.settled()["colored"]
    assert outline > 0
    page.after(lambda: page.choose("as", "fill"))
    assert page.settled()["colored"] > 5 * outline


def test_a_preset_changes_the_gray_values(page):
    before, after = page.after(lambda: page.choose("window", "lung"))
    assert after["mean"] > before["mean"] + 10


def test_coronal_pictures_have_the_aspect_of_the_spacing(page):
    _, after = page.after(lambda: page.click(".widget-toggle-button", "coronal"))
    assert after["width"] / after["height"] == pytest.approx(200 * 1.0 / (40 * 3.0), abs=0.01)


def test_play_moves_through_the_slices(page):
    drag_slices(page, -70, steps=1)
    until(lambda: page.slice_shown() < OPENED, 10, "the slider does not move")
    page.settled()
    count, start = len(page.frames()), page.slice_shown()
    page.click(".widget-play button")
    until(lambda: len(page.frames()) >= count + 6, 15, "play does not play")
    page.js("document.querySelector('.widget-play .fa-pause').click()")
    page.settled()
    indices = [frame["index"] for frame in page.frames()[count:]]
    assert indices == sorted(set(indices)), "play goes back or repeats"
    assert indices[0] > start
    assert indices[-1] <= start + 2 * len(indices), "it skips more than a busy machine explains"


def test_an_error_is_shown_in_the_viewer_and_the_next_case_works(page):
    page.choose("case", "bad")
    until(lambda: "volume-9.nii is truncated" in page.message(), 10, "the error is not shown")
    page.picture("error")
    page.choose("case", "good")
    until(lambda: page.message() == "", 10, "the error stays")
    until(page.pixels, 10, "no picture")


def test_the_list_goes_to_a_lesion_and_marks_the_current_one(page):
    marked = "return document.querySelector('.widget-select select').selectedIndex"
    assert page.js(marked) == 0
    page.after(lambda: drag_slices(page, -70, steps=1))
    assert page.js(marked) == -1
    page.after(lambda: page.click(".widget-select option", "1:"))
    assert page.slice_shown() == OPENED
    assert page.js(marked) == 0


def test_errors_take_the_place_of_the_layers_and_uncertain_places_are_a_layer(notebook):
    notebook.show(UNCERTAIN)
    assert "uncertain" in notebook.text(".widget-html")
    assert "uncertainty 0.00" in notebook.readout()
    notebook.after(lambda: notebook.choose("errors", "liver"))
    key = notebook.text(".widget-html")
    assert "false positive" in key
    assert "reference liver" not in key
    disabled = (
        "return [...document.querySelectorAll('.widget-checkbox input')].map(b => b.disabled)"
    )
    assert notebook.js(disabled) == [True] * 5 + [False]  # the cross stays
    notebook.click("button", "worst")
    until(lambda: notebook.slice_shown() == 17, 10, "the worst slice is not shown")


def test_without_anywidget_the_typed_fields_do_the_same(notebook):
    from selenium.webdriver import Keys

    notebook.show(TYPED)
    details = "return document.querySelector('.widget-html details').textContent"
    assert "pip install anywidget" in notebook.js(details)
    field = notebook.find(".widget-text", "row").find_element("css selector", "input")
    notebook.to_middle(field)
    before = notebook.settled()
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys("12", Keys.ENTER)
    until(lambda: notebook.voxel()[:2] == (OPENED, 12), 10, "the typed row is not read")
    assert notebook.settled() != before
    notebook.after(lambda: notebook.click(".widget-toggle-button", "sagittal"))
    assert notebook.voxel()[:2] == (OPENED, 12)
    notebook.picture("typed")
