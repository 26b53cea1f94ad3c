"""The runner of the notebooks: what it leaves and says when a cell fails, and the closing table."""

import json
import os
from pathlib import Path

import pytest
from helpers.repository import load_script

from lits_helpers.settings import load_settings


@pytest.fixture(scope="module")
def runner():
    return load_script("scripts/execute_notebooks.py")


@pytest.fixture(scope="module")
def nbformat(runner):
    return runner.nbformat  # takes seconds to import, which no other test needs


@pytest.fixture
def settings(monkeypatch, tmp_path):
    for name in ("LITS_SOURCE", "LITS_TINY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LITS_RUNS", str(tmp_path / "runs"))
    return load_settings(tmp_path)


def test_what_cannot_be_executed_is_one_sentence_before_any_work(
    runner, settings, monkeypatch, capsys
):
    monkeypatch.setattr(runner, "execute", lambda *_: pytest.fail("it worked"))
    assert runner.main(["no_such.ipynb"]) == 2
    assert "nothing was executed: " in (said := capsys.readouterr().err)
    assert "no_such.ipynb" in said
    monkeypatch.setenv("LITS_SOURCE", "moon")
    assert runner.main([]) == 2
    assert "must be one of phantom, folder, kaggle, msd, got 'moon'" in capsys.readouterr().err


def test_failing_cell_gives_1_its_traceback_and_what_was_executed(
    runner, nbformat, settings, tmp_path, capsys
):
    cells = ["print(6 * 7)", "raise ValueError('no liver here')", "print('never')"]
    path = tmp_path / "09_fails.ipynb"
    nbformat.write(
        nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells]), path
    )
    before = path.read_bytes()
    assert runner.main([str(path)]) == 1
    written = capsys.readouterr()
    executed = settings.runs / "results" / "notebooks" / "09_fails.ipynb"
    assert "ValueError" in written.err
    assert "no liver here" in written.err
    assert str(executed) in written.out
    outputs = [cell.outputs for cell in nbformat.read(executed, as_version=4).cells]
    assert outputs[0][0].text == "42\n"
    assert outputs[1][0].ename == "ValueError"
    assert outputs[2] == []
    assert path.read_bytes() == before


BARS = """
import time
from tqdm.auto import tqdm
with tqdm(total=20, desc="liver model", unit="step", mininterval=0, miniters=1) as bar:
    for step in range(1, 21):
        time.sleep(0.01)
        bar.update(1)
        if step % 5 == 0:
            bar.set_postfix({"Dice": f"0.{step}"})
for _ in tqdm(range(9), desc="phantoms", leave=False):
    pass
for _ in tqdm(range(9), desc="segment"):
    pass
"""


def test_every_tenth_of_a_training_is_told_in_a_line_and_its_kept_bar_is_finished(
    runner, nbformat, settings, tmp_path, capsys
):
    path = tmp_path / "09_trains.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(BARS)]), path)
    assert runner.main([str(path)]) == 0
    told = capsys.readouterr().out
    assert "\r" not in told
    lines = [line.strip() for line in told.splitlines() if "%" in line]
    assert [line.partition(",")[0] for line in lines] == [
        f"liver model {percent:>3} %" for percent in range(10, 101, 10)
    ]
    assert all(line.endswith(" left") for line in lines[:-1])
    assert "Dice" not in lines[1]  # no epoch has ended
    assert "Dice 0.5," in lines[2]
    assert lines[-1] == "liver model 100 %, Dice 0.20"  # of the last epoch, told when it has ended
    executed = settings.runs / "results" / "notebooks" / "09_trains.ipynb"
    outputs = nbformat.read(executed, as_version=4).cells[0].outputs
    kept = [output.data["text/plain"].split(" [")[0] for output in outputs]
    assert kept == ["liver model: 100% 20/20", "segment: 100% 9/9"]


def test_tiny_trainings_run_side_by_side_and_share_the_cores(
    runner, nbformat, settings, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("LITS_TINY", "1")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(runner, "available_cores", lambda: 4)
    meets = """
import os, time
from pathlib import Path
Path("{here}").touch()
for _ in range(600):
    if Path("{there}").exists():
        print("met, threads:", os.environ["OMP_NUM_THREADS"])
        break
    time.sleep(0.1)
"""
    ends = {"08_train_a": "", "09_train_b": "raise ValueError('no tumor here')"}
    paths = [tmp_path / f"{name}.ipynb" for name in ends]
    for name, other, path in zip(ends, reversed(ends), paths, strict=True):
        cells = [meets.format(here=name, there=other), ends[name]]
        cells = [nbformat.v4.new_code_cell(cell) for cell in cells]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    assert runner.main([str(path) for path in paths]) == 1
    assert "no tumor here" in capsys.readouterr().err
    for path in paths:
        executed = settings.runs / "results" / "notebooks" / path.name
        assert nbformat.read(executed, 4).cells[0].outputs[0].text == "met, threads: 2\n"
    assert "OMP_NUM_THREADS" not in os.environ


def test_tiny_notebooks_import_ahead_and_wait_before_their_settings(
    runner, nbformat, settings, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("LITS_TINY", "1")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(runner, "available_cores", lambda: 2)
    meets = """# @title Settings
import time
from pathlib import Path
Path("{here} works").touch()
assert not Path("{there} works").exists()
for _ in range(600):
    if Path("{there} imported").exists():
        break
    time.sleep(0.1)
else:
    raise TimeoutError("the next notebook did not import ahead")
{end}"""
    imports = """import time
from pathlib import Path
assert "{before}" == "" or Path("{before} imported").exists(), "it may lack what the first brings"
time.sleep(0.5)
Path("{here} imported").touch(exist_ok=False)"""
    names, ends = ("07", "08", "09"), ("", "raise ValueError('no liver here')", "")
    for before, here, there, end in zip(("", *names), names, (*names[1:], ""), ends, strict=False):
        alone = imports.format(here=here, before=before)
        cells = [alone, meets.format(here=here, there=there, end=end)]
        cells = [nbformat.v4.new_code_cell(cell) for cell in cells]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / f"{here}.ipynb")
    assert runner.main([str(tmp_path / f"{name}.ipynb") for name in names]) == 1
    assert "no liver here" in capsys.readouterr().err
    assert (tmp_path / "09 imported").exists()
    assert not (tmp_path / "09 works").exists()  # the one before it failed
    executed = settings.runs / "results" / "notebooks"
    assert sorted(path.name for path in executed.iterdir()) == ["07.ipynb", "08.ipynb"]


def test_what_is_no_tiny_training_or_has_no_core_of_its_own_runs_alone(runner, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(runner, "available_cores", lambda: 2)
    names = ("01_prepare", "02_train_a", "03_train_b", "04_segment")
    one, two, three, four = paths = [Path(f"{name}.ipynb") for name in names]
    assert runner.turns(paths, tiny=True) == [[one], [two, three], [four]]
    alone = [[one], [two], [three], [four]]
    assert runner.turns(paths, tiny=False) == alone
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert runner.turns(paths, tiny=True) == alone
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(runner, "available_cores", lambda: 1)
    assert runner.turns(paths, tiny=True) == alone


def test_relative_folders_are_those_of_the_caller(
    runner, nbformat, settings, tmp_path, monkeypatch
):
    (tmp_path / "deep").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LITS_RAW", "scans")
    path = tmp_path / "deep" / "09_tells.ipynb"
    nbformat.write(
        nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell("import os; os.environ['LITS_RAW']")]
        ),
        path,
    )
    assert runner.main([str(path)]) == 0
    executed = settings.runs / "results" / "notebooks" / "09_tells.ipynb"
    output = nbformat.read(executed, as_version=4).cells[0].outputs[0]
    assert output.data["text/plain"] == repr(str(tmp_path / "scans"))


def test_seconds_are_told_by_heading(runner, nbformat):
    cells = [
        nbformat.v4.new_code_cell(""),
        nbformat.v4.new_markdown_cell("## Train\n\nLong."),
        nbformat.v4.new_code_cell(""),
    ]
    cells += [
        nbformat.v4.new_code_cell(""),
        nbformat.v4.new_markdown_cell("## Check"),
        nbformat.v4.new_code_cell(""),
    ]
    for cell, (began, ended) in zip(
        [cell for cell in cells if cell.cell_type == "code"],
        [("00:00", "00:03"), ("00:03", "01:00"), ("01:00", "01:02.5"), ("01:02.5", "01:02.6")],
        strict=True,
    ):
        cell.metadata["execution"] = {
            "iopub.execute_input": f"2020-01-01T00:{began}Z",
            "shell.execute_reply": f"2020-01-01T00:{ended}Z",
        }
    del cells[0].metadata["execution"]["shell.execute_reply"]  # a cell that failed
    assert runner.spent(nbformat.v4.new_notebook(cells=cells)).strip() == "train 60 s"  # 57 + 2.5


def test_table_names_seconds_dice_and_places(runner, settings):
    for system, values in {"liver": ("0.71", "0.8449", ""), "tumor": ("nan", "0.5")}.items():
        (settings.runs / system).mkdir(parents=True)
        rows = "\n".join(["epoch,validation_dice", *(f"1,{value}" for value in values)])
        (settings.runs / system / "history.csv").write_text(rows)
    (settings.runs / "results").mkdir()
    summary = {"liver_dice": {"mean": 0.9}, "tumor_dice": {"mean": None}}
    (settings.runs / "results" / "summary.json").write_text(json.dumps(summary))
    table = runner.table([("02_a", 61.2), ("03_b", 5.0), ("04_c", 9.0)], settings)
    lines = [line.split() for line in table.splitlines()]
    assert ["02_a", "61", "0.845", "-"] in lines
    assert ["03_b", "5", "-", "0.500"] in lines
    assert ["04_c", "9", "0.900", "-"] in lines
    for place in ("results/notebooks", "results/figures", "liver/checkpoints", "results/pred"):
        assert str(settings.runs / place) in table


def test_table_without_results_has_dashes(runner, settings):
    assert ["02_a", "1", "-", "-"] in [
        line.split() for line in runner.table([("02_a", 1.0)], settings).splitlines()
    ]
