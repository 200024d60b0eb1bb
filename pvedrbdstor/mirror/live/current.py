"""The verdict on a storage for whoever asks once: the monitor's, or that of a look of one's own."""

from __future__ import annotations

from pvedrbdstor.config import StorageConfig
from pvedrbdstor.mirror.live.view import read_view
from pvedrbdstor.mirror.verdict import Verdict, verdict_of


def current_verdict(config: StorageConfig) -> tuple[Verdict, str]:
    """The monitor's, or, where none runs, that of a look, which takes some seconds at most and knows nothing of how a peer was lost. And
    which of them it is, in words."""
    view = read_view(config.id)
    if view.fresh and view.describes(config):
        return view.verdict, "monitor"
    from pvedrbdstor.mirror.gather import gather

    return verdict_of(gather(config)), "one look"
