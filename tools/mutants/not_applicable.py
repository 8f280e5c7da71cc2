"""Those of the fifty known bugs that cannot be put in, and why."""

NOT_APPLICABLE = [
]
