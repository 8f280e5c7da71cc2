"""The known bugs: one file for each part of the program, MUTANTS = [(name, path, old, new, path, old, new ..., {options})].

A name may end with " (M17)": the bug stands for this one of the fifty known bugs of other implementations. Options:
"by": ["test_x argument ..."] when tests catch it instead of the simulator, "sim": ["--nodes", "1"] for the simulator."""
import hashlib
import importlib
import re

# The numbers of the table are places in these, in this order: new ones go to the end of a file or shift the rest.
PARTS = ("raft", "node", "workers", "fsm", "storage", "snapshots", "membership", "schedules", "answers", "api")

NOT_APPLICABLE = importlib.import_module("mutants.not_applicable").NOT_APPLICABLE


class Mutant:
    def __init__(self, number, entry):
        self.number = number
        self.options = entry[-1] if isinstance(entry[-1], dict) else {}
        flat = entry[1:-1] if self.options else entry[1:]
        self.edits = [flat[at:at + 3] for at in range(0, len(flat), 3)]
        known = re.fullmatch(r"(.*) \((M\d+)\)", entry[0])
        self.name = known.group(1) if known else entry[0]
        self.known = known.group(2) if known else ""
        self.digest = hashlib.sha256(repr((self.edits, self.options)).encode()).hexdigest()[:16]


def load(with_open=False):
    parts = PARTS + ("open",) if with_open else PARTS
    entries = [e for part in parts for e in importlib.import_module("mutants." + part).MUTANTS]
    return [Mutant(i + 1, e) for i, e in enumerate(entries)]
