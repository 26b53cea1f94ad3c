"""The folders and the size of a run, from form fields and LITS_* variables; and what to do next.

A hint speaks to a shell of its options, to a notebook of ours of its form fields, and to any other
Python of arguments and functions.
"""

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

DOWNLOADED = ("kaggle", "msd")
SOURCES = ("phantom", "folder", *DOWNLOADED)

HINTS = {  # what to do: in Python; in a shell, where {lits} is how it calls us
    "prepare": ("call preprocess.prepare(find_cases(raw), prepared)", "run {lits} prepare"),
    "predict": ("call pipeline.segment_cases first", "run {lits} predict first"),
    "download": ("call pipeline.download(settings) first", "run {lits} download first"),
    "liver": ("train_liver_gan trains one", "{lits} train-liver trains one"),
    "tumor": ("train_tumor_regnet trains one", "{lits} train-tumor trains one"),
    "raw": ("root, or raw of load_settings", "--raw or LITS_RAW; {lits} phantom makes some"),
    "folder source": ('load_settings(source="folder", raw=...)', "--source folder --raw DIR"),
    "layout": ("layout", "--layout"),
    "way": ("orientation (such as LPS), or accept its code", "--orientation LPS, or --accept CODE"),
    "folders": ("other folders (raw, prepared)", "other folders (--raw, --prepared)"),
    "ct": ("ct, the CT or a folder of CTs", "--ct PATH, the CT or a folder of CTs"),
    "from": ("start_from", "--from"),
    "out": ("another out", "another --out"),
    "format": ("a path that ends so", "--format nifti"),
    "series": ("series=", "--series"),
    "device": ("device= or LITS_DEVICE", "--device or LITS_DEVICE"),
    "continue": ('the same call with resume="auto"', "the same command with --resume auto"),
    "auto": ('resume="auto"', "--resume auto"),
    "anew": ('resume="never"', "--resume never"),
    "precision": ('precision="fp32"', "--precision fp32"),
    "learning rate": ("a lower learning_rate", "a lower --learning-rate"),
    "batch size": ("batch_size=", "--batch-size "),
    "input size": (" or InputSpec.size={} (about two thirds)", ""),
    "relu head": ('head="sigmoid"', "--recipe default"),
    "cpu": ('device="cpu"', "--device cpu"),
    "not pretrained": ("tumor_recipe(pretrained=False)", "--no-pretrained"),
}
FORM_HINTS = {  # where a notebook with our form fields is to be told something else than Python
    "prepare": "run notebook 01",
    "predict": "run notebook 04 first",
    "download": "run notebook 01 first, with the same SOURCE, TINY and USE_DRIVE (without Drive "
    "each Colab machine begins empty)",
    "liver": "notebook 02 trains one",
    "tumor": "notebook 03 trains one",
    "raw": "RAW_FOLDER or LITS_RAW",
    "folder source": 'SOURCE "folder" and RAW_FOLDER',
    "layout": "LAYOUT",
    "way": "ORIENTATION (such as LPS), or ACCEPT its code",
    "folders": "other folders (LITS_RAW, LITS_PREPARED)",
    "device": "LITS_DEVICE",
    "anew": 'START_ANEW (resume="never")',
    "from": "START_FROM",
}
FORM = "form"
READER = "_LITS_READER"  # a variable: worker processes write messages too


def hint(name: str) -> str:
    """Return a hint of `HINTS` in the words of the place where it will be read."""
    python, shell = HINTS[name]
    reader = os.environ.get(READER)
    if reader == FORM:
        return FORM_HINTS.get(name, python)
    return shell.format(lits=reader) if reader else python


def hints_for(reader: str | None) -> str | None:
    """Let hints speak to a shell that calls this program so; FORM: to a form; None: to Python.

    Returns:
        To whom they spoke before.
    """
    before = os.environ.pop(READER, None)
    if reader:
        os.environ[READER] = reader
    return before


def in_notebook() -> bool:
    """Tell whether a Jupyter kernel runs this; ipywidgets 7 imports ipykernel elsewhere too."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


@dataclass(frozen=True)
class Settings:
    """Where a run finds and puts things, and how large it is; made by `load_settings`.

    Attributes:
        tiny: CI-sized run: few small cases, few epochs.
        source: one of `SOURCES`.
        raw, prepared, runs: folders of NIfTI files, of packed cases, of checkpoints and results.
        device: torch device name, or None to choose.
        drive: keep checkpoints, results and prepared LiTS cases on Google Drive (Colab only).
        layout: how the files below `raw` are named and placed, see `cases.find_cases`.
        orientation: axis codes such as "LPS" that overrule the headers of all cases.
        accept: codes of findings that are overruled, such as "turned"; a form parts them by commas.
    """

    tiny: bool
    source: str
    raw: Path
    prepared: Path
    runs: Path
    device: str | None = None
    drive: bool = False
    layout: str = "auto"
    orientation: str | None = None
    accept: tuple[str, ...] = ()

    @property
    def validation_share(self) -> float:
        """Share of the patients that validate: 12 of the 40 phantoms of a tiny run."""
        return 0.4 if self.tiny else 0.15


def load_settings(
    root: Path | str = ".",
    *,
    variables_win: bool = True,
    sources: Sequence[str] = SOURCES,
    **form,
) -> Settings:
    """Join a notebook's form fields with the LITS_* variables; a variable wins over the form.

    Args:
        root: folder below which `data/` and `runs/` lie unless a variable or the form says
            otherwise.
        variables_win: False lets the form win, as options in a shell do.
        sources: choices of a step that has fewer; the first is the default, and a variable that
            names another one is meant for other steps.
        form: any of the fields of `Settings`; None or "" leaves the default.

    In a Jupyter kernel hints then speak of form fields.

    Raises:
        ValueError: an unknown field, or a value that is no choice; names the choices.
    """
    if variables_win and in_notebook():
        hints_for(FORM)
    unknown = set(form) - {field.name for field in fields(Settings)}
    if unknown:
        raise ValueError(f"no such setting: {', '.join(sorted(unknown))}")
    given = {name: value for name, value in form.items() if value not in (None, "")}
    for name in ("source", "raw", "layout", "prepared", "runs", "device"):
        if os.environ.get(f"LITS_{name.upper()}") and (variables_win or name not in given):
            given[name] = os.environ[f"LITS_{name.upper()}"]
    if variables_win or "tiny" not in given:
        given["tiny"] = _switch("LITS_TINY", given.get("tiny", False))
    tiny = given["tiny"]
    source = given.get("source", sources[0])
    if source in SOURCES and source not in sources:
        source = sources[0]
    if source not in SOURCES:
        raise ValueError(f"LITS_SOURCE must be one of {', '.join(SOURCES)}, got {source!r}")
    root = Path(root)
    place = f"{source}-tiny" if tiny else source  # runs of different data never mix
    return Settings(
        tiny=tiny,
        source=source,
        raw=Path(given.get("raw", root / "data" / place / "raw")).expanduser(),
        prepared=Path(given.get("prepared", root / "data" / place / "prepared")).expanduser(),
        runs=Path(given.get("runs", root / "runs" / place)).expanduser(),
        device=given.get("device"),
        drive=bool(given.get("drive", False)),
        layout=given.get("layout", "auto"),
        orientation=given.get("orientation"),
        accept=_codes(given.get("accept", ())),
    )


def anchor_folders() -> None:
    """Make the folders of LITS_* variables absolute, for kernels that start in another folder."""
    for name in ("LITS_RAW", "LITS_PREPARED", "LITS_RUNS"):
        if os.environ.get(name):
            os.environ[name] = os.path.abspath(os.path.expanduser(os.environ[name]))


def named_device() -> str | None:
    """Return the device that LITS_DEVICE names, or None."""
    return os.environ.get("LITS_DEVICE") or None


def real_data() -> Path | None:
    """Return the folder with real data that LITS_REAL names, or None."""
    value = os.environ.get("LITS_REAL")
    return Path(value) if value else None


def _codes(given: str | Iterable[str]) -> tuple[str, ...]:
    parts = given.split(",") if isinstance(given, str) else given
    return tuple(filter(None, (part.strip() for part in parts)))


def _switch(variable: str, default: bool) -> bool:
    value = os.environ.get(variable, "").strip().lower()
    if value in ("", "0", "1", "true", "false", "yes", "no"):
        return default if value == "" else value in ("1", "true", "yes")
    raise ValueError(f"{variable} must be 1 or 0, got {value!r}")
