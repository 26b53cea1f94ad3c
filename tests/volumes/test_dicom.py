"""DICOM in: where voxels lie, how pixels and files are packed, and which files are refused."""

# ruff: noqa: E402  (what may be missing is asked for first)

import shutil
import sys
import zipfile

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom", reason='pip install highdicom "pylibjpeg[all]"')
pytest.importorskip("highdicom", reason='pip install highdicom "pylibjpeg[all]"')

from helpers.drawn import SPACING_MM, ramp
from helpers.drawn_dicom import shuffled, write_enhanced, write_series
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, MRImageStorage, RLELossless, generate_uid

from lits_helpers.cases import find_cases
from lits_helpers.cases.studies import find_studies
from lits_helpers.settings import real_data
from lits_helpers.volumes import hash_of_files, open_volume, read_volume, study_headers
from lits_helpers.volumes.dicom import DicomStore

HU = ramp((7, 20, 24))


pytestmark = pytest.mark.usefixtures("nobody_is_named")


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {"PixelRepresentation": 0, "RescaleIntercept": -1024},
        {"RescaleSlope": 2, "RescaleIntercept": -1000},
    ],
)
@pytest.mark.parametrize("orientation", ["LPS", "LPI", "RAS"])
def test_series_has_the_voxels_and_places_that_simpleitk_reads(tmp_path, orientation, tags):
    sitk = pytest.importorskip("SimpleITK", reason="pip install SimpleITK")
    files = write_series(tmp_path, HU, orientation, order=shuffled(7), **tags)
    volume = read_volume(tmp_path)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(files[0].parent)))
    image = reader.Execute()
    oracle = sitk.DICOMOrient(image, "LPS")
    np.testing.assert_array_equal(volume.hu, sitk.GetArrayFromImage(oracle))
    np.testing.assert_allclose(volume.spacing_mm, oracle.GetSpacing()[::-1], atol=1e-5)
    directions = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    turn = np.diag([-1, -1, 1])
    np.testing.assert_allclose(
        np.array(volume.geometry.affine)[:3],
        turn @ np.column_stack([directions, image.GetOrigin()]),
        atol=1e-4,
    )


def test_a_file_stands_for_its_series(tmp_path):
    files = write_series(tmp_path, HU)
    for number, path in enumerate(write_series(tmp_path / "other", ramp((9, 20, 24)), series=5)):
        shutil.move(path, tmp_path / f"other{number}.dcm")
    np.testing.assert_array_equal(read_volume(files[2]).hu, HU)


def test_zip_is_read_as_the_folder_in_it_and_unpacks_nothing(tmp_path):
    write_series(tmp_path / "study", HU)
    packed = shutil.make_archive(str(tmp_path / "upload"), "zip", tmp_path / "study")
    before = sorted(tmp_path.rglob("*"))
    np.testing.assert_array_equal(read_volume(packed).hu, HU)
    assert sorted(tmp_path.rglob("*")) == before


def write_zip(path, *names, **fields):
    """Write a zip of small members; the last one's entry gets these fields."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"x" * 900)
        for field, value in fields.items():
            setattr(archive.infolist()[-1], field, value)
    return path


LINK = 0o120777 << 16


@pytest.mark.parametrize(
    ("names", "fields", "words"),
    [
        (["../a.dcm"], {}, "outside its folder"),
        (["/a.dcm"], {}, "outside its folder"),
        (["a.dcm"], {"external_attr": LINK}, "link or device"),
        (["a.dcm"], {"file_size": 4 * 2**30}, "unpack to 4 GiB, more than any CT"),
        (["a.dcm"], {"flag_bits": 1}, "wants a password"),
        (["a.dcm"], {"compress_type": 9}, "method 9, which nothing here reads: unpack it"),
        ([f"{n}.dcm" for n in range(10_001)], {}, "10001 entries"),
        (["a.zip"], {}, "no DICOM image but a zip: unpack"),
        (["DICOMDIR"], {}, "only a DICOMDIR"),
    ],
)
def test_hostile_or_foreign_zip_is_refused_by_name(tmp_path, names, fields, words):
    path = write_zip(tmp_path / "upload.zip", *names, **fields)
    with pytest.raises(ValueError, match=rf"upload.zip:? .*{words}"):
        read_volume(path)


def test_zip_of_more_than_a_study_in_all_is_refused(tmp_path):
    path = tmp_path / "upload.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(30):
            archive.writestr(f"{number}.dcm", b"x")
        for entry in archive.infolist():
            entry.file_size = 3 * 2**30
    with pytest.raises(ValueError, match=r"upload.zip: .*would unpack to 90 GiB in all"):
        read_volume(path)


def test_cut_zip_and_zip_of_a_damaged_slice_are_named(tmp_path):
    write_series(tmp_path / "study", HU)
    path = tmp_path / "upload.zip"
    shutil.make_archive(str(path.with_suffix("")), "zip", tmp_path / "study")
    whole = path.read_bytes()
    place = whole.index(b"IM005.dcm") + 700  # of its packed data
    path.write_bytes(whole[:place] + bytes(20) + whole[place + 20 :])
    with pytest.raises(ValueError, match=r"IM005.dcm in .*upload.zip"):
        read_volume(path)
    path.write_bytes(whole[:4000])
    with pytest.raises(ValueError, match=r"upload.zip: the zip is damaged or cut off"):
        read_volume(path)


def compress(path, syntax):
    """Compress a file's pixels with pydicom's encoders, or JPEG lossless with SimpleITK's."""
    if syntax == "JPEG":
        sitk = pytest.importorskip("SimpleITK", reason="pip install SimpleITK")
        writer = sitk.ImageFileWriter()
        writer.UseCompressionOn()
        writer.KeepOriginalImageUIDOn()
        writer.SetCompressor(syntax)
        writer.SetFileName(path)
        writer.Execute(sitk.ReadImage(path))
        return
    dataset = pydicom.dcmread(path)
    try:
        dataset.compress(syntax, generate_instance_uid=False)
    except RuntimeError:
        pytest.skip("pip install pyjpegls: the encoder of JPEG-LS")
    dataset.save_as(path)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless, "JPEG"])
def test_compressed_pixels_are_decoded(tmp_path, syntax):
    hu = ramp((3, 64, 72))  # JPEG 2000 wants some size
    for path in write_series(tmp_path, hu):
        compress(path, syntax)
    stored = pydicom.dcmread(tmp_path / "IM001.dcm").file_meta.TransferSyntaxUID
    assert stored.is_compressed
    np.testing.assert_array_equal(read_volume(tmp_path).hu, hu)


def test_missing_decoder_is_named_with_its_cure(tmp_path):
    from pydicom.pixels.decoders import JPEG2000LosslessDecoder as decoder

    for path in write_series(tmp_path, ramp((3, 64, 72))):
        compress(path, JPEG2000Lossless)
    known = decoder.available_plugins
    for name in known:
        decoder.remove_plugin(name)
    words = r'series 4, .*IM001.dcm: JPEG 2000 .* pixels want pip install "pylibjpeg\[all\]"$'
    try:
        with pytest.raises(ValueError, match=words):
            read_volume(tmp_path)
    finally:
        for name in known:
            decoder.add_plugin(name, (f"pydicom.pixels.decoders.{name}", "_decode_frame"))


def test_syntax_that_nothing_decodes_is_named(tmp_path):
    for path in write_series(tmp_path, HU):
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.100"
        dataset.PixelData = pydicom.encaps.encapsulate([dataset.PixelData])
        dataset["PixelData"].VR = "OB"
        dataset.save_as(path)
    words = r"series 4, .*IM001.dcm: its pixels are stored as MPEG2.*export it again"
    with pytest.raises(ValueError, match=words):
        read_volume(tmp_path)


def test_multi_frame_file_is_a_volume(tmp_path):
    from highdicom.legacy import LegacyConvertedEnhancedCTImage

    files = write_series(tmp_path / "single", HU, order=shuffled(7))
    single = [pydicom.dcmread(path) for path in files]
    made = LegacyConvertedEnhancedCTImage(single, generate_uid(), 7, generate_uid(), 1)
    (tmp_path / "multi").mkdir()
    made.save_as(tmp_path / "multi" / "one.dcm")
    volume = read_volume(tmp_path / "multi")
    np.testing.assert_array_equal(volume.hu, HU)
    assert volume.spacing_mm == SPACING_MM


def per_frame(number):
    """Slope and intercept that differ from frame to frame."""
    return (1, -3 * number, 1) if number % 2 else (2, -1001, 1)


@pytest.mark.parametrize("orientation", ["LPS", "RAI", "LPI"])
def test_enhanced_ct_is_placed_and_rescaled_frame_by_frame(tmp_path, orientation):
    even = HU // 2 * 2 + 1  # so that a slope of 2 holds them
    path = write_enhanced(tmp_path / "one.dcm", even, orientation, shuffled(7), per_frame)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.hu, even)
    assert volume.spacing_mm == SPACING_MM
    uneven = write_enhanced(tmp_path / "gap" / "one.dcm", even[:6], order=[5, 0, 3, 4, 1])
    with pytest.raises(
        ValueError, match=r"series 4: a slice is missing at z = 420 mm \(one.dcm frame 5 and"
    ):
        read_volume(uneven)


def test_phases_in_one_enhanced_ct_are_apart_also_in_a_zip(tmp_path):
    both = np.concatenate([HU, HU[:5] + 1])
    order = [*range(7), *range(5)]
    path = write_enhanced(
        tmp_path / "study" / "one.dcm", HU, order=order, change=lambda n: (1, -(n > 6), 1 + (n > 6))
    )
    np.testing.assert_array_equal(read_volume(path).hu, both[:7])
    packed = shutil.make_archive(str(tmp_path / "upload"), "zip", tmp_path / "study")
    np.testing.assert_array_equal(read_volume(packed, series="4:2").hu, HU[:5])


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (-300, r"series 4, .*IM007.dcm: its pixels are damaged"),
        (700, r"series 4 may lack a slice: .*IM007.dcm: its header is damaged"),
        (200, r"series 4 may lack a slice: .*IM007.dcm: .*damaged"),
    ],
)
def test_cut_file_is_named_also_at_the_end_of_the_stack(tmp_path, end, words):
    files = write_series(tmp_path, HU)
    files[6].write_bytes(files[6].read_bytes()[:end])
    with pytest.raises(ValueError, match=words):
        read_volume(tmp_path)


@pytest.mark.parametrize("tag", [b"\x20\x00\x37\x00DS", b"\x08\x00\x60\x00CS"])
def test_damage_that_shows_when_a_value_is_asked_for_is_named_too(tmp_path, tag):
    damaged = write_series(tmp_path, HU)[6]
    damaged.write_bytes(damaged.read_bytes().replace(tag, tag[:-1] + b"\xc4"))
    with pytest.raises(ValueError, match=r"series 4 may lack a slice: .*IM007.dcm: damaged or cut"):
        read_volume(tmp_path)
    assert len(find_cases(tmp_path)) == 1
    frames = write_enhanced(tmp_path / "frames" / "one.dcm", HU)
    frames.write_bytes(frames.read_bytes().replace(b"\x28\x00\x53\x10DS", b"\x28\x00\x53\x10RS"))
    with pytest.raises(ValueError, match=r"cannot read .*one.dcm: .* in tag \(0028,1053\)"):
        read_volume(frames)


def test_file_that_may_be_a_slice_is_named_and_one_elsewhere_left_aside(tmp_path, caplog):
    write_series(tmp_path / "ct", HU)
    cut = b"\x02\x00\x10\x00UI\xff\xff"
    (tmp_path / "IM9.dcm").write_bytes(bytes(128) + b"DICM" + cut)
    np.testing.assert_array_equal(read_volume(tmp_path).hu, HU)
    assert "IM9.dcm: its header is damaged or cut off; left aside" in caplog.text
    shutil.move(tmp_path / "IM9.dcm", tmp_path / "ct")
    with pytest.raises(
        ValueError, match=r"series 4 may lack a slice: .*IM9.dcm: its header is damaged"
    ):
        read_volume(tmp_path)


def test_file_without_permission_is_named_with_its_series(tmp_path, monkeypatch):
    write_series(tmp_path, HU)
    plain = DicomStore.open

    def locked(store, name):
        if name == "IM003.dcm":
            raise PermissionError(13, "Permission denied")
        return plain(store, name)

    monkeypatch.setattr(DicomStore, "open", locked)
    words = r"series 4 may lack a slice: .*IM003.dcm: Permission denied"
    with pytest.raises(OSError, match=words):
        read_volume(tmp_path)


def test_thousands_of_tiny_files_are_passed_by(tmp_path):
    write_series(tmp_path / "ct", HU)
    for number in range(3000):
        (tmp_path / f"{number}.txt").write_text("x")
    np.testing.assert_array_equal(read_volume(tmp_path).hu, HU)


@pytest.mark.parametrize(
    ("name", "words"), [("DICOMDIR", "only a DICOMDIR"), ("x", "x: its header is")]
)
def test_folder_without_images_is_refused(tmp_path, name, words):
    (tmp_path / name).write_bytes(bytes(128) + b"DICM")
    with pytest.raises(ValueError, match=words):
        read_volume(tmp_path)


def test_missing_package_is_named_with_its_cure(tmp_path, monkeypatch):
    write_series(tmp_path, HU)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ImportError, match=r"pip install highdicom"):
        read_volume(tmp_path)


def test_slices_are_read_at_random(tmp_path):
    write_series(tmp_path / "study", HU)
    volume = open_volume(tmp_path / "study", cache=tmp_path / "cache")
    np.testing.assert_array_equal(volume.slice(5), HU[5])
    assert volume.spacing_mm == SPACING_MM


def test_slices_read_at_random_are_those_that_lie_beside_the_file_now(tmp_path):
    files = write_series(tmp_path / "ct", HU)
    open_volume(files[0], cache=tmp_path / "cache")
    changed = HU.copy()
    changed[5] += 7
    shutil.copy(write_series(tmp_path / "new", changed)[5], files[5])
    again = open_volume(files[0], cache=tmp_path / "cache")
    np.testing.assert_array_equal(again.read(), changed)


def test_slices_read_at_random_are_those_of_the_series_that_is_named(tmp_path):
    write_series(tmp_path / "study" / "a", HU, series=4)
    write_series(tmp_path / "study" / "b", HU[:5] + 7, series=5)
    for series, hu in (("4", HU), ("5", HU[:5] + 7), (None, HU)):
        volume = open_volume(tmp_path / "study", cache=tmp_path / "cache", series=series)
        np.testing.assert_array_equal(volume.read(), hu)


def test_each_file_of_a_flat_folder_is_read_a_few_times_however_many_cases_it_holds(
    tmp_path, monkeypatch
):
    for study in "abcdefgh":
        for path in write_series(tmp_path / study, HU[:3], study=study, patient=study):
            path.rename(tmp_path / f"{study}{path.name}")
    read: list[str] = []
    plain = pydicom.dcmread
    monkeypatch.setattr(pydicom, "dcmread", lambda file, **kw: read.append(1) or plain(file, **kw))
    for study in "abcdefgh":
        np.testing.assert_array_equal(read_volume(tmp_path / f"{study}IM002.dcm").hu, HU[:3])
        hash_of_files(tmp_path / f"{study}IM002.dcm")
    assert len(read) <= 4 * 8 * 3 + 8  # not 2 * 8 * 8 * 3
    more = write_series(tmp_path / "more", HU[:5], study="a", patient="a")
    more[4].rename(tmp_path / "bIM003.dcm")  # a file known before becomes a slice of the first
    with pytest.raises(ValueError, match="a slice is missing"):
        read_volume(tmp_path / "aIM002.dcm")


def test_studies_are_told_apart_and_a_broken_file_ends_no_other(tmp_path, caplog):
    write_series(tmp_path / "a", HU)
    write_series(tmp_path / "b", HU, study="second", patient="P2")
    write_series(tmp_path / "c", HU, study="third", SOPClassUID=MRImageStorage, Modality="MR")
    (tmp_path / "b" / "IM001.dcm").write_bytes(bytes(128) + b"DICM" + b"\x02\x00\x10\x00UI\xff\xff")
    files = (path for path in sorted(tmp_path.rglob("*")) if path.is_file())
    studies = find_studies(found for path in files for found in study_headers(path))
    found = [
        {path.parent.name for path in one.series[uid]} for one in studies for uid in one.series
    ]
    assert found == [{"a"}, {"b"}]
    assert [kind for _, kind in studies[2].others] == ["MR"] * 7


@pytest.mark.real
def test_real_series_equal_simpleitk(caplog):
    sitk = pytest.importorskip("SimpleITK", reason="pip install SimpleITK")
    if real_data() is None:
        pytest.skip("LITS_REAL names no folder with real data")
    study = real_data() / "dicom" / "HCC_015"
    reader = sitk.ImageSeriesReader()
    for label, folder in (("4", "19981101_s004_acq1"), ("103", "19981101_s103_acq3")):
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(study / folder)))
        image = reader.Execute()
        volume = read_volume(study, series=label)
        np.testing.assert_array_equal(volume.hu, sitk.GetArrayFromImage(image))
        np.testing.assert_allclose(volume.spacing_mm, image.GetSpacing()[::-1], atol=1e-5)
    assert read_volume(study).hu.shape[0] == 62
    assert any("not taken: 4 (61 slices" in text for text in caplog.messages)
