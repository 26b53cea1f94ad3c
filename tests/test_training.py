"""Both trainings on one engine: steps, resume, stops, refusals, what a run leaves behind."""

import json
import logging
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import nibabel as nib
import numpy as np
import pytest
import torch

from lits_helpers import engine, health, interruption, training
from lits_helpers.acceleration import Compiled, Precision
from lits_helpers.checkpoints import CheckpointError, load_checkpoint
from lits_helpers.engine import Trainer, learning_rate
from lits_helpers.health import TrainingDivergedError
from lits_helpers.interruption import StopRequest, Stopwatch
from lits_helpers.losses import feature_loss, masked_image, pixel_loss
from lits_helpers.records import CLOCK_COLUMNS, TUMOR_WEIGHTS, read_history
from lits_helpers.settings import InputSpec, liver_recipe, tumor_recipe
from lits_helpers.systems import Average, LiverSystem, TumorSystem
from lits_helpers.training import train_liver_gan, train_tumor_regnet
from lits_helpers.validation import validation_score

CPU = torch.device("cpu")
SPLIT = SimpleNamespace(training=("0", "1", "2"), validation=("3", "4"), test=())
TUMOR_SPLIT = SimpleNamespace(training=("0", "1"), validation=("2",), test=())


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def slices(tmp_path_factory):
    """Five cases of three slices (40, 48): noise with a brighter ellipse, which is the liver."""
    root = tmp_path_factory.mktemp("slices")
    generator = np.random.default_rng(0)
    for case in range(5):
        for kind in ("images", "masks"):
            (root / kind / str(case)).mkdir(parents=True)
        for k in range(3):
            mask = np.zeros((40, 48), np.uint8)
            cv2.ellipse(mask, (16 + 2 * case, 18 + k), (11, 8), 20 * k, 0, 360, 255, -1)
            image = (generator.integers(40, 80, mask.shape) + mask // 2).astype(np.uint8)
            cv2.imwrite(str(root / "images" / str(case) / f"{k}.png"), image)
            cv2.imwrite(str(root / "masks" / str(case) / f"{k}.png"), mask)
    return root


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    """Three NIfTI pairs (48, 40, 6) in file order with a liver and a tumor in four slices."""
    root = tmp_path_factory.mktemp("volumes")
    generator = np.random.default_rng(0)
    for case in range(3):
        labels = np.zeros((48, 40, 6), np.uint8)
        labels[8:30, 10:34, 1:5] = 1
        labels[14:20, 16 + case : 22 + case, 1:5] = 2
        hu = generator.normal(0, 15, labels.shape) + 90 * (labels == 1) - 40 * (labels == 2)
        affine = np.diag([-0.8, -0.7, 5.0, 1.0])
        nib.save(nib.Nifti1Image(hu.astype(np.int16), affine), root / f"volume-{case}.nii")
        nib.save(nib.Nifti1Image(labels, affine), root / f"segmentation-{case}.nii")
    return root


def small_liver(**changes):
    small = {
        "spec": InputSpec(size=32, window=(-200, 300)),
        "width": 4,
        "critic_width": 4,
        "epochs": 2,
        "batch_size": 4,
        "learning_rate": 0.01,
    }
    return liver_recipe(changes.pop("name", "default"), **(small | changes))


def small_tumor(**changes):
    spec = InputSpec(64, (-100, 250), channels=3, context=1, normalization="imagenet")
    small = {"spec": spec, "epochs": 1, "batch_size": 8, "pretrained": False}
    return tumor_recipe("default", **(small | changes))


def a_batch(count=2, size=32):
    labels = torch.zeros(count, size, size, dtype=torch.uint8)
    labels[0, 4:20, 6:28] = 1
    labels[1, 10:26, 3:12] = 2
    noise = torch.rand(count, 1, size, size, generator=torch.Generator().manual_seed(0))
    return 0.3 * noise + 0.6 * (labels > 0)[:, None], labels


def a_system(recipe, seed=0):
    torch.manual_seed(seed)
    return LiverSystem(recipe, CPU, Precision(CPU, "fp32"))


def weights(run, name="last.pth"):
    state = torch.load(run / "checkpoints" / name, weights_only=True)
    return state["parts"]["model"] if "parts" in state else state["model"]


def same(a, b):
    return set(a) == set(b) and all(torch.equal(a[key], b[key]) for key in a)


def without_clocks(history):
    return [{k: v for k, v in row.items() if k not in CLOCK_COLUMNS} for row in history]


@pytest.fixture(scope="module")
def calm(slices, tmp_path_factory):
    """A liver training that nothing disturbed: its run folder and history."""
    run = tmp_path_factory.mktemp("calm")
    return run, train_liver_gan(slices, run, SPLIT, small_liver(), device="cpu")


# -- steps ---------------------------------------------------------------------------------------


def literal_gradients(system, images, labels):
    """The gradients of a generator step against a frozen critic and of the critic step after it."""
    generator, critic, recipe = system.generator, system.critic, system.recipe
    masks = (labels >= 1).float()[:, None]
    predicted = generator(images)

    def compared(prediction):
        masked = (masked_image(images, mask) for mask in (prediction, masks))
        return feature_loss(*(critic.forward_all_layers(image) for image in masked))

    loss = pixel_loss(predicted, masks) + recipe.feature_weight * compared(predicted)
    of_generator = torch.autograd.grad(loss, list(generator.parameters()))
    of_critic = torch.autograd.grad(compared(predicted.detach()), list(critic.parameters()))
    return of_generator, of_critic


def test_one_backward_pass_gives_the_gradients_of_two_separate_steps():
    system = a_system(small_liver(name="original", learning_rate=0.0))
    system.train()
    images, labels = a_batch()
    wanted = literal_gradients(system, images, labels)
    system.step(images, labels)
    for part, gradients in zip((system.generator, system.critic), wanted, strict=True):
        for (name, parameter), gradient in zip(part.named_parameters(), gradients, strict=True):
            assert torch.allclose(parameter.grad, gradient, rtol=1e-4, atol=1e-5), name


@pytest.mark.parametrize(("goal", "sign"), [("minimise", -1), ("maximise", 1)])
def test_critic_moves_the_feature_loss_where_its_goal_says(goal, sign):
    system = a_system(small_liver(critic_goal=goal, learning_rate=5e-3))
    system.optimizers[0].param_groups[0]["lr"] = 0.0  # the generator stands still
    images, labels = a_batch()
    values = [float(system.step(images, labels)[2]) for _ in range(12)]
    assert sign * (values[-1] - values[0]) > 0


def test_generator_forward_runs_once_a_step():
    system = a_system(small_liver())
    calls = []
    system.generator.register_forward_hook(lambda *_: calls.append(1))
    system.step(*a_batch())
    assert len(calls) == 1


def test_liver_gan_overfits_two_slices():
    system = a_system(small_liver(width=8))
    images, labels = a_batch()
    for _ in range(80):
        losses = system.step(images, labels)
    system.best_module().eval()
    with torch.inference_mode():
        predicted, target = system.predict(images, labels), system.target(labels)
    dice = 2 * (predicted & target).sum() / (predicted.sum() + target.sum())
    assert dice > 0.9
    assert torch.isfinite(losses).all()


def test_tumor_loss_falls_on_a_fixed_batch():
    torch.manual_seed(0)
    system = TumorSystem(small_tumor(learning_rate=2e-3), CPU, Precision(CPU, "fp32"))
    images, labels = a_batch(size=64)
    images = images.expand(-1, 3, -1, -1)
    first, *_, last = (float(system.step(images, labels)[0]) for _ in range(8))
    assert last < 0.8 * first


def test_averaged_weights_follow_slowly_and_forget_the_start():
    network = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(network.weight, 0.0)
    average = Average(network, decay=0.9)
    torch.nn.init.constant_(network.weight, 1.0)
    average.update(network)  # decay 2/11 in the first step
    assert average.model.weight.item() == pytest.approx(1 - 2 / 11)
    average.update(network)  # then 3/12
    assert average.model.weight.item() == pytest.approx(1 - 2 / 11 * 3 / 12)


def test_cosine_schedule_ends_at_a_hundredth():
    recipe = small_liver(learning_rate=0.1, epochs=10)
    assert learning_rate(recipe, 0) == pytest.approx(0.1)
    assert learning_rate(recipe, 5) == pytest.approx(0.1 * 0.505)
    assert learning_rate(recipe, 10) == pytest.approx(0.001)
    assert learning_rate(small_liver(name="original"), 1.5) == 0.01


# -- validation ----------------------------------------------------------------------------------


class HandDrawn:
    """A cache of three cases with 2, 1 and 1 slices of 2x2 pixels."""

    case_ids = ("a", "b", "c")
    case_of = torch.tensor([0, 0, 1, 2])
    references = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]])
    predictions = torch.tensor([[1, 0, 0, 0], [1, 0, 0, 1], [1, 1, 1, 1], [0, 0, 0, 0]])

    def batch(self, indices):
        shape = (-1, 1, 2, 2)
        return self.predictions[indices].view(shape).float(), self.references[indices].view(
            -1, 2, 2
        )


def score_of(cache):
    return validation_score(
        lambda images, labels: images > 0, lambda labels: (labels > 0)[:, None], cache, batch_size=3
    )


def test_validation_dice_is_taken_per_case_over_all_its_slices():
    # case a: overlap 2, sizes 3 and 3 -> 4/6; b: 1; c holds no target and is left out of the mean
    score = score_of(HandDrawn())
    assert score.per_case.tolist() == pytest.approx([2 / 3, 1.0, 1.0])
    assert score.dice == pytest.approx((2 / 3 + 1) / 2)
    assert score.dice_global == pytest.approx(2 * 6 / (7 + 7))


def test_validation_without_any_target_counts_two_empties_as_one():
    empty = HandDrawn()
    empty.references = torch.zeros(4, 4, dtype=torch.int64)
    empty.predictions = empty.references.clone()
    empty.predictions[2, 0] = 1
    assert score_of(empty).dice == pytest.approx(2 / 3)


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


def stopping_after(monkeypatch, steps):
    """Let max_minutes strike after so many steps of this call."""
    left = [steps]

    def over(_watch):
        left[0] -= 1
        return left[0] < 0

    monkeypatch.setattr(Stopwatch, "over", over)


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


def test_three_kills_change_no_bit():
    script = Path(__file__).parents[1] / "benchmarks" / "kill_training.py"
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
    monkeypatch.setattr(interruption, "SAVE_SECONDS", 0.0)
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


def test_never_resuming_starts_anew(calm, slices, tmp_path):
    recipe = small_liver(epochs=1)
    train_liver_gan(slices, tmp_path, SPLIT, recipe, device="cpu", seed=5)
    with pytest.raises(CheckpointError, match="seed was 5, now 0"):
        train_liver_gan(slices, tmp_path, SPLIT, recipe, device="cpu")
    train_liver_gan(slices, tmp_path, SPLIT, recipe, device="cpu", resume="never")
    assert torch.load(tmp_path / "checkpoints" / "last.pth", weights_only=True)["seed"] == 0


def test_named_checkpoint_is_continued(calm, slices, tmp_path):
    path = calm[0] / "checkpoints" / "previous.pth"  # the end of the first epoch
    history = train_liver_gan(slices, tmp_path, SPLIT, small_liver(), device="cpu", resume=path)
    assert without_clocks(history) == without_clocks(calm[1])


def test_other_recipe_or_split_is_refused_with_the_difference(calm, slices):
    with pytest.raises(CheckpointError, match=r"recipe.batch_size was 4, now 3"):
        train_liver_gan(slices, calm[0], SPLIT, small_liver(batch_size=3), device="cpu")
    split = SimpleNamespace(training=("0", "1"), validation=("3", "4"))
    with pytest.raises(CheckpointError, match=r"training_ids lost 1 \(2\)"):
        train_liver_gan(slices, calm[0], split, small_liver(), device="cpu")


# -- what goes wrong -----------------------------------------------------------------------------


def test_nan_stops_within_the_epoch_and_keeps_what_was_saved(slices, tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "LOOK_SECONDS", 0.0)
    plain = LiverSystem.step

    def broken(system, images, labels, weight):
        losses = plain(system, images, labels, weight)
        calls.append(1)
        return losses * float("nan") if len(calls) == 4 else losses

    calls = []
    monkeypatch.setattr(LiverSystem, "step", broken)
    with pytest.raises(TrainingDivergedError, match=r"g_loss.*epoch 2.*lower learning_rate"):
        train_liver_gan(slices, tmp_path, SPLIT, small_liver(), device="cpu")
    assert len(calls) == 4
    best = load_checkpoint(tmp_path / "checkpoints" / "best_model.pth")
    assert all(torch.isfinite(tensor).all() for tensor in best["model"].values())


def test_collapse_of_the_dice_is_told_with_what_to_try(caplog):
    fallen = SimpleNamespace(dice=0.1, predicted_pixels=9)
    silent = SimpleNamespace(dice=0.0, predicted_pixels=0)
    assert health.warn_of_collapse(fallen, 0.8, 5, small_liver())
    assert "fell from a Dice of 0.800 to 0.100" in caplog.text
    assert health.warn_of_collapse(silent, 0.1, 5, small_liver(name="original"))
    assert "predicts nothing at all" in caplog.text
    assert 'try head="sigmoid"' in caplog.text
    assert not health.warn_of_collapse(
        SimpleNamespace(dice=0.75, predicted_pixels=9), 0.8, 5, small_liver()
    )


def test_too_little_memory_names_the_setting_and_a_value(slices, tmp_path, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(LiverSystem, "step", full)
    with pytest.raises(MemoryError, match=r"batch_size=4 at size=32: set batch_size=2"):
        train_liver_gan(slices, tmp_path, SPLIT, small_liver(), device="cpu")


def test_other_errors_are_not_taken_for_too_little_memory():
    with pytest.raises(RuntimeError, match="shapes differ"), health.memory_advice(small_liver()):
        raise RuntimeError("shapes differ")


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"training": ()}, "training part is empty"),
        ({"validation": ()}, "validation part is empty"),
        ({"validation": ("2", "3")}, "in training and validation: 2"),
        ({"training": ("0", "77")}, "no case 77"),
    ],
)
def test_split_that_cannot_be_trained_on_is_refused(slices, tmp_path, parts, words):
    split = SimpleNamespace(**{**vars(SPLIT), **parts})
    with pytest.raises(ValueError, match=words):
        train_liver_gan(slices, tmp_path / "run", split, small_liver(), device="cpu")


def test_batch_larger_than_the_training_part_is_refused(slices, tmp_path):
    with pytest.raises(ValueError, match="batch_size=10 is larger than the 9 training slices"):
        train_liver_gan(slices, tmp_path, SPLIT, small_liver(batch_size=10), device="cpu")


def test_single_training_slice_is_refused():
    with pytest.raises(ValueError, match="1 slice: batch norm needs at least 2"):
        training._check_batch(small_liver(), 1)


def test_folder_that_cannot_be_written_is_told(slices, tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(OSError, match=r"cannot write .*choose a writable folder"):
        train_liver_gan(slices, tmp_path / "taken", SPLIT, small_liver(), device="cpu")


def test_unbounded_critic_that_maximises_is_refused(slices, tmp_path):
    recipe = small_liver(critic="published", critic_goal="maximise")
    with pytest.raises(ValueError, match="diverges without a bound"):
        train_liver_gan(slices, tmp_path, SPLIT, recipe, device="cpu")


# -- acceleration --------------------------------------------------------------------------------


def test_failing_compiler_is_said_once_and_left_out(monkeypatch, caplog):
    def no_compiler(*_, **__):
        def call(*_):
            raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found")

        return call

    monkeypatch.setattr(torch, "compile", no_compiler)
    network = torch.nn.Linear(2, 2)
    compiled, x = Compiled(network), torch.ones(1, 2)
    assert torch.equal(compiled(x), network(x))
    compiled(x)
    assert caplog.text.count("No working C++ compiler") == 1


def test_half_precision_scales_its_losses_and_saves_the_scale():
    scaled = Precision(CPU, "fp16")
    assert scaled.scaler.is_enabled()
    assert not Precision(CPU, "bf16").scaler.is_enabled()
    assert "scale" in scaled.scaler.state_dict()


def test_overflowing_half_precision_step_changes_nothing():
    precision, network = Precision(CPU, "fp16"), torch.nn.Linear(1, 1)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1)
    before = network.weight.clone()
    precision.backward(network(torch.full((1, 1), float("inf"))).sum(), [optimizer])
    precision.step([optimizer])
    assert torch.equal(network.weight, before)


@pytest.mark.parametrize("options", [{"precision": "int8"}, {"compile": "sometimes"}])
def test_unknown_option_is_named(slices, tmp_path, options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be"):
        train_liver_gan(slices, tmp_path, SPLIT, small_liver(), device="cpu", **options)


def test_limit_shorter_than_the_training_is_told(caplog):
    watch = Stopwatch(max_minutes=10)
    watch.began -= 60  # a minute ago
    with caplog.at_level(logging.INFO):
        watch.estimate(steps_done=1, steps_left=600)
    assert "about 10.0 hours of training left" in caplog.text
    assert "stops cleanly after 10 minutes" in caplog.text
