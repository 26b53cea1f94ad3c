"""Whole trainings: what they leave behind, resume to the bit, stop cleanly."""

import gc
import json
import shutil
import signal
import subprocess
import sys
import weakref
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from helpers.repository import ROOT
from helpers.small_runs import (
    SPLIT,
    TUMOR_SPLIT,
    same,
    small_liver,
    small_tumor,
    stopping_after,
    weights,
    without_clocks,
)

from lits_helpers.checkpoints import CheckpointError, load_checkpoint
from lits_helpers.datasets import cache
from lits_helpers.training import (
    TUMOR_WEIGHTS,
    TrainingDivergedError,
    newest_state,
    run_folder,
    stopping,
    train_liver_gan,
    train_tumor_regnet,
)
from lits_helpers.training.engine import Trainer
from lits_helpers.training.run_folder import read_history
from lits_helpers.training.stopping import StopRequest

# -- what a run leaves ---------------------------------------------------------------------------


def test_liver_run_leaves_history_curve_pictures_recipe_and_best_model(calm):
    run, history = calm
    assert [row["epoch"] for row in history] == [1, 2]
    assert [row["steps"] for row in history] == [3, 6]  # 9 slices in batches of 4
    assert read_history(run / "history.csv") == history
    assert (run / "checkpoints" / "loss_curve.png").stat().st_size > 1000
    pictures = run / "checkpoints" / "val_predictions"
    assert [path.name for path in sorted(pictures.iterdir())] == ["epoch_0001", "epoch_0002"]
    shown = cv2.imread(str(next((pictures / "epoch_0002").glob("3_*.png"))))
    assert shown.shape[1] == 2 * shown.shape[0]
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


def test_finished_run_returns_its_history_without_training(calm, slices, monkeypatch):
    monkeypatch.setattr(Trainer, "run", lambda self: pytest.fail("it trained again"))
    run, history = calm
    assert train_liver_gan(slices, run, SPLIT, small_liver(), device="cpu") == history


# -- resume and stops ----------------------------------------------------------------------------


@pytest.mark.parametrize("stops", [[3], [2, 2, 2]])
def test_stopped_and_resumed_training_ends_with_the_same_bits(
    calm, slices, tmp_path, monkeypatch, stops
):
    for steps in stops:
        with monkeypatch.context() as patch:
            stopping_after(patch, steps)
            history = train_liver_gan(slices, tmp_path, SPLIT, small_liver(), device="cpu")
            assert len(history) < 2
    history = train_liver_gan(slices, tmp_path, SPLIT, small_liver(), device="cpu")
    assert without_clocks(history) == without_clocks(calm[1])
    assert same(weights(tmp_path), weights(calm[0]))
    assert same(weights(tmp_path, "best_model.pth"), weights(calm[0], "best_model.pth"))


def test_training_that_goes_on_decodes_nothing_again(calm, slices, tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "free_memory_bytes", lambda: 1000)
    with monkeypatch.context() as patch:
        stopping_after(patch, 4)
        train_liver_gan(slices, tmp_path, SPLIT, small_liver(), device="cpu")
    assert len(list(tmp_path.glob("cache/*/*/levels.npy"))) == 2
    monkeypatch.setattr(cache, "_fill", None)  # a second decoding would fail
    train_liver_gan(slices, tmp_path, SPLIT, small_liver(), device="cpu")
    assert same(weights(tmp_path), weights(calm[0]))
    assert not (tmp_path / "cache").exists()  # the training is finished


def test_three_kills_change_no_bit():
    script = ROOT / "benchmarks" / "kill_training.py"
    command = [sys.executable, str(script), "--kills", "3", "--epochs", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert "bit-identical" in done.stdout, done.stdout + done.stderr[-2000:]
    assert "0 kills" not in done.stdout


@pytest.mark.parametrize(
    ("name", "raised"),
    [("SIGTERM", SystemExit), ("SIGUSR1", SystemExit), ("SIGINT", KeyboardInterrupt)],
)
def test_signal_saves_the_position_first(slices, tmp_path, monkeypatch, name, raised):
    plain, before = Trainer._step, signal.getsignal(signal.SIGTERM)

    def signalled(trainer, *arguments):
        plain(trainer, *arguments)
        if trainer.at.steps == 2:
            signal.raise_signal(getattr(signal, name))

    monkeypatch.setattr(Trainer, "_step", signalled)
    with pytest.raises(raised) as caught:
        train_liver_gan(slices, tmp_path, SPLIT, small_liver(), device="cpu")
    if raised is SystemExit:
        assert caught.value.code == 128 + getattr(signal, name)
    state = torch.load(tmp_path / "checkpoints" / "last.pth", weights_only=True)
    assert (state["epoch"], state["step"]) == (1, 2)
    assert signal.getsignal(signal.SIGTERM) is before


def test_second_stop_of_the_notebook_stops_at_once():
    with StopRequest() as request:
        signal.raise_signal(signal.SIGINT)
        assert request.wanted
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_checkpoints_within_an_epoch_come_by_the_clock(slices, tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(stopping, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(Trainer, "save", lambda self, mirror: saved.append(self.at.step))
    train_liver_gan(slices, tmp_path, SPLIT, small_liver(epochs=1), device="cpu")
    assert saved == [1, 2, 3, 0]


def test_training_goes_on_from_the_mirror_of_a_lost_machine(calm, slices, tmp_path, monkeypatch):
    mirror = tmp_path / "drive"
    with monkeypatch.context() as patch:
        stopping_after(patch, 5)
        train_liver_gan(
            slices, tmp_path / "lost", SPLIT, small_liver(), device="cpu", mirror=mirror
        )
    run = tmp_path / "new"
    history = train_liver_gan(slices, run, SPLIT, small_liver(), device="cpu", mirror=mirror)
    assert without_clocks(history) == without_clocks(calm[1])
    assert same(weights(run, "best_model.pth"), weights(calm[0], "best_model.pth"))


def test_finished_run_is_brought_back_from_the_mirror(slices, tmp_path):
    mirror, recipe = tmp_path / "drive", small_liver(epochs=1)
    arguments = {"device": "cpu", "mirror": mirror}
    before = train_liver_gan(slices, tmp_path / "lost", SPLIT, recipe, **arguments)
    after = train_liver_gan(slices, tmp_path / "new", SPLIT, recipe, **arguments)
    assert after == before == read_history(tmp_path / "new" / "history.csv")
    best = [weights(tmp_path / name, "best_model.pth") for name in ("lost", "new")]
    assert same(*best)


def test_a_broken_state_is_not_saved_at_a_stop(slices, tmp_path, monkeypatch):
    def broken(trainer, *arguments):
        plain(trainer, *arguments)
        trainer.sums += float("nan")

    plain = Trainer._step
    monkeypatch.setattr(Trainer, "_step", broken)
    stopping_after(monkeypatch, 2)
    with pytest.raises(TrainingDivergedError, match='Try precision="fp32", which resumes'):
        train_liver_gan(slices, tmp_path, SPLIT, small_liver(), device="cpu", precision="bf16")
    assert not (tmp_path / "checkpoints" / "last.pth").exists()


def test_resuming_without_a_case_that_was_there_is_refused(slices, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stopping_after(patch, 2)
        train_liver_gan(slices, tmp_path, SPLIT, small_liver(), device="cpu")
    monkeypatch.setattr(Trainer, "_slices", lambda self: [1, 2])
    with pytest.raises(CheckpointError, match="now there are 1 and 2"):
        train_liver_gan(slices, tmp_path, SPLIT, small_liver(), device="cpu")


def test_a_new_training_puts_no_model_of_the_former_on_the_mirror(slices, tmp_path, monkeypatch):
    options = {"device": "cpu", "mirror": tmp_path / "drive"}
    train_liver_gan(slices, tmp_path / "run", SPLIT, small_liver(epochs=1), **options)
    (tmp_path / "drive" / "checkpoints" / "val_predictions" / "epoch_0001").mkdir(parents=True)
    stopping_after(monkeypatch, 2)
    train_liver_gan(slices, tmp_path / "run", SPLIT, small_liver(), resume="never", **options)
    state, _ = newest_state(tmp_path / "nowhere", tmp_path / "drive")
    assert (state["history"], state["best_model"]) == ([], None)
    assert not (tmp_path / "drive" / "checkpoints" / "val_predictions").exists()


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


def test_named_checkpoint_is_continued(calm, slices, tmp_path):
    path = calm[0] / "checkpoints" / "previous.pth"  # the end of the first epoch
    history = train_liver_gan(slices, tmp_path, SPLIT, small_liver(), device="cpu", resume=path)
    assert without_clocks(history) == without_clocks(calm[1])


def test_named_checkpoint_whose_best_model_is_not_here_ends_with_one(calm, slices, tmp_path):
    state = torch.load(calm[0] / "checkpoints" / "previous.pth", weights_only=True)
    torch.save({**state, "best": 1.5}, tmp_path / "state.pth")  # what follows is no better
    arguments = (slices, tmp_path / "run", SPLIT, small_liver())
    history = train_liver_gan(*arguments, device="cpu", resume=tmp_path / "state.pth")
    best = load_checkpoint(tmp_path / "run" / "checkpoints" / "best_model.pth")
    assert (best["seed"], best["epoch"]) == (0, 2)
    assert best["validation_dice"] == history[-1]["validation_dice"]


def test_finished_training_is_not_answered_for_by_the_model_of_another(calm, slices, tmp_path):
    train_liver_gan(slices, tmp_path, SPLIT, small_liver(), device="cpu", seed=7)
    finished = calm[0] / "checkpoints" / "last.pth"
    with pytest.raises(CheckpointError, match="damaged or of another training"):
        train_liver_gan(slices, tmp_path, SPLIT, small_liver(), device="cpu", resume=finished)


def test_numpy_numbers_and_texts_make_a_checkpoint_that_opens(slices, tmp_path):
    split = SimpleNamespace(
        training=tuple(np.array(SPLIT.training)), validation=tuple(np.array(SPLIT.validation))
    )
    recipe = small_liver(epochs=np.int64(1), learning_rate=np.float64(0.01))
    train_liver_gan(slices, tmp_path, split, recipe, device="cpu", seed=np.int64(3))
    assert load_checkpoint(tmp_path / "checkpoints" / "best_model.pth")["seed"] == 3
    assert newest_state(tmp_path / "checkpoints")[0]["recipe"]["learning_rate"] == 0.01


def test_what_a_stopped_training_held_is_let_go_though_its_error_is_kept(
    slices, tmp_path, monkeypatch
):
    held = []

    def step(trainer, *_):
        held.append(weakref.ref(trainer.training))
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Trainer, "_step", step)
    monkeypatch.setattr(Trainer, "_wish", lambda self, request: stopping.STOP)
    with pytest.raises(KeyboardInterrupt) as kept:
        train_liver_gan(slices, tmp_path, SPLIT, small_liver(), device="cpu")
    gc.collect()
    assert kept.value.__traceback__ is not None
    assert held[0]() is None


def test_named_checkpoint_is_refused_where_a_training_got_further(calm, slices, tmp_path):
    early = calm[0] / "checkpoints" / "previous.pth"
    train_liver_gan(slices, tmp_path, SPLIT, small_liver(), device="cpu", seed=7)
    with pytest.raises(CheckpointError, match="choose another run folder"):
        train_liver_gan(slices, tmp_path, SPLIT, small_liver(), device="cpu", resume=early)


def test_state_of_a_branch_of_an_old_folder_goes_on(calm, slices, tmp_path, monkeypatch):
    """States held the number of times that a training had gone back, and to where."""
    with monkeypatch.context() as patch:
        stopping_after(patch, 5)
        train_liver_gan(slices, tmp_path, SPLIT, small_liver(), device="cpu")
    last = tmp_path / "checkpoints" / "last.pth"
    state = torch.load(last, weights_only=True)
    torch.save({**state, "branch": 1, "began_at": [0, 2, 0]}, last)
    history = train_liver_gan(slices, tmp_path, SPLIT, small_liver(), device="cpu")
    assert without_clocks(history) == without_clocks(calm[1])
    assert same(weights(tmp_path), weights(calm[0]))
    assert newest_state(tmp_path / "checkpoints")[0]["epoch"] == 3  # not the one before


def test_other_recipe_or_split_is_refused_with_the_difference(calm, slices):
    with pytest.raises(CheckpointError, match=r"recipe.batch_size was 4, now 3"):
        train_liver_gan(slices, calm[0], SPLIT, small_liver(batch_size=3), device="cpu")
    split = SimpleNamespace(training=("0", "1"), validation=("3", "4"))
    with pytest.raises(CheckpointError, match=r"training_ids lost 1 \(2\)"):
        train_liver_gan(slices, calm[0], split, small_liver(), device="cpu")
