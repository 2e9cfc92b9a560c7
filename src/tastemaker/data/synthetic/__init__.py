"""An invented film world with known truth: complete data for every system, at any size, without a download.

    data = synthetic(1_000)                      # a Dataset, as any other
    world = World(n_users=1_000, seed=0)         # the same, and what is true of it
    data, truth = world.dataset(), world.truth()
    truth.ideal(users=[0, 1], k=10)              # the best ranking there is
    world.save("films", truth="films-truth")     # streamed: a million users in bounded memory

What is planted, and can be turned off by a setting: long-lived tastes over genres, moods, makers and actors
(`taste`), fame apart from taste (`popularity`), tastes that turn over time (`drift`), sessions with an intent
(`intent`), sequels watched in order (`sequels`), thrift (`price`), searches (`searches`), and lists shown by
a logging policy with known propensities and a position bias (`impressions`).

Viewer u of a seed and a catalogue is the same whether 100 or 1,000,000 viewers are made. The truth is made of
the seed; a Dataset holds neither.
"""

from tastemaker.data.synthetic.truth import Truth
from tastemaker.data.synthetic.world import World, WorldConfig, synthetic

__all__ = ["Truth", "World", "WorldConfig", "synthetic"]
