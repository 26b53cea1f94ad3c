"""Learning rate, averaged weights, compilation and precision."""

import pytest
import torch
from helpers.logs import logged
from helpers.small_runs import CPU, small_liver, small_tumor

from lits_helpers.training.optimization import (
    Average,
    Compiled,
    Precision,
    learning_rate,
    step_or_give_up,
)
from lits_helpers.training.states import load_weights, weights_of
from lits_helpers.training.systems import TumorSystem


def test_cosine_schedule_ends_at_a_hundredth():
    recipe = small_liver(learning_rate=0.1, epochs=10)
    assert learning_rate(recipe, 0) == pytest.approx(0.1)
    assert learning_rate(recipe, 5) == pytest.approx(0.1 * 0.505)
    assert learning_rate(recipe, 10) == pytest.approx(0.001)
    assert learning_rate(small_liver(name="original"), 1.5) == 0.01


def test_the_learning_rate_rises_in_the_warm_up():
    recipe = small_liver(name="original", warm_up=2.0, epochs=40)  # constant
    assert learning_rate(recipe, 0) == pytest.approx(1e-4)
    assert learning_rate(recipe, 0.5) == pytest.approx(0.0025)
    assert learning_rate(recipe, 1) == pytest.approx(0.005)
    assert learning_rate(recipe, 2) == learning_rate(recipe, 3) == 0.01
    short = small_liver(name="original", warm_up=2.0, epochs=5)
    assert learning_rate(short, 0.25) == pytest.approx(0.005)
    assert learning_rate(short, 0.5) == 0.01
    with pytest.raises(ValueError, match=r"warm_up .* got -1"):
        small_liver(warm_up=-1)


def a_batch(count=2, size=32):
    labels = torch.zeros(count, size, size, dtype=torch.uint8)
    labels[0, 4:20, 6:28] = 1
    labels[1, 10:26, 3:12] = 2
    noise = torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))
    return 0.3 * noise + 0.6 * (labels > 0)[:, None], labels


def test_averaged_weights_follow_slowly_and_forget_the_start():
    network = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(network.weight, 0.0)
    average = Average(network, decay=0.9)
    torch.nn.init.constant_(network.weight, 1.0)
    average.update()  # decay 2/11 in the first step
    assert average.model.weight.item() == pytest.approx(1 - 2 / 11)
    average.update()  # then 3/12
    assert average.model.weight.item() == pytest.approx(1 - 2 / 11 * 3 / 12)


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
    assert logged(caplog, "torch.compile") == 1


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
