"""Bugs that nothing has seen yet: neither some hundred seeds nor a test. Each is a hole to be closed, or a reason
to be found why it cannot be seen. Tried with --open only."""

MUTANTS = []
