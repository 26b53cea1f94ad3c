"""Liver and liver-tumor segmentation in CT: the module behind the notebooks.

Conventions, the same in every room:

* A **volume** is ``(Z, Y, X)`` int16 in Hounsfield units (HU). ``volume[k]`` is an axial slice
  ``(H, W)``, the patient's right on the image's left, front at the top, ``k`` growing towards the
  head (LPS+ axes). Only the file border ``volumes/`` knows how a file stores its voxels, and
  only ``cases/checks.py`` doubts what a header says of them.
* A **segmentation** holds labels: 0 background, 1 liver, 2 tumor. A **mask** is boolean; the liver
  mask is ``labels >= 1`` (a tumor is liver too), the tumor mask ``labels == 2``.
* ``spacing_mm = (dz, dy, dx)``. Names carry their units.
* How HU become model input is one ``recipes.InputSpec``, stored in every checkpoint.
* Files appear under their final name only when they are whole (``machine.written_whole``).

The names of ``__init__.pyi`` can be taken from here; each loads its room when it is first used.

Not a medical device: for research and teaching only.
"""

import logging
import os

import lazy_loader

# OpenMP's threads wait for some microseconds, then sleep: where other processes want the cores,
# threads that spin for long take them from the very work they wait for. torch reads this once.
if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & os.environ.keys():
    os.environ["GOMP_SPINCOUNT"] = "1000"

# numexpr, which blosc2 brings, stops at a list ("4,2") and at what is no number.
if _threads := os.environ.get("OMP_NUM_THREADS"):
    _first = _threads.partition(",")[0].strip()
    if _first.isdecimal() and int(_first):
        os.environ["OMP_NUM_THREADS"] = _first
    else:
        del os.environ["OMP_NUM_THREADS"]
        logging.getLogger(__name__).warning(
            "OMP_NUM_THREADS=%s is no number of threads: one a core is taken", _threads
        )

__version__ = "0.2.0.dev0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
