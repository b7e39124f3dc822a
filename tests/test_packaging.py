"""Files for package managers and reference managers: requirements-lock.txt, CITATION.cff."""

import re

from packaging.requirements import Requirement

from tests.helpers import REPOSITORY


def requirements(name: str) -> list[Requirement]:
    lines = [line.split("#")[0].strip() for line in (REPOSITORY / name).read_text().splitlines()]
    return [Requirement(line) for line in lines if line]


def test_lock_file_satisfies_the_bounds():
    """Each package that requirements.txt wants on Python 3.11 is in the lock file, in a version that it allows."""
    locked = {lock.name: lock.specifier for lock in requirements("requirements-lock.txt")}
    assert all(re.fullmatch(r"==[\d.]+(\.?post\d+)?", str(specifier)) for specifier in locked.values())
    wanted = [
        r for r in requirements("requirements.txt") if not r.marker or r.marker.evaluate({"python_version": "3.11"})
    ]
    assert len(wanted) > 10
    for requirement in wanted:
        version = str(locked[requirement.name]).removeprefix("==")
        assert requirement.specifier.contains(version), f"{requirement}: {version} is locked"


def test_citation_file_agrees_with_the_readme():
    bibtex = (REPOSITORY / "README.md").read_text().split("```bibtex")[1].split("```")[0]
    entry = dict(re.findall(r"(\w+)\s*= \{(.*)\}", bibtex))
    paper = (REPOSITORY / "CITATION.cff").read_text().split("preferred-citation:")[1]
    fields = dict(re.findall(r"^  ([\w-]+): (.+)$", paper, re.MULTILINE))
    authors = [f"{family}, {given}" for given, family in re.findall(r"given-names: (\w+), family-names: (\w+)", paper)]
    assert (fields["title"], " and ".join(authors)) == (entry["title"], entry["author"])
    assert (f"{fields['start']}--{fields['end']}", fields["year"]) == (entry["pages"], entry["year"])
