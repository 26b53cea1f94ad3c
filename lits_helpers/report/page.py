"""The report as one HTML page: no script, nothing from elsewhere; white or dark; two A4 pages."""

import base64
import html
from collections.abc import Iterable, Mapping

import numpy as np

from ..figures import PALETTE, encode
from .measurements import longest_mm

NOT_SOUGHT = "Tumors were not looked for: no tumor model took part."
NOT_A_DEVICE = "<b>Not a medical device.</b> For research and teaching only."
SLICES_TEXT = "axial slices from the feet to the head, liver and tumors outlined"
STILL_TEXT = "the liver's surface seen from in front, tumors shining through"
LISTED = 12  # lesions in the table
TONES = {"sound": "good", "look at it": "warn", "do not use": "bad"}
STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #5a6472; --paper: #ffffff;
  --card: #f4f6f8; --line: #d8dde3; --good: #0b6b3a; --warn: #8a5a00; --bad: #b3261e }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --soft: #a3adba; --paper: #14171b;
  --card: #1e2329; --line: #363d47; --good: #5fd397; --warn: #f2b84b; --bad: #ff8a80 } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 60rem; padding: 1.2rem; background: var(--paper);
  color: var(--ink); font: 15px/1.45 system-ui, sans-serif }
header { display: flex; gap: 1rem; justify-content: space-between; align-items: baseline }
h1 { font-size: 1.5rem; margin: 0; overflow-wrap: anywhere }
h2 { font-size: 1.05rem; margin: 1.3rem 0 .5rem }
.word { padding: .15rem .7rem; border: 2px solid; border-radius: 1rem; font-weight: 650;
  white-space: nowrap }
.good { color: var(--good) } .warn { color: var(--warn) } .bad { color: var(--bad) }
.numbers { display: grid; grid-template-columns: repeat(4, 1fr); gap: .7rem; margin: 1rem 0 }
.numbers div { background: var(--card); border-radius: .5rem; padding: .6rem .8rem }
.numbers b { display: block; font-size: 1.45rem }
.soft, figcaption { color: var(--soft); font-size: .87rem }
ul { margin: .3rem 0; padding-left: 1.2rem }
.row { display: grid; grid-template-columns: 2.4fr 1fr; gap: .8rem; align-items: start }
.row4 { display: grid; grid-template-columns: repeat(4, 1fr); gap: .7rem }
figure { margin: 0; break-inside: avoid } img { width: 100%; border-radius: .4rem; display: block }
.white { background: #fff; padding: .3rem; border: 1px solid var(--line); border-radius: .4rem }
.key i { display: inline-block; width: .8rem; height: .8rem; border-radius: .2rem;
  margin: 0 .3rem 0 .8rem }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { text-align: right; padding: .25rem .5rem; border-bottom: 1px solid var(--line) }
th { color: var(--soft); font-weight: 500 } th.text, td.text { text-align: left }
footer { margin-top: 1.2rem; border-top: 1px solid var(--line); padding-top: .5rem }
@media (max-width: 40rem) { .numbers, .row4 { grid-template-columns: 1fr 1fr }
  .row { grid-template-columns: 1fr } }
@media print { @page { size: A4; margin: 12mm }
  body { padding: 0; font-size: 12px; max-width: none }
  :root { color-scheme: light; --ink: #000; --soft: #444; --paper: #fff; --card: #f2f2f2;
    --line: #ccc; --good: #0b6b3a; --warn: #8a5a00; --bad: #b3261e }
  .numbers { grid-template-columns: repeat(4, 1fr) } .row4 { grid-template-columns: repeat(4, 1fr) }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact } }
"""


def page_of(report: Mapping, pictures: Mapping[str, np.ndarray | list[np.ndarray]]) -> str:
    """Return the page.

    Args:
        report: of `report_of`.
        pictures: "slices" and "still" (H, W, 3) uint8, "lesions" a list of them; none need be
            there.
    """
    judged = report["flags"]
    title = html.escape(f"Liver report: {report['case_id']}")
    parts = [
        f"<header><h1>{title}</h1>{word(judged)}</header>",
        why(judged),
        _numbers(report["measurements"]),
        _overview(pictures),
        _lesions(report["measurements"], pictures.get("lesions", [])),
        _notes(report),
    ]
    return document(title, parts)


def document(title: str, parts: Iterable[str], more_style: str = "") -> str:
    """Return a whole page of parts in HTML."""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}{more_style}</style></head><body><main>{''.join(parts)}</main></body></html>\n"
    )


def word(judged: Mapping) -> str:
    """Return the one word of `judge`, in its color."""
    return f'<span class="word {TONES[judged["word"]]}">{judged["word"]}</span>'


def why(judged: Mapping) -> str:
    """Return the reasons of `judge`, or that there is none."""
    if judged["reasons"]:
        return f'<div class="{TONES[judged["word"]]}">{listed(judged["reasons"])}</div>'
    return '<p class="soft">No reason was found to distrust these labels. Look at them still.</p>'


def _numbers(measured: Mapping) -> str:
    liver, tumor, lesions = (measured[name] for name in ("liver", "tumor", "lesions"))
    longest = longest_mm(measured)
    burden = measured["burden"]
    count = str(len(lesions)) if measured["tumors_sought"] else "–"
    cells = [
        ("liver, tumors included", unit(liver["ml"], "ml", 0)),
        ("tumor", unit(tumor["ml"], "ml", 1)),
        ("tumor by liver", "–" if burden is None else f"{burden:.1%}"),
        ("lesions", count + (f", up to {longest:.0f} mm" if longest else "")),
    ]
    shown = "".join(f"<div><b>{value}</b>{name}</div>" for name, value in cells)
    no_mm = f'<p class="warn">{html.escape(measured["no_mm"])}.</p>' if measured["no_mm"] else ""
    return f'<section class="numbers">{shown}</section>{no_mm}'


def _overview(pictures: Mapping) -> str:
    if "slices" not in pictures:
        return ""
    shown = figure_of(pictures["slices"], SLICES_TEXT, key_of_colors())
    if "still" in pictures:
        caption = "from in front, tumors shining through"
        shown += figure_of(pictures["still"], STILL_TEXT, caption, frame="white")
    return f'<div class="row">{shown}</div>'


def key_of_colors() -> str:
    """Return what the colors and sides of a slice mean."""
    colors = "".join(
        f'<i style="background: rgb{PALETTE[name]}"></i>{name}'
        for name in ("predicted liver", "predicted tumor")
    )
    return f"feet to head, patient's right on the left {colors}"


def _lesions(measured: Mapping, pictures: Iterable[np.ndarray]) -> str:
    lesions = measured["lesions"]
    if not lesions:
        found = "None was found." if measured["tumors_sought"] else NOT_SOUGHT
        return f'<h2>Lesions</h2><p class="soft">{found}</p>'
    heads = ("#", "ml", "longest, mm", "across, mm", "slice", "HU", "to the liver")
    head = "".join(f"<th>{name}</th>" for name in heads) + '<th class="text">place</th>'
    rows = "".join(_lesion_row(lesion) for lesion in lesions[:LISTED])
    figures = "".join(
        figure_of(picture, *words_of(lesion))
        for picture, lesion in zip(pictures, lesions, strict=False)
    )
    rest = lesions[LISTED:]
    more = ""
    if rest:
        ml = None if measured["no_mm"] else sum(lesion["ml"] for lesion in rest)
        ml = unit(ml, "ml", 1)
        more = (
            f'<p class="soft">and {len(rest)} smaller ones, together {ml}; all are in the JSON.</p>'
        )
    return (
        f'<h2>Lesions</h2><div class="row4">{figures}</div>'
        f"<table><tr>{head}</tr>{rows}</table>{more}"
    )


def words_of(lesion: Mapping, date: str = "") -> tuple[str, str]:
    """Return what a lesion's picture shows, for who cannot see it, and its caption."""
    caption = f"lesion {lesion['number']}, slice {lesion['slice_index']}"
    caption = f"{date}, {caption}" if date else caption
    where = f"; {lesion['place']} of the liver" if lesion["place"] else ""
    return f"{caption}, outlined, with its two diameters{where}", caption


def _lesion_row(lesion: Mapping) -> str:
    cells = [
        f"{lesion['number']}",
        unit(lesion["ml"], "", 2),
        unit(lesion["longest_mm"], "", 1),
        unit(lesion["perpendicular_mm"], "", 1),
        f"{lesion['slice_index']}",
        f"{lesion['hu']:.0f}",
        "–" if lesion["hu_difference"] is None else f"{lesion['hu_difference']:+.0f}",
    ]
    numbers = "".join(f"<td>{cell}</td>" for cell in cells)
    return f'<tr>{numbers}<td class="text">{lesion["place"] or "–"}</td></tr>'


def _notes(report: Mapping) -> str:
    remarks = report["flags"]["remarks"]
    found = f"<h2>About the file</h2>{listed(remarks)}" if remarks else ""
    return (
        f'{found}<footer class="soft">{about_makers(report)}<p>{NOT_A_DEVICE} A lesion is tumor '
        "whose voxels touch by their faces; diameters lie within one axial slice; slices are "
        "counted from 0, at the feet; HU are means; a place is named by thirds of the liver's box."
        "</p></footer>"
    )


def about_makers(report: Mapping) -> str:
    """Return which models made the labels of which CT, and this program's version."""
    makers = [
        f"{system}: model {model['weights'][:8]}, trained on "
        + (f"{len(model['training_ids'])} cases" if model["training_ids"] else "no real patient")
        for system, models in (report["makers"] or {}).items()
        for model in models
    ]
    makers = makers or ["which models made these labels is not recorded"]
    spacing = report["measurements"]["spacing_mm"]
    size = " x ".join(f"{step:g}" for step in spacing) + " mm" if spacing else "unknown size"
    shape = " x ".join(map(str, report["measurements"]["shape"]))
    version = f"lits_helpers {report['version']}; {shape} voxels of {size} (z, y, x)"
    return listed([*makers, version])


def listed(texts: Iterable[str]) -> str:
    """Return sentences as a list in HTML."""
    return "<ul>" + "".join(f"<li>{html.escape(text)}</li>" for text in texts) + "</ul>"


def unit(value: float | None, unit: str, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f} {unit}".strip()


def figure_of(picture: np.ndarray, text: str, caption: str, frame: str | None = None) -> str:
    """Return a picture (H, W, 3) uint8 with its caption, HTML, in a frame of that class."""
    data = base64.b64encode(encode(picture)).decode("ascii")
    image = f'<img alt="{text}" src="data:image/jpeg;base64,{data}">'
    image = f'<div class="{frame}">{image}</div>' if frame else image
    return f'<figure>{image}<figcaption class="key">{caption}</figcaption></figure>'
