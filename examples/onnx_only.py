"""Segment a CT with exported models: no torch, no lits_helpers. Not a medical device.

pip install numpy scipy nibabel opencv-python-headless onnxruntime
python onnx_only.py ct.nii.gz labels.nii.gz liver.onnx tumor.onnx
"""

import json
import sys
from pathlib import Path

import cv2
import nibabel as nib
import numpy as np
import onnxruntime
from scipy import ndimage


def seen_of(hu, liver, spec, pixel):
    """Return the part of the slices that a model sees, and the HU that its window starts from."""
    box, median = (slice(None), slice(None)), 0
    if liver.any() and spec["liver_margin"] is not None:
        spans = [np.flatnonzero(liver.any((0, axis)))[[0, -1]] + (0, 1) for axis in (2, 1)]
        longer = np.max(np.ptp(spans, axis=1) * pixel)
        wanted = max(longer * (1 + 2 * spec["liver_margin"]), 0.25 * np.max(hu.shape[1:] * pixel))
        grown = [round((wanted - longer) / 2 / step) for step in pixel]
        box = tuple(slice(max(a - n, 0), b + n) for (a, b), n in zip(spans, grown, strict=True))
    if liver.any() and spec["liver_window"]:
        filled = np.flatnonzero(liver.any((1, 2)))
        chosen = filled[np.linspace(0, len(filled) - 1, min(16, len(filled))).astype(int)]
        median = int(np.median(hu[chosen][liver[chosen]]))
    return box, median


def probability(model, about, hu, k, pixel, box, median):
    """Return what a model says of slice k, (Y, X) float32."""
    spec, side = about["spec"], about["spec"]["size"]
    image = np.zeros((spec["channels"], side, side), np.float32)
    for channel, n in enumerate(range(k - spec["context"], k + spec["context"] + 1)):
        plane = hu[min(max(n, 0), len(hu) - 1)].astype(np.float64)
        low, high = np.add(spec["window"], median) if spec["window"] else (plane.min(), plane.max())
        grey = (plane - low) * about["levels"] / max(high - low, 1) + 0.5
        grey = np.floor(grey).clip(0, about["levels"])[box]
        grey = np.ascontiguousarray(grey, np.uint8 if spec["window"] else np.uint16)
        scale = side / max(grey.shape * pixel)
        size = np.rint(grey.shape * pixel * scale).astype(int).clip(1)
        rows, columns = (slice((side - n) // 2, (side - n) // 2 + n) for n in size)
        shrunk = np.minimum(size, grey.shape)[::-1].tolist()  # first, by area means
        small = cv2.resize(grey, shrunk, interpolation=cv2.INTER_AREA)
        image[channel:, rows, columns] = cv2.resize(small, size[::-1].tolist())
    mean, deviation = (np.float32(about[key])[:, None, None] for key in ("mean", "deviation"))
    image = (image / np.float32(about["levels"]) - mean) / deviation
    (answer,) = model.run(None, {"image": image[None]})
    native = np.zeros(hu.shape[1:], np.float32)
    native[box] = cv2.resize(np.ascontiguousarray(answer[0, 0, rows, columns]), grey.shape[::-1])
    return native


def segment(hu, spacing_mm, models):
    """Return labels 0, 1, 2 (Z, Y, X) of HU (Z, Y, X)."""
    labels = np.zeros(hu.shape, np.uint8)
    aspect = spacing_mm[1] / spacing_mm[2]
    for model, about in models:
        post, liver = about["postprocessing"], labels > 0
        square = max(aspect, 1 / aspect) <= 1 + about["square_within"]
        pixel = np.array([1.0 if square else aspect, 1.0])
        seen = pixel, *seen_of(hu, liver, about["spec"], pixel)
        if about["system"] == "liver":
            planes = [probability(model, about, hu, k, *seen) for k in range(len(hu))]
            liver = np.array(planes) >= post["liver_threshold"]
            parts, count = ndimage.label(liver)
            liver = parts == 1 + np.argmax(np.bincount(parts.ravel())[1:]) if count else liver
            labels[ndimage.binary_fill_holes(liver)] = 1
            continue
        steps = [int(post["margin_mm"] / step + 1e-6) for step in spacing_mm]
        z, y, x = np.ogrid[tuple(slice(-n, n + 1) for n in steps)]
        near_mm = np.hypot(y * spacing_mm[1], x * spacing_mm[2]) + 0 * z
        near = ndimage.binary_dilation(liver, near_mm <= post["margin_mm"] + 1e-6)
        chance = np.zeros(hu.shape, np.float32)
        for k in np.flatnonzero(near.any((1, 2))):
            chance[k] = probability(model, about, hu, k, *seen)
        lesions, _ = ndimage.label(near & (chance >= post["tumor_threshold"]))
        sure = np.floor(chance * 255 + 0.5) >= 255 * post["tumor_peak"]
        large = np.bincount(lesions.ravel()) * np.prod(spacing_mm) >= post["min_lesion_mm3"]
        kept = np.intersect1d(np.flatnonzero(large), lesions[sure])
        labels[np.isin(lesions, kept[kept > 0])] = 2
    return labels


def main(ct, out, *files):
    """Read a CT, segment it and write the labels on the CT's own grid."""
    stored = nib.load(ct)
    wanted = nib.orientations.axcodes2ornt("LPS")
    own = nib.io_orientation(stored.affine)
    turned = stored.as_reoriented(nib.orientations.ornt_transform(own, wanted))
    hu = np.rint(turned.get_fdata()).clip(-32768, 32767).astype(np.int16).transpose(2, 1, 0)
    spacing_mm = nib.affines.voxel_sizes(turned.affine)[::-1]
    about = [json.loads(Path(file).with_suffix(".json").read_text()) for file in files]
    models = list(zip(map(onnxruntime.InferenceSession, files), about, strict=True))
    models.sort(key=lambda model: model[1]["system"])  # the liver first: tumors lie in it
    if [model[1]["system"] for model in models] not in (["liver"], ["liver", "tumor"]):
        sys.exit("name a liver model, and a tumor model if there is one")
    labels = segment(np.ascontiguousarray(hu), spacing_mm, models).transpose(2, 1, 0)
    back = nib.orientations.ornt_transform(wanted, own)
    labels = nib.orientations.apply_orientation(labels, back)
    header = stored.header.copy()
    header.set_data_dtype(np.uint8)
    header.set_slope_inter(1, 0)
    nib.save(nib.Nifti1Image(labels, stored.affine, header), out)


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
