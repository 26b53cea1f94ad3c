"""What the numbers of a CT say of units, millimetres and the order of slices."""

import re
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from helpers.drawn import BODY_SPACING_MM, affine_of, body, stored_as, write_case, write_nifti
from helpers.repository import ROOT

from lits_helpers.cases import (
    Case,
    about_ct,
    check_case,
    find_cases,
    load_case,
    not_hounsfield,
    overruled,
)
from lits_helpers.cases.case import CODES
from lits_helpers.pipeline import prepare_raw
from lits_helpers.preprocess import prepared_cases
from lits_helpers.settings import load_settings


def codes(findings):
    return [finding.code for finding in findings]


@pytest.mark.parametrize("padding", [-2000, -8192])
def test_stored_values_below_a_padding_are_no_hounsfield_units(padding):
    hu = body()[0] + np.int16(1100)
    hu[:, :3] = padding
    assert "are not Hounsfield units: air lies at" in not_hounsfield(hu)
    assert not_hounsfield(np.where(hu == padding, hu, hu - 1100).astype(np.int16)) is None


@pytest.mark.parametrize(("scale", "trusted"), [(1, True), (0.3, False)])
def test_a_liver_of_impossible_volume_is_found_and_its_millimetres_not_trusted(
    tmp_path, scale, trusted
):
    dz, dy, dx = BODY_SPACING_MM
    write_case(tmp_path, 3, *body(), spacing_mm=(dz * scale, dy, dx))
    case = find_cases(tmp_path)[0]
    volume, _, findings = load_case(case)
    assert volume.geometry.spacing_trusted is trusted
    assert codes(findings) == ([] if trusted else ["liver_volume"])
    assert about_ct(findings) == findings  # a prediction of the CT says why it has no mm
    volume, _, findings = load_case(replace(case, accepted=("liver_volume",)))
    assert volume.geometry.spacing_trusted


def test_one_millimetre_with_an_origin_is_not_trusted_by_its_form(tmp_path):
    write_case(tmp_path, 3, *body(), spacing_mm=(1, 1, 1))
    volume, _, (finding,) = load_case(find_cases(tmp_path)[0])
    assert finding.code == "spacing_untrusted"
    assert "the body would be 69 mm wide" in finding.text
    assert volume.geometry.trusted_spacing_mm is None


def test_cubes_of_one_millimetre_are_trusted_where_the_body_fits(tmp_path):
    hu, labels = body()
    cube = [
        np.ascontiguousarray(array.repeat(10, 0)[::2].repeat(4, 1).repeat(4, 2))
        for array in (hu, labels)
    ]
    write_case(tmp_path, 3, *cube, spacing_mm=(1, 1, 1))
    volume, _, findings = load_case(find_cases(tmp_path)[0])
    assert "spacing_untrusted" not in codes(findings)
    assert volume.geometry.spacing_trusted


@pytest.mark.parametrize(("every", "trusted"), [(2, True), (1, False)])
def test_pixels_that_would_make_a_flat_body_are_not_trusted(tmp_path, every, trusted):
    hu, labels = (array[..., ::every] for array in body((14, 180, 228)))
    write_case(tmp_path, 3, hu, labels, spacing_mm=(10.0, 1.5, 3.0))
    volume, _, findings = load_case(find_cases(tmp_path)[0])
    assert volume.geometry.spacing_trusted is trusted
    assert volume.geometry.pixel_aspect == (0.5 if trusted else 1)
    told = [finding.text for finding in findings if finding.code == "spacing_untrusted"]
    wide = r"the body would be 6\d\d mm wide and 2\d\d mm high"
    assert [bool(re.search(wide, text)) for text in told] == [True] * (not trusted)


def test_sform_that_contradicts_the_voxel_size_is_not_trusted(tmp_path):
    hu, _ = body()
    image = nib.Nifti1Image(stored_as(hu, "LPS"), affine_of(hu.shape, "LPS", BODY_SPACING_MM))
    image.header["pixdim"][1:4] = 0.8, 0.7, 5.0
    content = image.header.copy()
    nib.save(image, tmp_path / "volume-3.nii")
    raw = bytearray((tmp_path / "volume-3.nii").read_bytes())
    raw[80:92] = content["pixdim"][1:4].tobytes()
    (tmp_path / "volume-3.nii").write_bytes(raw)
    volume, _, findings = load_case(find_cases(tmp_path)[0])
    assert not volume.geometry.spacing_trusted
    assert "the sform contradicts the header's own voxel size 0.8 x 0.7 x 5 mm" in findings[1].text


def test_labels_within_a_thousandth_are_those_labels_and_a_finding_says_so(tmp_path):
    hu, labels = body()
    write_nifti(hu, tmp_path / "volume-3.nii", spacing_mm=BODY_SPACING_MM)
    near = labels * np.float64(0.9999999998)
    write_nifti(near, tmp_path / "segmentation-3.nii", spacing_mm=BODY_SPACING_MM)
    _, mask, (finding,) = load_case(find_cases(tmp_path)[0])
    assert finding.code == "labels_mended"
    np.testing.assert_array_equal(mask, labels)
    write_nifti(labels * 0.99, tmp_path / "segmentation-3.nii", spacing_mm=BODY_SPACING_MM)
    assert check_case(find_cases(tmp_path)[0])[0].harmful


def test_liver_of_severe_steatosis_passes(tmp_path):
    hu, labels = body()
    hu[labels == 1] -= 130  # 110 -> -20 HU, in a cavity of -60
    hu[(hu > -90) & (hu < -30) & (labels == 0)] += 110
    write_case(tmp_path, 3, hu, labels)
    assert not any(finding.harmful for finding in check_case(find_cases(tmp_path)[0]))


@pytest.mark.parametrize("first", [0, 1])
def test_slices_in_the_order_of_names_or_of_none_are_found(tmp_path, first):
    hu, labels = body()
    write_case(tmp_path, 3, hu, labels)
    assert "slices_out_of_order" not in codes(check_case(find_cases(tmp_path)[0]))
    by_name = [number - first for number in sorted(range(first, first + len(hu)), key=str)]
    by_chance = np.random.default_rng(first).permutation(len(hu))
    for order in (by_name, by_name[::-1], by_chance):
        write_case(tmp_path, 3, hu[order], labels[order])
        assert "slices_out_of_order" in codes(check_case(find_cases(tmp_path)[0]))


def test_an_implant_that_begins_and_ends_shuffles_no_slices(tmp_path):
    hu, labels = body()
    hu[4:9, 40:48, 30:46] = 3000
    write_case(tmp_path, 3, hu, labels)
    assert "slices_out_of_order" not in codes(check_case(find_cases(tmp_path)[0]))


@pytest.mark.parametrize(
    ("accepted", "words"),
    [
        (["turnd"], r"no finding has the code 'turnd': did you mean turned\? docs/data\.md lists"),
        (["zzz"], "the code 'zzz': docs/data"),
        ("tuned", "did you mean turned"),
    ],
)
def test_a_code_that_no_finding_has_is_refused_not_passed_over(accepted, words):
    with pytest.raises(ValueError, match=words):
        overruled([Case("3", "3", "ct.nii")], None, accepted)
    (case,) = overruled([Case("3", "3", "ct.nii")], None, "turned")
    assert case.accepted == ("turned",)


def test_an_orientation_that_is_none_costs_no_case_that_is_prepared(tmp_path):
    write_case(tmp_path / "raw", 3, *body())
    words = {"source": "folder", "raw": tmp_path / "raw", "prepared": tmp_path / "prepared"}
    prepare_raw(load_settings(**words))
    with pytest.raises(ValueError, match=r"orientation must hold one code each .* got 'LPZ'"):
        prepare_raw(load_settings(**words, orientation="LPZ"))
    assert [case.id for case in prepared_cases(tmp_path / "prepared")] == ["3"]


def test_the_codes_of_findings_are_those_of_the_page_and_of_the_code():
    page = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    table = page.split("| code | harmful |")[1].split("\n\n")[0]
    names = [cell for line in table.splitlines() for cell in line.split("|")[1:2]]
    assert sorted(re.findall(r"`(\w+)`", "".join(names))) == CODES
    files = (ROOT / "lits_helpers").rglob("*.py")
    made = re.findall(r'Finding\(\s*"(\w+)"', "".join(path.read_text("utf-8") for path in files))
    assert set(made) - {"left_out"} <= set(CODES)  # `left_out` is no finding about a file


def test_the_users_word_joins_what_a_case_already_accepts():
    (case,) = overruled([Case("3", "3", "ct.nii", accepted=("turned",))], "LPS", ("no_body",))
    assert (case.orientation, case.accepted) == ("LPS", ("no_body", "turned"))
