"""The steps of the two systems."""

import pytest
import torch
from helpers.small_runs import CPU, small_liver, small_tumor

from lits_helpers.losses import feature_loss, masked_image, pixel_loss
from lits_helpers.training.optimization import Precision
from lits_helpers.training.systems import LiverSystem, TumorSystem


def a_batch(count=2, size=32):
    labels = torch.zeros(count, size, size, dtype=torch.uint8)
    labels[0, 4:20, 6:28] = 1
    labels[1, 10:26, 3:12] = 2
    noise = torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))
    return 0.3 * noise + 0.6 * (labels > 0)[:, None], labels


def a_system(recipe, seed=0):
    torch.manual_seed(seed)
    return LiverSystem(recipe, CPU, Precision(CPU, "fp32"))


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
            # A bias before batch norm has none; what rounding leaves is divided by 0.01.
            assert torch.allclose(parameter.grad, gradient, rtol=1e-4, atol=5e-5), name


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


def test_slices_without_liver_are_not_computed_and_hold_no_tumor():
    torch.manual_seed(0)
    system = TumorSystem(small_tumor(within_liver=True), CPU, Precision(CPU, "fp32"))
    system.cutoff = -100.0  # whatever is computed is predicted
    system.best_module().eval()
    counts = []
    system.best_module().register_forward_hook(lambda _, inputs, __: counts.append(len(inputs[0])))
    images, labels = a_batch(4, 64)
    with torch.inference_mode():
        predicted = system.predict(images, labels)
        nowhere = system.predict(images[2:], labels[2:])
    assert counts == [2]  # the other two are without liver
    assert predicted.flatten(1).sum(1).tolist() == [28 * 36, 32 * 20, 0, 0]  # and 8 pixels around
    assert not nowhere.any()


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
