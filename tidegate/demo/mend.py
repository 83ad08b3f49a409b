"""The third act: the biggest group of dead letters that one expression can mend is mended, previewed and replayed.

1. index    `tidegate dlq agent` has put every dead letter into its group
2. open     the groups, and the biggest that is understood: cancelled flights that were never given an aircraft
3. preview  how many would pass now, with a placeholder in its place
4. replay   one first, then ten, then the rest, each when the worker has accepted the last
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from tidegate.cli.output import draw, table
from tidegate.demo.account import Accounts
from tidegate.demo.service import Service
from tidegate.demo.setting import Setting
from tidegate.errors import StackError

_RULE = "notNull(tailnum)"
_MEND = "value.tailnum = 'N1TBA'"
_MEANS = "cancelled before an aircraft was assigned; one expression gives them a placeholder"
_SHOWN = 5  # groups
_INDEX_TIMEOUT = 60.0  # s


def mend(setting: Setting, agent: Service, accounts: Accounts) -> bool:
    """Whether there was something to mend: among few flights all may have had an aircraft. `agent` is started.

    Raises StackError when the agent or a command cannot do its work. What became of the replays is for the comparison.
    """
    with setting.console.status("waiting until every dead letter is indexed"):
        agent.wait_ready()
        _wait_until_indexed(agent, accounts)
    group = _open_biggest(setting)
    if group is None:
        setting.console.print(f"none of them fails {_RULE}: nothing to mend by an expression")
        return False
    before = accounts.read().total
    choice = ("--group", group, "--set", _MEND)
    setting.shell.show(["dlq", "preview"], *choice)
    setting.shell.show(["dlq", "replay"], *choice, "--yes")
    after = accounts.read().total
    setting.console.print(
        f"the ledger: read {before.read:,} → {after.read:,}, accepted {before.accepted:,} → {after.accepted:,}, "
        f"dead-lettered {before.dead_lettered:,} → {after.dead_lettered:,}; {after.replayed:,} of those read are replays",
        highlight=False,
        soft_wrap=True,
    )
    return True


def _wait_until_indexed(agent: Service, accounts: Accounts) -> None:
    deadline = time.monotonic() + _INDEX_TIMEOUT
    wanted = accounts.read().total.dead_lettered
    while (indexed := accounts.indexed()) < wanted:
        agent.require()
        if time.monotonic() > deadline:
            raise StackError(f"the agent has indexed {indexed} of {wanted} dead letters:\n{agent.log_end()}")
        time.sleep(0.1)


def _open_biggest(setting: Setting) -> str | None:
    """Show the groups. The fingerprint of the biggest one that there is an expression for."""
    setting.shell.say(["dlq", "groups"])
    groups: list[dict[str, Any]] = json.loads(setting.shell.ask("dlq", "groups").stdout)
    columns = ["open", "group", "stage", "error", "message"]
    draw(table([_shown(group) for group in groups[:_SHOWN]], columns), setting.console)
    if len(groups) > _SHOWN:
        setting.console.print(f"  … and {len(groups) - _SHOWN} smaller ones", highlight=False)
    found = next((group for group in groups if _RULE in group.get("rule", {})), None)
    if found is None:
        return None
    said = f"\nthe biggest, {found['group']}: {found['open']:,} flights, {_MEANS}"
    setting.console.print(said, highlight=False)
    return str(found["group"])


def _shown(group: Mapping[str, Any]) -> dict[str, Any]:
    rules: dict[str, int] = group.get("rule", {})
    failed = max(rules, key=lambda rule: rules[rule], default=group["errorType"])
    return {**group, "error": failed, "message": _cut(group["message"])}


def _cut(text: str, most: int = 46) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
