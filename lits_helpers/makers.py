"""Who made the predictions in a folder, and from which files: ``segmented_by.json`` beside them."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path

import torch

from .checkpoints import load_checkpoint
from .files import file_hash, read_json, write_json
from .locks import locked
from .postprocess import Postprocessing
from .ranks import own_rank
from .recipes import InputSpec
from .trained import Origin, TrainedModel, recipe_of

RECORD_NAME = "segmented_by.json"
RANK_RECORD_NAME = "segmented_by-{}.json"  # each further process writes its own
RECORDS = "segmented_by*.json"
LOCK = ".lock"
SYSTEMS = ("liver", "tumor")


class MakerRecord:
    """What a folder says of its predictions: their models and settings, and their sources.

    A prediction counts as finished only while both it and its source have the content that was
    recorded; so neither a source of the same name nor a file put there by others passes for it.

    Attributes:
        folder: of the predictions.
        maker: the models and settings, as JSON holds them.
    """

    def __init__(
        self,
        folder: Path | str,
        liver_model: TrainedModel | None,
        tumor_model: TrainedModel | None,
        post: Postprocessing | None,
    ):
        self.folder = Path(folder)
        rank = own_rank()
        self._path = self.folder / (RANK_RECORD_NAME.format(rank) if rank else RECORD_NAME)
        self.maker = {
            "liver": liver_model and _described(liver_model),
            "tumor": tumor_model and _described(tumor_model),
            "postprocessing": asdict(post or Postprocessing()),
        }
        self._finished: dict[str, dict] = {}  # by this process

    def claim(self) -> None:
        """Go on with the folder's records.

        Raises:
            ValueError: they name other models or settings.
            OSError: the folder cannot be written.
        """
        other = self._differing()
        if other:
            raise ValueError(
                f"{self.folder} holds results of another setting ({' and '.join(other)} differ): "
                "choose another folder for these, or delete that one"
            )
        self._write()

    def take_over(self) -> None:
        """As `claim`, but records of other models or settings are given up.

        Raises:
            OSError: the folder cannot be written.
        """
        with locked(self.folder / LOCK):
            if self._differing():
                for path in self.folder.glob(RECORDS):
                    path.unlink(missing_ok=True)
        self.claim()

    def holds(self, target: Path, source: Path) -> bool:
        """Tell whether `target` holds what these models made of this very source."""
        records = (record["finished"].get(target.name) for record in read_records(self.folder))
        made = [record for record in records if record]
        return bool(made) and target.is_file() and _pair(target, file_hash(source)) in made

    def add(self, target: Path, source_hash: str) -> None:
        """Write down that `target` was made from the file of that `files.file_hash`."""
        self._finished[target.name] = _pair(target, source_hash)
        self._write()

    def _differing(self) -> list[str]:
        records = read_records(self.folder)
        own = self.maker
        return [name for name in own if any(not _same(r[name], own[name]) for r in records)]

    def _write(self) -> None:
        try:
            with locked(self.folder / LOCK):  # another process may work for the same folder
                there = read_json(self._path) if self._path.is_file() else {}
                others = {} if self._differing() else there.get("finished", {})
                write_json(self._path, {**self.maker, "finished": others | self._finished})
        except OSError as error:
            raise OSError(
                f"cannot write to {self.folder} ({error}); choose another folder"
            ) from error


def read_records(folder: Path | str) -> list[dict]:
    """Return the records in a folder of predictions; empty where nobody left one.

    Raises:
        ValueError: one is not readable.
    """
    return [read_json(path) for path in sorted(Path(folder).glob(RECORDS))]


def recorded_origins(folder: Path | str) -> list[Origin]:
    """Return what a folder's record says of the models behind its predictions."""
    return [
        Origin(
            system,
            InputSpec(**record[system]["spec"]),
            tuple(record[system]["training_ids"]),
            frozenset(record[system].get("training_cts", ())),
        )
        for record in read_records(folder)[:1]  # those of one folder name the same models
        for system in SYSTEMS
        if record[system]
    ]


def check_makers(folder: Path | str, models: Iterable[Path | str]) -> None:
    """Compare checkpoints with what a folder's record says of its predictions.

    Raises:
        ValueError: it names other models.
    """
    records = read_records(folder)[:1]
    for path in models if records else ():
        checkpoint = load_checkpoint(path)
        spec = recipe_of(path, checkpoint).spec
        made_by = records[0][checkpoint["system"]]
        if not made_by or made_by["weights"] != weights_hash(spec, checkpoint["model"]):
            raise ValueError(
                f"{path} did not make the predictions in {folder}, as {RECORD_NAME} there says: "
                "name the models that did, or none, or predict again"
            )


def is_recorded(prediction: Path) -> bool:
    """Tell whether the record beside a prediction is about this very file."""
    records = (
        record["finished"].get(prediction.name) for record in read_records(prediction.parent)
    )
    hashes = [record["prediction"] for record in records if record]
    return bool(hashes) and prediction.is_file() and file_hash(prediction) in hashes


def weights_hash(spec: InputSpec, weights: Mapping[str, torch.Tensor]) -> str:
    """Return a hash (32 hex digits) of a network's weights and of how it sees a slice."""
    digest = blake2b(repr(spec).encode(), digest_size=16)
    for name in sorted(weights):
        values = weights[name].detach().cpu().float().contiguous()
        digest.update(name.encode())
        digest.update(values.view(-1).numpy().tobytes())
    return digest.hexdigest()


def _described(model: TrainedModel) -> dict:
    spec = asdict(model.spec)
    return {
        "weights": weights_hash(model.spec, model.network.state_dict()),
        "training_ids": list(model.origin.training_ids),
        "training_cts": sorted(model.origin.training_cts),
        "spec": {**spec, "window": spec["window"] and list(spec["window"])},  # as JSON gives it
    }


def _same(recorded, own) -> bool:
    """Compare two entries of a record; records of 0.1.0 name no CTs."""
    if isinstance(recorded, dict) and "training_cts" not in recorded:
        own = own and {name: value for name, value in own.items() if name != "training_cts"}
    return recorded == own


def _pair(target: Path, source_hash: str) -> dict[str, str]:
    return {"source": source_hash, "prediction": file_hash(target)}
