"""Who made a prediction, and from which file: a small record, ``NAME.nii.gz.json``, beside it."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from ..cases import Case, Finding
from ..checkpoints import Origin, TrainedModel, load_checkpoint, recipe_of, weights_hash
from ..machine import file_hash, read_json, writable_folder, write_json
from ..recipes import SYSTEMS, InputSpec
from ..volumes import hash_of_files
from .ensemble import as_models
from .postprocess import Postprocessing

RECORD_SUFFIX = ".json"
RECORDS = ("*.nii*.json", "*.dcm.json")
FOLDER_RECORDS = "segmented_by*.json"  # of 0.1.0: all predictions of a process in one


class MakerRecord:
    """Who makes the predictions of a folder: one set of models and settings for all.

    A prediction counts as finished only while the prediction and its source have the recorded
    content. So no other source of that name and no foreign file passes for it.

    Attributes:
        folder: of the predictions.
        maker: the models and settings, as JSON holds them.
    """

    def __init__(
        self,
        folder: Path | str,
        liver_model: TrainedModel | Sequence[TrainedModel] | None,
        tumor_model: TrainedModel | Sequence[TrainedModel] | None,
        post: Postprocessing | None,
    ):
        self.folder = Path(folder)
        self.maker = {
            "liver": _described(as_models("liver", liver_model)),
            "tumor": _described(as_models("tumor", tumor_model)),
            "postprocessing": {
                rule: value
                for rule, value in asdict(post or Postprocessing()).items()
                if value is not None  # the models' own
            },
        }

    def claim(self, *, take_over: bool = False) -> None:
        """Make sure that the folder can be written and holds nothing of another setting.

        Args:
            take_over: remove records of other models or settings, and the files that they list
                beside their predictions; else they are refused.

        Raises:
            ValueError: it holds records of other models or settings.
            OSError: it cannot be written.
        """
        for path, record in _records_in(self.folder):
            differing = self._differing(record)
            if differing and not take_over:
                raise ValueError(
                    f"{self.folder} holds results of another setting "
                    f"({' and '.join(differing)} differ): choose another folder for these, "
                    "or delete that one"
                )
            if differing:
                with suppress(FileNotFoundError):  # another process of `torchrun` removed it
                    _remove(path)
        writable_folder(self.folder)

    def holds(self, target: Path, case: Case, beside: Sequence[Path] = ()) -> bool:
        """Tell whether `target` is what these models made of this CT, read in this way.

        Args:
            target: the prediction.
            case: its CT.
            beside: further files, which must be of the same making.
        """
        made = [record for record in _records_of(target) if not self._differing(record)]
        if not made or not all(path.is_file() for path in (target, *beside)):
            return False
        hashes = {path.name: file_hash(path) for path in beside}
        content = hash_of_files(case.volume), file_hash(target), _decisions(case)
        return any(
            (record["source"], record["prediction"], record.get("decisions", {})) == content
            and hashes.items() <= record.get("beside", {}).items()
            for record in made
        )

    def forget(self, target: Path) -> None:
        """Remove the record of an earlier `target`, and the files that it lists beside it."""
        path = target.with_name(target.name + RECORD_SUFFIX)
        if path.is_file():
            _remove(path)

    def add(
        self,
        target: Path,
        source_hash: str,
        case: Case,
        findings: Iterable[Finding] = (),
        evidence: Mapping[str, float] | None = None,
        beside: Sequence[Path] = (),
    ) -> None:
        """Record that `target` was made from the file with the hash `source_hash`.

        Args:
            target: the prediction.
            source_hash: of the CT.
            case: what the user decided about it is kept.
            findings: what was odd about the CT, kept too.
            evidence: of `second_look`, for a report that is made without the models.
            beside: further files of the same making.
        """
        made = {"source": source_hash, "prediction": file_hash(target)}
        made |= {"decisions": _decisions(case), "findings": [asdict(found) for found in findings]}
        made["evidence"] = dict(evidence or {})
        made |= {"beside": {path.name: file_hash(path) for path in beside}} if beside else {}
        write_json(target.with_name(target.name + RECORD_SUFFIX), self.maker | made)

    def _differing(self, record: Mapping) -> list[str]:
        return [name for name, value in self.maker.items() if not _same(record[name], value)]


def _decisions(case: Case) -> dict:
    """Return what the user decided about a case; nothing where headers and anatomy decided."""
    given = {"orientation": case.orientation, "accepted": list(case.accepted)}
    given["series"] = case.series
    return {name: value for name, value in given.items() if value}


def _records_in(folder: Path | str) -> list[tuple[Path, dict]]:
    """Return the records in a folder with their files."""
    patterns = (*RECORDS, FOLDER_RECORDS)
    paths = [path for pattern in patterns for path in sorted(Path(folder).glob(pattern))]
    return [(path, record) for path in paths if (record := _read(path))]


def _read(path: Path) -> dict | None:
    """Return a record; None where none is, or JSON that another program wrote beside its image."""
    try:
        content = read_json(path)
    except FileNotFoundError:  # perhaps another process of `torchrun` removed it
        return None
    ours = isinstance(content, dict) and content.keys() >= {*SYSTEMS, "postprocessing"}
    return content if ours else None


def _remove(record: Path) -> None:
    """Remove a record and the files that it lists, which are of no other making."""
    for name in (_read(record) or {}).get("beside", {}):
        record.with_name(Path(name).name).unlink(missing_ok=True)
    record.unlink()


def read_records(folder: Path | str) -> list[dict]:
    """Return the records in a folder of predictions.

    Raises:
        ValueError: one is not readable.
    """
    return [record for _, record in _records_in(folder)]


def _records_of(prediction: Path) -> list[dict]:
    """Return the records of one prediction: the one beside it, and folder records that name it."""
    records = [_read(prediction.with_name(prediction.name + RECORD_SUFFIX))]
    for whole in map(_read, sorted(prediction.parent.glob(FOLDER_RECORDS))):
        if whole and prediction.name in whole["finished"]:
            records.append(whole | whole["finished"][prediction.name])
    return [record for record in records if record]


def recorded_models(record: Mapping, system: str) -> list[dict]:
    """Return what a record says of the models of "liver" or "tumor": none, one or several."""
    models = record[system] or []
    return models if isinstance(models, list) else [models]


def recorded_origins(folder: Path | str) -> list[Origin]:
    """Return the origins of the models behind a folder's predictions, by its records."""
    records = read_records(folder)
    pairs = [
        (system, model)
        for system in SYSTEMS
        for record in records
        for model in recorded_models(record, system)
    ]
    origins = [
        Origin(
            system,
            InputSpec(**model["spec"]),
            tuple(model["training_ids"]),
            frozenset(model.get("training_cts", ())),
        )
        for system, model in pairs
    ]
    return list(dict.fromkeys(origins))


def check_makers(folder: Path | str, models: Iterable[Path | str]) -> None:
    """Compare checkpoints with the records of a folder's predictions, if there are any.

    Raises:
        ValueError: the records name other models.
    """
    records = read_records(folder)
    if not records:
        return
    for path in models:
        checkpoint = load_checkpoint(path)
        weights = weights_hash(recipe_of(path, checkpoint).spec, checkpoint["model"])
        made_by = [
            model for record in records for model in recorded_models(record, checkpoint["system"])
        ]
        if not any(model["weights"] == weights for model in made_by):
            raise ValueError(
                f"{path} did not make the predictions in {folder}, as the records there say: "
                "name the models that did, or none, or predict again"
            )


def read_record(prediction: Path) -> dict | None:
    """Return the record of this very prediction, or None.

    Beside ``liver`` and ``tumor``, the models that made it, ``evidence`` is what `second_look` saw;
    older records have none.
    """
    records = _records_of(prediction) if prediction.is_file() else []
    content = file_hash(prediction) if records else None
    return next((record for record in records if record["prediction"] == content), None)


def _described(models: Sequence[TrainedModel]) -> dict | list[dict] | None:
    """Return one model as a dict, none as None, several as a list that no order changes."""
    described = sorted(map(described_model, models), key=lambda model: model["weights"])
    return described if len(described) > 1 else next(iter(described), None)


def described_model(model: TrainedModel) -> dict:
    """Return what a record and a report say of a model, as JSON holds it."""
    spec = asdict(model.spec)
    spec["window"] = list(spec["window"]) if spec["window"] else None  # JSON makes a tuple a list
    peak = {"peak": model.peak} if getattr(model, "peak", 0.0) else {}
    return peak | {
        "weights": weights_hash(model.spec, model.network.state_dict()),
        "training_ids": list(model.origin.training_ids),
        "training_cts": sorted(model.origin.training_cts),
        "spec": spec,
    }


def _same(recorded, wanted) -> bool:
    """Compare two entries of a record; records of 0.1.0 name no CTs."""
    if isinstance(recorded, dict) and "training_cts" not in recorded and isinstance(wanted, dict):
        wanted = {name: value for name, value in wanted.items() if name != "training_cts"}
    return recorded == wanted
