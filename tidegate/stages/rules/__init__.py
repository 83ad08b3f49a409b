"""Rules: the validate stage. One file per rule on the base in base.py; adding one is a file and a line in `CHECKS`."""

from tidegate.stages.rules.ruleset import CHECKS, Checked, RuleSet

__all__ = ["CHECKS", "Checked", "RuleSet"]
