"""Exported models: ONNX answers as torch does, and labels are the same without torch."""

import importlib.util
import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from helpers.drawn import BODY_SPACING_MM, body, write_nifti
from helpers.prepared_runs import write_checkpoint
from helpers.repository import ROOT
from helpers.small_runs import SmallNetwork, small_liver

from lits_helpers.checkpoints import (
    CheckpointError,
    TumorModel,
    load_checkpoint,
    load_liver_model,
    load_tumor_model,
    save_model,
)
from lits_helpers.export import export_onnx
from lits_helpers.inference import Postprocessing, ensemble, segment_file
from lits_helpers.pipeline import export_models
from lits_helpers.recipes import InputSpec, tumor_recipe

SPEC = InputSpec(64, (-150, 150), 3, 1, "imagenet", 0.1, True)  # looks at the liver
POST = Postprocessing(tumor_threshold=0.05, min_lesion_mm3=40)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A liver model and a stand-in for a tumor model, with their ONNX files."""
    pytest.importorskip("onnxscript", reason="pip install onnx onnxscript")
    pytest.importorskip("onnxruntime", reason="pip install onnxruntime")
    folder = tmp_path_factory.mktemp("exported")
    torch.manual_seed(0)
    recipe = small_liver(residual=False, skips=True)
    checkpoints = {
        "liver": write_checkpoint(folder / "a.pth", "liver", recipe=recipe),
        "tumor": write_checkpoint(
            folder / "b.pth", "tumor", recipe=tumor_recipe(spec=SPEC, pretrained=False)
        ),
    }
    content = load_checkpoint(checkpoints["liver"])
    content["model"]["last.weight"] *= 100  # answers of an untrained model hardly differ
    save_model(checkpoints["liver"], content)
    with pytest.MonkeyPatch.context() as patch:
        origin = load_tumor_model(checkpoints["tumor"]).origin
        small = TumorModel(SmallNetwork(), SPEC, origin).eval()
        patch.setattr("lits_helpers.export.load_tumor_model", lambda *_: small)
        files = [
            export_onnx(path, folder / f"{system}.onnx", asdict(POST))
            for system, path in checkpoints.items()
        ]
    return files, (load_liver_model(checkpoints["liver"], "cpu"), small)


@pytest.mark.parametrize("number", [1, 8])
@pytest.mark.parametrize("side", [32, 64, 96])
def test_onnx_answers_as_torch_does_at_any_size_and_batch(exported, number, side):
    import onnxruntime

    for file, model in zip(*exported, strict=True):
        session = onnxruntime.InferenceSession(file)
        image = torch.rand(number, 3, side, side + 32)
        with torch.inference_mode():
            wanted = model.probabilities(image).numpy()
        (found,) = session.run(["probability"], {"image": image.numpy()})
        assert found.shape == (number, 1, side, side + 32)
        np.testing.assert_allclose(found, wanted, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["original", "default"])
def test_the_regnet_is_exported_too(tmp_path, recipe):
    onnxruntime = pytest.importorskip("onnxruntime")
    path = write_checkpoint(
        tmp_path / "t.pth", "tumor", recipe=tumor_recipe(recipe, pretrained=False)
    )
    session = onnxruntime.InferenceSession(export_onnx(path, tmp_path / "t.onnx", {}))
    model = load_tumor_model(path, "cpu")
    for number, side in ((1, 128), (8, 96), (1, 256)):
        image = torch.rand(number, 3, side, side)
        with torch.inference_mode():
            wanted = model.probabilities(image).numpy()
        (found,) = session.run(["probability"], {"image": image.numpy()})
        np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_preprocessing_and_card_lie_beside_the_model(exported):
    (liver, tumor), _ = exported
    about = json.loads(tumor.with_suffix(".json").read_text())
    assert InputSpec(**about["spec"]) == SPEC
    assert (about["system"], about["levels"], about["mean"][0]) == ("tumor", 255, 0.485)
    assert about["postprocessing"] == asdict(POST) | {"tumor_peak": 0.0}  # the model's own
    card = liver.with_suffix(".md").read_text()
    assert "Not a medical device" in card
    assert "| 1, 0.500 |" in card
    assert "| trained on | generated patients" in card  # no case is known
    folder = liver.parent
    assert not {path.suffix for path in folder.iterdir()} - {".onnx", ".json", ".md", ".pth"}


@pytest.mark.parametrize(("orientation", "peak"), [("LPS", 0.0), ("RSA", 0.065)])
def test_a_program_without_torch_gives_the_same_labels(
    exported, tmp_path, monkeypatch, orientation, peak
):
    monkeypatch.setattr(ensemble, "amp_dtype", lambda _: torch.float32)
    (liver, tumor), models = exported
    about = json.loads(tumor.with_suffix(".json").read_text())
    about["postprocessing"]["tumor_peak"] = peak  # drops some of the lesions, not all
    tumor = shutil.copy(tumor, tmp_path / "tumor.onnx")
    tumor.with_suffix(".json").write_text(json.dumps(about))
    ct = write_nifti(body()[0], tmp_path / "ct.nii.gz", orientation, BODY_SPACING_MM)
    post = replace(POST, tumor_peak=peak)
    wanted = nib.load(segment_file(ct, tmp_path / "wanted.nii", *models, post))
    example("onnx_only").main(ct, tmp_path / "found.nii", tumor, liver)  # in any order
    found = nib.load(tmp_path / "found.nii")
    np.testing.assert_array_equal(found.affine, wanted.affine)
    np.testing.assert_array_equal(found.dataobj, wanted.dataobj)
    counts = np.bincount(np.ravel(wanted.dataobj))
    assert (counts > 20).tolist() == [True] * 3
    if peak:
        every = nib.load(segment_file(ct, tmp_path / "every.nii", *models, POST))
        assert counts[2] < np.count_nonzero(np.asarray(every.dataobj) == 2)


def test_the_example_refuses_a_tumor_model_alone(exported, tmp_path):
    (_, tumor), _ = exported
    ct = write_nifti(body()[0], tmp_path / "ct.nii.gz", "LPS", BODY_SPACING_MM)
    with pytest.raises(SystemExit, match="name a liver model"):
        example("onnx_only").main(ct, tmp_path / "found.nii", tumor)
    assert not (tmp_path / "found.nii").exists()


def test_the_example_names_no_torch_and_nothing_of_ours():
    text = (ROOT / "examples" / "onnx_only.py").read_text()
    assert not [line for line in text.splitlines() if "import" in line and "torch" in line]
    assert "from lits_helpers" not in text


def test_a_missing_extra_and_a_wrong_name_are_refused(tmp_path, monkeypatch):
    path = write_checkpoint(tmp_path / "a.pth", "liver")
    with pytest.raises(ValueError, match=r"must be named \.onnx, got .*model\.pt"):
        export_onnx(path, tmp_path / "model.pt", {})
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"export needs onnx and onnxscript: pip install"):
        export_onnx(path, tmp_path / "model.onnx", {})


def test_a_model_of_the_other_system_is_not_exported_under_its_name(tmp_path):
    path = write_checkpoint(tmp_path / "b.pth", "tumor", network=False)
    with pytest.raises(CheckpointError, match="holds a tumor model, a liver model is wanted"):
        list(export_models({"liver": [path]}, tmp_path))


def test_an_export_of_another_model_is_not_written_over(tmp_path, monkeypatch):
    pytest.importorskip("onnxscript", reason="pip install onnx onnxscript")
    monkeypatch.setattr(torch.onnx, "export", lambda *given, **_: Path(given[2]).touch())  # slow
    mine, other = (
        write_checkpoint(tmp_path / f"{name}.pth", "liver", recipe=small_liver()) for name in "ab"
    )
    (made,) = export_models({"liver": [mine]}, tmp_path / "export")
    known = made.with_suffix(".json").read_bytes()
    assert list(export_models({"liver": [mine]}, tmp_path / "export")) == [made]  # the same again
    words = r"liver\.onnx is of another model: choose another out, or delete it and liver\.json"
    with pytest.raises(ValueError, match=words):
        list(export_models({"liver": [other]}, tmp_path / "export"))
    assert made.with_suffix(".json").read_bytes() == known
    (tmp_path / "liver.json").write_text("[]")  # of somebody else
    with pytest.raises(ValueError, match=words):
        export_onnx(mine, tmp_path / "liver.onnx", {})


def test_the_weights_that_come_with_the_project_can_be_exported(monkeypatch, tmp_path):
    pytest.importorskip("onnxscript", reason="pip install onnx onnxscript")
    monkeypatch.setattr(torch.onnx, "export", lambda *given, **_: Path(given[2]).touch())  # slow
    (made,) = export_models({"liver": [Path("synthetic")]}, tmp_path)
    card = made.with_suffix(".md").read_text()
    assert "| trained on | generated patients, no real one |" in card


def example(name):
    """Import a file of examples/."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
