"""The folds of a cross-validation in nnU-Net's layout, so that the same ones can be run there."""

import logging
from pathlib import Path

from tqdm.auto import tqdm

from ..machine import few, write_json
from ..preprocess import Prepared, open_prepared
from ..settings import Settings
from ..volumes import open_volume, read_volume, write_segmentation, write_volume

logger = logging.getLogger(__name__)

DATASET = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "liver": 1, "tumor": 2},
    "file_ending": ".nii.gz",
}


def export_nnunet(settings: Settings, out: Path | str, *, folds: int = 5) -> Path:
    """Write the prepared cases and the folds of `cross_validate` as a data set of nnU-Net v2.

    ``imagesTr/CASE_0000.nii.gz`` and ``labelsTr/CASE.nii.gz`` lie on the grid of the CT's own file.
    Files that are newer than the prepared case are kept, so an interrupted call goes on. Cases
    whose tumors are not known are left out: nnU-Net would learn that there are none.

    Args:
        settings: the prepared cases.
        out: the data set's folder, ``nnUNet_raw/DatasetNNN_NAME``.
        folds: parts of the patients, as for `cross_validate`.

    Returns:
        ``splits_final.json``, which belongs into ``nnUNet_preprocessed/DatasetNNN_NAME``.

    Raises:
        ValueError: a fold without patients.
        OSError: `out` cannot be written.
    """
    out = Path(out)
    parts = [
        open_prepared(settings.prepared, validation=1 / folds, fold=number)
        for number in range(folds)
    ]
    data = parts[0]
    unknown = {case.id for case in data.cases if case.liver_only}
    if unknown:
        logger.info("left out, their tumors are not known: %s", few(sorted(unknown)))
    wanted = [name for part in parts for name in part.split.validation if name not in unknown]
    for case_id in tqdm(wanted, desc="nnU-Net", unit="case"):
        _write_case(data, case_id, out)
    splits = [
        {
            "train": [name for name in part.split.training if name not in unknown],
            "val": [name for name in part.split.validation if name not in unknown],
        }
        for part in parts
    ]
    write_json(out / "dataset.json", DATASET | {"numTraining": len(wanted)})
    return write_json(out / "splits_final.json", splits)


def _write_case(data: Prepared, case_id: str, out: Path) -> None:
    ct, reference = data.volume_path(case_id), data.labels_path(case_id)
    image = out / "imagesTr" / f"{case_id}_0000.nii.gz"
    labels = out / "labelsTr" / f"{case_id}.nii.gz"
    if _is_newer(image, ct) and _is_newer(labels, reference):
        return
    volume = read_volume(ct)
    write_segmentation(open_volume(reference).read(), volume, labels)
    write_volume(volume, image)


def _is_newer(path: Path, source: Path) -> bool:
    return path.is_file() and path.stat().st_mtime >= source.stat().st_mtime
