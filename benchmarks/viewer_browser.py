"""Time from a key to the picture in JupyterLab under headless Chromium, and where it goes.

    python benchmarks/viewer_browser.py [--keys 60]

A 512x512 phantom with the outlines of reference and prediction. Browser and kernel share the
machine's clock. Needs what the browser tests need, see tests/viewer/test_browser.py.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tests")]

from helpers.front_ends import Lab, Page, open_chromium  # noqa: E402

CELL = """
from lits_helpers.phantom import make_phantom
from lits_helpers.volumes import volume_from_array
slice_viewer.encode_frame = original
hu, reference, spacing_mm = make_phantom(0, (24, 512, 512))
shifted = np.roll(reference, (4, -5), (1, 2))
viewer = SliceViewer(
    volume_from_array(hu, spacing_mm), {"reference": reference, "prediction": shifted}, static=False
)
take = viewer.take
def timed(event):
    start = time.time()
    take(event)
    line = dict(start=1000 * start, end=1000 * time.time(), size=len(viewer.controls.image.value))
    with open("times.jsonl", "a") as stream:
        stream.write(json.dumps(line) + "\\n")
viewer.take = timed
viewer.controls.image._msg_callbacks.callbacks.clear()
viewer.controls.image.on_msg(lambda _, event, __: viewer.controls.image.receive(event, timed))
viewer
"""
PRESS = """
const [key, done] = arguments, picture = document.querySelector('.lits-picture:not(.old)');
const now = () => performance.timeOrigin + performance.now();
const pressed = now();
picture.addEventListener('load', () => {
  const loaded = now();
  requestAnimationFrame(() => done([pressed, loaded, now()]));
}, {once: true});
picture.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true}));
"""


def main() -> None:
    """Print medians of the whole way and of its parts, ms, with the machine's load."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keys", type=int, default=60)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, open_chromium() as chrome:
        folder = Path(name)
        with Page(Lab, chrome, folder) as page:
            page.show(CELL, seconds=300)
            keys = ["ArrowUp", "ArrowDown"] * (options.keys // 4)
            seen = []
            for key in [*keys, *keys[::-1]]:
                seen.append(chrome.execute_async_script(PRESS, key))
                time.sleep(0.05)
        lines = (folder / "times.jsonl").read_text().splitlines()
    print(report(np.array(seen), [json.loads(line) for line in lines]))


def report(seen: np.ndarray, kernel: list[dict]) -> str:
    """Return the table.

    Args:
        seen: (N, 3) ms: key pressed, picture decoded, frame of the screen after it.
        kernel: N rows of "start", "end" and "size".
    """
    start, end = (np.array([row[name] for row in kernel]) for name in ("start", "end"))
    parts = {
        "key to picture": seen[:, 1] - seen[:, 0],
        "key to kernel": start - seen[:, 0],
        "kernel": end - start,
        "kernel to picture": seen[:, 1] - end,
        "to the screen's next frame": seen[:, 2] - seen[:, 1],
    }
    lines = [
        f"{name:27s} {np.median(ms):6.1f} ms median {np.percentile(ms, 95):7.1f} ms 95th percentile"
        for name, ms in parts.items()
    ]
    size = max(row["size"] for row in kernel) / 1000
    load = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    return "\n".join(
        [*lines, f"largest frame {size:.0f} KB; load {load} of {os.cpu_count()} cores"]
    )


if __name__ == "__main__":
    main()
