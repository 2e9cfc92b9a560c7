"""Environments: worlds of users to act in."""

from tastemaker.simulate.attributes import AttributeState, AttributeUsers
from tastemaker.simulate.gymnasium import as_gymnasium
from tastemaker.simulate.latent import LatentState, LatentUsers
from tastemaker.simulate.logged import Logged
from tastemaker.simulate.replay import LoggedReplay, ReplayState
from tastemaker.simulate.talks import Speaker, TalkingUsers, TalkState

__all__ = [
    "AttributeState",
    "AttributeUsers",
    "LatentState",
    "LatentUsers",
    "Logged",
    "LoggedReplay",
    "ReplayState",
    "Speaker",
    "TalkState",
    "TalkingUsers",
    "as_gymnasium",
]
