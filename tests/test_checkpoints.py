"""Models are whole or refused with the reason, never executed, and load ready to be asked."""

import json
import pickle
from dataclasses import asdict

import pytest
import torch
from helpers.prepared_runs import a_model

from lits_helpers import checkpoints
from lits_helpers.checkpoints import (
    CheckpointError,
    Origin,
    load_checkpoint,
    load_liver_model,
    load_tumor_model,
    read_origin,
    save_model,
    save_synthetic,
)
from lits_helpers.models import RegNetSegmenter, build_generator
from lits_helpers.recipes import liver_recipe, tumor_recipe


class RunsCode:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_saved_model_is_loaded_as_it_was(tmp_path):
    save_model(tmp_path / "best_model.pth", a_model())
    loaded = load_checkpoint(tmp_path / "best_model.pth", system="liver")
    assert torch.equal(loaded["model"]["weight"], torch.arange(6.0).view(2, 3))
    assert loaded["validation_ids"] == ["2"]


def test_bare_weights_are_loaded_with_their_json(tmp_path):
    described = a_model("tumor")
    save_model(tmp_path / "weights.pth", described.pop("model"))
    (tmp_path / "weights.json").write_text(json.dumps(described))
    loaded = load_checkpoint(tmp_path / "weights.pth", system="tumor")
    assert set(loaded["model"]) == {"weight"}
    assert loaded["system"] == "tumor"


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_names_of_a_wrapped_network_are_those_of_the_network(tmp_path, prefix):
    described = a_model()
    described["model"] = {prefix + name: value for name, value in described["model"].items()}
    save_model(tmp_path / "m.pth", described)
    assert set(load_checkpoint(tmp_path / "m.pth")["model"]) == {"weight"}


@pytest.mark.parametrize(
    ("system", "training"), [("liver", "train_liver_gan"), ("tumor", "train_tumor_regnet")]
)
def test_missing_checkpoint_names_the_training_that_makes_it(tmp_path, system, training):
    with pytest.raises(FileNotFoundError, match=rf"no {system} checkpoint .*{training} trains one"):
        load_checkpoint(tmp_path / "best_model.pth", system=system)


def test_model_of_the_other_system_is_refused(tmp_path):
    save_model(tmp_path / "m.pth", a_model("tumor"))
    with pytest.raises(CheckpointError, match="holds a tumor model, a liver model is wanted"):
        load_checkpoint(tmp_path / "m.pth", system="liver")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_truncated_checkpoint_is_refused(tmp_path, share):
    path = tmp_path / "m.pth"
    save_model(path, a_model())
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        load_checkpoint(path)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK"])
def test_foreign_file_is_refused(tmp_path, content):
    (tmp_path / "m.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match="no checkpoint"):
        load_checkpoint(tmp_path / "m.pth")


@pytest.mark.parametrize(
    "save", [torch.save, lambda obj, path: path.write_bytes(pickle.dumps(obj, protocol=2))]
)
def test_pickle_that_runs_code_is_never_executed(tmp_path, save):
    trace, path = tmp_path / "executed", tmp_path / "m.pth"
    save({"model": RunsCode(trace)}, path)
    with pytest.raises(CheckpointError, match="could run code"):
        load_checkpoint(path)
    assert not trace.exists()


def test_weights_without_description_name_what_is_missing(tmp_path):
    torch.save({"weight": torch.zeros(2)}, tmp_path / "m.pth")
    with pytest.raises(CheckpointError, match="lacks epoch, model, recipe"):
        load_checkpoint(tmp_path / "m.pth")


def checkpoint(system, recipe, network):
    return {
        "system": system,
        "recipe": asdict(recipe),
        "model": network.state_dict(),
        "training_ids": ["0", "1"],
        "validation_ids": ["2"],
        "epoch": 3,
        "validation_dice": 0.8,
        "seed": 0,
        "version": "0",
    }


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """One checkpoint of each system, and one whose weights are of another width."""
    folder = tmp_path_factory.mktemp("models")
    narrow = liver_recipe(width=4, size=64)
    tumor = tumor_recipe(pretrained=False, size=64)
    save_model(folder / "liver.pth", checkpoint("liver", narrow, build_generator(narrow)))
    save_model(folder / "tumor.pth", checkpoint("tumor", tumor, RegNetSegmenter(None, True)))
    wide = build_generator(liver_recipe(width=8))
    save_model(folder / "wide.pth", checkpoint("liver", narrow, wide))
    return folder


def test_loaded_models_are_ready_and_know_where_they_come_from(files):
    liver, tumor = (
        load_liver_model(files / "liver.pth", "cpu"),
        load_tumor_model(files / "tumor.pth", "cpu"),
    )
    assert not liver.training
    assert not tumor.training
    assert (liver.spec, tumor.spec) == (
        liver_recipe(size=64).spec,
        tumor_recipe(size=64).spec,
    )
    assert liver.origin == Origin("liver", liver.spec, ("0", "1"))
    assert read_origin(files / "liver.pth") == liver.origin


def test_a_model_has_seen_what_its_starting_weights_saw(files, tmp_path):
    begun = {"start": {"training_cts": ["ct7"], "training_ids": ["1", "7"]}}
    save_model(tmp_path / "liver.pth", load_checkpoint(files / "liver.pth") | begun)
    origin = read_origin(tmp_path / "liver.pth")
    assert (origin.training_ids, origin.training_cts) == (("0", "1", "7"), {"ct7"})


def test_liver_models_return_probabilities_and_tumor_models_logits(files):
    liver = load_liver_model(files / "liver.pth", "cpu")
    tumor = load_tumor_model(files / "tumor.pth", "cpu")
    with torch.inference_mode():
        answer = liver(torch.rand(2, 3, 64, 64))
        logits = tumor(torch.randn(2, 3, 64, 64))
        probabilities = tumor.probabilities(torch.zeros(2, 3, 64, 64))
    assert answer.shape == logits.shape == (2, 1, 64, 64)
    assert 0 <= answer.min() <= answer.max() <= 1
    assert logits.min() < 0
    assert 0 <= probabilities.min() <= probabilities.max() <= 1


@pytest.mark.parametrize(
    ("load", "training"),
    [(load_liver_model, "train_liver_gan"), (load_tumor_model, "train_tumor_regnet")],
)
def test_a_missing_model_names_the_training_that_makes_it(tmp_path, load, training):
    with pytest.raises(FileNotFoundError, match=f"best.pth: {training}"):
        load(tmp_path / "best.pth")


def test_a_model_of_the_other_system_is_refused(files):
    with pytest.raises(ValueError, match=r"tumor\.pth holds a tumor model, a liver model is"):
        load_liver_model(files / "tumor.pth")
    with pytest.raises(ValueError, match=r"liver\.pth holds a liver model, a tumor model is"):
        load_tumor_model(files / "liver.pth")


def test_weights_of_another_shape_are_refused_with_the_layer(files):
    with pytest.raises(ValueError, match=r"wide\.pth: the weights do not fit.*full_size"):
        load_liver_model(files / "wide.pth")


def test_a_file_that_is_no_model_is_refused(tmp_path):
    (tmp_path / "best.pth").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(ValueError, match=r"best\.pth is truncated or damaged"):
        load_liver_model(tmp_path / "best.pth")


def test_synthetic_weights_come_back_in_half_precision_and_belong_to_no_case(
    files, tmp_path, monkeypatch
):
    save_synthetic(load_checkpoint(files / "liver.pth"), {"hours": 1}, tmp_path)
    monkeypatch.setattr(checkpoints, "WEIGHTS", tmp_path)
    model, trained = (load_liver_model(p, "cpu") for p in ("synthetic", files / "liver.pth"))
    assert load_checkpoint("synthetic")["system"] == "liver"  # the only one that comes
    assert model.origin.training_ids == ()
    for name, value in trained.network.state_dict().items():
        kept = model.network.state_dict()[name]
        assert kept.dtype == value.dtype
        assert torch.allclose(kept, value, rtol=1e-3, atol=1e-7)


def test_synthetic_tumor_weights_say_how_sure_they_must_be_of_a_lesion(
    files, tmp_path, monkeypatch
):
    checkpoint = load_checkpoint(files / "tumor.pth")
    save_synthetic(checkpoint | {"peak": 0.95}, {}, tmp_path)
    monkeypatch.setattr(checkpoints, "WEIGHTS", tmp_path)
    assert load_tumor_model("synthetic").peak == 0.95
    assert load_tumor_model(files / "tumor.pth").peak == 0


def test_synthetic_weights_that_are_not_what_their_card_says_are_refused(
    files, tmp_path, monkeypatch
):
    path = save_synthetic(load_checkpoint(files / "liver.pth"), {}, tmp_path)
    path.write_bytes(path.read_bytes()[:-10])
    monkeypatch.setattr(checkpoints, "WEIGHTS", tmp_path)
    with pytest.raises(CheckpointError, match="cut short, replaced or of another version"):
        load_liver_model("synthetic")
    with pytest.raises(FileNotFoundError, match="no synthetic tumor weights in this version"):
        load_tumor_model("synthetic")
