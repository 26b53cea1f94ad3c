"""The published layers to the parameter, and the mended variants."""

from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torch import nn
from torchvision.models import RegNet_Y_400MF_Weights

from lits_helpers.models import (
    Discriminator,
    Generator,
    RegNetSegmenter,
    StridedCritic,
    build_critic,
    build_generator,
    build_segmenter,
)
from lits_helpers.recipes import liver_recipe, tumor_recipe


def layer_table(network: nn.Module) -> list:
    """One entry a layer in order: (kind, in, out, kernel, stride, padding), or its name."""
    table = []
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            sides = (layer.kernel_size[0], layer.stride[0], layer.padding[0])
            kind = "up" if isinstance(layer, nn.ConvTranspose2d) else "conv"
            table.append((kind, layer.in_channels, layer.out_channels, *sides))
        elif not list(layer.children()):
            table.append(type(layer).__name__)
    return table


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_generator_has_the_published_layers():
    up = ["ReLU", "BatchNorm2d", "Upsample"]
    assert layer_table(Generator()) == [
        ("conv", 1, 64, 4, 2, 1),
        "ReLU",
        *[("conv", 64, 128, 4, 2, 1), "ReLU", "BatchNorm2d"],
        *[("conv", 128, 256, 4, 2, 1), "ReLU", "BatchNorm2d"],
        *[("conv", 256, 512, 4, 2, 1), "ReLU", "BatchNorm2d"],
        *[("conv", 512, 256, 3, 1, 1), *up],
        *[("conv", 256, 128, 3, 1, 1), *up],
        *[("conv", 128, 64, 3, 1, 1), *up],
        ("conv", 64, 1, 3, 1, 1),  # its ReLU and repetition are in forward
    ]
    assert parameters(Generator()) == 4_306_497


def test_critic_has_the_published_layers():
    assert layer_table(Discriminator()) == [
        *[("conv", 1, 128, 3, 1, 1), "BatchNorm2d", "LeakyReLU"],
        *[("conv", 128, 256, 3, 1, 1), "BatchNorm2d", "LeakyReLU"],
        *[("conv", 256, 1, 3, 1, 1), "LeakyReLU"],
    ]
    assert parameters(Discriminator()) == 299_521
    slopes = {m.negative_slope for m in Discriminator().modules() if isinstance(m, nn.LeakyReLU)}
    assert slopes == {0.2}


def test_tumor_decoder_has_the_published_layers():
    network = RegNetSegmenter(weights=None)
    expected = []
    for inputs, outputs in [(440, 256), (256, 128), (128, 64), (64, 32), (32, 16)]:
        expected += [("up", inputs, outputs, 3, 2, 1), "ReLU"]
        expected += [("conv", outputs, outputs, 3, 1, 1), "ReLU"]
    assert layer_table(network.decoder) == [*expected, ("conv", 16, 1, 1, 1, 0)]
    assert parameters(network) == 6_095_257


def test_builders_follow_the_original_recipes():
    assert parameters(build_generator(liver_recipe("original"))) == 4_306_497
    assert parameters(build_critic(liver_recipe("original"))) == 299_521
    assert parameters(build_segmenter(tumor_recipe("original"), pretrained=False)) == 6_095_257


@pytest.mark.parametrize(
    ("recipe", "shallow"), [("original", nn.BatchNorm2d), ("default", nn.InstanceNorm2d)]
)
def test_only_the_first_levels_norm_each_image_alone(recipe, shallow):
    generator = build_generator(liver_recipe(recipe, width=4))
    norms = nn.BatchNorm2d | nn.InstanceNorm2d
    kinds = [
        {type(m) for m in level.modules() if isinstance(m, norms)} for level in generator.encoder
    ]
    assert kinds[0] == (set() if recipe == "original" else {shallow})
    assert kinds[1:] == [{shallow}, {nn.BatchNorm2d}, {nn.BatchNorm2d}]
    assert not any(isinstance(m, nn.InstanceNorm2d) for m in generator.decoder.modules())


@pytest.mark.parametrize("name", ["original", "default"])
def test_generator_returns_a_mask_of_the_images_size(name):
    recipe = liver_recipe(name, width=4)
    mask = build_generator(recipe)(torch.rand(2, recipe.spec.channels, 48, 80))
    assert mask.shape == (2, 1, 48, 80)
    assert mask.min() >= 0


def test_relu_generator_repeats_each_value_twice_along_both_axes():
    mask = Generator(4)(torch.rand(1, 1, 32, 48))
    assert torch.equal(mask[..., ::2, ::2], mask[..., 1::2, 1::2])


def mended_generator(norm="batch"):
    return Generator(4, skips=True, head="sigmoid", residual=True, full_size=2, shallow_norm=norm)


def test_new_residual_blocks_change_nothing():
    torch.manual_seed(0)
    generator, image = mended_generator().eval(), torch.rand(2, 1, 32, 48)
    before = generator(image)
    blocks = [part for part in generator.modules() if hasattr(part, "change")]
    assert len(blocks) == 3
    for block in blocks:
        block.register_forward_hook(lambda _, given, made: unchanged.append((*given, made)))
        block.change[0].weight.data.mul_(-2)
    unchanged = []
    assert torch.equal(generator(image), before)
    assert all(torch.equal(given, made) for given, made in unchanged)
    assert len(unchanged) == 3


def test_every_part_of_the_residual_generator_learns():
    torch.manual_seed(0)
    generator, image = mended_generator(), torch.rand(2, 1, 32, 48)
    optimizer = torch.optim.SGD(generator.parameters(), lr=0.1)
    for _ in range(2):  # the first step opens the blocks
        optimizer.zero_grad()
        (generator(image) - image).square().mean().backward()
        optimizer.step()
    assert [name for name, p in generator.named_parameters() if not p.grad.any()] == []


def test_new_generators_are_alive_over_the_whole_image():
    for seed in range(5):
        torch.manual_seed(seed)
        image = torch.rand(2, 1, 32, 48)
        for generator in (Generator(4), mended_generator()):
            assert (generator(image) > 0).float().mean() > 0.02


def test_skips_bring_detail_that_the_bottom_cannot_know():
    torch.manual_seed(0)
    image = torch.rand(1, 1, 64, 96)
    plain, skipping = Generator(4).eval(), Generator(4, skips=True).eval()
    skipping.load_state_dict(plain.state_dict())  # skips add no parameter
    for generator in (plain, skipping):
        generator.encoder[-1].register_forward_hook(lambda *call: torch.zeros_like(call[2]))
        generator.last.bias.data.fill_(5.0)  # keeps the ReLU open
    assert torch.equal(plain(image), plain(image.flip(-1)))
    assert not torch.equal(skipping(image), skipping(image.flip(-1)))


def test_full_size_stage_tells_neighbouring_pixels_apart():
    torch.manual_seed(0)
    generator = mended_generator().eval()
    generator.full_size.refine.register_forward_hook(lambda *call: torch.zeros_like(call[2]))
    checkers = (torch.arange(32).view(-1, 1) + torch.arange(48)).remainder(2).float()[None, None]
    inside = generator(checkers)[..., 4:-4, 4:-4]
    assert inside.std() > 1e-4
    assert torch.allclose(inside[..., ::2, ::2], inside[..., 1::2, 1::2], atol=1e-6)


def test_critic_features_are_pooled_to_8x8_and_flattened_in_order():
    critic = Discriminator(2).eval()
    image = torch.rand(3, 1, 32, 48)
    features = critic.forward_all_layers(image)
    assert [tuple(feature.shape) for feature in features] == [(3, 128), (3, 256), (3, 64)]
    first = critic.layers[0](image)  # (3, 2, 32, 48): 4x6 pixels a cell
    expected = first.view(3, 2, 8, 4, 8, 6).mean((3, 5)).flatten(1)
    torch.testing.assert_close(features[0], expected)
    last = critic(image).view(3, 8, 4, 8, 6).mean((2, 4)).flatten(1)
    torch.testing.assert_close(features[2], last)


@pytest.mark.parametrize(
    "network", [Generator(4), mended_generator(), Discriminator(4), StridedCritic(4)]
)
def test_a_batch_gives_what_its_images_give_alone(network):
    image = torch.rand(3, 1, 32, 48)
    network.eval()
    alone = torch.cat([network(one[None]) for one in image])
    torch.testing.assert_close(network(image), alone)


def test_instance_norm_encodes_each_image_of_a_training_batch_alone():
    torch.manual_seed(0)
    image = torch.rand(3, 1, 32, 48)
    whole, mixed = (mended_generator(norm).encoder[0] for norm in ("instance", "batch"))
    torch.testing.assert_close(whole(image)[:1], whole(image[:1]))
    assert not torch.allclose(mixed(image)[:1], mixed(image[:1]))


def test_strided_critic_in_training_scores_an_image_by_itself():
    torch.manual_seed(0)
    critic = StridedCritic(4)  # batch norm would mix the images of a batch while it trains
    image = torch.rand(3, 1, 64, 96)
    for _ in range(30):
        critic(image)  # the norm's estimate settles
    torch.testing.assert_close(critic(image)[:1], critic(image[:1]), rtol=1e-3, atol=1e-4)


def test_strided_critic_stays_bounded_however_large_its_weights():
    torch.manual_seed(0)
    critic = StridedCritic(4)
    for name, parameter in critic.named_parameters():
        if name.endswith("original"):
            parameter.data.mul_(1000)
    image = torch.rand(1, 1, 64, 96)
    for _ in range(30):
        features = critic.forward_all_layers(image)
    # three layers of spectral norm 1: 3x3 kernels at stride 2 see a pixel at most 3 times an axis
    assert max(feature.abs().max() for feature in features) < 100


def test_critic_recipes_that_cannot_work_are_refused():
    with pytest.raises(ValueError, match="must be one of published, strided, got 'dense'"):
        build_critic(liver_recipe("original", critic="dense"))
    with pytest.raises(ValueError, match="diverges without a bound"):
        build_critic(liver_recipe("original", critic_goal="maximise"))
    with pytest.raises(ValueError, match=r'head must be "relu" or "sigmoid", got \'tanh\''):
        Generator(4, head="tanh")
    with pytest.raises(ValueError, match="must be one of batch, instance, got 'layer'"):
        Generator(4, shallow_norm="layer")


@pytest.mark.parametrize("skips", [False, True])
def test_segmenter_returns_logits_of_the_images_size(skips):
    network = RegNetSegmenter(weights=None, skips=skips).eval()
    logits = network(torch.randn(1, 3, 64, 96))
    assert logits.shape == (1, 1, 64, 96)
    assert logits.min() < 0


def test_every_part_of_the_skip_segmenter_learns():
    network = RegNetSegmenter(weights=None, skips=True)
    network(torch.randn(2, 3, 64, 96)).square().mean().backward()
    idle = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


def test_a_new_skip_segmenter_guesses_that_tumors_are_rare():
    with torch.inference_mode():
        share = RegNetSegmenter(weights=None, skips=True)(torch.randn(2, 3, 64, 64)).sigmoid()
    assert 0.01 < share.mean() < 0.1


def test_the_skip_segmenter_tells_neighbouring_pixels_apart():
    with torch.inference_mode():
        logits = RegNetSegmenter(weights=None, skips=True)(torch.randn(1, 3, 64, 64))
    assert not torch.equal(logits[..., ::2, ::2], logits[..., 1::2, ::2])
    assert not torch.equal(logits[..., ::2, ::2], logits[..., ::2, 1::2])


@pytest.mark.parametrize(
    "network", [Generator(4), mended_generator(), mended_generator("instance"), StridedCritic(4)]
)
def test_training_in_bfloat16_gives_float32_gradients(network):
    network.train().to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        result = network(torch.rand(2, 1, 32, 48))
    result.float().mean().backward()
    assert {p.grad.dtype for p in network.parameters()} == {torch.float32}


@pytest.fixture
def torch_home(tmp_path, monkeypatch) -> Path:
    """An empty cache folder of torch; returns where it wants the weights."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    name = RegNet_Y_400MF_Weights.IMAGENET1K_V2.url.rpartition("/")[2]
    return tmp_path / "hub" / "checkpoints" / name


def test_imagenet_weights_are_taken_from_the_cache_folder(torch_home):
    from torchvision.models import regnet_y_400mf

    fabricated = {key: torch.full_like(v, 3) for key, v in regnet_y_400mf().state_dict().items()}
    torch_home.parent.mkdir(parents=True)
    torch.save(fabricated, torch_home)
    network = RegNetSegmenter(weights="imagenet")
    encoder = [*network.stem.parameters(), *network.trunk_output.parameters()]
    assert all((parameter == 3).all() for parameter in encoder)
    assert not (network.decoder[0].weight == 3).any()


def test_missing_weights_name_the_address_the_file_and_how_to_train_without(
    torch_home, monkeypatch
):
    def refused(*args, **kwargs):
        raise URLError(ConnectionRefusedError(111, "Connection refused"))

    monkeypatch.setattr("torch.hub.urlopen", refused)
    with pytest.raises(OSError, match="no ImageNet weights") as caught:
        RegNetSegmenter()
    message = str(caught.value)
    assert "https://download.pytorch.org/models/regnet_y_400mf" in message
    assert str(torch_home) in message
    assert "Connection refused" in message
    assert "tumor_recipe(pretrained=False)" in message


def test_damaged_cached_weights_are_named(torch_home):
    torch_home.parent.mkdir(parents=True)
    torch_home.write_bytes(b"PK\x03\x04 half a download")
    with pytest.raises(OSError, match=r"damaged ImageNet weights in .*delete that file"):
        RegNetSegmenter()


def test_segmenter_refuses_unknown_weights():
    with pytest.raises(ValueError, match='must be "imagenet" or None, got'):
        RegNetSegmenter(weights="coco")
