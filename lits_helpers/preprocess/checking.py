"""List every case of a folder with what is odd about it, as a table and as pictures.

Nothing is written to the data.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..cases import (
    LIVER_ONLY,
    UNREAD,
    Case,
    copy_of,
    fault_of_names,
    load_case,
    search_cases,
    voxel_hash,
)
from ..machine import run_jobs, written_whole
from ..metrics import write_metrics_csv
from ..volumes import Volume, write_picture

TILE = 200  # pixels
SHEET_COLUMNS = 8
RED = (220, 40, 40)  # frame of a case that is left out
UNREAD_ROW = dict.fromkeys(("size", "spacing_mm", "orientation"), "-") | {"action": "left out"}
COLUMNS = ("case", "size", "spacing_mm", "orientation", "action")  # of the printed table


@dataclass
class CheckReport:
    """The cases of a folder.

    Attributes:
        rows: a dict a case: case, patient, layout, volume, segmentation, size "X x Y x Z",
            spacing_mm "dx dy dz" with a question mark where it is not trusted, orientation,
            action and findings.
        notes: which layout was taken and what was left aside.
        tiles: (TILE, TILE, 3) uint8 a case, the slice with most of the reference; none unless
            they were asked for.
    """

    rows: list[dict]
    notes: list[str]
    tiles: list[np.ndarray]

    def table(self) -> str:
        """Return the notes, a line a case, and its findings below it."""
        rows = [dict(zip(COLUMNS, COLUMNS, strict=True)), *self.rows]
        widths = {name: max(len(row[name]) for row in rows) for name in COLUMNS}
        lines = list(self.notes)
        for row in rows:
            lines.append("  ".join(f"{row[name]:{widths[name]}}" for name in COLUMNS).rstrip())
            lines += [f"    {text}" for text in row.get("findings", "").splitlines()]
        return "\n".join(lines)

    def write_csv(self, path: str | os.PathLike) -> Path:
        """Write the rows, all columns."""
        return write_metrics_csv(self.rows, path)

    def sheet(self) -> np.ndarray:
        """Return all tiles in one picture, (rows, columns, 3) uint8 RGB; red frames are left out.

        Raises:
            ValueError: there are no tiles.
        """
        if not self.tiles:
            raise ValueError("no tiles were made: check_folder(folder, tiles=True) makes them")
        columns = min(SHEET_COLUMNS, len(self.tiles))
        blank = [np.full((TILE, TILE, 3), 255, np.uint8)] * (-len(self.tiles) % columns)
        tiles = [*self.tiles, *blank]
        rows = [np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)]
        return np.vstack(rows)

    def write_sheet(self, path: str | os.PathLike) -> Path:
        """Write the sheet as PNG."""
        picture = np.ascontiguousarray(self.sheet()[..., ::-1])  # OpenCV writes BGR
        with written_whole(path) as temporary:
            write_picture(temporary, picture)
        return Path(path)


def check_folder(
    root: str | os.PathLike,
    layout: str = "auto",
    *,
    tiles: bool = False,
    workers: int | None = None,
) -> CheckReport:
    """Read and check every case below a folder; say what a preparation would do with it.

    Args:
        root: the folder.
        layout: as for `cases.find_cases`.
        tiles: also draw a thumbnail of each case.
        workers: spawned processes, by default one per core; 0 works in this process.

    Raises:
        FileNotFoundError: no case is there.
        ValueError: no such layout, a table cannot be understood, or two cases cannot be prepared
            into one folder.
    """
    search = search_cases(root, layout)
    if fault := fault_of_names(case.id for case in search.cases):
        raise ValueError(fault)
    jobs = [(case, search.layout, tiles) for case in search.cases]
    checked = run_jobs(check_one, jobs, workers=workers, label="check")
    results = [
        (_row(*job[:2]) | UNREAD_ROW | {"findings": repr(result)}, None, None)
        if isinstance(result, Exception)
        else result
        for job, result in zip(jobs, checked, strict=True)
    ]
    first: dict[str, dict] = {}
    for row, _, voxels in results:
        known = first.setdefault(voxels, row) if voxels else row
        if known["patient"] != row["patient"]:
            row["findings"] = f"{row['findings']}\n{copy_of(known['case']).text}".strip()
    drawn = [tile if tile is not None else _unread_tile(row["case"]) for row, tile, _ in results]
    return CheckReport([row for row, _, _ in results], search.notes, drawn if tiles else [])


def check_one(case: Case, layout: str, tile: bool) -> tuple[dict, np.ndarray | None, str | None]:
    """Return row, tile if it is asked for, and hash of the voxels of a case, in a worker."""
    try:
        volume, labels, findings = load_case(case)
    except UNREAD as error:
        return _row(case, layout) | UNREAD_ROW | {"findings": str(error)}, None, None
    if case.liver_only and labels is not None:
        findings.append(LIVER_ONLY)
    harmful = any(finding.harmful for finding in findings)
    turned = next((f.orientation for f in findings if f.orientation), None)
    spacing = " ".join(f"{step:.3g}" for step in reversed(volume.spacing_mm))
    row = _row(case, layout) | {
        "size": " x ".join(map(str, reversed(volume.hu.shape))),
        "spacing_mm": spacing if volume.geometry.spacing_trusted else f"{spacing} ?",
        "orientation": volume.geometry.orientation,
        "action": "left out" if harmful else f"turned, read as {turned}" if turned else "taken",
        "findings": "\n".join(finding.text for finding in findings),
    }
    drawn = _tile(case, volume, labels, harmful) if tile else None
    return row, drawn, voxel_hash(volume.hu)


def _row(case: Case, layout: str) -> dict:
    files = {"volume": str(case.volume), "segmentation": str(case.segmentation or "")}
    return {"case": case.id, "patient": case.patient, "layout": layout} | files


def _tile(case: Case, volume: Volume, labels: np.ndarray | None, harmful: bool) -> np.ndarray:
    # imported here: matplotlib comes along, which workers that prepare should not pay for
    from ..figures import label_layers, render_slice, zoom_to

    k = len(volume.hu) // 2
    layers = {}
    if labels is not None and labels.shape == volume.hu.shape:
        k = max(range(len(labels)), key=lambda k: np.count_nonzero(labels[k]))
        layers = label_layers("reference", labels[k])
    spacing = volume.spacing_mm[1:]
    zoom = zoom_to(TILE, volume.hu.shape[1:], spacing)
    picture = render_slice(volume.hu[k], layers=layers, spacing_mm=spacing, zoom=zoom)
    tile = np.zeros((TILE, TILE, 3), np.uint8)
    height, width = picture.shape[:2]
    top, left = (TILE - height) // 2, (TILE - width) // 2
    tile[top : top + height, left : left + width] = picture
    return _framed(tile, case.id, harmful)


def _unread_tile(name: str) -> np.ndarray:
    return _framed(np.zeros((TILE, TILE, 3), np.uint8), name, True)


def _framed(tile: np.ndarray, name: str, harmful: bool) -> np.ndarray:
    from ..figures import write_text

    write_text(tile, name, (6, 18))
    edge, color = (3, RED) if harmful else (1, (255, 255, 255))
    tile[:edge] = tile[-edge:] = color
    tile[:, :edge] = tile[:, -edge:] = color
    return tile
