"""Models are found, restored, or trained on the spot."""

from dataclasses import replace

import pytest
from helpers.prepared_runs import write_checkpoint, write_prepared
from helpers.small_runs import small_liver

from lits_helpers import pipeline, recipes
from lits_helpers.checkpoints import read_origin
from lits_helpers.pipeline import checkpoint_path, ensure_liver_model, ensure_tumor_model
from lits_helpers.pipeline import trainings as trainings_module

ENSURE = {"liver": ensure_liver_model, "tumor": ensure_tumor_model}
TRAIN = {"liver": "train_liver_gan", "tumor": "train_tumor_regnet"}


@pytest.fixture
def trainings(monkeypatch):
    """Calls of the trainings, of which none is done."""
    calls = []
    for system, name in TRAIN.items():

        def record(*given, system=system, **options):
            calls.append((system, given, options))

        monkeypatch.setattr(trainings_module, name, record)
    return calls


@pytest.mark.parametrize("system", ENSURE)
def test_a_model_that_is_there_is_returned(small, trainings, system):
    path = write_checkpoint(checkpoint_path(small, system), system, network=False)
    assert ENSURE[system](small, None) == path
    assert path == small.runs / system / "checkpoints" / "best_model.pth"
    assert trainings == []


@pytest.mark.parametrize("system", ENSURE)
@pytest.mark.parametrize("source", ["folder", "kaggle"])
def test_without_phantoms_a_missing_model_names_its_notebook(small, trainings, system, source):
    with pytest.raises(
        FileNotFoundError, match=f"no {system} model at .*{TRAIN[system]} trains one"
    ):
        ENSURE[system](replace(small, source=source), None)
    assert trainings == []


@pytest.mark.parametrize("system", ENSURE)
def test_a_model_on_drive_is_brought_back(small, trainings, monkeypatch, system):
    restored = []
    monkeypatch.setattr(
        trainings_module, "restore_model", lambda *given: restored.append(given) or True
    )
    assert ENSURE[system](small, None) == checkpoint_path(small, system)
    assert restored == [(small, system)]
    assert trainings == []


@pytest.mark.parametrize("system", ENSURE)
@pytest.mark.parametrize("tiny", [True, False])
def test_on_phantoms_a_small_model_is_trained_beside_a_full_run(
    small, trainings, tmp_path, system, tiny
):
    data = write_prepared(tmp_path / "drawn")
    chosen = replace(small, tiny=tiny)
    runs = small.runs if tiny else small.runs / "small"
    assert ENSURE[system](chosen, data) == runs / system / "checkpoints" / "best_model.pth"
    recipe = getattr(recipes, f"{system}_recipe")(tiny=True)
    given = (data.root, runs / system, data.split, recipe)
    assert trainings == [(system, given, {"device": "cpu", "mirror": None})]


def test_the_small_model_is_trained_once(small, tmp_path, monkeypatch):
    monkeypatch.setitem(recipes.LIVER_RECIPES, "default", small_liver())
    monkeypatch.setattr(recipes, "TINY_LIVER", {})
    data = write_prepared(tmp_path / "drawn")
    path = ensure_liver_model(small, data)
    assert read_origin(path).training_ids == data.split.training
    before = path.read_bytes(), path.stat().st_mtime_ns
    assert ensure_liver_model(small, data) == path
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


def test_what_a_stopped_training_left_goes_to_drive_too(small, tmp_path, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    kept = []
    monkeypatch.setattr(trainings_module, "train_liver_gan", stopped)
    monkeypatch.setattr(trainings_module, "keep_run", lambda *given: kept.append(given))
    data = write_prepared(tmp_path / "drawn")
    with pytest.raises(KeyboardInterrupt):
        pipeline.train_liver(small, data)
    assert kept == [(small.runs / "liver", None)]


@pytest.mark.parametrize("system", ENSURE)
def test_options_go_to_the_training_and_win_over_the_settings(small, trainings, tmp_path, system):
    data = write_prepared(tmp_path / "drawn")
    recipe = getattr(recipes, f"{system}_recipe")("original")
    getattr(trainings_module, f"train_{system}")(small, data, recipe, seed=3, device="cuda")
    given = (data.root, small.runs / system, data.split, recipe)
    assert trainings == [(system, given, {"device": "cuda", "mirror": None, "seed": 3})]


def test_the_tumor_training_leaves_out_references_of_the_liver_alone(small, trainings, tmp_path):
    data = write_prepared(tmp_path / "drawn", cases=4)
    marked = data.split.training[0]
    for case in data.cases:
        case.record["liver_only"] = case.id == marked
    pipeline.train_liver(small, data)
    pipeline.train_tumor(small, data)
    (_, liver, _), (_, tumor, _) = trainings
    assert liver[2] == data.split
    assert tumor[2] == replace(data.split, training=data.split.training[1:])
    for case in data.cases:
        case.record["liver_only"] = True
    with pytest.raises(ValueError, match=r"no case to train on .* show the liver alone"):
        pipeline.train_tumor(small, data)
