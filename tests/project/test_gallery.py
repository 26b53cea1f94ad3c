"""The gallery shows what executed notebooks hold, and nothing that is not there."""

import base64
import re

import cv2
import numpy as np
import pytest
from helpers.repository import ROOT, load_script

from lits_helpers.figures import PALETTE

PAGE = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def script():
    return load_script("docs/make_gallery.py")


@pytest.fixture(scope="module")
def nbformat(script):
    return script.nbformat  # takes a second to import


def test_every_picture_of_the_page_is_there():
    linked = re.findall(r"\]\(([^)#:]+)\)", PAGE)
    assert len(linked) > 10
    missing = [path for path in linked if not (ROOT / "docs" / path).is_file()]
    assert not missing


def test_the_page_shows_what_the_script_makes_and_every_notebook(script):
    for name in script.PICTURES.values():
        assert f"(images/{name}.png)" in PAGE
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        assert f"(../notebooks/{notebook.name})" in PAGE


def test_the_cells_of_the_pictures_are_there(script, nbformat):
    ids = set()
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        ids |= {cell.id for cell in nbformat.read(notebook, as_version=4).cells}
    assert script.PICTURES.keys() <= ids


def test_the_last_picture_of_each_cell_is_kept_small(script, nbformat, tmp_path):
    make = nbformat.v4
    wide = np.random.default_rng(0).integers(0, 256, (30, 2 * script.WIDEST, 1), np.uint8)
    wide = np.repeat(wide, 3, axis=2)
    for i, color in enumerate(PALETTE.values()):
        wide[:, 8 * i : 8 * i + 4] = color[::-1]
    cells = []
    for key in script.PICTURES:
        data = base64.b64encode(cv2.imencode(".png", wide)[1].tobytes()).decode()
        outputs = [make.new_output("stream", text="12 slices")]
        outputs += [make.new_output("display_data", {"image/png": data})]
        cells.append(make.new_code_cell(id=key, outputs=outputs))
    nbformat.write(make.new_notebook(cells=cells[1:]), tmp_path / "01.ipynb")
    with pytest.raises(SystemExit, match=f"cell {cells[0].id} shows no picture"):
        script.make_pictures(tmp_path, tmp_path)
    nbformat.write(make.new_notebook(cells=cells), tmp_path / "01.ipynb")
    paths = script.make_pictures(tmp_path, tmp_path)
    assert [path.stem for path in paths] == list(script.PICTURES.values())
    kept = cv2.imread(str(paths[0])).astype(int)[:, :, ::-1]
    assert kept.shape == (15, script.WIDEST, 3)
    for i, color in enumerate(PALETTE.values()):  # two of four columns, after halving
        assert np.abs(kept[:, 4 * i : 4 * i + 1] - color).max() <= 25
