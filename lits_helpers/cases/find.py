"""Find cases by the names and places of their files, in any layout of `layouts.LAYOUTS`."""

import logging
import os
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from ..machine import few, file_hash, open_readable
from ..settings import hint
from .case import Case, fault_of_id, id_order
from .layouts import CT, LAYOUTS, OTHER, REFERENCE, Layout, is_liver_only, is_unusual, stem_of
from .studies import BY_HEADERS, FORM, cases_of_studies, cases_of_zip
from .tables import TABLE, read_cases, with_patients

logger = logging.getLogger(__name__)

AUTO = "auto"
BY_TABLE = "table"
PROBE_BYTES = 1 << 16
DATA = re.compile(  # what may hold a CT or its reference; tables and pictures do not
    r".*\.(nii|nrrd|nhdr|mha|mhd|h5|hdf5|hdr|img|mgz|dcm|npy|npz)(\.\w+)*", re.IGNORECASE
)

OTHER_FORMATS = re.compile(r".*\.(nrrd|nhdr|mha|mhd|h5|hdf5|mgz|npy|npz)", re.IGNORECASE)


@dataclass
class Search:
    """What `search_cases` found.

    Attributes:
        layout: name of the layout taken.
        cases: in the order of the numbers in their ids.
        notes: what was taken and what was left aside, a sentence each.
    """

    layout: str
    cases: list[Case]
    notes: list[str]


@dataclass
class _Fit:
    """The files below a folder, as one layout sees them: {role: {case: paths}}."""

    layout: Layout
    roles: dict[str, dict[str, list[Path]]]
    claimed: set[Path]

    @property
    def pairs(self) -> int:
        return len(self.roles[CT].keys() & self.roles[REFERENCE].keys())


def find_cases(root: str | os.PathLike, layout: str = AUTO) -> list[Case]:
    """Find cases by their files' names and places, anywhere below `root`.

    The layout with the most pairs of a CT and its reference is taken. A cases.csv in `root`
    (columns case and volume, also segmentation and patient) names the files instead. A patients.csv
    (columns case and patient) tells which cases are of one patient. The log says what was taken and
    what was left aside.

    Args:
        root: the folder.
        layout: "auto", "table" (the cases.csv), or the name of one of `layouts.LAYOUTS`.

    Returns:
        Cases in the order of the numbers in their ids; `segmentation` is None where there is none.

    Raises:
        FileNotFoundError: no CT below `root` that can be used.
        ValueError: no such layout, or a table cannot be understood.
    """
    search = search_cases(root, layout)
    logger.info("%s", "\n".join(search.notes))
    return search.cases


def search_cases(root: str | os.PathLike, layout: str = AUTO, *, patients: bool = True) -> Search:
    """Find cases as `find_cases` does; return with them what was taken and left aside.

    Args:
        root, layout: as there.
        patients: obey a patients.csv.
    """
    given, root = root, Path(root).absolute()
    if _takes_table(root, layout):
        cases, notes = read_cases(root / TABLE)
        search = Search(BY_TABLE, cases, notes)
    else:
        search = _search_files(root, layout, given)
    search.notes += _drop_unusable(search.cases)
    if not search.cases:
        raise FileNotFoundError(f"no case under {given} can be used: {'; '.join(search.notes[:2])}")
    search.cases.sort(key=lambda case: id_order(case.id))
    search.notes += with_patients(root, search.cases) if patients else []
    if not search.cases:
        raise FileNotFoundError(f"no case under {given} can be used: {search.notes[-1]}")
    search.notes.insert(0, _summary(search, given))
    return search


def find_cts(root: str | os.PathLike, layout: str = AUTO) -> list[Case]:
    """Find every CT below `root`, or `root` itself if it is a file, to be segmented.

    The layout tells the case ids and the references, which are left aside; any other NIfTI file is
    a CT too, but predictions of this module. So is each study of the DICOM files, also in a zip.
    Several CTs may have one id.

    Args:
        root, layout: as for `find_cases`.

    Returns:
        Cases in the order of their files; none if there is no CT.
    """
    root = Path(root).absolute()
    if _takes_table(root, layout):
        return read_cases(root / TABLE)[0]
    notes: list[str] = []
    files = [root] if root.is_file() else list(_files_below(root, notes))
    taken = (AUTO, BY_HEADERS)  # the second says nothing about NIfTI files
    fits = [_fit(known, files) for known in LAYOUTS if layout in (*taken, known.name)]
    best = _best(fits)
    cts = best.roles[CT]
    ids = _case_ids(cts, root)
    found = {path: ids[name] for name, paths in cts.items() for path in paths}
    zipped: list[Case] = []
    rest = [path for path in files if path not in best.claimed and not path.name.startswith(".")]
    for path in rest:
        parts = list(filter(None, (known.part(path) for known in LAYOUTS)))
        suffix = path.suffix.lower()
        if suffix == ".zip":
            cases, more = cases_of_zip(path, root)
            zipped += cases
            notes += more
        elif suffix == ".dcm" and path == root:
            found[path] = path.stem
        elif path == root or (parts and all(part.role == CT for part in parts)):
            found[path] = Path(parts[0].case).name if parts else path.name
    if not root.is_file():
        unseen = [path for path in rest if path not in found and path.suffix.lower() != ".zip"]
        try:
            studies, more = cases_of_studies(unseen, root, references=False)
        except ImportError as error:  # a file of DICOM among others must not end these
            if not found:
                raise
            logger.warning("the DICOM files below %s are left aside: %s", root, error)
            studies, more = [], []
        found |= {case.volume: case.id for case in studies}
        notes += more
    left = [path for path in rest if path not in found and stem_of(path)]
    references = [*chain.from_iterable(best.roles[REFERENCE].values()), *left]
    if references:
        notes.append(f"left aside, references and predictions: {_names(references, root)}")
    if notes:
        logger.info("%s", "\n".join(notes))
    cases = [*zipped, *(Case(case_id, case_id, path) for path, case_id in found.items())]
    return sorted(cases, key=lambda case: (case.volume, case.id))


def _takes_table(root: Path, layout: str) -> bool:
    """Tell whether a cases.csv names the files.

    Raises:
        ValueError: no such layout.
    """
    names = [AUTO, BY_TABLE, *(known.name for known in LAYOUTS), BY_HEADERS]
    if layout not in names:
        raise ValueError(f"no layout {layout!r}; there are {', '.join(names)}")
    return layout == BY_TABLE or (layout == AUTO and os.path.isfile(root / TABLE))


def _best(fits: list[_Fit]) -> _Fit:
    """Return the layout with the most pairs; between equals, the first that has a CT."""
    return max(fits, key=lambda fit: (fit.pairs, bool(fit.roles[CT])))


def _summary(search: Search, root: str | os.PathLike) -> str:
    without = [case.id for case in search.cases if case.segmentation is None]
    rest = f"without a reference: {len(without)} ({few(without, 3)})" if without else "all in pairs"
    return f"layout {search.layout}: {len(search.cases)} CTs below {root}, {rest}"


def _search_files(root: Path, layout: str, given: str | os.PathLike) -> Search:
    notes: list[str] = []
    files = list(_files_below(root, notes))
    fits = [_fit(known, files) for known in LAYOUTS if layout in (AUTO, known.name)]
    best = _best(fits) if fits else None
    if layout == BY_HEADERS or (layout == AUTO and not best.roles[CT]):
        cases, more = cases_of_studies(files, root)
        if cases:
            return Search(BY_HEADERS, cases, notes + more)
        notes += more
    if not best or not best.roles[CT]:
        text = f"no case under {given}: {_nothing_fits(root, files, notes, layout)}"
        raise FileNotFoundError(f"{text}; give the folder of the files ({hint('raw')})")
    search = Search(best.layout.name, [], notes)
    _pair(best, root, search)
    rest = [path for path in files if DATA.fullmatch(path.name) and path not in best.claimed]
    if rest:
        notes.append(f"left aside, of another layout or format: {_names(rest, root)}")
    for fit in (one for one in fits if one is not best):
        there = fit.roles[CT].keys() & fit.roles[REFERENCE].keys()
        others = [case for case in there if best.claimed.isdisjoint(fit.roles[CT][case])]
        if others:
            how = f"{hint('layout')} {fit.layout.name}"
            notes.append(f"among them {len(others)} cases as {fit.layout.form}: {how} takes those")
    return search


def _files_below(root: Path, notes: list[str]) -> Iterator[Path]:
    """Yield the files below a folder; note the folders that cannot be read."""

    def unreadable(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            notes.append(f"cannot read {error.filename} ({error.strerror}): left aside")

    seen = set()
    for folder, folders, names in os.walk(root, onerror=unreadable, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link to a folder above
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        yield from (Path(folder) / name for name in sorted(names))


def _fit(layout: Layout, files: Iterable[Path]) -> _Fit:
    fit = _Fit(layout, {role: defaultdict(list) for role in (CT, REFERENCE, OTHER)}, set())
    for path in files:
        part = None if path.name.startswith(".") else layout.part(path)
        if part:
            fit.claimed.add(path)
            paths = fit.roles[part.role][part.case]
            if part.path not in paths[-1:]:  # each file of a folder names the folder
                paths.append(part.path)
    return fit


def _pair(fit: _Fit, root: Path, search: Search) -> None:
    """Put the cases of a layout into `search`, and notes on what is no case."""
    ids = _case_ids(fit.roles[CT], root)
    for name, case_id in ids.items():
        chosen = {}
        for role in (CT, REFERENCE):
            paths = fit.roles[role].get(name, [])
            chosen[role] = _one_of(paths)
            if paths and chosen[role] is None:
                search.notes.append(
                    f"two files for one case, left aside: {_names(paths, root)}; remove one of them"
                )
                break
            if chosen[role] and is_unusual(chosen[role]):
                search.notes.append(f"{chosen[role].name}: taken")
        else:
            reference = chosen[REFERENCE]
            alone = fit.layout.liver_only or (reference is not None and is_liver_only(reference))
            case = Case(case_id, case_id, chosen[CT], reference, liver_only=alone)
            search.cases.append(case)
    alone = {name: paths for name, paths in fit.roles[REFERENCE].items() if name not in ids}
    left = {"references without a CT": alone, "other structures or channels": fit.roles[OTHER]}
    for what, cases in left.items():
        if paths := list(chain.from_iterable(cases.values())):
            search.notes.append(f"left aside, {what}: {_names(paths, root)}")


def _case_ids(names: Iterable[str], root: Path) -> dict[str, str]:
    """Return {case: id}: what follows the last "/", with the folders where that is not unique.

    Names that differ in capitals alone are one on some disks.
    """
    last = {name: name.rpartition("/")[2] for name in names}
    counts = Counter(map(str.lower, last.values()))
    return {
        name: case_id
        if counts[case_id.lower()] == 1
        else os.path.relpath(name, root).replace(os.sep, "-")
        for name, case_id in last.items()
    }


def _one_of(paths: list[Path]) -> Path | None:
    """Return the first of files that all have the same content; None if they differ."""
    if len(paths) < 2:
        return paths[0] if paths else None
    paths = [path for path in paths if path.exists()] or paths[:1]  # without broken links
    first, *others = sorted(paths, key=is_unusual)
    return first if all(_same_content(first, path) for path in others) else None


def _same_content(one: Path, other: Path) -> bool:
    """Tell whether two files hold the same, packed with gzip or not."""
    if one.is_dir() or other.is_dir():
        return False
    if one.suffix == other.suffix:
        return one.stat().st_size == other.stat().st_size and file_hash(one) == file_hash(other)
    return _checksum(one) == _checksum(other)


def _checksum(path: Path) -> bytes:
    """Return CRC and size of the content as a gzip file ends with them."""
    with open_readable(path) as stream:
        if path.suffix.lower() == ".gz":
            stream.seek(max(path.stat().st_size - 8, 0))
            return stream.read()
        crc = 0
        while block := stream.read(1 << 20):
            crc = zlib.crc32(block, crc)
        return crc.to_bytes(4, "little") + (stream.tell() % 2**32).to_bytes(4, "little")


def _drop_unusable(cases: list[Case]) -> list[str]:
    """Take out cases whose name is of no use and copies of other cases; return notes on them."""
    notes = []
    for case in list(cases):
        if fault := fault_of_id(case.id):
            cases.remove(case)
            notes.append(f"left aside, {fault}")
    first: dict[tuple, Case] = {}
    # a copy without a reference goes
    for case in sorted(cases, key=lambda case: (case.segmentation is None, id_order(case.id))):
        known = first.setdefault(_probe(case.volume), case)
        if known is not case and _same_content(known.volume, case.volume):
            cases.remove(case)
            notes.append(f"case {case.id} is the CT of case {known.id} under another name")
    return notes


def _probe(path: Path) -> tuple:
    """Return size and middle of a file: a case's own, or alone by its name."""
    try:
        size = path.stat().st_size
        with open_readable(path) as stream:
            stream.seek(size // 2)
            return size, stream.read(PROBE_BYTES)
    except OSError:  # reading it later says why
        return (str(path),)


def _nothing_fits(root: Path, files: list[Path], notes: list[str], layout: str) -> str:
    fits = [_fit(known, files) for known in LAYOUTS]
    nearest = max(fits, key=lambda fit: len(fit.claimed)).layout
    form = FORM if layout == BY_HEADERS else nearest.form
    named = [path for path in files if DATA.fullmatch(path.name)] or files
    seen = [f"there are {_names(named, root)}" if files else "there is no file", *notes[:1]]
    if any(OTHER_FORMATS.fullmatch(path.name) for path in named):
        seen.append("NRRD, MetaImage, HDF5 and NumPy files must be converted to .nii.gz first")
    return f"expected {form}, or a {TABLE} that names the files; {'; '.join(seen)}"


def _names(paths: list[Path], root: Path) -> str:
    """Return "5 (a, b, c, ...)"."""
    return f"{len(paths)} ({few([os.path.relpath(path, root) for path in paths[:4]], 3)})"
