"""How the viewer looks in a real browser: sizes, themes, contrast, keys alone, odd cases."""

import pytest
from helpers.front_ends import Lab, until

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

FITS = """
const box = document.querySelector('.lits-viewer:has(.lits-picture:not(.old))');
const parts = [box, ...box.querySelectorAll('*')];
const scrolls = parts.filter(part => {
  const style = getComputedStyle(part), way = ['auto', 'scroll'];
  return part.tagName !== 'SELECT' && (
    part.scrollHeight > part.clientHeight + 1 && way.includes(style.overflowY)
    || part.scrollWidth > part.clientWidth + 1 && way.includes(style.overflowX));
});
const nameless = parts.filter(part => ['title', 'alt', 'aria-label'].some(
  name => ['null', 'undefined'].includes(part.getAttribute(name))));
const names = elements => elements.map(element => element.className);
const frame = box.getBoundingClientRect();
const wide = parts.filter(part => part.getBoundingClientRect().right > frame.right + 1);
return [frame.height, names(scrolls), names(nameless), names(wide)];
"""
# Every text that is not disabled: its words and the contrast to what lies behind it. Colors are
# drawn and read back, as a style may name them in any way.
CONTRASTS = """
const box = document.querySelector('.lits-viewer:has(.lits-picture:not(.old))');
const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
canvas.canvas.width = canvas.canvas.height = 1;
function over(colors) {  // the color that is seen of colors above each other, the lowest first
  canvas.fillStyle = 'white'; canvas.fillRect(0, 0, 1, 1);
  for (const color of colors) { canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1); }
  return canvas.getImageData(0, 0, 1, 1).data.slice(0, 3);
}
function luminance(rgb) {
  const [r, g, b] = [...rgb].map(v => v / 255).map(
    v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
function contrast(element, color) {
  const grounds = [];
  for (let at = element; at; at = at.parentElement)
    grounds.unshift(getComputedStyle(at).backgroundColor);
  const seen = [over(grounds), over([...grounds, color])].map(luminance);
  return (Math.max(...seen) + 0.05) / (Math.min(...seen) + 0.05);
}
const found = [];
for (const element of box.querySelectorAll('*')) {
  const own = [...element.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
  const texts = ['INPUT', 'SELECT'].includes(element.tagName) && element.type !== 'checkbox';
  const hidden = !element.getClientRects().length || element.closest(':disabled, .mod-disabled');
  const label = element.closest('.jupyter-widgets')?.querySelector(':disabled');
  if (hidden || label || !(own || texts)) continue;
  found.push([element.innerText || element.value || element.tagName,
    contrast(element, getComputedStyle(element).color)]);
}
for (const handle of box.querySelectorAll('.noUi-handle, .ui-slider-handle')) {
  const style = getComputedStyle(handle);
  if (!handle.closest('[disabled], .ui-state-disabled'))
    found.push(['handle', 1.5 * Math.max(  // of graphics 3 is enough
      contrast(box, style.borderColor), contrast(box, style.backgroundColor))]);
}
return found;
"""
FOCUS = """
const at = document.activeElement, box = at.closest('.lits-viewer');
if (!box) return null;
const widget = at.closest('.jupyter-widgets:not(.widget-box)') || at;
return at.className + ' ' + (widget.innerText || at.getAttribute('aria-label') || '').slice(0, 20);
"""
CASES = {  # what is shown -> what stands below the picture
    "open_viewer(volume)": "HU 51 at voxel (z, y, x) = (20, 80, 100)",
    "open_viewer(None, layers)": "voxel (z, y, x) = (26,",
    "open_viewer(of(hu[:1]), {'reference': layers['reference'][:1]})": "voxel (z, y, x) = (0, 80,",
    "open_viewer(of(np.resize(hu, (1500, 64, 80))))": "voxel (z, y, x) = (750, 32, 40)",
    "open_viewer(of(np.resize(hu, (5, 100, 2000))))": "voxel (z, y, x) = (2, 50, 1000)",
    "open_viewer(of(np.full((12, 40, 48), 7, np.int16)))": "HU 7 at voxel",
    "open_viewer(of(hu, trusted=False), layers)": "spacing not trusted",
    "open_viewer(of(specks_hu), {'prediction': specks})": "lesions: 76800",
}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_texts_and_handles_have_the_contrast_of_wcag_aa(page, theme):
    if theme == "dark" and page.kind is not Lab:
        pytest.skip("the classic notebook has no dark theme")
    page.theme(page.kind.themes[theme == "dark"])
    page.picture(theme)
    found = page.js(CONTRASTS)
    page.theme(page.kind.themes[0])
    assert len(found) > 30
    assert not [(text, round(ratio, 2)) for text, ratio in found if ratio < 4.5]


def test_everything_fits_1280_by_720_and_is_named_in_words(page):
    page.size(1280, 720)
    page.js("document.querySelector('.lits-viewer:has(:not(.old))').scrollIntoView()")
    page.settled()
    page.picture("fits")
    height, scrolls, nameless, wide = page.js(FITS)
    page.size(0, 0)
    assert height <= 590
    assert not scrolls
    assert not nameless
    assert not wide


@pytest.mark.parametrize(("width", "height"), [(1000, 700), (900, 700), (768, 1024)])
def test_narrow_pages_wrap_without_a_scrollbar_of_their_own(page, width, height):
    page.size(width, height)
    if page.kind is Lab:
        page.js("window.jupyterapp.shell.collapseLeft()")
    page.settled()
    page.picture(f"wide_{width}")
    _, scrolls, _, wide = page.js(FITS)
    page.size(0, 0)
    if page.kind is Lab:
        page.js("window.jupyterapp.shell.expandLeft()")
    assert not scrolls
    assert not wide


def test_every_control_is_reached_and_used_with_keys_alone(page):
    from selenium.webdriver import ActionChains, Keys

    page.js("document.querySelector('.lits-picture:not(.old)').focus()")
    cells = page.browser.find_elements("css selector", ".jp-Cell.jp-mod-active, .cell.selected")
    reached = []
    for _ in range(60):
        ActionChains(page.browser).send_keys(Keys.TAB).perform()
        focus = page.js(FOCUS)
        if focus is None:
            break
        reached.append(focus)
        if "handle" in focus and len([f for f in reached if "handle" in f]) == 1:
            start = page.slice_shown()
            ActionChains(page.browser).send_keys(Keys.ARROW_RIGHT).perform()
            until(lambda start=start: page.slice_shown() == start + 1, 10, "no step by key")
    text = "\n".join(reached).replace("\xa0", " ")
    for name in ("case", "axial", "one plane", "previous", "worst", "reference liver", "hide"):
        assert name in text, f"{name} is not reached"
    for name in ("as", "window", "zoom", "HU", "row", "column", "cross", "ruler", "save PNG"):
        assert name in text, f"{name} is not reached"
    active = page.browser.find_elements("css selector", ".jp-Cell.jp-mod-active, .cell.selected")
    assert active == cells, "keys went to the notebook"


@pytest.mark.parametrize("source", CASES)
def test_odd_cases_leave_a_picture_and_a_sentence(notebook, source):
    assert notebook.show(source)
    assert CASES[source] in notebook.text(".lits-viewer .widget-html")
    assert notebook.message() == ""
    assert float((notebook.folder / "seconds").read_text()) < 2  # of a core, until it is opened
    _, scrolls, nameless, wide = notebook.js(FITS)
    assert not scrolls
    assert not nameless
    assert not wide
    if "trusted=False" in source:
        assert notebook.text(".lits-viewer").count(" mm") == 1  # "nothing in mm"
