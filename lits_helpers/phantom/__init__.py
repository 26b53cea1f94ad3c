"""Generated abdomens with liver and tumors, for tests, demonstrations and first weights."""

from .dataset import make_phantom, write_phantom_dataset

__all__ = ["make_phantom", "write_phantom_dataset"]
