"""Curves and tables as pictures."""

import cv2
import matplotlib
import matplotlib.style
import numpy as np
import pytest
from helpers.drawn import labeled_volume
from matplotlib.figure import Figure

from lits_helpers.figures import curves, montage, save_figure, seven_panels


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


@pytest.mark.parametrize(("kind", "start"), [("pdf", b"%PDF-"), ("svg", b"<?xml")])
def test_vector_figures_are_the_same_each_time_and_hold_no_date(tmp_path, kind, start):
    rows = [row(str(k), liver_dice=0.9 + k / 100) for k in range(3)]
    files = [
        save_figure(curves.plot_dice_per_case(rows), tmp_path / f"{name}.{kind}") for name in "ab"
    ]
    content = files[0].read_bytes()
    assert content == files[1].read_bytes()
    assert content.startswith(start)
    assert b"CreationDate" not in content
    assert b"dc:date" not in content
    assert b"Type3" not in content  # journals take none


def drawn_figures() -> dict[str, Figure]:
    hu, labels = labeled_volume()
    rows = [row(str(k), tumor_size_prediction=80 + k) for k in range(9)]
    history = [{"epoch": k, "loss": 1 / k, "validation_dice": 0.5} for k in (1, 2, 3)]
    return {
        "history": curves.plot_history(history, title="a title"),
        "dice": curves.plot_dice_per_case(rows),
        "volumes": curves.plot_volume_agreement(rows),
        "recall": curves.plot_recall_by_size(rows),
        "montage": montage(hu, {"reference": labels}, title="a title"),
        "panels": seven_panels(hu[6], labels[5], labels[6], title="a title"),
    }


def luminance(color) -> float:
    share = np.array(matplotlib.colors.to_rgb(color))
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def test_texts_read_on_dark_paper_and_lie_on_no_legend():
    with matplotlib.style.context("dark_background"):
        for name, figure in drawn_figures().items():
            figure.draw_without_rendering()
            paper = luminance(figure.get_facecolor())
            legends = [*figure.legends, *(axis.get_legend() for axis in figure.axes)]
            boxes = [legend.get_window_extent() for legend in legends if legend]
            texts = [t for t in figure.findobj(matplotlib.text.Text) if t.get_text()]
            for text in texts:
                ink = luminance(text.get_color())
                assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) >= 4.5, (name, text)
            inside = [t for legend in legends if legend for t in legend.findobj(type(texts[0]))]
            for text in [*figure.texts, *(t for axis in figure.axes for t in axis.texts)]:
                assert text in inside or not any(
                    box.overlaps(text.get_window_extent()) for box in boxes
                ), (name, text)


def test_a_log_axis_has_plain_numbers():
    def ticks(*losses):
        rows = [
            {"epoch": k, "loss": loss, "validation_dice": 0.5} for k, loss in enumerate(losses, 1)
        ]
        axis = curves.plot_history(rows).axes[0]
        low, high = axis.get_ylim()
        places = [at for at in axis.get_yticks() if low <= at <= high]
        return axis.yaxis.get_major_formatter().format_ticks(places)

    assert ticks(0.62, 0.38) == ["0.4", "0.5", "0.6"]
    assert ticks(2.2, 0.09) == ["0.1", "0.2", "0.5", "1", "2"]
    assert ticks(3000.0, 0.5) == ["1", "10", "100", "1000"]


def test_outliers_are_named_beside_their_points():
    rows = [row(str(k), tumor_size_prediction=88 + k % 5) for k in range(12)]
    rows += [row("stray", tumor_size_prediction=300), row("a name of the hospital, very long")]
    liver, tumor = curves.plot_volume_agreement(rows).axes
    assert [text.get_text() for text in tumor.texts] == ["stray", "a name of… very long"]
    assert not liver.texts
    assert tumor.get_title() == "tumor: mean absolute error 16.8 voxels, 14 cases"


def test_of_many_cases_only_outliers_are_named():
    rows = [row(str(k), liver_dice=0.95 + k / 1000) for k in range(41)]
    rows[7]["liver_dice"] = 0.2
    axis = curves.plot_dice_per_case(rows).axes[0]
    assert [text.get_text() for text in axis.texts] == ["7"]
    assert not axis.get_xticks().size
    few = curves.plot_dice_per_case(rows[:40]).axes[0]
    assert few.get_xticklabels()[0].get_text() == "7"
    assert len(few.get_xticks()) == 40


def test_of_four_values_none_is_an_outlier():
    assert curves.outliers(np.array([0.0, 1.0, 1.0, 99.0, np.nan])) == []
    assert curves.outliers(np.array([5.0, 1.0, 1.2, 1.1, 0.9, np.nan, -7.0])) == [6, 0]


def test_the_best_epoch_is_marked_even_after_epochs_without_a_score():
    scores = [None, 0.4, 0.8, float("nan"), 0.6]
    history = [
        {"epoch": k, "g_loss": 1 / k, "validation_dice": dice} for k, dice in enumerate(scores, 1)
    ]
    axis = curves.plot_history(history).axes[1]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["best: epoch 3, 0.800"]


def test_tumor_dice_counts_only_cases_with_tumor():
    rows = [row("0"), row("1", tumor_size_reference=0, tumor_dice=1.0), row("2", tumor_dice=0.7)]
    legend = curves.plot_dice_per_case(rows).legends[0]
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == ["liver, mean 0.900 of 3", "tumor, mean 0.600 of 2"]


def test_training_cases_count_in_no_mean():
    rows = [row("0"), row("1", liver_dice=1.0, training_case=True)]
    legend = curves.plot_dice_per_case(rows).legends[0]
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
        (lambda: save_figure(Figure(), "a.jpg"), r"saved as .png, .pdf or .svg, got a\.jpg"),
    ],
)
def test_errors_say_what_is_wrong(call, words):
    with pytest.raises(ValueError, match=words):
        call()
