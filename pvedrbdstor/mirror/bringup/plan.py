"""What to do next to bring a storage up, from facts alone. No I/O here.

What can be refused without touching anything is looked at first. Nothing here forces a promotion, throws a copy away or
makes a file system; where data could be lost or be old the answer is a refusal with the command that resolves it.
"""

from __future__ import annotations

from pvedrbdstor.config import StorageConfig
from pvedrbdstor.mirror.bringup import plan_copies, plan_ocfs2
from pvedrbdstor.mirror.bringup.decision import Action, Done, Refusal
from pvedrbdstor.mirror.bringup.facts import Memory, Options, Situation, Step

Next = Action | Done | Refusal


def next_step(now: Situation, config: StorageConfig, options: Options, memory: Memory) -> Next:
    """The first step that is not yet true, Done when all are, or why it goes no further."""
    if now.mounted:
        return Done()
    return (
        _impossible(now, config)
        or plan_ocfs2.unconfigured(now, config)
        or _modules(now)
        or plan_copies.next_step(now, config, options, memory)
        or plan_ocfs2.next_step(now, config, memory)
    )


def _impossible(now: Situation, config: StorageConfig) -> Refusal | None:
    up = f"pvedrbdstor mirror up {config.id}"
    if now.wrong_mount is not None:
        return Refusal(now.wrong_mount, f"Unmount what is there ('umount {config.path}'), then run '{up}'")
    if now.resolving:
        return resolving(config)
    if now.held_down:
        return held_down(config)
    if now.point.exists and not now.point.folder:
        return Refusal(f"{config.path} is not a folder", f"Move it away, then run '{up}'")
    if now.point.content:
        names = ", ".join(now.point.content)
        return Refusal(
            f"the folder {config.path}, which the file system would hide, is not empty ({names})",
            f"Look at what is there and move it away (if the folder is immutable: 'chattr -i {config.path}'), then run '{up}'",
        )
    return None


def held_down(config: StorageConfig) -> Refusal:
    """Why a storage that an administrator took down stays down: what they do then must not meet a mounted file system."""
    return Refusal(
        f"an administrator took it down with 'pvedrbdstor mirror down {config.id}'",
        f"Run 'pvedrbdstor mirror up {config.id}' when the work is done",
    )


def resolving(config: StorageConfig) -> Refusal:
    """Why a copy that is being discarded stays down: what was written to it now would be lost, preserved by nobody."""
    return Refusal(
        "its split brain is being resolved, and this node's copy is the one to be discarded",
        f"Go on with 'pvedrbdstor split-brain resolve {config.id}', or give it up with '--abandon'",
    )


def _modules(now: Situation) -> Action | None:
    return Action(Step.MODULES) if now.missing_modules else None
