"""Archives that would write elsewhere or too much, gzip files that are not whole."""

import gzip
import io
import stat
import zipfile

import pytest
from helpers.kaggle_stand_in import FIRST, VOLUME, fetch_one, files_below, nifti, zipped

from lits_helpers.download.archives import is_whole
from lits_helpers.download.source import FileUnavailable

pytest_plugins = ["helpers.kaggle_fixtures"]


def entry(name: str, mode: int = 0) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


def hostile(info: zipfile.ZipInfo, content: bytes = b"x") -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("volume-3.nii", nifti(3))
        archive.writestr(info, content)
    return out.getvalue()


BOMB = zipped(**{"volume-3.nii": nifti(3) + bytes(30_000_000)})
CLAIMED_HUGE = hostile(entry("big.nii"), b"y" * 1000).replace(
    (1000).to_bytes(4, "little"), (0xFFFFFFF0).to_bytes(4, "little")
)


@pytest.mark.parametrize(
    ("archive", "words"),
    [
        (hostile(entry("/outside/evil.nii")), "outside its folder"),
        (hostile(entry("../../evil.nii")), "outside its folder"),
        (hostile(entry("a/../../evil.nii")), "outside its folder"),
        (hostile(entry("C:\\evil.nii")), "outside its folder"),
        (hostile(entry("..\\evil.nii")), "outside its folder"),
        (hostile(entry("link.nii", stat.S_IFLNK | 0o777), b"/etc/passwd"), "link or device"),
        (BOMB, "unpacks to more"),
    ],
)
def test_hostile_archive_is_refused_and_leaves_nothing(kaggle, client, raw, archive, words):
    kaggle.sets[FIRST][VOLUME] = archive
    with pytest.raises(FileUnavailable, match=words):
        fetch_one(3, raw, client=client)
    assert files_below(raw.parent) == []


def test_archive_claiming_gigabytes_is_refused(kaggle, client, raw):
    kaggle.sets[FIRST][VOLUME] = CLAIMED_HUGE
    with pytest.raises(FileUnavailable, match="more than any CT volume"):
        fetch_one(3, raw, client=client)


def test_archive_without_the_wanted_file_is_named(kaggle, client, raw):
    kaggle.sets[FIRST][VOLUME] = zipped(**{"volume-4.nii": nifti(4)})
    with pytest.raises(FileUnavailable, match=r"does not hold volume-3\.nii"):
        fetch_one(3, raw, client=client)


@pytest.mark.parametrize("end", [9000, 30_000, -1])
def test_cut_off_gzip_is_not_taken_for_whole(tmp_path, end):
    path = tmp_path / "volume-3.nii.gz"
    path.write_bytes(gzip.compress(nifti(3))[:end])
    assert not is_whole(path)


def test_gzip_of_several_members_is_whole(tmp_path):
    path = tmp_path / "volume-3.nii.gz"
    content = nifti(3)
    path.write_bytes(gzip.compress(content[:20_000]) + gzip.compress(content[20_000:]))
    assert is_whole(path)
