"""Where a file's voxels lie in the patient, and the way from stored order to (Z, Y, X) and back."""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import nibabel as nib
import numpy as np
from nibabel.imageglobals import LoggingOutputSuppressor
from nibabel.spatialimages import HeaderDataError

from .pixels import aspect_of_pixel

# (Z, Y, X) grow towards the head, the back and the patient's left: LPS+ axes, slowest first.
INTERNAL_AXES = (("S", "I"), ("P", "A"), ("L", "R"))
PLAUSIBLE_SPACING_MM = (0.05, 20.0)  # outside, the numbers are no millimetres of a CT


@dataclass(frozen=True)
class Geometry:
    """The stored grid of a volume and how it was turned into (Z, Y, X).

    Attributes:
        stored_shape: shape in the file, with trailing axes of length one.
        affine: 4x4 rows of the file, stored voxel index -> mm in NIfTI's RAS+ world.
        header: the file's NIfTI header, base64; enough to write labels in the same grid.
        axes: stored axis of each internal axis (Z, Y, X).
        flips: whether each internal axis is reversed.
        spacing_trusted: False where the header states no plausible millimetres, contradicts
            itself, or has voxels of exactly 1 mm, which converters write that know no size.
        remark: what is odd about the header, one clause; empty for a sound one.
        dicom: UIDs of the DICOM instances that the voxels come from, one for each index of the last
            stored axis, "#" and the frame behind those of several; empty for other files.
    """

    stored_shape: tuple[int, ...]
    affine: tuple[tuple[float, ...], ...]
    header: str
    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    spacing_trusted: bool
    dicom: tuple[str, ...] = ()
    remark: str = ""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (Z, Y, X)."""
        return tuple(self.stored_shape[axis] for axis in self.axes)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size (dz, dy, dx) in mm, from the affine."""
        lengths = nib.affines.voxel_sizes(np.array(self.affine))
        return tuple(float(round(lengths[axis], 6)) for axis in self.axes)

    @property
    def trusted_spacing_mm(self) -> tuple[float, float, float] | None:
        """The voxel size, or None where it cannot be trusted and no figure in mm may be shown."""
        return self.spacing_mm if self.spacing_trusted else None

    @property
    def pixel_aspect(self) -> float:
        """Height of a slice's pixel by its width; 1 where it is square or no mm can be trusted."""
        return aspect_of_pixel(*self.spacing_mm[1:]) if self.spacing_trusted else 1.0

    @property
    def orientation(self) -> str:
        """Axis codes of the stored axes as they were read, for example "RAS"."""
        codes = [""] * 3
        for (forward, backward), axis, flip in zip(
            INTERNAL_AXES, self.axes, self.flips, strict=True
        ):
            codes[axis] = backward if flip else forward
        return "".join(codes)

    @property
    def orientation_trusted(self) -> bool:
        """Whether the header tells the orientation.

        An identity affine does not, nor one that nibabel makes up where both forms are missing.
        """
        return self.states_a_form and not _is_identity(np.array(self.affine))

    @property
    def states_a_form(self) -> bool:
        """Whether the header has a qform or an sform: without, it says nothing of places."""
        header = self.nifti_header()
        return bool(header["qform_code"] > 0 or header["sform_code"] > 0)

    @property
    def mirrored(self) -> bool:
        """Whether the stored axes as read are left-handed: LAS is, RAS and LPS are not."""
        odd_order = self.axes in ((0, 1, 2), (1, 2, 0), (2, 0, 1))  # against X, Y, Z = 2, 1, 0
        return odd_order ^ (sum(self.flips) % 2 == 1)

    def as_internal(self, stored: np.ndarray) -> np.ndarray:
        """Return a (Z, Y, X) view of a three-axis array in stored order."""
        return stored.transpose(self.axes)[reversing(self.flips)]

    def as_stored(self, internal: np.ndarray) -> np.ndarray:
        """Return a view of a (Z, Y, X) array in stored order (three axes); undoes `as_internal`."""
        return internal[reversing(self.flips)].transpose(np.argsort(self.axes))

    def nifti_header(self) -> nib.Nifti1Header:
        """Return the file's header, as read."""
        return header_from_bytes(base64.b64decode(self.header))

    def with_orientation(self, orientation: str) -> "Geometry":
        """Return the geometry read with other axis codes than the header's.

        Raises:
            ValueError: `orientation` is not three axis codes such as "LPS".
        """
        axes, flips = axes_of(orientation)
        return replace(self, axes=axes, flips=flips)

    def reversed_along(self, flips: tuple[bool, bool, bool]) -> "Geometry":
        """Return the geometry with these of (Z, Y, X) read the other way round."""
        turned = tuple(bool(old ^ new) for old, new in zip(self.flips, flips, strict=True))
        return replace(self, flips=turned)

    def to_dict(self) -> dict:
        """Return plain values for JSON; `from_dict` undoes it."""
        return dict(self.__dict__)

    @classmethod
    def from_dict(cls, content: dict) -> "Geometry":
        """Rebuild a geometry from `to_dict`, also after JSON, which knows lists only."""
        return cls(**{name: _as_tuples(value) for name, value in content.items()})


def _as_tuples(value: object) -> object:
    return tuple(map(_as_tuples, value)) if isinstance(value, list | tuple) else value


def geometry_of_header(header: nib.Nifti1Header) -> Geometry:
    """Return the geometry that a NIfTI header states; an oblique grid gets the nearest axes.

    Args:
        header: of a file with three axes (more only of length one).

    Raises:
        ValueError: the affine is not finite or not invertible.
    """
    header, remark = _with_a_usable_form(header)
    affine = _affine_of(header.get_best_affine)
    doubt = _doubt_about_spacing(header, affine)
    axes, flips = axes_of("".join(nib.aff2axcodes(affine)))
    return Geometry(
        stored_shape=tuple(int(length) for length in header.get_data_shape()),
        affine=tuple(tuple(float(value) for value in row) for row in affine),
        header=base64.b64encode(header.binaryblock).decode("ascii"),
        axes=axes,
        flips=flips,
        spacing_trusted=not doubt,
        remark=doubt or remark,
    )


def plain_geometry(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> Geometry:
    """Return the geometry of a (Z, Y, X) array that comes from no file, stored as LPS."""
    dz, dy, dx = spacing_mm
    return geometry_of_affine(shape[::-1], np.diag([-dx, -dy, dz, 1.0]))


def geometry_of_affine(shape: tuple[int, int, int], affine: np.ndarray) -> Geometry:
    """Return the geometry of stored int16 voxels that come with an affine and no NIfTI header.

    Args:
        shape: as stored.
        affine: (4, 4), stored voxel index -> mm, RAS+.
    """
    header = nib.Nifti1Header()
    header.set_data_shape(shape)
    header.set_data_dtype(np.int16)
    header.set_sform(affine, code="scanner")
    header.set_qform(affine, code="scanner")
    header.set_xyzt_units("mm")
    return geometry_of_header(header)


def axes_of(orientation: str) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    """Return for (Z, Y, X) the stored axis and whether it is reversed.

    Args:
        orientation: where the stored axes grow to, for example "RAS" = right, front, head.

    Raises:
        ValueError: not one code each of L/R, P/A and S/I.
    """
    axes = []
    flips = []
    for forward, backward in INTERNAL_AXES:
        found = [axis for axis, code in enumerate(orientation) if code in (forward, backward)]
        if len(orientation) != 3 or len(found) != 1:
            raise ValueError(
                "orientation must hold one code each of L/R, P/A and S/I, such as LPS, "
                f"got {orientation!r}"
            )
        axes.append(found[0])
        flips.append(orientation[found[0]] == backward)
    return tuple(axes), tuple(flips)


def same_grid(one: Geometry, other: Geometry) -> bool:
    """Tell whether two headers put their voxels at the same places, to a tenth of a voxel."""
    first = header_orientation(one)
    second = header_orientation(other)
    if first.shape != second.shape:
        return False
    offset = np.abs(internal_affine(first) - internal_affine(second))
    reach = offset[:, :3] @ np.array(first.shape) + offset[:, 3]
    return bool(np.all(reach <= 0.1 * min(first.spacing_mm)))


def header_orientation(geometry: Geometry) -> Geometry:
    """Return `geometry` as its own header states it, without an override."""
    return geometry.with_orientation("".join(nib.aff2axcodes(np.array(geometry.affine))))


def matched_to(geometry: Geometry, like: Geometry) -> Geometry:
    """Return `geometry` (same grid as `like`) turned as `like` was turned, overrides included."""
    stated = header_orientation(like)
    unturned = header_orientation(geometry)
    twin = [stated.axes.index(axis) for axis in like.axes]
    turned = [like.flips[i] ^ stated.flips[j] ^ unturned.flips[j] for i, j in enumerate(twin)]
    return replace(geometry, axes=tuple(unturned.axes[j] for j in twin), flips=tuple(turned))


def reversing(flips: tuple[bool, ...]) -> tuple[slice, ...]:
    """Return the index that reverses these axes of an array."""
    return tuple(slice(None, None, -1 if flip else 1) for flip in flips)


def header_from_bytes(block: bytes, *, mended: bool = True) -> nib.Nifti1Header:
    """Return a NIfTI-1 or NIfTI-2 header from its bytes.

    Args:
        block: the header, or more.
        mended: let nibabel mend small faults and refuse large ones.

    Raises:
        ValueError: the bytes are no NIfTI header.
    """
    sizes = {int.from_bytes(block[:4], order) for order in ("little", "big")}
    kinds = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
    length = next((size for size in kinds if size in sizes and len(block) >= size), None)
    if length is None:
        raise ValueError(f"no NIfTI header: it starts with {block[:16]!r}")
    try:
        with LoggingOutputSuppressor():  # nibabel's remarks; what matters is raised
            return kinds[length](block[:length], check=mended)
    except (HeaderDataError, ValueError, OverflowError) as error:
        raise ValueError(f"broken NIfTI header: {error}") from error


def _with_a_usable_form(header: nib.Nifti1Header) -> tuple[nib.Nifti1Header, str]:
    """Return the header without an sform that cannot be used beside a qform that can."""
    if header["sform_code"] <= 0 or header["qform_code"] <= 0:
        return header, ""
    try:
        _affine_of(header.get_sform)
        return header, ""
    except ValueError:
        _affine_of(header.get_qform)
    header = header.copy()
    header["sform_code"] = 0
    return header, "its sform is not usable; the qform is taken"


def _affine_of(form: Callable[[], np.ndarray]) -> np.ndarray:
    """Return the affine that a method of a header gives.

    Raises:
        ValueError: it cannot be used.
    """
    try:
        affine = np.asarray(form(), dtype=np.float64)
    except (HeaderDataError, ValueError) as error:
        raise ValueError(f"the header's qform is broken: {error}") from error
    lengths = nib.affines.voxel_sizes(affine)
    if not np.isfinite(affine).all() or not (lengths > 0).all():
        raise ValueError(f"the affine is not usable: {affine[:3].round(3).tolist()}")
    directions = affine[:3, :3] / lengths
    if abs(np.linalg.det(directions)) < 1e-3:
        raise ValueError(f"the affine is flat (two axes coincide): {affine[:3].round(3).tolist()}")
    return affine


def _doubt_about_spacing(header: nib.Nifti1Header, affine: np.ndarray) -> str:
    """Return in one clause why the voxel size is not in millimetres; empty where it may be."""
    low, high = PLAUSIBLE_SPACING_MM
    lengths = nib.affines.voxel_sizes(affine)
    sizes = np.array(header.get_zooms()[:3], dtype=np.float64)  # of the qform, mostly
    if is_unit(lengths):
        return "1 mm in each direction is what converters write that know no size"
    if np.any((lengths < low) | (lengths > high)):
        return "no CT has such voxels"
    apart = np.abs(lengths - sizes) > 0.02 * lengths
    if apart.any() and (sizes > 0).all() and not is_unit(sizes):
        return f"the sform contradicts the header's own voxel size {size_text(sizes)} mm"
    return ""


def is_unit(lengths: Sequence[float]) -> bool:
    """Tell whether a voxel size is 1 mm in each direction: a stand-in for an unknown one."""
    return bool(np.allclose(lengths, 1, rtol=0, atol=1e-5))


def size_text(lengths: Sequence[float]) -> str:
    """Return a voxel size as a message shows it: "0.7 x 0.7 x 5"."""
    return " x ".join(f"{length:.4g}" for length in lengths)


def _is_identity(affine: np.ndarray) -> bool:
    """1 x 1 x 1 mm at the origin, up to signs: what converters write that know no position."""
    return np.array_equal(np.abs(affine), np.eye(4))


def internal_affine(geometry: Geometry) -> np.ndarray:
    """Return (3, 4): internal index (k, j, i) -> mm, RAS+."""
    affine = np.array(geometry.affine)[:3]
    origin = affine[:, 3].copy()
    columns = []
    for axis, flip, length in zip(geometry.axes, geometry.flips, geometry.shape, strict=True):
        columns.append(-affine[:, axis] if flip else affine[:, axis])
        if flip:
            origin += affine[:, axis] * (length - 1)
    return np.stack([*columns, origin], axis=1)
