# The front door: `__init__.py` loads these names lazily, type checkers and editors read them here.

from .cases import Case as Case
from .cases import Finding as Finding
from .cases import Split as Split
from .cases import check_case as check_case
from .cases import find_cases as find_cases
from .cases import split_cases as split_cases
from .checkpoints import load_liver_model as load_liver_model
from .checkpoints import load_tumor_model as load_tumor_model
from .datasets import LiverSlices as LiverSlices
from .datasets import SliceCache as SliceCache
from .datasets import TumorSlices as TumorSlices
from .figures import render_slice as render_slice
from .inference import Postprocessing as Postprocessing
from .inference import Segmentation as Segmentation
from .inference import segment_file as segment_file
from .inference import segment_volume as segment_volume
from .inference.segmentation import segment as segment
from .metrics import evaluate_case as evaluate_case
from .metrics import evaluate_dataset as evaluate_dataset
from .models import Discriminator as Discriminator
from .models import Generator as Generator
from .models import RegNetSegmenter as RegNetSegmenter
from .phantom import write_phantom_dataset as write_phantom_dataset
from .preprocess import prepare as prepare
from .recipes import InputSpec as InputSpec
from .recipes import liver_recipe as liver_recipe
from .recipes import tumor_recipe as tumor_recipe
from .report import write_report as write_report
from .training import train_liver_gan as train_liver_gan
from .training import train_tumor_regnet as train_tumor_regnet
from .viewer import SliceViewer as SliceViewer
from .viewer import SurfaceView as SurfaceView
from .volumes import Volume as Volume
from .volumes import open_volume as open_volume
from .volumes import read_segmentation as read_segmentation
from .volumes import read_volume as read_volume
from .volumes import volume_from_array as volume_from_array
from .volumes import write_segmentation as write_segmentation

__version__: str
