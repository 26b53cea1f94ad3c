"""Mouse and keys on the viewer's picture and on the surface, in a real browser."""

import re
import time

import pytest
from helpers.front_ends import until

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

TOP = "return document.querySelector('.lits-picture:not(.old)').getBoundingClientRect().top"
SURFACE = "SurfaceView(layers['prediction'], volume.spacing_mm, reference=layers['reference'])"


def wheel(page, clicks: int, *, ctrl: bool = False):
    from selenium.webdriver import Keys
    from selenium.webdriver.common.actions.wheel_input import ScrollOrigin

    def turn(chain, picture):
        if ctrl:
            chain.key_down(Keys.CONTROL)
        for _ in range(abs(clicks)):
            chain.scroll_from_origin(
                ScrollOrigin.from_element(picture, 40, 20), 0, -120 * clicks // abs(clicks)
            )
        if ctrl:
            chain.key_up(Keys.CONTROL)

    page.act(turn)


def press(page, *keys):
    page.act(lambda chain, _: chain.send_keys(*keys))


def drag(page, right: int, down: int, *, button: int = 0, key=None):
    """Drag from the picture's middle; `button` 2 is the right one."""
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.actions.action_builder import ActionBuilder

    picture = page.find(".lits-picture:not(.old)")
    page.to_middle(picture)
    if key:
        ActionChains(page.browser).key_down(key).perform()
    moves = ActionBuilder(page.browser, duration=50)
    moves.pointer_action.move_to(picture).pointer_down(button)
    for share in (0.5, 1):
        moves.pointer_action.move_to(picture, round(right * share), round(down * share))
    moves.pointer_action.pointer_up(button)
    moves.perform()
    if key:
        ActionChains(page.browser).key_up(key).perform()


def click(page, right: int, down: int):
    page.act(lambda chain, image: chain.move_to_element_with_offset(image, right, down).click())


def test_the_wheel_moves_through_the_slices_and_not_the_page(page):
    page.to_middle(page.find(".lits-picture:not(.old)"))
    start, where = page.slice_shown(), page.js(TOP)
    wheel(page, 3)
    until(lambda: page.slice_shown() == start + 3, 10, "the wheel does not move the slice")
    wheel(page, -2)
    until(lambda: page.slice_shown() == start + 1, 10, "the wheel does not move back")
    assert page.js(TOP) == where


def test_keys_move_through_the_slices_when_the_picture_has_the_focus(page):
    from selenium.webdriver import Keys

    click(page, 0, 0)
    page.settled()
    start, where = page.slice_shown(), page.js(TOP)
    press(page, Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ARROW_UP)
    until(lambda: page.slice_shown() == start - 1, 10, "the arrows do not move the slice")
    press(page, Keys.PAGE_DOWN)
    until(lambda: page.slice_shown() == start - 11, 10, "the page key does not move the slices")
    press(page, Keys.END)
    until(lambda: page.slice_shown() == 39, 10, "End does not go to the last slice")
    press(page, "l")
    until(lambda: page.slice_shown() == start, 10, "l does not go to the largest lesion")
    colored = page.settled()["colored"]
    press(page, " ")
    until(lambda: page.settled()["colored"] < colored, 10, "space does not hide the layers")
    assert page.js(TOP) == where
    assert page.message() == ""


def test_a_click_reads_the_voxel_and_a_change_of_plane_keeps_it(page):
    before = page.voxel()
    click(page, -20, -10)
    until(lambda: page.voxel() != before, 10, "the click does nothing")
    assert re.search(r"HU -?\d+ at voxel", page.readout())
    assert "reference: liver" in page.readout()
    read = page.voxel()
    for name in ("coronal", "sagittal", "axial"):
        page.after(lambda name=name: page.click(".widget-toggle-button", name))
        assert page.voxel() == read


def test_a_drag_moves_the_crosshair_with_the_pointer(page):
    click(page, 0, 0)
    page.settled()
    _, y, x = page.voxel()
    drag(page, 60, -30)
    page.settled()
    _, row, column = page.voxel()
    shown = page.js("return document.querySelector('.lits-picture:not(.old)').width")
    assert column - x == pytest.approx(60 * 200 / shown, abs=1.5)
    assert row - y == pytest.approx(-30 * 200 / shown, abs=1.5)


def test_ctrl_wheel_zooms_at_the_pointer_and_shift_drag_moves_the_slice(page):
    from selenium.webdriver import Keys

    whole = page.settled()
    wheel(page, 4, ctrl=True)
    until(lambda: page.pixels() != whole, 10, "ctrl-wheel does not zoom")
    click(page, 40, 20)  # where the pointer was
    page.settled()
    enlarged, seen = page.settled(), page.voxel()
    press(page, "0")
    click(page, 40, 20)
    page.settled()
    back = page.voxel()
    assert all(abs(a - b) <= 1 for a, b in zip(seen, back, strict=True))
    press(page, "+", "+", "+")
    page.settled()
    place = page.voxel()
    _, moved = page.after(lambda: drag(page, 50, 30, key=Keys.SHIFT))
    assert page.voxel() == place
    assert moved["hash"] != enlarged["hash"]


def test_a_right_drag_sets_the_window(page):
    before, after = page.after(lambda: drag(page, 0, -60, button=2))
    assert after["mean"] < before["mean"] - 2  # up: darker
    assert not page.browser.find_elements("css selector", ".lm-Menu"), "a menu opened"
    preset = page.js("return [...document.querySelectorAll('select')].map(s => s.value)")
    assert "own" in preset


def test_a_double_click_goes_to_the_nearest_lesion(page):
    click(page, 0, 0)
    press(page, "\ue00e")  # page up
    until(lambda: page.slice_shown() == 36, 10, "the page key does not move the slices")
    page.act(lambda chain, picture: chain.double_click(picture))
    until(lambda: page.slice_shown() == 26, 10, "a double click does not go to the lesion")


def test_the_ruler_measures_what_was_dragged(page):
    page.click("button", "ruler")
    voxel = page.voxel()
    before = page.settled()
    drag(page, 50, 30)
    assert page.settled() != before
    assert page.voxel() == voxel, "the ruler moves the crosshair"
    page.picture("ruler")


def test_three_planes_stand_side_by_side_and_a_click_in_one_moves_all(page):
    page.choose("one plane", "three planes")
    until(lambda: page.settled()["width"] > 520, 10, "no second plane")
    before = page.voxel()
    page.picture("three_planes")
    width = page.js("return document.querySelector('.lits-picture:not(.old)').width")
    page.after(lambda: click(page, round(0.4 * width), -60))
    _, y, x = before
    assert page.voxel()[1] == y  # in the coronal plane
    assert page.voxel()[2] != x


def test_moves_of_a_slow_machine_are_put_together(page):
    from selenium.webdriver import Keys

    click(page, 0, 0)
    page.settled()
    (page.folder / "slow").touch()
    count, start = len(page.frames()), page.slice_shown()
    press(page, *[Keys.ARROW_DOWN] * 20)
    until(lambda: page.slice_shown() == start - 20, 10, "keys were lost")
    page.settled()
    assert page.frames()[-1]["index"] == start - 20
    assert len(page.frames()) - count < 12, "every key drew a frame"


def test_the_surface_turns_with_mouse_and_keys_and_shows_the_reference_on_request(notebook):
    from selenium.webdriver import ActionChains, Keys

    look = "return document.querySelector('canvas.lits-surface:not(.old)').toDataURL()"
    notebook.js(notebook.kind.run, 1, SURFACE)
    started = "return !!document.querySelector('canvas.lits-surface[data-started]:not(.old)')"
    until(lambda: notebook.js(started), 20, "no surface")
    canvas = notebook.find("canvas.lits-surface:not(.old)")
    notebook.to_middle(canvas)
    chain = ActionChains(notebook.browser)
    chain.click(canvas).perform()  # stops the turning
    time.sleep(0.5)
    looks = [notebook.js(look)]
    time.sleep(0.5)
    assert notebook.js(look) == looks[0]

    def seen(action):
        action()
        time.sleep(0.5)
        looks.append(notebook.js(look))
        assert len(set(looks)) == len(looks), "the surface did not change"

    seen(chain.click_and_hold(canvas).move_by_offset(60, 20).release().perform)
    seen(lambda: canvas.send_keys(Keys.ARROW_LEFT))
    seen(lambda: notebook.click("label", "reference liver"))
    seen(lambda: notebook.click("label", "predicted tumor"))
    notebook.picture("surface")
