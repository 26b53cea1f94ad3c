"""The two systems' steps, validation Dice, precision and compilation."""

import math

import pytest
import torch
from helpers.small_runs import CPU, small_liver, small_tumor

from lits_helpers.losses import feature_loss, masked_image, pixel_loss
from lits_helpers.training.optimization import Average, Compiled, Precision, step_or_give_up
from lits_helpers.training.states import load_weights, weights_of
from lits_helpers.training.systems import LiverSystem, TumorSystem
from lits_helpers.training.validation import validation_score


def a_batch(count=2, size=32):
    labels = torch.zeros(count, size, size, dtype=torch.uint8)
    labels[0, 4:20, 6:28] = 1
    labels[1, 10:26, 3:12] = 2
    noise = torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))
    return 0.3 * noise + 0.6 * (labels > 0)[:, None], labels


def a_system(recipe, seed=0):
    torch.manual_seed(seed)
    return LiverSystem(recipe, CPU, Precision(CPU, "fp32"))


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
    system = a_system(small_liver(name="original", learning_rate=1e-12))
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
    first, *_, last = (float(system.step(images, labels)[0]) for _ in range(8))
    assert last < 0.8 * first


@pytest.mark.parametrize("recipe", [small_liver(), small_liver(name="original"), small_tumor()])
def test_what_can_be_compiled_returns_no_view(recipe):
    """torch 2.11 rebuilds views that leave compiled code, from freed memory (its issue 177812)."""
    make = TumorSystem if hasattr(recipe, "sampling") else LiverSystem
    system, returned = make(recipe, CPU, Precision(CPU, "fp32"), compiled=True), []
    for network in system.compiled:
        network.give_up()  # compiling takes a minute, and eager code has the same views
        network.register_forward_hook(lambda _network, _inputs, output: returned.append(output))
    system.step(*a_batch(size=64))
    assert len(returned) == len(system.compiled) > 0
    assert not any(output._is_view() for output in returned)


def test_averaged_weights_follow_slowly_and_forget_the_start():
    network = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(network.weight, 0.0)
    average = Average(network, decay=0.9)
    torch.nn.init.constant_(network.weight, 1.0)
    average.update(network)  # decay 2/11 in the first step
    assert average.model.weight.item() == pytest.approx(1 - 2 / 11)
    average.update(network)  # then 3/12
    assert average.model.weight.item() == pytest.approx(1 - 2 / 11 * 3 / 12)


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


def test_validation_without_any_target_has_no_dice():
    empty = HandDrawn()
    empty.references = torch.zeros(4, 4, dtype=torch.int64)
    score = score_of(empty)
    assert math.isnan(score.dice)
    assert score.dice_global == 0.0  # of pixels that should not be there


# -- acceleration --------------------------------------------------------------------------------


class FailsInBackward(torch.autograd.Function):
    @staticmethod
    def forward(context, x):
        return x.clone()

    @staticmethod
    def backward(context, gradient):
        raise RuntimeError("InductorError: no kernel for the backward pass")


def failing_compiler(fails):
    """A stand-in for torch.compile that fails "forward" or "backward"."""

    def compiler(call, **_):
        def compiled(*inputs):
            if fails == "forward":
                raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found")
            outputs = call(*inputs)
            return FailsInBackward.apply(outputs) if fails == "backward" else outputs

        return compiled

    return compiler


@pytest.mark.parametrize("fails", ["forward", "backward"])
def test_failing_compiler_is_said_once_and_left_out(monkeypatch, caplog, fails):
    recipe = small_tumor()
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    labels = torch.randint(0, 3, (3, 64, 64), generator=torch.Generator().manual_seed(2))

    def losses(compiled):
        torch.manual_seed(0)
        system = TumorSystem(recipe, CPU, Precision(CPU), compiled=compiled)
        system.train()
        batches = 3 * [(images, labels, 1.0)]
        return [step_or_give_up(system.step, system.compiled, *batch) for batch in batches]

    plain = losses(compiled=False)
    monkeypatch.setattr(torch, "compile", failing_compiler(fails))
    assert torch.equal(torch.cat(losses(compiled=True)), torch.cat(plain))
    assert caplog.text.count("goes on without torch.compile") == 1


def test_last_batch_of_an_epoch_is_not_compiled_for(monkeypatch):
    sizes = []

    def compiler(call, **_):
        return lambda images: [sizes.append(len(images)), call(images)][1]

    monkeypatch.setattr(torch, "compile", compiler)
    network = Compiled(torch.nn.Identity())
    for count in (2, 16, 16, 16, 5, 16, 16, 16, 5):  # resumed before an epoch's last batch
        assert len(network(torch.zeros(count, 1))) == count
    assert sizes == [16, 16, 16, 16]


def test_too_little_memory_is_not_laid_on_the_compiler():
    def step():
        raise RuntimeError("GET was unable to find an engine to execute this computation")

    compiled = [Compiled(torch.nn.Identity())]
    with pytest.raises(RuntimeError, match="unable to find an engine"):
        step_or_give_up(step, compiled)
    assert compiled


def test_optimizer_of_another_kind_of_device_is_fused_as_its_own_does():
    def a_tumor_system():
        return TumorSystem(small_tumor(), CPU, Precision(CPU, "fp32"))

    system = a_tumor_system()
    system.step(*a_batch(size=64))
    parts = weights_of(system)
    parts["model_optimizer"]["param_groups"][0]["fused"] = False  # as an Apple GPU leaves it
    other = a_tumor_system()
    load_weights(other, {"precision": "fp32", "parts": parts}, Precision(CPU, "fp32"))
    assert other.optimizers[0].param_groups[0]["fused"] is True
    other.step(*a_batch(size=64))


def test_error_of_a_step_that_is_not_compiled_is_raised():
    def step():
        raise ValueError("labels of another size")

    with pytest.raises(ValueError, match="labels of another size"):
        step_or_give_up(step, [])


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
