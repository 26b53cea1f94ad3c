"""Two dates of one patient as one HTML page, like the report of one: earlier left, later right."""

import html
from collections.abc import Mapping

from .measurements import longest_mm
from .page import (
    NOT_A_DEVICE,
    SLICES_TEXT,
    STILL_TEXT,
    about_makers,
    document,
    figure_of,
    key_of_colors,
    listed,
    unit,
    why,
    word,
    words_of,
)

DATES = ("earlier", "later")
DRAWN = 4  # pairs that get pictures
LISTED = 16  # pairs in the table
PAIR_STYLE = """
.dates { display: grid; grid-template-columns: 1fr 1fr; gap: 1rem; align-items: start;
  margin: .8rem 0 }
.dates h2 { margin-top: .2rem; overflow-wrap: anywhere }
.dates .white img { width: auto; max-width: 100%; max-height: 9rem; margin: auto }
td { white-space: nowrap }
.pairs { orphans: 1; widows: 1 }
.pair { display: inline-grid; grid-template-columns: 1fr 1fr; gap: .3rem; width: 49%;
  margin: 0 .5% .5rem 0; break-inside: avoid }
.none { border: 1px dashed var(--line); border-radius: .4rem; color: var(--soft); display: grid;
  place-items: center; aspect-ratio: 1 }
"""


def comparison_page(compared: Mapping, pictures: Mapping[str, Mapping]) -> str:
    """Return the page.

    Args:
        compared: of `compare_dates`.
        pictures: "earlier" and "later", each of `pictures_of` the lesions of the first DRAWN pairs.
    """
    names = [compared[date]["case_id"] for date in DATES]
    title = html.escape(f"Liver report: {names[0]} and {names[1]}")
    parts = [
        f"<header><h1>{title}</h1></header>",
        _side_by_side([_date(compared[date], date) for date in DATES]),
        _numbers(compared),
        _side_by_side([_overview(pictures[date]) for date in DATES]),
        _lesions(compared, pictures),
        _notes(compared),
    ]
    return document(title, parts, PAIR_STYLE)


def _side_by_side(parts: list[str]) -> str:
    return f'<div class="dates">{"".join(f"<div>{part}</div>" for part in parts)}</div>'


def _date(report: Mapping, date: str) -> str:
    name = html.escape(report["case_id"])
    return f"<h2>{date}: {name} {word(report['flags'])}</h2>{why(report['flags'])}"


def _numbers(compared: Mapping) -> str:
    measured = [compared[date]["measurements"] for date in DATES]
    rows = (
        ("liver, tumors included, ml", [each["liver"]["ml"] for each in measured], 0),
        ("tumor, ml", [each["tumor"]["ml"] for each in measured], 1),
        ("tumor by liver, %", [each["burden"] and 100 * each["burden"] for each in measured], 1),
        ("lesions", [len(each["lesions"]) if each["tumors_sought"] else None
                     for each in measured], 0),
        ("longest diameter, mm", [longest_mm(each) for each in measured], 1),
        ("HU of the liver without tumors", [each["liver"]["hu"] for each in measured], 0),
    )  # fmt: skip
    cells = "".join(
        f'<tr><th scope="row" class="text">{name}</th><td>{unit(values[0], "", digits)}</td>'
        f"<td>{unit(values[1], '', digits)}</td>"
        f"<td>{_change(values, digits, share=not name.startswith('HU'))}</td></tr>"
        for name, values, digits in rows
    )
    head = '<tr><th class="text"></th><th>earlier</th><th>later</th><th>change</th></tr>'
    return f"<table>{head}{cells}</table>"


def _change(values: list[float | None], digits: int, *, share: bool = True) -> str:
    """Return how the second differs from the first, in the same unit and in percent of it.

    Args:
        values, digits: both, and how many decimals.
        share: with the percent; HU, whose zero is water, have none.
    """
    if None in values:
        return "–"
    difference = values[1] - values[0]
    percent = f" ({difference / values[0]:+.0%})" if share and values[0] else ""
    return f"{difference:+.{digits}f}{percent}"


def _overview(pictures: Mapping) -> str:
    still = pictures.get("still")
    shown = figure_of(pictures["slices"], SLICES_TEXT, key_of_colors())
    if still is not None:
        shown += figure_of(still, STILL_TEXT, "from in front", frame="white")
    return shown


def _lesions(compared: Mapping, pictures: Mapping[str, Mapping]) -> str:
    pairs = compared["pairs"]
    if not pairs:
        missing = [date for date in DATES if not compared[date]["measurements"]["tumors_sought"]]
        found = (
            f"Tumors were not looked for at the {' and the '.join(missing)} date: no tumor model "
            "took part, so no lesion is paired."
            if missing
            else "None was found at either date."
        )
        return f'<h2>Lesions</h2><p class="soft">{found}</p>'
    drawn = {date: iter(pictures[date]["lesions"]) for date in DATES}
    shown = []
    for pair in pairs[:DRAWN]:
        sides = "".join(
            figure_of(next(drawn[date]), *words_of(lesion_of(compared, pair, date), date))
            if pair[date]
            else f'<div class="none">not found {date}</div>'
            for date in DATES
        )
        shown.append(f'<div class="pair">{sides}</div>')
    heads = [f"{name}, {date}" for name in ("#", "ml", "mm") for date in DATES]
    heads = [*heads[:4], "change", *heads[4:], "change"]
    head = "".join(f"<th>{name}</th>" for name in heads) + '<th class="text">place</th>'
    rows = "".join(_pair_row(pair, compared) for pair in pairs[:LISTED])
    rest = len(pairs) - LISTED
    more = f'<p class="soft">and {rest} smaller ones; all are in the JSON.</p>' if rest > 0 else ""
    return (
        '<h2>Lesions, paired by their place in the liver</h2><div class="pairs">'
        f"{''.join(shown)}</div><table><tr>{head}</tr>{rows}</table>{more}"
    )


def _pair_row(pair: Mapping, compared: Mapping) -> str:
    lesions = [lesion_of(compared, pair, date) for date in DATES]
    state = "new" if lesions[0] is None else "vanished" if lesions[1] is None else None
    cells = [f"{lesion['number']}" if lesion else "–" for lesion in lesions]
    for name, digits in (("ml", 2), ("longest_mm", 1)):
        values = [lesion and lesion[name] for lesion in lesions]
        cells += [unit(value, "", digits) for value in values]
        cells.append(state or _change(values, digits))
    place = next(lesion["place"] for lesion in lesions[::-1] if lesion) or "–"
    numbers = "".join(f"<td>{cell}</td>" for cell in cells)
    return f'<tr>{numbers}<td class="text">{place}</td></tr>'


def lesion_of(compared: Mapping, pair: Mapping, date: str) -> dict | None:
    """Return a pair's lesion at "earlier" or "later", None where it has none."""
    number = pair[date]
    return compared[date]["measurements"]["lesions"][number - 1] if number else None


def _notes(compared: Mapping) -> str:
    reports = [compared[date] for date in DATES]
    parts = [
        f"<h2>About {html.escape(report['case_id'])}</h2>{listed(report['flags']['remarks'])}"
        f"{about_makers(report)}"
        for report in reports
    ]
    return (
        f'<footer class="soft">{_side_by_side(parts)}<p>{NOT_A_DEVICE} The livers are laid onto '
        "each other by their centres; a lesion belongs to the nearest one of the other date within "
        "15 mm and the larger one's radius. One that has split or joined others counts once: look "
        "at the pictures. Millimetres are the longest diameter within one axial slice.</p></footer>"
    )
