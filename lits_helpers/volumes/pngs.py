"""Folders of 8-bit grey PNG slices, <k>.png: found, measured, read and written."""

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np

from .pixels import aspect_of_pixel

HEAD_BYTES = 33  # signature and first chunk, which holds the size
PER_METRE = 1  # the unit of a pHYs chunk, which tells the size of a pixel


def numbered_pngs(folder: Path) -> dict[int, Path]:
    """Return {slice index: file} of the <k>.png in a folder, ascending; 007.png is slice 7.

    Raises:
        ValueError: two files are the same slice.
    """
    found = {}
    for path in sorted(path for path in folder.glob("*.png") if path.stem.isdecimal()):
        other = found.setdefault(int(path.stem), path)
        if other != path:
            raise ValueError(f"two files for one slice: {other} and {path}; remove one of them")
    return dict(sorted(found.items()))


def png_size(path: Path) -> tuple[int, int]:
    """Return a PNG's (height, width) from its first bytes.

    Raises:
        OSError: it is no PNG.
    """
    with open(path, "rb") as stream:
        head = stream.read(24)
    if head[:8] != b"\x89PNG\r\n\x1a\n" or len(head) < 24:
        raise OSError(f"{path} is no PNG: save it as an 8-bit grey PNG")
    width, height = struct.unpack(">II", head[16:])
    return height, width


def png_pixel_aspect(path: Path) -> float:
    """Return the height of a PNG's pixels by their width, 1 where the file does not tell it."""
    with open(path, "rb") as stream:
        stream.seek(HEAD_BYTES)
        while len(head := stream.read(8)) == 8 and head[4:] != b"IDAT":
            content = stream.read(int.from_bytes(head[:4], "big") + 4)
            if head[4:] == b"pHYs":
                columns, rows = (int.from_bytes(content[part : part + 4], "big") for part in (0, 4))
                return aspect_of_pixel(columns, rows) if rows and columns else 1.0  # by length
    return 1.0


def read_png(path: Path) -> np.ndarray:
    """Return an 8-bit grey PNG as (H, W) uint8; colour counts if all its channels are equal.

    Raises:
        OSError: the file is missing, damaged, or holds something else (OpenCV itself returns None,
            or cuts 16 bits down to 8, without a word).
    """
    image = read_picture(path, cv2.IMREAD_UNCHANGED)
    if image is None:
        raise OSError(f"cannot read {path}: missing or no image; run the preparation again")
    grey = image if image.ndim == 2 else image[..., 0]
    alike = image.ndim == 2 or (image[..., :3] == grey[..., None]).all()
    opaque = image.ndim == 2 or image.shape[2] < 4 or (image[..., 3] == 255).all()
    if image.dtype != np.uint8 or not alike or not opaque:
        raise OSError(
            f"{path} holds {image.dtype} of shape {image.shape}, which is no 8-bit grey picture: "
            "save images and masks as 8-bit grey PNGs"
        )
    return grey


def read_picture(path: Path, flags: int) -> np.ndarray | None:
    """Return a picture, (H, W) or (H, W, channels), as OpenCV decodes it with `flags`.

    None if it is missing or no picture. `cv2.imread` itself knows only ASCII paths on Windows.
    """
    try:
        content = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError:
        return None
    return cv2.imdecode(content, flags) if len(content) else None


def write_picture(
    path: Path,
    image: np.ndarray,
    options: tuple[int, ...] = (),
    pixel_mm: tuple[float, float] | None = None,
) -> None:
    """Write a picture, (H, W) or (H, W, 3) BGR, uint8.

    Args:
        path: a .png.
        image: the picture.
        options: of `cv2.imencode`.
        pixel_mm: size of a pixel (row, column), for `png_pixel_aspect`; None tells none.

    Raises:
        OSError: it cannot be written; `cv2.imwrite` itself is silent about a full disk.
    """
    png = cv2.imencode(".png", image, options)[1].tobytes()
    if pixel_mm:
        rows, columns = (round(1000 / length) for length in pixel_mm)
        chunk = b"pHYs" + struct.pack(">IIB", columns, rows, PER_METRE)
        size, checksum = struct.pack(">I", len(chunk) - 4), struct.pack(">I", zlib.crc32(chunk))
        png = png[:HEAD_BYTES] + size + chunk + checksum + png[HEAD_BYTES:]
    path.write_bytes(png)
