"""What an ACL user needs on a server of the user's own: the least that everything works with, found by test."""

from __future__ import annotations

import re

NEEDED = (
    "~{hftlab}:*", "+@read", "+@write", "-@dangerous", "+eval", "+evalsha", "+script|load", "+ping", "+time",
)  # fmt: skip
"""For everything that a lab does, replays and processors' groups among it. ``hftlab`` stands for the namespace.

By categories, because what a processor's transactions write is its user's choice. ``-@dangerous`` takes FLUSHALL and
its like away again.
"""
IN_CLUSTER = ("+cluster|myid", "+cluster|info", "+cluster|slots")
"""To find the node of a lab in a Redis Cluster, beside ``NEEDED``."""
DURABILITY = ("+info", "+config|get")
"""To be told what an append survives. Without these everything works, and the durability is shown as unknown."""

_IN_SCRIPT = ("ACL failure in script", "The user executing the script can't")
_COMMAND = re.compile(r"run the '([^']{1,40})' command")


def is_refusal(words: str) -> bool:
    """Whether a script says that its user may not run one of its commands; elsewhere, NOPERM does."""
    return words.startswith(_IN_SCRIPT)


def grant(words: str, *, in_cluster: bool) -> str:
    """How to give the user what a server's refusal says is missing."""
    rules = (*NEEDED, *(IN_CLUSTER if in_cluster else ()))
    named = _COMMAND.search(words)
    missing = ""
    if named is not None:
        missing = f"An administrator grants it with ACL SETUSER <user> +{named[1].lower()}. "
    elif "key" in words:
        missing = "It is not a key of this namespace that the user may read and write. "
    return f"{missing}All that a lab needs, where hftlab is the namespace: ACL SETUSER <user> {' '.join(rules)}"
