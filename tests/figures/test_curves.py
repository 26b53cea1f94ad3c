"""Curves and tables as pictures."""

import cv2
import pytest
from matplotlib.figure import Figure

from lits_helpers.figures import curves, save_figure


def row(case_id="0", **values) -> dict:
    sizes = {"liver_size_reference": 900, "liver_size_prediction": 1000}
    sizes |= {"tumor_size_reference": 90, "tumor_size_prediction": 80}
    return {"case_id": case_id, "liver_dice": 0.9, "tumor_dice": 0.5} | sizes | values


def test_figures_are_opaque_and_saved_the_same_each_time(tmp_path):
    figure = curves.plot_history([{"epoch": 1, "loss": 1.0, "validation_dice": 0.5}])
    first = save_figure(figure, tmp_path / "new" / "a.png").read_bytes()
    assert first == save_figure(figure, tmp_path / "b.png").read_bytes()
    image = cv2.imread(str(tmp_path / "b.png"), cv2.IMREAD_UNCHANGED)
    assert image.shape[2] == 3 or (image[..., 3] == 255).all()
    assert image[0, 0, :3].tolist() == [255, 255, 255]
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_the_best_epoch_is_marked_even_after_epochs_without_a_score():
    scores = [None, 0.4, 0.8, float("nan"), 0.6]
    history = [
        {"epoch": k, "g_loss": 1 / k, "validation_dice": dice} for k, dice in enumerate(scores, 1)
    ]
    axis = curves.plot_history(history).axes[1]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["best: epoch 3, 0.800"]


def test_tumor_dice_counts_only_cases_with_tumor():
    rows = [row("0"), row("1", tumor_size_reference=0, tumor_dice=1.0), row("2", tumor_dice=0.7)]
    legend = curves.plot_dice_per_case(rows).axes[0].get_legend()
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == ["liver, mean 0.900 of 3", "tumor, mean 0.600 of 2"]


def test_training_cases_count_in_no_mean():
    rows = [row("0"), row("1", liver_dice=1.0, training_case=True)]
    legend = curves.plot_dice_per_case(rows).axes[0].get_legend()
    assert legend.get_texts()[0].get_text() == "liver, mean 0.900 of 1"
    counts = {"lesion_small_tp_0": 1, "lesion_small_fn_0": 0}
    rows = [row("0", **counts), row("1", **counts, training_case=True)]
    assert curves.plot_recall_by_size(rows).axes[0].texts[0].get_text() == "1 of 1"
    assert curves.plot_volume_agreement(rows).axes[0].get_title().endswith(", 1 cases")


def test_volumes_are_in_ml_where_the_voxel_is_known():
    rows = [row("0", voxel_mm3=500.0), row("1", voxel_mm3=None)]
    axes = curves.plot_volume_agreement(rows).axes
    assert axes[0].lines[0].get_xdata().tolist() == [450.0]
    assert "(ml)" in axes[1].get_xlabel()
    assert "(voxels)" in curves.plot_volume_agreement([row()]).axes[0].get_xlabel()


def test_recall_by_size_pools_the_cases():
    rows = [
        row(lesion_small_tp_0=1, lesion_small_fn_0=2, lesion_large_tp_0=3, lesion_large_fn_0=0),
        row(lesion_small_tp_0=0, lesion_small_fn_0=1, lesion_large_tp_0=None),
    ]
    axis = curves.plot_recall_by_size(rows).axes[0]
    assert [text.get_text() for text in axis.texts] == ["1 of 4", "no lesion", "3 of 3"]
    assert [bar.get_height() for bar in axis.patches] == [0.25, 0.0, 1.0]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: curves.plot_history([]), "train for an epoch first"),
        (lambda: curves.plot_history([{"epoch": 1}]), "no validation_dice"),
        (lambda: curves.plot_dice_per_case([]), "evaluate at least one case"),
        (lambda: save_figure(Figure(), "a.pdf"), "saved as .png"),
    ],
)
def test_errors_say_what_is_wrong(call, words):
    with pytest.raises(ValueError, match=words):
        call()
