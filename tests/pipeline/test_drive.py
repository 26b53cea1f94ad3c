"""Google Drive: mounting it, and what of a run it keeps for the next machine."""

import os
import shutil
from pathlib import Path

import pytest
import torch
from helpers.logs import logged

from lits_helpers import environment
from lits_helpers.pipeline import drive
from lits_helpers.settings import load_settings
from lits_helpers.training.states import MirrorSlots

pytest_plugins = ["helpers.colab_fixtures"]


def test_accepted_drive_gives_a_folder_and_is_asked_for_once(colab, tmp_path):
    for _ in range(2):
        assert environment.mount_drive() == tmp_path / "drive" / "MyDrive" / "lits"
    assert (tmp_path / "drive" / "MyDrive" / "lits").is_dir()
    assert colab.drive.dialogues == 1


@pytest.mark.parametrize(
    ("answer", "reason"),
    [("refused", "credential propagation was unsuccessful"), ("timed out", "timeout")],
)
def test_without_drive_the_run_goes_on_and_says_what_is_lost(colab, caplog, answer, reason):
    colab.drive.answer = answer
    assert environment.mount_drive() is None
    assert logged(caplog, reason, "lost", "Restart session")


def test_who_refused_is_not_asked_by_every_step(colab, caplog):
    colab.drive.answer = colab.drive.REFUSED
    assert environment.mount_drive() is environment.mount_drive() is None
    assert colab.drive.dialogues == 1
    assert len(caplog.records) == 1


def test_drive_without_room_for_the_folder_is_no_error(colab, caplog, tmp_path):
    (tmp_path / "drive" / "MyDrive").mkdir(parents=True)
    (tmp_path / "drive" / "MyDrive" / "lits").write_text("a file of that name")
    assert environment.mount_drive() is None
    assert logged(caplog, "lost", "Restart session")


def test_drive_is_opt_in(colab, tmp_path):
    assert drive.drive_folder(load_settings(tmp_path), "liver") is None
    assert colab.drive.dialogues == 0


def test_no_two_runs_share_a_folder_on_drive(colab, tmp_path):
    folders = {
        drive.drive_folder(load_settings(tmp_path, drive=True, source=source, tiny=tiny), part)
        for source in ("phantom", "folder", "kaggle")
        for tiny in (False, True)
        for part in ("liver", "tumor", "results")
    }
    assert len(folders) == 18
    assert all(folder.is_relative_to(tmp_path / "drive" / "MyDrive") for folder in folders)


def a_run(folder: Path, epochs: int) -> Path:
    """Make a run's small files, with pictures of each epoch, and a large one."""
    for name in (*drive.RUN_FILES, *drive.MODEL_FILES, "checkpoints/last.pth"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{name} after {epochs} epochs")
    for epoch in range(1, epochs + 1):
        (folder / drive.PICTURES / f"epoch_{epoch:04d}").mkdir(parents=True, exist_ok=True)
        (folder / drive.PICTURES / f"epoch_{epoch:04d}" / "0_12.png").touch()
    return folder


def files_below(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def test_small_files_of_a_run_come_back_on_the_next_machine(tmp_path):
    run, kept = a_run(tmp_path / "runs" / "liver", 2), tmp_path / "drive"
    drive.keep_run(run, kept)
    assert {str(name) for name in drive.MODEL_FILES} < files_below(kept)
    drive.restore_run(kept, tmp_path / "new")
    pictures = "checkpoints/val_predictions/epoch_0002/0_12.png"
    assert files_below(tmp_path / "new") == {*drive.RUN_FILES, pictures}
    assert (tmp_path / "new" / "history.csv").read_text() == "history.csv after 2 epochs"


def test_a_restoring_that_was_stopped_is_completed(tmp_path, monkeypatch):
    run, kept, copied = a_run(tmp_path / "run", 2), tmp_path / "drive", []
    drive.keep_run(run, kept)

    def stopped(source, target, plain=shutil.copyfile):
        copied.append(target)
        if len(copied) == 3:
            Path(target).write_text("half")
            raise KeyboardInterrupt
        return plain(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("shutil.copyfile", stopped)
        with pytest.raises(KeyboardInterrupt):
            drive.restore_run(kept, tmp_path / "new")
    assert len(files_below(tmp_path / "new")) == 2, "nothing half"
    drive.restore_run(kept, tmp_path / "new")
    assert len(files_below(tmp_path / "new")) == len(drive.RUN_FILES) + 1


def test_drive_keeps_the_pictures_of_the_last_epoch_only(tmp_path):
    for epochs in (3, 1):  # a longer training, and then another from the start
        run = a_run(tmp_path / f"runs{epochs}", epochs)
        drive.keep_run(run, tmp_path / "drive")
    kept = {name for name in files_below(tmp_path / "drive") if name.endswith("0_12.png")}
    assert kept == {"checkpoints/val_predictions/epoch_0001/0_12.png"}


def test_what_this_machine_has_wins_over_drive(tmp_path):
    drive.keep_run(a_run(tmp_path / "old", 2), tmp_path / "drive")
    new = a_run(tmp_path / "new", 1)
    before = files_below(new)
    drive.restore_run(tmp_path / "drive", new)
    assert files_below(new) == before
    assert "after 1" in (new / "history.csv").read_text()


def test_unchanged_files_are_not_written_again(tmp_path):
    run, kept = a_run(tmp_path / "run", 1), tmp_path / "drive"
    drive.keep_run(run, kept)
    os.utime(kept / "recipe.json", (1, 1))
    drive.keep_run(run, kept)
    assert (kept / "recipe.json").stat().st_mtime == 1


def test_a_full_drive_loses_nothing_here(tmp_path, caplog):
    run = a_run(tmp_path / "run", 1)
    (tmp_path / "drive").write_text("no folder can be made here")
    drive.keep_run(run, tmp_path / "drive")
    assert logged(caplog, "not everything was copied")
    assert (run / "recipe.json").exists()


def write_slot(folder: Path, best_model: dict | None) -> None:
    """Write a training state to Drive as a liver training does."""
    row = {"epoch": 1, "steps": 3, "pixel_loss": 0.2, "validation_dice": 0.5}
    state = {"system": "liver", "recipe": {}, "seed": 0, "epoch": 2, "step": 0, "history": [row]}
    ids = {"training_ids": ["0"], "validation_ids": ["1"], "data": {}}
    MirrorSlots(folder).write({**state, **ids, "best_model": best_model})


def test_a_model_comes_back_for_the_notebook_that_only_uses_it(colab, tmp_path):
    settings = load_settings(tmp_path, drive=True, source="kaggle")
    write_slot(drive.drive_folder(settings, "liver"), {"epoch": 1})
    assert drive.restore_model(settings, "liver")
    model = settings.runs / "liver" / "checkpoints" / "best_model.pth"
    assert torch.load(model, weights_only=True) == {"epoch": 1}
    assert (settings.runs / "liver" / "history.csv").exists()


def test_without_a_model_on_drive_nothing_comes_back(colab, tmp_path):
    settings = load_settings(tmp_path, drive=True, source="kaggle")
    assert not drive.restore_model(settings, "liver")
    write_slot(drive.drive_folder(settings, "liver"), None)  # stopped in its first epoch
    assert not drive.restore_model(settings, "liver")
    assert not drive.restore_model(load_settings(tmp_path, source="kaggle"), "liver")
    assert not settings.runs.exists()


def test_results_go_to_drive_without_the_notebooks(colab, tmp_path):
    settings = load_settings(tmp_path, drive=True)
    wanted = {"metrics.csv", "figures/dice.png", "predictions/p.nii.gz"}
    wanted |= {"predictions/p.nii.gz.json", "reports/p.html", "segmented/own.nii.gz"}
    for name in (*wanted, "notebooks/04.ipynb"):
        (settings.runs / "results" / name).parent.mkdir(parents=True, exist_ok=True)
        (settings.runs / "results" / name).touch()
    for name in (*drive.CROSSVAL_FILES, "a-fold/metrics.csv"):
        (settings.runs / "crossval" / name).parent.mkdir(parents=True, exist_ok=True)
        (settings.runs / "crossval" / name).touch()
    kept = drive.keep_results(settings)
    assert files_below(kept) == wanted
    assert files_below(kept.with_name("crossval")) == set(drive.CROSSVAL_FILES)
