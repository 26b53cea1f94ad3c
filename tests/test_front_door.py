"""The module's front door: what opens at once, what loads on first use, what is refused."""

import os
import pydoc
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.drawn import body, write_case
from helpers.grey_models import bright_model
from helpers.repository import ROOT

import lits_helpers
from lits_helpers import settings
from lits_helpers.__main__ import NEXT, STEPS, main
from lits_helpers.machine import spawned_pool
from lits_helpers.settings import FORM, FORM_HINTS, HINTS, hint, hints_for, load_settings

PROMISED = """
read_volume read_segmentation write_segmentation open_volume find_cases check_case split_cases
prepare LiverSlices TumorSlices SliceCache Generator Discriminator RegNetSegmenter train_liver_gan
train_tumor_regnet load_liver_model load_tumor_model segment_volume segment_file evaluate_case
evaluate_dataset render_slice SliceViewer write_phantom_dataset
""".split()
HEAVY = "{'torch', 'numpy', 'cv2', 'nibabel', 'matplotlib'}"


def python(*words, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", **options)


READ = "import lits_helpers.__main__ as shell; shell.parser(shell.STEPS).parse_args({})"


@pytest.mark.parametrize("words", [None, ["--help"], ["--version"], ["predict", "--helpp"]])
def test_what_must_answer_at_once_imports_nothing_heavy(words):
    code = "import lits_helpers" if words is None else READ.format(words)
    checked = f"""
import sys
try:
    {code}
except SystemExit:
    pass
assert not {HEAVY} & set(sys.modules), {HEAVY} & set(sys.modules)
"""
    done = python("-c", checked)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", PROMISED)
def test_a_promised_name_loads_when_it_is_used_and_is_listed(name):
    assert name in dir(lits_helpers)
    assert getattr(lits_helpers, name).__module__.startswith("lits_helpers.")


def test_help_shows_the_promised_names():
    text = pydoc.plain(pydoc.render_doc(lits_helpers))
    assert not [name for name in PROMISED if name not in text]


def test_a_name_that_is_not_there_is_no_attribute():
    with pytest.raises(AttributeError, match="no_such_name"):
        lits_helpers.no_such_name  # noqa: B018


def test_ctrl_c_while_torch_is_imported_leaves_without_a_traceback(tmp_path):
    told = [sys.executable, "-X", "importtime", "-m", "lits_helpers"]  # names what it has imported
    command = [*told, "train-liver", "--prepared", str(tmp_path)]
    options = {"cwd": ROOT, "stderr": subprocess.PIPE, "encoding": "utf-8", "pipesize": 4096}
    with subprocess.Popen(command, **options) as shell:  # a small pipe: it cannot run ahead
        assert any(" torch." in line for line in shell.stderr)  # a part of it is there
        shell.send_signal(signal.SIGINT)
        errors = shell.stderr.read()
    assert "Traceback" not in errors
    assert shell.returncode == 130


SPIN = "OMP_WAIT_POLICY GOMP_SPINCOUNT KMP_BLOCKTIME".split()


@pytest.mark.parametrize(
    ("given", "count"),
    [({}, "1000"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None), ({"GOMP_SPINCOUNT": "9"}, "9")],
)
def test_waiting_threads_soon_sleep_unless_the_user_said_otherwise(given, count):
    environment = {name: value for name, value in os.environ.items() if name not in SPIN} | given
    code = "import os, lits_helpers; print(os.environ.get('GOMP_SPINCOUNT'))"
    assert python("-c", code, env=environment).stdout.strip() == str(count)


@pytest.mark.parametrize(
    ("given", "taken"), [("3", "3"), ("4,2", "4"), ("many", None), ("0", None), ("-2", None)]
)
def test_a_number_of_threads_that_is_none_is_named_and_left_out(given, taken):
    code = "import os, lits_helpers; print(os.environ.get('OMP_NUM_THREADS'))"
    done = python("-c", code, env={**os.environ, "OMP_NUM_THREADS": given})
    assert done.stdout.strip() == str(taken)
    said = "" if taken else f"OMP_NUM_THREADS={given} is no number of threads: one a core is taken"
    assert done.stderr.strip() == said


def test_ctrl_c_ends_workers_without_a_traceback(tmp_path):
    for number in range(8):
        write_case(tmp_path / "raw", number, *body())
    command = [sys.executable, "-m", "lits_helpers", "prepare", "--source", "folder"]
    command += ["--raw", str(tmp_path / "raw"), "--prepared", str(tmp_path / "out"), "--png"]
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "encoding": "utf-8"}
    with subprocess.Popen(command, cwd=ROOT, start_new_session=True, **streams) as shell:
        until = time.monotonic() + 60
        while not (tmp_path / "out").exists() and time.monotonic() < until:
            time.sleep(0.05)
        time.sleep(0.5)  # two workers have been started and import
        os.killpg(shell.pid, signal.SIGINT)
        _, errors = shell.communicate(timeout=60)
    assert "Traceback" not in errors
    assert shell.returncode in (0, 130)  # 0: it was quicker


def test_ctrl_c_while_a_finished_program_shuts_down_says_nothing(tmp_path):
    code = f"""
import atexit, os, signal, sys
atexit.register(os.kill, os.getpid(), signal.SIGINT)
from lits_helpers.__main__ import run
sys.argv[1:] = ["check", {str(tmp_path)!r}, "--workers", "0"]
run()
"""
    write_case(tmp_path, 0, *body())
    done = python("-c", code)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr


# --- hints fit the place where they are read ------------------------------------------------------


OPTION = r"(^|[ (])--[a-z]|\blits (prepare|train|predict|download)"
FIELD = r"notebook|SOURCE|_FOLDER|LAYOUT|ORIENTATION|ACCEPT|USE_DRIVE|START_ANEW"


@pytest.fixture
def speak_to():
    before = hints_for(None)
    yield hints_for
    hints_for(before)


@pytest.mark.parametrize("name", HINTS)
def test_a_hint_names_form_fields_to_a_form_only_and_options_to_a_shell_only(name, speak_to):
    python = hint(name)
    speak_to(FORM)
    form = hint(name)
    speak_to("lits")
    shell = hint(name)
    assert not re.search(f"{OPTION}|{FIELD}", python)
    assert not re.search(OPTION, form)
    assert not re.search(f'{FIELD}|="', shell)
    assert (form != python) == (name in FORM_HINTS)


def test_only_a_kernel_that_filled_in_a_form_is_told_of_its_fields(monkeypatch, speak_to):
    kernel = SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel="of Jupyter"))
    load_settings()
    assert hint("layout") == "layout"
    monkeypatch.setitem(sys.modules, "IPython", kernel)
    assert hint("layout") == "layout"
    load_settings(variables_win=False)  # as the shell calls it
    assert hint("layout") == "layout"
    load_settings()
    assert hint("layout") == "LAYOUT"


def test_worker_processes_speak_to_the_reader_of_their_parent(speak_to):
    speak_to("lits")
    with spawned_pool(1) as pool:
        assert pool.submit(hint, "prepare").result() == "run lits prepare"


def test_labels_whose_ct_nobody_named_are_told_how_to_name_it(tmp_path, capsys):
    labels = tmp_path / "mine.nii.gz"
    labels.touch()
    assert main(["report", str(labels), "--prepared", str(tmp_path)]) == 1
    assert f"report: no CT of {labels}: give --ct PATH" in capsys.readouterr().err
    assert main(["report", "--prepared", str(tmp_path), "--runs", str(tmp_path)]) == 1
    assert "run python -m lits_helpers predict first" in capsys.readouterr().err


def test_after_a_shell_step_hints_speak_as_before(tmp_path, capsys, speak_to):
    speak_to(FORM)
    assert main(["train-liver", "--prepared", str(tmp_path)]) == 1
    assert "python -m lits_helpers prepare" in capsys.readouterr().err
    assert settings.hint("prepare") == "run notebook 01"


def test_each_step_ends_by_naming_the_next_with_the_folders_given(tmp_path, caplog):
    write_case(tmp_path / "raw", 0, *body())
    words = ["--raw", str(tmp_path / "raw"), "--prepared", str(tmp_path / "out of"), "--tiny"]
    assert main(["prepare", "--source", "folder", *words, "--workers", "0"]) == 0
    told = caplog.messages[-1]
    assert told.startswith("next: python -m lits_helpers train-liver --raw ")
    assert f"--prepared '{tmp_path / 'out of'}' --source folder --tiny" in told
    assert set(NEXT) == set(STEPS)


def test_the_next_command_keeps_the_fold_and_where_predictions_are(monkeypatch, caplog):
    def nothing(settings, options):
        """Do nothing."""

    for name in ("train-liver", "predict"):
        monkeypatch.setitem(STEPS, name, nothing)
    assert main(["train-liver", "--fold", "0"]) == 0
    assert caplog.messages[-1] == "next: python -m lits_helpers train-tumor --fold 0"
    assert main(["predict", "--out", "labels"]) == 0
    assert caplog.messages[-1] == "next: python -m lits_helpers evaluate --predictions labels"
    assert main(["predict", "ct.nii.gz", "--out", "labels"]) == 0  # nothing to compare it with
    wanted = "next: python -m lits_helpers predict another_ct.nii.gz --out labels"
    assert caplog.messages[-1] == wanted


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["check", "mine"], "prepare --raw mine --source folder"),
        (["check", "mine", "--source", "kaggle"], "prepare --raw mine --source kaggle"),
        (["check"], "prepare"),
        (["report"], "evaluate"),
        (["report", "docs"], "evaluate --predictions docs"),  # a folder
        (["report", "labels.nii.gz"], None),
        (["report", "labels.nii.gz", "--ct", "ct.nii.gz"], None),
        (["report", "--compare", "a.nii.gz", "b.nii.gz"], None),
        (["crossval", "--nnunet", "out"], None),
        (["crossval"], None),  # no fold is there
        (
            ["predict", "ct.nii", "--liver", "a.pth", "b.pth", "--rotation", "8"],
            "predict another_ct.nii.gz --liver a.pth b.pth --rotation 8.0",
        ),
        (
            ["export", "--tumor", "t.pth", "--only", "tumor"],
            "predict another_ct.nii.gz --tumor t.pth --only tumor",
        ),
    ],
)
def test_the_next_command_finds_what_this_one_left(words, told, monkeypatch, caplog):
    monkeypatch.setitem(STEPS, words[0], lambda settings, options: None)
    assert main(words) == 0
    assert caplog.messages == ([f"next: python -m lits_helpers {told}"] if told else [])


def test_after_a_cross_validation_the_next_command_averages_the_models_of_all_folds(
    tmp_path, monkeypatch, caplog
):
    monkeypatch.setitem(STEPS, "crossval", lambda settings, options: None)
    runs = tmp_path / "my runs"
    models = [
        runs / "crossval" / f"my runs-fold-{fold}-of-2" / system / "checkpoints" / "best_model.pth"
        for system in ("liver", "tumor")
        for fold in (0, 1)
    ]
    for path in models:
        path.parent.mkdir(parents=True)
        path.touch()
    words = ["crossval", "--folds", "2", "--runs", str(runs)]
    assert main(words) == 0
    told = caplog.messages[-1].removeprefix("next: python -m lits_helpers ")
    expanded = subprocess.run(f"printf '%s\n' {told}", shell=True, capture_output=True, text=True)
    lines = expanded.stdout.splitlines()
    assert lines[:4] == ["predict", "another_ct.nii.gz", "--runs", str(runs)]
    assert lines[4:] == ["--liver", *map(str, models[:2]), "--tumor", *map(str, models[2:])]
    models[-1].unlink()  # another process works on it
    caplog.clear()
    assert main(words) == 0
    assert not caplog.messages


# --- wrong arguments get a sentence ---------------------------------------------------------------

HU = np.zeros((3, 8, 9), np.int16)
WRONG = {
    "an array for a volume": (
        lambda lits: lits.segment_volume(HU, object()),
        r"volume must be .*read_volume\(path\).* got a ndarray of shape \(3, 8, 9\)",
    ),
    "an array for a CT": (
        lambda lits: lits.segment(HU),
        r"ct must be a path, or a volume: volume_from_array.* got a ndarray of shape \(3, 8, 9\)",
    ),
    "a path for a model": (
        lambda lits: lits.segment_volume(body_volume(), "best_model.pth"),
        r"liver_model must be .*load_liver_model\(path\), got the text 'best_model.pth'",
    ),
    "the other system's model": (
        lambda lits: lits.segment_volume(body_volume(), None, bright_model()),
        r"tumor_model must be a tumor model: load_tumor_model\(path\), got a liver model",
    ),
    "an array for the CT of labels": (
        lambda lits: lits.write_segmentation(HU, HU, "labels.nii"),
        r"like must be the CT: read_volume\(path\), got a ndarray",
    ),
    "a folder for cases": (
        lambda lits: lits.prepare("data/raw", "out"),
        r"each case must be a Case, as find_cases\(folder\) returns them, got the text 'data/raw'",
    ),
    "a folder for the cases of a split": (
        lambda lits: lits.split_cases(Path("data")),
        r"each case must be a Case.* got a \w*Path",
    ),
    "numbers for cases": (lambda lits: lits.split_cases([0, 1]), r"each case must be .* got a int"),
    "a path for a case": (lambda lits: lits.check_case("volume-0.nii"), r"case must be a Case"),
    "a recipe's name": (
        lambda lits: lits.train_liver_gan("prepared", "run", None, "default"),
        r"recipe must be a recipe: liver_recipe\(\), got the text 'default'",
    ),
    "case ids for a split": (
        lambda lits: lits.train_tumor_regnet("prepared", "run", ["0"], lits.tumor_recipe()),
        r"split must be a Split: split_cases\(cases\), got a list",
    ),
    "a summary for rows": (
        lambda lits: lits.evaluate_dataset({"liver_dice": 1.0}),
        r"each result must be a dict, as evaluate_case .*got the text 'liver_dice'",
    ),
    "a volume for a slice": (
        lambda lits: lits.render_slice(body_volume()),
        r"hu must be a slice \(H, W\): volume.hu\[k\], got a Volume",
    ),
}


def body_volume():
    hu, _ = body()
    return lits_helpers.volume_from_array(hu)


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_argument_is_refused_with_what_to_give(what):
    call, words = WRONG[what]
    with pytest.raises(TypeError, match=words):
        call(lits_helpers)
