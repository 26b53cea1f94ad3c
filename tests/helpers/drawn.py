"""Small drawn bodies and the NIfTI files they are stored in, for the tests of the data's way in."""

import itertools

import nibabel as nib
import numpy as np

SPACING_MM = (5.0, 0.7, 0.8)
BODY_SPACING_MM = (10.0, 4.5, 5.0)  # makes `body` 340 mm wide and its liver 850 ml
FLIPS = list(itertools.product((False, True), repeat=3))
ORIENTATIONS = [
    "".join(codes)
    for order in itertools.permutations(("LR", "PA", "SI"))
    for codes in itertools.product(*order)
]


def ramp(shape=(12, 40, 48)):
    """(Z, Y, X) int16 in which every voxel differs from its neighbours, air included."""
    z, y, x = np.indices(shape)
    return (z * 97 + y * 13 + x * 5 - 1000).astype(np.int16)


def blob(shape=(12, 40, 48)):
    """(Z, Y, X) uint8: an off-centre liver with a tumor, symmetrical along no axis."""
    labels = np.zeros(shape, np.uint8)
    labels[2:9, 5:22, 4:21] = 1
    labels[4:6, 8:12, 7:16] = 2
    return labels


def body(shape=(14, 60, 76)):
    """(hu, labels) of an abdomen: liver on the right (low x), spine at the back, lungs above."""
    z, y, x = np.indices(shape)
    depth, height, width = shape
    noise = np.random.default_rng(3).normal(0, 8, shape)
    hu = np.full(shape, -1000.0)
    trunk = ((y - height / 2) / (height * 0.42)) ** 2 + ((x - width / 2) / (width * 0.45)) ** 2 < 1
    inner = ((y - height / 2) / (height * 0.37)) ** 2 + ((x - width / 2) / (width * 0.41)) ** 2 < 1
    hu[trunk] = -100
    hu[inner] = -60
    spine = (np.abs(x - width / 2) < 5) & (np.abs(y - height * 0.74) < 5)
    lungs = inner & ~spine & (np.abs(x - width / 2) > 7) & (z >= depth - 4)
    hu[lungs] = -850
    middle = width * 0.29 + 0.4 * (z - depth * 0.5)  # it reaches further to the left above
    liver = (
        ((z - depth * 0.5) / (depth * 0.38)) ** 2
        + ((y - height * 0.43) / (height * 0.22)) ** 2
        + ((x - middle) / (width * 0.17)) ** 2
    ) < 1
    hu[liver] = 110
    hu[spine] = 450
    labels = (liver & ~spine).astype(np.uint8)
    core = np.hypot(y - height * 0.4, x - width * 0.25) < 4
    tumor = (labels > 0) & core & (np.abs(z - 5) < 2)
    labels[tumor] = 2
    hu[tumor] = 60
    return np.round(hu + noise).astype(np.int16), labels


def stored_as(array, orientation):
    """Return a (Z, Y, X) array as a file of that orientation stores it."""
    codes = nib.orientations.axcodes2ornt("LPS")
    target = nib.orientations.axcodes2ornt(orientation)
    turn = nib.orientations.ornt_transform(codes, target)
    return nib.orientations.apply_orientation(array.transpose(2, 1, 0), turn)


def affine_of(shape, orientation, spacing_mm=SPACING_MM, origin=(-71.5, 33.25, 410.0)):
    """Affine of a (Z, Y, X) shape so stored; in every orientation the voxels lie at the same mm."""
    dz, dy, dx = spacing_mm
    lps = np.array([[-dx, 0, 0, 0], [0, -dy, 0, 0], [0, 0, dz, 0], [0, 0, 0, 1.0]])
    lps[:3, 3] = origin
    codes = nib.orientations.axcodes2ornt("LPS")
    turn = nib.orientations.ornt_transform(codes, nib.orientations.axcodes2ornt(orientation))
    return lps @ nib.orientations.inv_ornt_aff(turn, shape[::-1])


def write_nifti(array, path, orientation="LPS", spacing_mm=SPACING_MM, affine=None, dtype=None):
    """Write a (Z, Y, X) array as the file of that orientation; return the path."""
    if affine is None:
        affine = affine_of(array.shape, orientation, spacing_mm)
    stored = np.asarray(stored_as(array, orientation), dtype=dtype or array.dtype)
    image = nib.Nifti1Image(stored, affine)
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    return path


def write_case(
    root, number, hu, labels=None, orientation="LPS", suffix=".nii", spacing_mm=BODY_SPACING_MM
):
    """Write a pair in the Kaggle layout."""
    write_nifti(hu, root / "volume_pt1" / f"volume-{number}{suffix}", orientation, spacing_mm)
    if labels is not None:
        path = root / "segmentations" / f"segmentation-{number}{suffix}"
        write_nifti(labels, path, orientation, spacing_mm)
    return root


def labeled_volume(shape=(12, 40, 48)) -> tuple[np.ndarray, np.ndarray]:
    """A CT and labels: liver on the image's left (the patient's right), a tumor near its front."""
    hu = np.random.default_rng(0).integers(-50, 150, shape).astype(np.int16)
    labels = np.zeros(shape, np.uint8)
    labels[3:9, 10:30, 6:26] = 1
    labels[5:8, 12:18, 8:15] = 2
    return hu, labels


def turned(array, flips):
    """Return the array running the other way along the flipped axes."""
    return array[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]
