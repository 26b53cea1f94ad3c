"""The same steps from a shell: ``lits STEP``, or ``python -m lits_helpers STEP``.

Each step has ``--help``. The command line is read before anything large is imported: help, version
and a mistyped option answer at once.
"""

import argparse
import logging
import os
import shlex
import signal
import sys
from dataclasses import replace
from pathlib import Path

from .machine import few
from .options import FORMATS, parser, program
from .recipes import SYSTEMS
from .settings import Settings, hint, hints_for, load_settings

logger = logging.getLogger("lits_helpers.__main__")  # also as `python -m lits_helpers`

CHANGES = ("epochs", "batch_size", "learning_rate", "width", "pretrained")  # of a recipe
EXPECTED = (ValueError, OSError, KeyError, RuntimeError, MemoryError, ArithmeticError, ImportError)


def main(arguments: list[str] | None = None) -> int:
    """Run one step; return the exit code: 0 done, 1 failed with a sentence, 2 wrong usage."""
    options = parser(STEPS).parse_args(arguments)
    before = hints_for(program())
    try:
        return _run(options)
    except EXPECTED as error:
        text = error.args[0] if isinstance(error, KeyError) and error.args else error
        print(f"{options.name}: {text or type(error).__name__}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        how = " with --resume auto" if getattr(options, "resume", None) == "never" else ""
        print(f"{options.name}: stopped; the same command{how} continues", file=sys.stderr)
        return 130
    finally:
        hints_for(before)


def run() -> None:
    """Run one step as a program and end it; Ctrl-C no longer counts while Python shuts down."""
    code = main()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(code)


def _run(options: argparse.Namespace) -> int:
    from .machine import own_rank

    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    level = logging.WARNING if own_rank() else logging.INFO  # of torchrun's processes one speaks
    logging.getLogger("lits_helpers").setLevel(level)
    names = "source raw layout prepared runs device orientation accept".split()
    places = {name: getattr(options, name, None) for name in names}
    form = {"tiny": options.tiny or None, "sources": options.sources, **places}
    settings = load_settings(".", variables_win=False, **form)
    if options.name == "download":  # the next step has another default
        options.source = settings.source
    options.step(settings, options)
    if follows := _next_command(settings, options):
        logger.info("next: %s", follows)
    return 0


def _next_command(settings: Settings, options: argparse.Namespace) -> str:
    """Return the command of the step that follows, with the same folders, models and switches.

    Where nothing follows it is empty: other CTs have no known reference, nnU-Net trains elsewhere,
    some folds are not finished.
    """
    labels = getattr(options, "labels", None)  # of a report
    single = labels and not labels.is_dir()
    others = options.name == "report" and (single or options.ct or options.compare)
    of_folds = _models_of_folds(settings, options) if options.name == "crossval" else []
    if others or (options.name == "crossval" and not of_folds):
        return ""
    given = {"--raw": options.raw, "--prepared": options.prepared, "--runs": options.runs}
    given |= {"--source": options.source, "--layout": options.layout, "--device": options.device}
    step = NEXT[options.name]
    if options.name.startswith("train-"):
        given["--fold"] = options.fold
    elif options.name == "check":
        given["--raw"] = options.folder or options.raw
        given["--source"] = options.source or ("folder" if options.folder else None)
    elif options.name == "predict" and options.volumes:  # named CTs have no known reference
        step, given["--out"] = NEXT["evaluate"], options.out
    elif options.name == "predict":
        given["--predictions"] = options.out
    elif labels:
        given["--predictions"] = labels
    if step == NEXT["evaluate"]:
        given |= {f"--{name}": getattr(options, name, None) for name in (*SYSTEMS, "only")}
        given["--rotation"] = getattr(options, "rotation", None) or None
    given = {name: value for name, value in given.items() if value not in (None, "")}
    words = list(step)
    for name, value in given.items():
        words += [name, *map(str, value if isinstance(value, list) else [value])]
    if options.tiny:
        words.append("--tiny")
    return " ".join([program(), shlex.join(words), *of_folds])


def _models_of_folds(settings: Settings, options: argparse.Namespace) -> list[str]:
    """Return the words that name the models of all folds to `predict`, as a shell takes them.

    None where a fold is missing, or nothing was trained.
    """
    folder, words = settings.runs / "crossval", []
    for system in SYSTEMS:
        pattern = f"*-of-{options.folds}/{system}/checkpoints/best_model.pth"
        if options.nnunet or len(list(folder.glob(pattern))) < options.folds:
            return []
        words += [f"--{system}", f"{shlex.quote(str(folder))}/{pattern}"]
    return words


def phantom(settings: Settings, options: argparse.Namespace) -> None:
    """Write generated abdomens as NIfTI in the Kaggle layout."""
    from . import pipeline

    print(pipeline.make_phantoms(settings))


def download(settings: Settings, options: argparse.Namespace) -> None:
    """Fetch LiTS case by case, prepare each and delete its raw files."""
    from . import pipeline

    report = pipeline.download(settings, options.cases, keep_raw=options.keep_raw, png=options.png)
    if report.failed:
        raise ValueError(
            f"cases {few(report.failed)} failed, see above; the same command tries them again"
        )


def check(settings: Settings, options: argparse.Namespace) -> None:
    """List the cases of a folder and what is odd about them; write nothing there."""
    from .preprocess import check_folder

    folder = options.folder or settings.raw
    tiles = options.sheet is not None
    report = check_folder(folder, settings.layout, tiles=tiles, workers=options.workers)
    print(report.table())
    if options.csv:
        report.write_csv(options.csv)
    if options.sheet:
        report.write_sheet(options.sheet)


def prepare_cases(settings: Settings, options: argparse.Namespace) -> None:
    """Check and pack the cases below the raw folder."""
    from . import pipeline

    report = pipeline.prepare_raw(settings, png=options.png, workers=options.workers)
    print(report.table())
    if not report.prepared:
        raise ValueError(f"no case under {settings.raw} could be prepared")


def train_liver(settings: Settings, options: argparse.Namespace) -> None:
    """Train the liver GAN (system A)."""
    from . import pipeline
    from .recipes import liver_recipe

    _train(settings, options, pipeline.train_liver, liver_recipe)


def train_tumor(settings: Settings, options: argparse.Namespace) -> None:
    """Train the tumor RegNet (system B)."""
    from . import pipeline
    from .recipes import tumor_recipe

    _train(settings, options, pipeline.train_tumor, tumor_recipe)


def predict(settings: Settings, options: argparse.Namespace) -> None:
    """Segment CT files or folders of them, or the validation patients; write labels as NIfTI."""
    from .inference import Postprocessing

    for name in SYSTEMS:  # `--liver a.pth ct.nii.gz`: what follows the models
        first, *others = getattr(options, name) or [None]
        options.volumes += [path for path in others if path.suffix != ".pth"]
        setattr(options, name, first and [first, *(p for p in others if p.suffix == ".pth")])
    _check_only(options)
    name = "segmented" if options.volumes else "predictions"  # other CTs may have the same numbers
    out = options.out or settings.runs / "results" / name
    post = Postprocessing(rotation_degrees=options.rotation)
    step = _predict_files if options.volumes else _predict_validation
    step(settings, options, out, post)


def _predict_validation(settings: Settings, options, out: Path, post) -> None:
    from . import pipeline
    from .machine import own_share

    if options.submission:
        raise ValueError("--submission is for the test volumes: name their files or folder")
    if options.format != "nifti" or options.series:
        raise ValueError("--format and --series are for CTs from DICOM: name their folder")
    _leave_out(options, "orientation accept", "prepared cases lie as prepare was told")
    data = _open(settings, options.fold)
    wanted = own_share(data.split.validation)
    files = pipeline.segment_cases(
        data,
        data.split.validation,
        out,
        post=post,
        device=settings.device,
        probabilities=options.probabilities,
        **_chosen_models(settings, options),
    )
    print("\n".join(str(path) for path in files.values()))
    if len(files) < len(wanted):
        raise ValueError(f"{len(wanted) - len(files)} of {len(wanted)} cases failed, see above")


def _predict_files(settings: Settings, options, out: Path, post) -> None:
    from . import pipeline
    from .cases import overruled
    from .inference import find_volumes, own_device, say_synthetic, segment_files

    if options.fold is not None:
        raise ValueError("--fold is for the validation patients: leave it out for named CTs")
    if options.submission and options.format != "nifti":
        raise ValueError("--submission is NIfTI: leave out --format")
    found = [
        case for given in options.volumes for case in find_volumes(given, out, settings.layout)
    ]
    found = overruled(found, settings.orientation, settings.accept)
    each = {(os.path.abspath(case.volume), case.series): case for case in found}  # once
    cases = list(each.values())
    if options.series:  # another series is another result
        cases = [_with_series(case, options.series) for case in cases]
    models = _named_or_default(settings, options)
    say_synthetic((name, path) for name, paths in models.items() for path in paths)
    report = segment_files(
        cases,
        out,
        *pipeline.load_models(**models, device=own_device(settings.device)),
        post,
        submission=options.submission,
        formats=FORMATS[options.format],
        probabilities=options.probabilities,
    )
    print("\n".join(str(path) for path in {**report.present, **report.written}.values()))
    if report.failed:
        raise ValueError(report.text())
    logger.info("%s", report.text())


def _leave_out(options: argparse.Namespace, names: str, why: str) -> None:
    """Refuse options, separated by spaces, that a step called like this would pass over."""
    if given := [f"--{name}" for name in names.split() if getattr(options, name)]:
        raise ValueError(f"leave out {' and '.join(given)}: {why}")


def _check_only(options: argparse.Namespace) -> None:
    """Refuse a model of the system that `--only` leaves out."""
    others = " ".join(name for name in SYSTEMS if options.only not in (None, name))
    _leave_out(options, others, f"--only {options.only} takes no such model")


def _with_series(case, number: str):
    """Return a CT of another series of its study, which a case in a zip of several names."""
    return replace(case, id=f"{case.id}-series{number}", series=f"{case.series or ''}{number}")


def _named_or_default(settings: Settings, options: argparse.Namespace) -> dict[str, list[Path]]:
    """Return {system: checkpoints} for named CTs: named too, the run's, or synthetic."""
    from . import pipeline

    models = {"liver": [], "tumor": []}
    missing = []
    for name in (options.only,) if options.only else SYSTEMS:
        default = pipeline.default_model(settings, name)
        models[name] = getattr(options, name) or ([default] if default else [])
        if not models[name]:
            own = pipeline.checkpoint_path(settings, name)
            missing.append(f"no {name} checkpoint at {own}: {hint(name)}")
    if not any(models.values()):
        raise FileNotFoundError("; ".join(missing))
    for text in missing:
        logger.warning("%s; the other system alone is segmented", text)
    return models


def _chosen_models(settings: Settings, options: argparse.Namespace) -> dict[str, list[Path]]:
    """Return {system: checkpoints}, none where `--only` leaves a system out."""
    paths = _model_paths(settings, options)
    return {name: path if options.only in (None, name) else [] for name, path in paths.items()}


def _model_paths(settings: Settings, options: argparse.Namespace) -> dict[str, list[Path]]:
    from . import pipeline

    default = {name: [pipeline.checkpoint_path(settings, name)] for name in SYSTEMS}
    return {name: getattr(options, name) or path for name, path in default.items()}


def report(settings: Settings, options: argparse.Namespace) -> None:
    """Write a page for each patient: what was found and how far to trust it; and report.csv."""
    from . import pipeline

    ct, out, meshes = options.ct, options.out, options.meshes
    if options.compare:
        _leave_out(options, "meshes", "--compare writes one page and nothing else")
        print(pipeline.compare_files(settings, *options.compare, options.labels, ct=ct, out=out))
        return
    rows, failed = pipeline.report_files(settings, options.labels, ct=ct, out=out, meshes=meshes)
    print("\n".join(f"{row['case_id']}: {row['flag']}" for row in rows))
    if failed:
        raise ValueError(f"no report, see above: {', '.join(failed)}")


def evaluate(settings: Settings, options: argparse.Namespace) -> None:
    """Compare predictions with the references: a table, metrics.csv, summary.json, figures."""
    from . import pipeline
    from .metrics import format_summary

    if len(options.compared) not in (0, 2):
        raise ValueError("name two files or folders to compare: the predicted, then the reference")
    if options.compared:
        _leave_out(options, "predictions liver tumor", "they are for the prepared cases")
        results = options.out or settings.runs / "results" / "compared"
        known = {"layout": settings.layout, "prepared": settings.prepared}
        rows, summary = pipeline.compare(*options.compared, results, **known)
    else:
        folder = options.predictions or settings.runs / "results" / "predictions"
        results = options.out or pipeline.results_of(settings, folder)
        predictions = pipeline.find_predictions(folder)
        models = _makers(settings, options, folder)
        rows, summary = pipeline.evaluate(_open(settings), predictions, results, models=models)
    pipeline.save_score_figures(rows, results / "figures")
    print(format_summary(summary))
    print(f"metrics.csv, summary.json and figures are in {results}")
    if summary["without_reference"]:
        logger.info("without a reference: %s", few(summary["without_reference"]))
    if summary["failed"]:
        raise ValueError(f"not compared, see above: {few(summary['failed'])}")


def _makers(settings: Settings, options: argparse.Namespace, folder: Path) -> list[Path]:
    """Return the checkpoints that made predictions which no record describes."""
    from .inference import read_records

    if read_records(folder):
        return [*(options.liver or []), *(options.tumor or [])]
    models = []
    for name, paths in _model_paths(settings, options).items():
        if paths[0].exists() or getattr(options, name):
            models += paths
        else:
            logger.warning("no %s model at %s: its training cases cannot be marked", name, *paths)
    return models


def crossval(settings: Settings, options: argparse.Namespace) -> None:
    """Train and score both systems on all folds of the patients; one table with intervals."""
    from . import pipeline

    if options.nnunet:
        print(pipeline.export_nnunet(settings, options.nnunet, folds=options.folds))
        return
    given = {name: getattr(options, name) for name in ("folds", "recipe", "epochs", "seed")}
    if summary := pipeline.cross_validate(settings, **given):
        print(pipeline.format_pooled(summary))


def export(settings: Settings, options: argparse.Namespace) -> None:
    """Write models as ONNX, each with a JSON of its preprocessing and a card beside it."""
    from . import pipeline

    _check_only(options)
    folder = options.out or settings.runs / "export"
    print(*pipeline.export_models(_chosen_models(settings, options), folder), sep="\n")


def _train(settings: Settings, options: argparse.Namespace, train, make_recipe) -> None:
    from .machine import own_rank
    from .pipeline import best_epoch_text

    changes = {name: getattr(options, name) for name in CHANGES}
    changes = {name: value for name, value in changes.items() if value is not None}
    if options.start_from and options.width:
        raise ValueError("--from begins with a network of its own width: leave --width out")
    recipe = make_recipe(options.recipe, tiny=settings.tiny, **changes)
    names = "resume start_from seed max_minutes tensorboard precision".split()
    given = {name: getattr(options, name) for name in names}
    history = train(settings, _open(settings, options.fold), recipe, **given)
    if own_rank() == 0:
        print(best_epoch_text(history))


def _open(settings: Settings, fold: int | None = None):
    from .preprocess import open_prepared

    return open_prepared(settings.prepared, validation=settings.validation_share, fold=fold)


STEPS = {
    "phantom": phantom,
    "download": download,
    "check": check,
    "prepare": prepare_cases,
    "train-liver": train_liver,
    "train-tumor": train_tumor,
    "predict": predict,
    "report": report,
    "evaluate": evaluate,
    "crossval": crossval,
    "export": export,
}
NEXT = {  # step -> the words of the step that follows
    "phantom": ["prepare"],
    "download": ["train-liver"],
    "check": ["prepare"],
    "prepare": ["train-liver"],
    "train-liver": ["train-tumor"],
    "train-tumor": ["predict"],
    "predict": ["evaluate"],
    "report": ["evaluate"],
    "evaluate": ["predict", "another_ct.nii.gz"],
    "crossval": ["predict", "another_ct.nii.gz"],
    "export": ["predict", "another_ct.nii.gz"],
}
if __name__ == "__main__":
    run()
