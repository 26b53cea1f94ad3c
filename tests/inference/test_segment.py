"""Whole volumes: the cascade's rule, batches, thresholds, and labels in the patient's own space.

The models are stand-ins that answer by grey level, on slices whose longer side is the model's size
and whose pixels are square: nothing is resized and every expected label can be drawn.
"""

import logging
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from helpers.drawn import ORIENTATIONS, affine_of, stored_as, write_nifti
from helpers.grey_models import tumor_model
from helpers.logs import logged
from helpers.prepared_runs import write_checkpoint
from torch import nn

from lits_helpers.__main__ import main
from lits_helpers.cases import find_cases
from lits_helpers.checkpoints import LiverModel, Origin, TumorModel, load_liver_model
from lits_helpers.inference import Postprocessing, second_look, segment_file, segment_volume
from lits_helpers.models import Generator, RegNetSegmenter
from lits_helpers.phantom import make_phantom
from lits_helpers.preprocess import prepare
from lits_helpers.recipes import InputSpec
from lits_helpers.settings import real_data
from lits_helpers.volumes import read_volume, volume_from_array
from lits_helpers.volumes.geometry import plain_geometry

SHAPE = (12, 40, 64)
SPACING_MM = (5.0, 0.75, 0.75)
SPEC = InputSpec(size=64, window=(-200, 300))
ORIGIN = Origin("liver", SPEC, ("0", "1"))
AIR, FAT, TUMOR, LIVER = -1000, -100, 40, 100
ALL = Postprocessing(min_lesion_mm3=0)


class Band(nn.Module):
    """Answers 1 where the mean of the channels lies between two HU values, else 0."""

    def __init__(self, low_hu, high_hu, logits=False):
        super().__init__()
        self.low, self.high = (low_hu + 200) / 500, (high_hu + 200) / 500
        self.logits = logits
        self.anchor = nn.Parameter(torch.zeros(1))  # tells the device
        self.batches = []

    def forward(self, images):
        self.batches.append(len(images))
        grey = images.mean(1, keepdim=True)
        inside = ((grey >= self.low) & (grey <= self.high)).float()
        return inside * 20 - 10 if self.logits else inside


class LeftHalf(nn.Module):
    """Answers `value` on the left half of every slice, 0 on the right."""

    def __init__(self, value=1.0):
        super().__init__()
        self.value = value
        self.anchor = nn.Parameter(torch.zeros(1))

    def forward(self, images):
        answer = torch.zeros_like(images[:, :1])
        answer[..., : images.shape[-1] // 2] = self.value
        return answer


def liver_by_grey(spec=SPEC):
    return LiverModel(Band(80, 120), spec, ORIGIN)


def tumor_by_grey(spec=SPEC):
    return TumorModel(Band(20, 60, logits=True), spec, ORIGIN)


def drawn_ct():
    """HU of an off-centre liver with one tumor at its rim, one near it and one far away."""
    hu = np.full(SHAPE, AIR, np.int16)
    hu[:, 2:38, 2:62] = FAT
    hu[3:8, 8:24, 10:30] = LIVER
    hu[4:6, 12:16, 30:34] = TUMOR  # touches the liver: 0.75 to 3 mm
    hu[8, 12:14, 12:16] = TUMOR  # one slice above it: 5 mm
    hu[5, 8:12, 50:54] = TUMOR  # 15 mm away
    hu[10, 12:14, 12:16] = TUMOR  # three slices above: 15 mm
    return hu


def expected_labels():
    labels = np.zeros(SHAPE, np.uint8)
    labels[3:8, 8:24, 10:30] = 1
    labels[4:6, 12:16, 30:34] = 2
    labels[8, 12:14, 12:16] = 2
    return labels


def drawn_volume(hu=None):
    return volume_from_array(drawn_ct() if hu is None else hu, SPACING_MM)


def test_tumor_within_the_margin_joins_the_liver_and_elsewhere_there_is_none():
    labels = segment_volume(drawn_volume(), liver_by_grey(), tumor_by_grey(), ALL)
    assert labels.dtype == np.uint8
    assert np.array_equal(labels, expected_labels())


def test_a_known_liver_takes_the_place_of_a_model():
    known = expected_labels()
    labels = segment_volume(drawn_volume(), None, tumor_by_grey(), ALL, known_liver=known)
    assert np.array_equal(labels, known)
    none = segment_volume(drawn_volume(), None, tumor_by_grey(), ALL, known_liver=0 * known)
    assert not none.any()
    drawn = (known == 1).astype(np.uint8)  # without the tumors at its rim and above it
    labels = segment_volume(drawn_volume(), None, tumor_by_grey(), ALL, known_liver=drawn)
    assert np.array_equal(labels, known)  # they lie within the margin
    within = replace(ALL, margin_mm=0)
    labels = segment_volume(drawn_volume(), None, tumor_by_grey(), within, known_liver=drawn)
    assert np.array_equal(labels, drawn)
    with pytest.raises(ValueError, match=r"known_liver has shape \(11, 40, 64\), the CT \(12"):
        segment_volume(drawn_volume(), None, tumor_by_grey(), ALL, known_liver=known[1:])


def test_a_voxel_size_that_cannot_be_trusted_counts_as_1_mm():
    metres = Postprocessing(min_lesion_mm3=2)
    header = plain_geometry(SHAPE, tuple(step / 1000 for step in SPACING_MM))
    one_mm = segment_volume(
        volume_from_array(drawn_ct(), (1.0, 1.0, 1.0)), liver_by_grey(), tumor_by_grey(), metres
    )
    odd = replace(drawn_volume(), spacing_mm=header.spacing_mm, geometry=header)
    labels = segment_volume(odd, liver_by_grey(), tumor_by_grey(), metres)
    np.testing.assert_array_equal(labels, one_mm)
    assert (labels == 2).any()


def test_a_smaller_margin_leaves_less_tumor():
    post = Postprocessing(margin_mm=1.7, min_lesion_mm3=0)
    labels = segment_volume(drawn_volume(), liver_by_grey(), tumor_by_grey(), post)
    expected = np.zeros(SHAPE, np.uint8)
    expected[3:8, 8:24, 10:30] = 1
    expected[4:6, 12:16, 30:32] = 2  # 1.5 mm; the next slice is 5 mm away
    assert np.array_equal(labels, expected)


def test_tumor_inside_the_liver_replaces_it():
    hu = drawn_ct()
    hu[5, 12:18, 14:20] = TUMOR
    labels = segment_volume(drawn_volume(hu), liver_by_grey(), tumor_by_grey(), ALL)
    assert (labels[5, 12:18, 14:20] == 2).all()
    assert (labels >= 1)[3:8, 8:24, 10:30].all()


def test_slices_without_liver_cost_the_tumor_model_nothing():
    tumor = tumor_by_grey()
    segment_volume(drawn_volume(), liver_by_grey(), tumor, ALL)
    assert sum(tumor.network.batches) == 5 + 2  # five with liver, one on each side within 5 mm


def test_without_any_liver_the_tumor_model_is_never_asked():
    hu = drawn_ct()
    hu[hu == LIVER] = FAT
    tumor = tumor_by_grey()
    labels = segment_volume(drawn_volume(hu), liver_by_grey(), tumor, ALL)
    assert not labels.any()
    assert tumor.network.batches == []


def test_liver_alone_gives_labels_0_and_1():
    labels = segment_volume(drawn_volume(), liver_by_grey())
    assert np.array_equal(labels, (drawn_ct() == LIVER).astype(np.uint8))


def test_tumor_alone_gives_labels_0_and_2_anywhere():
    labels = segment_volume(drawn_volume(), tumor_model=tumor_by_grey(), post=ALL)
    assert np.array_equal(labels, 2 * (drawn_ct() == TUMOR).astype(np.uint8))


def test_small_lesions_are_dropped_by_default():
    hu = np.full(SHAPE, FAT, np.int16)
    hu[5, 10, 10:20] = TUMOR  # 28.1 mm3 against 30
    hu[8, 10, 10:21] = TUMOR  # 30.9 mm3
    labels = segment_volume(drawn_volume(hu), tumor_model=tumor_by_grey())
    assert [int((labels[k] == 2).sum()) for k in (5, 8)] == [0, 11]


def test_every_batch_size_gives_the_labels_of_single_slices():
    spec = replace(SPEC, channels=3, context=1)
    noise = np.random.default_rng(0).integers(-150, 250, SHAPE).astype(np.int16)
    models = liver_by_grey(), tumor_by_grey(spec)
    singles = segment_volume(drawn_volume(noise), *models, ALL, batch_size=1)
    assert set(np.unique(singles)) == {0, 1, 2}
    for size in (5, 12, 64):
        batched = segment_volume(drawn_volume(noise), *models, ALL, batch_size=size)
        assert np.array_equal(batched, singles)


def test_networks_give_the_labels_of_single_slices():
    model = untrained_liver()
    noise = np.random.default_rng(1).integers(-150, 250, (7, 40, 64)).astype(np.int16)
    post = Postprocessing(liver_threshold=0.12, largest_liver=False, fill_holes=False)
    singles = segment_volume(drawn_volume(noise), model, post=post, batch_size=1)
    batched = segment_volume(drawn_volume(noise), model, post=post, batch_size=4)
    assert 0.02 < singles.mean() < 0.98
    assert (singles != batched).mean() < 1e-3  # bfloat16 may round by batch


def test_neighbours_beyond_the_ends_are_the_end_slices():
    hu = np.full((3, 64, 64), FAT, np.int16)
    hu[0] = LIVER
    spec = replace(SPEC, channels=3, context=1)
    means = LiverModel(Band(30, 40), spec, ORIGIN)  # (100 + 100 - 100) / 3 = 33
    labels = segment_volume(drawn_volume(hu), means, post=Postprocessing())
    assert [bool(plane.any()) for plane in labels] == [True, False, False]
    assert labels[0].all()


def test_thresholds_decide_from_which_probability_a_voxel_counts():
    volume = drawn_volume(np.full(SHAPE, FAT, np.int16))
    half = LiverModel(LeftHalf(0.5), SPEC, ORIGIN)
    low, high = (
        segment_volume(volume, half, post=Postprocessing(liver_threshold=least), checked=True)
        for least in (0.4, 0.6)
    )
    assert low[..., :32].all()
    assert not low[..., 32:].any()
    assert not high.any()


def test_turned_views_are_turned_back_before_they_are_averaged():
    hu = np.full((2, 64, 64), AIR, np.int16)
    hu[:, 10:24, 36:58] = LIVER  # off the centre
    liver, turned = liver_by_grey(), Postprocessing(rotation_degrees=30)
    plain = segment_volume(drawn_volume(hu), liver) > 0
    once = len(liver.network.batches)
    averaged = segment_volume(drawn_volume(hu), liver, post=turned) > 0
    assert len(liver.network.batches) - once == 3 * once
    assert (averaged != plain)[:, 13:21, 39:55].sum() == 0
    assert not averaged[:, :8].any()
    assert not averaged[:, 26:].any()
    assert not averaged[..., :34].any()
    unanimous = Postprocessing(liver_threshold=0.9, rotation_degrees=30)
    agreed = segment_volume(drawn_volume(hu), liver, post=unanimous)
    assert agreed[:, 13:21, 39:55].all()
    assert agreed.sum() < plain.sum()  # at the rim, where turned pixels are mixed
    with pytest.raises(ValueError, match="must be finite and not negative, got -8"):
        Postprocessing(rotation_degrees=-8)
    with pytest.raises(ValueError, match="rotation_degrees must be 45 or less, got 80"):
        Postprocessing(rotation_degrees=80)


def test_cropping_to_the_liver_puts_tumor_back_in_its_place():
    spec = replace(SPEC, liver_margin=0.1)
    hu = drawn_ct()
    hu[5, 10:20, 14:24] = TUMOR
    labels = segment_volume(drawn_volume(hu), liver_by_grey(), tumor_by_grey(spec), ALL)
    whole = segment_volume(drawn_volume(hu), liver_by_grey(), tumor_by_grey(), ALL)
    both, either = (labels[5] == 2) & (whole[5] == 2), (labels[5] == 2) | (whole[5] == 2)
    assert both.sum() / either.sum() > 0.85  # cropped, it is resized: borders move by a pixel


def test_the_window_follows_the_livers_median():
    spec = replace(SPEC, window=(-300, 200), liver_window=True)
    labels = segment_volume(drawn_volume(), liver_by_grey(), tumor_by_grey(spec), ALL)
    assert np.array_equal(labels, expected_labels())


def test_a_model_of_known_livers_warns_without_a_liver_model(caplog):
    spec = replace(SPEC, liver_margin=0.1)
    with caplog.at_level(logging.WARNING, logger="lits_helpers"):
        segment_volume(drawn_volume(), tumor_model=tumor_by_grey(spec))
    assert logged(caplog, "known livers", "liver model")


@pytest.mark.parametrize("shape", [(1, 40, 64), (1, 1, 1), (3, 17, 90), (5, 200, 33), (2, 512, 40)])
def test_networks_take_any_shape(shape):
    noise = np.random.default_rng(2).integers(-1000, 300, shape).astype(np.int16)
    noise.flat[0] = AIR
    post = Postprocessing(liver_threshold=0.12, tumor_threshold=0.12)
    models = untrained_liver(), untrained_tumor()
    labels = segment_volume(drawn_volume(noise), *models, post, checked=True)
    assert labels.shape == shape
    assert labels.max() <= 2


def test_the_volume_is_left_as_it_was():
    volume = drawn_volume()
    segment_volume(volume, liver_by_grey(), tumor_by_grey())
    assert np.array_equal(volume.hu, drawn_ct())


@pytest.mark.parametrize(
    ("hu", "words"),
    [
        (np.uint8([0, 1, 2]), "values 0..2 look like a segmentation or"),
        (np.int16([-1, 0, 1]), "values -1..1 look like a segmentation or normalized"),
        (np.int16([0, 255, 1100]), "not Hounsfield units: air lies at 0, expected about -1000"),
        (np.int16([-2000, 20, 1060, 1100]), "not Hounsfield units: air lies at 20"),
        (
            np.int16([-1000, 20, 1060, 1100]),
            "not Hounsfield units: [0-9]+% of it above 800 HU, where only bone",
        ),
    ],
)
def test_what_is_no_ct_in_hu_is_refused(hu, words):
    volume = drawn_volume(np.repeat(hu, 1 + 30720 // len(hu))[:30720].reshape(SHAPE))
    with pytest.raises(ValueError, match=words):
        segment_volume(volume, liver_by_grey())


def test_neither_model_is_refused():
    with pytest.raises(ValueError, match="needs a liver model, a tumor model or both"):
        segment_volume(drawn_volume())


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_labels_lie_at_the_same_place_in_every_axis_order(tmp_path, orientation):
    path = write_nifti(drawn_ct(), tmp_path / "ct.nii", orientation, spacing_mm=SPACING_MM)
    models = liver_by_grey(), tumor_by_grey(), ALL
    segment_file(path, tmp_path / "out.nii", *models, accept=["spacing_untrusted"])  # 51 mm wide
    out = nib.load(tmp_path / "out.nii")
    assert np.array_equal(out.dataobj, stored_as(expected_labels(), orientation))
    assert np.array_equal(out.affine, nib.load(path).affine)


@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize("orientation", ["LPS", "PIR"])
def test_pixels_that_are_not_square_are_shown_as_square_ones_and_labels_lie_on_their_grid(
    tmp_path, axis, orientation
):
    spacing_mm = tuple(step / 3 if n == axis else step for n, step in enumerate(SPACING_MM))
    hu = drawn_ct().repeat(3, axis)
    path = write_nifti(hu, tmp_path / "ct.nii", orientation, spacing_mm=spacing_mm)
    models = liver_by_grey(), tumor_by_grey(), ALL
    segment_file(path, tmp_path / "out.nii", *models, accept=["spacing_untrusted"])
    out = nib.load(tmp_path / "out.nii")
    wanted = expected_labels().repeat(3, axis)
    assert np.array_equal(out.dataobj, stored_as(wanted, orientation))
    assert np.array_equal(out.affine, nib.load(path).affine)


def test_dice_at_pixels_of_three_to_one_is_that_of_square_ones():
    model = load_liver_model("synthetic", "cpu")
    hu, reference, (dz, dy, dx) = make_phantom((7, 0, 0), (10, 96, 120))
    whole = volume_from_array(hu, (dz, dy, dx))
    thinned = volume_from_array(hu[..., ::3], (dz, dy, 3 * dx))
    labels = segment_volume(thinned, model)
    square = dice_of(segment_volume(whole, model), reference)
    assert square > 0.9
    assert dice_of(labels, reference[..., ::3]) == pytest.approx(square, abs=0.02)
    assert second_look(thinned, labels, model)["liver_removed"] < 0.05


def dice_of(labels, reference):
    found, wanted = labels > 0, reference > 0
    return 2 * (found & wanted).sum() / (found.sum() + wanted.sum())


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_output_has_the_inputs_header_and_plain_uint8(tmp_path, suffix):
    affine = affine_of(SHAPE, "RAS", SPACING_MM)
    image = nib.Nifti1Image(stored_as(drawn_ct(), "RAS"), affine)
    image.set_sform(affine, code=2)
    image.set_qform(affine, code=1)
    image.header.set_slope_inter(1, 0)
    nib.save(image, tmp_path / f"ct{suffix}")
    target = tmp_path / f"out{suffix}"
    assert segment_file(tmp_path / f"ct{suffix}", target, liver_by_grey()) == target
    out = nib.load(target)
    assert out.get_data_dtype() == np.uint8
    assert (int(out.header["sform_code"]), int(out.header["qform_code"])) == (2, 1)
    assert out.dataobj.slope == 1
    assert out.dataobj.inter == 0


def test_scaled_and_packed_files_give_the_labels_of_the_plain_one(tmp_path):
    stored = (drawn_ct() + 1024).astype(np.uint16)
    affine = affine_of(SHAPE, "LPS", SPACING_MM)
    scaled = nib.Nifti1Image(stored_as(stored, "LPS"), affine)
    scaled.header.set_slope_inter(1, -1024)
    (tmp_path / "volume_pt1").mkdir()
    nib.save(scaled, tmp_path / "volume_pt1" / "volume-3.nii.gz")
    cases = [replace(c, accepted=("spacing_untrusted",)) for c in find_cases(tmp_path)]  # 51 mm
    prepare(cases, tmp_path / "prepared", workers=0, png=False)
    models = liver_by_grey(), tumor_by_grey(), ALL
    for n, source in enumerate(("volume_pt1/volume-3.nii.gz", "prepared/cases/3.b2nd")):
        accept = ["spacing_untrusted"]
        segment_file(tmp_path / source, tmp_path / f"{n}.nii.gz", *models, accept=accept)
        out = nib.load(tmp_path / f"{n}.nii.gz")
        assert np.array_equal(out.dataobj, stored_as(expected_labels(), "LPS"))
        assert np.array_equal(out.affine, affine.astype(np.float32))


def test_a_wrong_header_can_be_overruled_and_is_still_given_back(tmp_path):
    path = write_nifti(drawn_ct(), tmp_path / "ct.nii", "LPS", affine=affine_of(SHAPE, "RPS"))
    segment_file(path, tmp_path / "out.nii", LiverModel(LeftHalf(), SPEC, ORIGIN))
    segment_file(
        path, tmp_path / "turned.nii", LiverModel(LeftHalf(), SPEC, ORIGIN), orientation="LPS"
    )
    by_header, overruled = (nib.load(tmp_path / f"{n}.nii") for n in ("out", "turned"))
    assert np.asarray(by_header.dataobj)[32:].all()  # read right to left
    assert np.asarray(overruled.dataobj)[:32].all()
    assert np.array_equal(overruled.affine, nib.load(path).affine)


def test_a_file_that_cannot_be_read_leaves_no_output(tmp_path):
    (tmp_path / "ct.nii.gz").write_bytes(b"\x1f\x8bnot really")
    with pytest.raises(ValueError, match=r"ct\.nii\.gz"):
        segment_file(tmp_path / "ct.nii.gz", tmp_path / "out.nii.gz", liver_by_grey())
    assert [path.name for path in tmp_path.iterdir()] == ["ct.nii.gz"]


@pytest.mark.real
@pytest.mark.parametrize("number", [0, 1, 2])
def test_real_scans_come_back_in_their_own_geometry(tmp_path, number):
    path = real_scan(number)
    out = nib.load(segment_file(path, tmp_path / "out.nii.gz", untrained_liver(), post=LOOSE))
    source = nib.load(path)
    assert out.shape == source.shape
    assert np.array_equal(out.affine, source.affine)
    for code in ("sform_code", "qform_code", "xyzt_units"):
        assert out.header[code] == source.header[code]
    assert 0 < np.asarray(out.dataobj).mean() < 1


@pytest.mark.real
@pytest.mark.parametrize("orientation", ["RAS", "LPI", "PSR", "ILA"])
def test_a_real_scan_in_another_axis_order_gives_the_same_labels_in_space(tmp_path, orientation):
    image = nib.load(real_scan(2))
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(orientation)
    )
    nib.save(image.as_reoriented(turn), tmp_path / "turned.nii")
    plain, turned = (
        nib.load(segment_file(path, tmp_path / f"{n}.nii", untrained_liver(), post=LOOSE))
        for n, path in enumerate((real_scan(2), tmp_path / "turned.nii"))
    )
    assert nib.aff2axcodes(turned.affine) == tuple(orientation)
    assert np.array_equal(plain.as_reoriented(turn).dataobj, turned.dataobj)


LOOSE = Postprocessing(liver_threshold=0.12, largest_liver=False, fill_holes=False)


def real_scan(number):
    if real_data() is None:
        pytest.skip("LITS_REAL names no folder with real scans")
    return next((real_data() / "lits").rglob(f"volume-{number}.nii.gz"))


def untrained_liver():
    torch.manual_seed(0)
    return LiverModel(Generator(4, True, "sigmoid"), SPEC, ORIGIN).eval()


def untrained_tumor():
    torch.manual_seed(0)
    spec = InputSpec(64, (-100, 100), 3, 1, "imagenet", 0.1, True)
    return TumorModel(RegNetSegmenter(None, skips=True), spec, ORIGIN).eval()


def test_packed_and_plain_volumes_are_the_same_to_the_models(tmp_path):
    path = write_nifti(drawn_ct(), tmp_path / "ct.nii", "RAS", spacing_mm=SPACING_MM)
    labels = segment_volume(read_volume(path), liver_by_grey(), tumor_by_grey(), ALL)
    assert np.array_equal(labels, expected_labels())


def test_the_shell_step_segments_a_folder_and_fails_with_a_sentence(tmp_path, capsys):
    write_nifti(drawn_ct(), tmp_path / "raw" / "test-volume-4.nii", spacing_mm=SPACING_MM)
    (tmp_path / "raw" / "test-volume-5.nii").write_bytes(b"")
    arguments = ["predict", str(tmp_path / "raw"), "--out", str(tmp_path / "out"), "--submission"]
    for system in ("liver", "tumor"):
        arguments += [f"--{system}", str(write_checkpoint(tmp_path / f"{system}.pth", system))]
    assert main([*arguments, "--device", "cpu"]) == 1
    told = capsys.readouterr()
    assert told.out.strip() == str(tmp_path / "out" / "test-segmentation-4.nii")
    assert "1 segmented, 0 were finished before, 1 failed" in told.err
    assert "test-volume-5.nii: it is empty" in told.err
    (tmp_path / "raw" / "test-volume-5.nii").unlink()
    assert main([*arguments, "--device", "cpu"]) == 0
    assert (tmp_path / "out" / "submission.zip").is_file()


def test_model_that_answers_no_numbers_is_refused():
    model = LiverModel(LeftHalf(float("nan")), SPEC, ORIGIN)
    with pytest.raises(ValueError, match="the model's output is NaN"):
        segment_volume(drawn_volume(drawn_ct()), model)


@pytest.mark.parametrize(
    ("share", "of_the_model", "given", "kept"),
    [
        (0.9, 0.0, None, True),
        (0.9, 0.95, None, False),
        (0.97, 0.95, None, True),
        (0.9, 0.95, 0.0, True),
        (0.9, 0.0, 0.95, False),
    ],
)
def test_a_tumor_model_may_say_how_sure_it_must_be_of_a_lesion(share, of_the_model, given, kept):
    model = tumor_model(share)
    model.peak = of_the_model
    labels = segment_volume(
        drawn_volume(), liver_by_grey(), model, Postprocessing(tumor_peak=given)
    )
    assert (labels == 2).any() == kept


def test_of_several_tumor_models_the_mean_of_their_peaks_counts():
    sure, unsure = tumor_model(0.97), tumor_model(0.85)
    sure.peak = 0.95
    labels = segment_volume(drawn_volume(), liver_by_grey(), [sure, unsure], ALL)
    assert (labels == 2).any()


@pytest.mark.parametrize(("peak", "unsure"), [(0.0, True), (0.95, False)])
def test_what_a_peak_dropped_does_not_make_the_other_lesions_unsure(peak, unsure):
    """The model says 0.9 everywhere, and a part of it stands in the labels."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[3:8, 8:24, 10:30] = 1
    labels[3:8, 12:20, 14:24] = 2
    model = tumor_model(0.9)
    model.peak = peak
    found = second_look(drawn_volume(), labels, None, model)["tumor_unsure"]
    assert (found > 0.2) == unsure
