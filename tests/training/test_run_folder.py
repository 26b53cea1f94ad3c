"""What a training leaves in its run folder."""

import json
import shutil
import subprocess
import sys
from dataclasses import asdict

import cv2
import pytest
import torch
from helpers.small_runs import SPLIT, TUMOR_SPLIT, same, small_liver, small_tumor, weights

from lits_helpers.checkpoints import CheckpointError, load_checkpoint
from lits_helpers.figures import PALETTE
from lits_helpers.training import TUMOR_WEIGHTS, run_folder, train_liver_gan, train_tumor_regnet
from lits_helpers.training.run_folder import read_history


def test_liver_run_leaves_history_curve_pictures_recipe_and_best_model(calm):
    run, history = calm
    assert [row["epoch"] for row in history] == [1, 2]
    assert [row["steps"] for row in history] == [3, 6]  # 9 slices in batches of 4
    assert read_history(run / "history.csv") == history
    assert (run / "checkpoints" / "loss_curve.png").stat().st_size > 1000
    pictures = run / "checkpoints" / "val_predictions"
    assert [path.name for path in sorted(pictures.iterdir())] == ["epoch_0001", "epoch_0002"]
    shown = cv2.imread(str(next((pictures / "epoch_0002").glob("3_*.png"))))
    width, key = shown.shape[1], shown[shown.shape[1] // 2 :, :, ::-1]  # below two squares
    assert width // 2 < len(shown)
    for name in ("reference liver", "predicted liver"):
        assert (key == PALETTE[name]).all(axis=2).sum() >= 100, name
    best = load_checkpoint(run / "checkpoints" / "best_model.pth", system="liver")
    assert best["validation_dice"] == max(row["validation_dice"] for row in history)
    assert best["training_ids"] == ["0", "1", "2"]


def test_recipe_json_holds_setting_split_and_data(calm):
    recorded = json.loads((calm[0] / "recipe.json").read_text())
    assert recorded["recipe"]["width"] == 4
    assert recorded["validation_ids"] == ["3", "4"]
    assert set(recorded["data"]) == {"0", "1", "2", "3", "4"}
    assert {"torch", "lits_helpers"} <= set(recorded["versions"])


def test_commit_of_a_repository_that_this_module_only_lies_in_is_not_recorded(
    tmp_path, monkeypatch
):
    def git(*arguments):
        identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
        subprocess.run(["git", "-C", tmp_path, *identity, *arguments], check=True)

    place = tmp_path / "site-packages" / "run_folder.py"
    place.parent.mkdir()
    for name in (place, tmp_path / "theirs.py"):
        name.touch()
    git("init", "--quiet")
    git("add", "theirs.py")
    git("commit", "--quiet", "--message", "one")
    monkeypatch.setattr(run_folder, "__file__", str(place))
    run_folder.write_recipe(tmp_path / "recipe.json", {})
    assert json.loads((tmp_path / "recipe.json").read_text())["commit"] is None
    git("add", ".")
    run_folder.write_recipe(tmp_path / "recipe.json", {})
    assert len(json.loads((tmp_path / "recipe.json").read_text())["commit"]) == 40


def test_tumor_run_leaves_bare_weights_that_load(volumes, tmp_path):
    history = train_tumor_regnet(volumes, tmp_path, TUMOR_SPLIT, small_tumor(), device="cpu")
    assert set(history[0]) >= {"loss", "validation_dice", "validation_dice_global"}
    bare = torch.load(tmp_path / TUMOR_WEIGHTS, weights_only=True)
    best = load_checkpoint(tmp_path / "checkpoints" / "best_model.pth", system="tumor")
    described = load_checkpoint(tmp_path / TUMOR_WEIGHTS, system="tumor")
    assert same(bare, best["model"])
    assert described["spec"]["size"] == 64


@pytest.mark.parametrize("writes", [0, 1, 2])
def test_a_kill_among_the_files_of_a_best_model_leaves_no_older_weights_beside_it(
    tmp_path, monkeypatch, writes
):
    def content(epoch):
        recipe = asdict(small_tumor())
        return {"epoch": epoch, "recipe": recipe, "model": {"a": torch.tensor(epoch)}}

    def killed(write):
        def stopping(*arguments):
            if len(done) == writes:
                raise KeyboardInterrupt
            done.append(write(*arguments))

        return stopping

    folder, done = run_folder.RunFolder(tmp_path, "tumor"), []
    folder.checkpoints.mkdir()
    folder.write_best(content(1))
    for name in ("save_model", "write_json"):
        monkeypatch.setattr(run_folder, name, killed(getattr(run_folder, name)))
    with pytest.raises(KeyboardInterrupt):
        folder.write_best(content(2))
    best = torch.load(folder.checkpoints / "best_model.pth")
    bare = tmp_path / TUMOR_WEIGHTS
    found = torch.load(bare)["a"], json.loads(bare.with_suffix(".json").read_text())["epoch"]
    assert best["epoch"] == 1 or found == (2, 2)  # a resumed epoch writes what a kill left out


def test_finished_run_is_brought_back_from_the_mirror(slices, tmp_path):
    mirror, recipe = tmp_path / "drive", small_liver(epochs=1)
    arguments = {"device": "cpu", "mirror": mirror}
    before = train_liver_gan(slices, tmp_path / "lost", SPLIT, recipe, **arguments)
    after = train_liver_gan(slices, tmp_path / "new", SPLIT, recipe, **arguments)
    assert after == before == read_history(tmp_path / "new" / "history.csv")
    best = [weights(tmp_path / name, "best_model.pth") for name in ("lost", "new")]
    assert same(*best)


def test_a_kill_between_a_model_and_its_state_loses_no_better_model(calm, slices, tmp_path):
    shutil.copytree(calm[0], tmp_path / "run")
    here = tmp_path / "run" / "checkpoints"
    (here / "previous.pth").replace(here / "last.pth")  # the second epoch has only begun
    best = torch.load(here / "best_model.pth", weights_only=True)
    torch.save({**best, "epoch": 2, "validation_dice": 0.99}, here / "best_model.pth")
    before = (here / "best_model.pth").read_bytes()
    for _ in range(2):  # the second finds a finished training
        train_liver_gan(slices, tmp_path / "run", SPLIT, small_liver(), device="cpu")
        assert (here / "best_model.pth").read_bytes() == before


def test_never_resuming_starts_anew(calm, slices, tmp_path):
    recipe = small_liver(epochs=1)
    train_liver_gan(slices, tmp_path, SPLIT, recipe, device="cpu", seed=5)
    with pytest.raises(CheckpointError, match="seed was 5, now 0"):
        train_liver_gan(slices, tmp_path, SPLIT, recipe, device="cpu")
    (tmp_path / "tensorboard").mkdir()
    train_liver_gan(slices, tmp_path, SPLIT, recipe, device="cpu", resume="never")
    assert not (tmp_path / "tensorboard").exists()
    assert torch.load(tmp_path / "checkpoints" / "last.pth", weights_only=True)["seed"] == 0


def test_finished_training_is_not_answered_for_by_the_model_of_another(calm, slices, tmp_path):
    train_liver_gan(slices, tmp_path, SPLIT, small_liver(), device="cpu", seed=7)
    finished = calm[0] / "checkpoints" / "last.pth"
    with pytest.raises(CheckpointError, match="damaged or of another training"):
        train_liver_gan(slices, tmp_path, SPLIT, small_liver(), device="cpu", resume=finished)


def test_folder_that_cannot_be_written_is_told(slices, tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(OSError, match=r"cannot write .*choose a writable folder"):
        train_liver_gan(slices, tmp_path / "taken", SPLIT, small_liver(), device="cpu")


def test_tensorboard_that_is_not_installed_is_told(slices, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ImportError, match="pip install tensorboard"):
        train_liver_gan(slices, tmp_path, SPLIT, small_liver(), device="cpu", tensorboard=True)


@pytest.mark.parametrize(
    "wrong", [{"seed": -1}, {"recipe": small_liver(batch_size=10)}, {"tensorboard": True}]
)
def test_what_was_trained_is_forgotten_only_when_the_new_training_can_begin(
    slices, tmp_path, monkeypatch, wrong
):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    train_liver_gan(slices, tmp_path, SPLIT, small_liver(epochs=1), device="cpu")
    options = {"recipe": small_liver(), "device": "cpu", "resume": "never"} | wrong
    with pytest.raises((ValueError, ImportError)):
        train_liver_gan(slices, tmp_path, SPLIT, **options)
    assert (tmp_path / "checkpoints" / "last.pth").exists()


@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_finished_training_whose_model_is_lost_says_so(slices, tmp_path, damage):
    train_liver_gan(slices, tmp_path, SPLIT, small_liver(epochs=1), device="cpu")
    best = tmp_path / "checkpoints" / "best_model.pth"
    best.write_bytes(best.read_bytes()[:99]) if damage == "cut" else best.unlink()
    with pytest.raises(ValueError, match=r"best_model.pth is gone, damaged or .*resume=.never"):
        train_liver_gan(slices, tmp_path, SPLIT, small_liver(epochs=1), device="cpu")


def test_model_of_a_finished_training_comes_back_from_the_mirror(slices, tmp_path):
    arguments = (slices, tmp_path / "run", SPLIT, small_liver(epochs=1))
    options = {"device": "cpu", "mirror": tmp_path / "drive"}
    before = train_liver_gan(*arguments, **options)
    best = tmp_path / "run" / "checkpoints" / "best_model.pth"
    best.unlink()
    assert train_liver_gan(*arguments, **options) == before
    assert load_checkpoint(best)
