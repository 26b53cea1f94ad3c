"""The interactive slice viewer and the 3D view of a notebook."""

from .browsing import uncertainty_of
from .slice_viewer import SliceViewer
from .surface_view import SurfaceView

__all__ = ["SliceViewer", "SurfaceView", "uncertainty_of"]
