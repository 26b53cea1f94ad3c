"""What became of each case, in one table."""

import os
from collections.abc import Iterable, Mapping
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass, field
from pathlib import Path

from ..cases import Case, Finding, check_lits_set
from .prepared import CaseFiles, prepared_cases

FAILED = "failed"  # code of a case that may succeed another time: its process died, a disk failed


@dataclass(frozen=True)
class Outcome:
    """What became of one case: "prepared", "unchanged" or "skipped", and what was odd about it."""

    case_id: str
    status: str
    findings: tuple[Finding, ...] = ()

    @property
    def reason(self) -> str:
        """Why it was skipped."""
        return "; ".join(finding.text for finding in self.findings if finding.harmful)


@dataclass
class PreparationReport:
    """What became of each case.

    Attributes:
        prepared: ids of the cases that are ready, unchanged ones included.
        unchanged: ids that were recognised by content and left alone.
        skipped: id -> reason.
        failed: ids of the skipped ones that failed for no fault found in their files.
        findings: id -> what was odd about the case.
        set_findings: what differs from the known counts, where all of LiTS is there.
    """

    prepared: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    findings: dict[str, list[Finding]] = field(default_factory=dict)
    set_findings: list[Finding] = field(default_factory=list)

    def table(self) -> str:
        """Return a sum, then a line for each thing that is odd, the harmful ones first."""
        made = len(self.prepared) - len(self.unchanged)
        lines = [
            f"{_count(len(self.prepared))} prepared ({made} now, {len(self.unchanged)} unchanged), "
            f"{len(self.skipped)} skipped"
        ]
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


def _count(cases: int) -> str:
    return f"{cases} case{'' if cases == 1 else 's'}"


def _named(case_ids: list[str]) -> str:
    """Name cases, runs of numbers in short: "case 3", "cases 28-47, 52"."""
    parts: list[list[str]] = []
    for name in case_ids:
        last = parts[-1][-1] if parts else ""
        if name.isdecimal() and last.isdecimal() and int(name) == int(last) + 1:
            parts[-1].append(name)
        else:
            parts.append([name])
    runs = [run[0] if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in parts]
    return f"case{'' if len(case_ids) == 1 else 's'} {', '.join(runs)}"


def recorded_report(
    root: str | os.PathLike, case_ids: Iterable[str], skipped: Mapping[str, str]
) -> PreparationReport:
    """Return what the records say of these cases, prepared in whatever call.

    Args:
        root: the prepared/ folder.
        case_ids: the cases asked for.
        skipped: id -> reason, of those that could not be prepared.
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
    """Return what a case's record says was odd about it."""
    return tuple(Finding(**content) for content in record["findings"])


def outcome_of(case: Case, result: Outcome | Exception) -> Outcome:
    """Return what a worker returned, or the error it ended with as a skipped case."""
    if isinstance(result, Outcome):
        return result
    text = str(result) if isinstance(result, BrokenExecutor) else repr(result)
    return Outcome(case.id, "skipped", (Finding(FAILED, True, text),))


def report_of(outcomes: Iterable[Outcome], root: Path) -> PreparationReport:
    """Gather outcomes by case number; all of LiTS is compared with what is known about it."""
    report = PreparationReport()
    for outcome in sorted(outcomes, key=lambda outcome: (len(outcome.case_id), outcome.case_id)):
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
