"""The outcome of a preparation, case by case, and its table."""

import os
from collections.abc import Iterable, Mapping
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..cases import Case, Finding, about_ct, check_lits_set, id_order
from ..volumes import SUFFIX, Volume, read_volume
from .prepared import CaseFiles, prepared_cases

FAILED = "failed"  # code of a case that may succeed later: its process died, or a disk failed


@dataclass(frozen=True)
class Outcome:
    """The outcome of preparing one case."""

    case_id: str
    status: str  # "prepared", "unchanged" or "skipped"
    findings: tuple[Finding, ...] = ()

    @property
    def reason(self) -> str:
        """Why it was skipped."""
        return "; ".join(finding.text for finding in self.findings if finding.harmful)


@dataclass
class PreparationReport:
    """The outcome of a preparation.

    Attributes:
        prepared: ids of the cases that are ready, unchanged cases included.
        unchanged: ids of the cases that were known by their content and left alone.
        skipped: id -> reason.
        failed: ids of the skipped cases whose files have no known fault.
        findings: id -> what is odd about the case.
        set_findings: differences from the known counts, if the cases are all of LiTS.
        notes: which layout was taken and which files were left aside.
    """

    prepared: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    findings: dict[str, list[Finding]] = field(default_factory=dict)
    set_findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def table(self) -> str:
        """Return a line of counts, the notes, then one for each finding, the harmful ones first."""
        count = len(self.prepared)
        unchanged = len(self.unchanged)
        lines = [
            f"{count} case{'' if count == 1 else 's'} prepared ({count - unchanged} now, "
            f"{unchanged} unchanged), {len(self.skipped)} skipped"
        ]
        lines += self.notes
        groups: dict[tuple[bool, str, str], list[str]] = {}
        for case_id, findings in self.findings.items():
            for finding in findings:
                key = (not finding.harmful, finding.code, finding.text)
                groups.setdefault(key, []).append(case_id)
        rows = [
            ("noted" if harmless else "SKIPPED", code, _named(ids), text)
            for (harmless, code, text), ids in sorted(groups.items(), key=lambda item: item[0][0])
        ]
        rows += [("noted", finding.code, "all", finding.text) for finding in self.set_findings]
        widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
        for row in rows:
            cells = [f"{cell:{width}}" for cell, width in zip(row, widths, strict=False)]
            lines.append("  ".join([*cells, row[3]]))
        return "\n".join(lines)


def recorded_report(
    root: str | os.PathLike, case_ids: Iterable[str], skipped: Mapping[str, str]
) -> PreparationReport:
    """Return the report of these cases by their records, whichever call prepared them.

    Args:
        root: the prepared/ folder.
        case_ids: the wanted cases.
        skipped: id -> reason, of the cases that could not be prepared.
    """
    outcomes = []
    for case_id in case_ids:
        record = CaseFiles(Path(root), case_id).known()
        if record:
            outcomes.append(Outcome(case_id, "unchanged", recorded_findings(record)))
        elif case_id in skipped:
            finding = Finding("left_out", True, skipped[case_id])
            outcomes.append(Outcome(case_id, "skipped", (finding,)))
    return report_of(outcomes, Path(root))


def recorded_findings(record: dict) -> tuple[Finding, ...]:
    """Return the findings in a case's record."""
    return tuple(Finding(**content) for content in record["findings"])


def findings_of_packed(ct: Path) -> list[Finding]:
    """Return what was odd about a prepared case's CT; nothing where it has no record beside it."""
    record = CaseFiles(ct.parent.parent, ct.name.removesuffix(SUFFIX)).known()
    return about_ct(recorded_findings(record)) if record else []


def read_prepared(packed: Path, orientation: str | None = None) -> tuple[Volume, list[Finding]]:
    """Return a prepared CT and what its record says of it; nothing where there is no record.

    Arguments and errors are those of `read_volume`.
    """
    findings = findings_of_packed(packed)
    remarks = tuple(found.text for found in findings)
    return replace(read_volume(packed, orientation), remarks=remarks), findings


def outcome_of(case: Case, result: Outcome | Exception) -> Outcome:
    """Return the outcome from a worker, or the error it ended with as a skipped case."""
    if isinstance(result, Outcome):
        return result
    text = str(result) if isinstance(result, BrokenExecutor) else repr(result)
    return Outcome(case.id, "skipped", (Finding(FAILED, True, text),))


def report_of(outcomes: Iterable[Outcome], root: Path) -> PreparationReport:
    """Gather outcomes by case id; all of LiTS is compared with what is known about it."""
    report = PreparationReport()
    for outcome in sorted(outcomes, key=lambda outcome: id_order(outcome.case_id)):
        if outcome.status == "skipped":
            report.skipped[outcome.case_id] = outcome.reason
            if any(finding.code == FAILED for finding in outcome.findings):
                report.failed.append(outcome.case_id)
        else:
            report.prepared.append(outcome.case_id)
        if outcome.status == "unchanged":
            report.unchanged.append(outcome.case_id)
        if outcome.findings:
            report.findings[outcome.case_id] = list(outcome.findings)
    if report.prepared:
        report.set_findings = check_lits_set(prepared_cases(root))
    return report


def _named(case_ids: list[str]) -> str:
    """Name cases, with runs of numbers shortened: "case 3", "cases 28-47, 52"."""
    parts: list[list[str]] = []
    for name in case_ids:
        last = parts[-1][-1] if parts else ""
        if name.isdecimal() and last.isdecimal() and int(name) == int(last) + 1:
            parts[-1].append(name)
        else:
            parts.append([name])
    runs = [run[0] if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in parts]
    return f"case{'' if len(case_ids) == 1 else 's'} {', '.join(runs)}"
