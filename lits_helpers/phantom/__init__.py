"""Generated abdomens with liver and tumors, for tests, demonstrations and first weights."""

from .dataset import make_phantom, write_phantom_dataset
from .wide import wide_case

__all__ = ["make_phantom", "wide_case", "write_phantom_dataset"]
