"""Flow control: who may send how much, what gives way when too much comes, and how everything recovers by itself.

All of it is plain state machines with the time (int ns) passed in; the bus and its sources act on what they say.

watermarks  Watermarks, WaterLevel: pause and resume sources, and the credits they have left
sizing      SizeBounds, AdaptiveSize: how many rows a queue may hold, by memory pressure and drain rate
shedding    Shedder: which rows give way, by the user's rules; shed_rules is one of them
overload    OverloadBreaker: sheds in a standing overload and recovers by itself; overload_settings is what it is told
breaker     CircuitBreaker: keeps calls from a failing handler; breaker_settings, breaker_states, windows belong to it
throttle    Throttle: producers wait for their turn; token_bucket is its rate limit, pure
lanes       the lanes' names, and the rule that critical events are never shed
checking    the settings' common checks
"""

from hftlab.flow.breaker import CircuitBreaker
from hftlab.flow.breaker_settings import BreakerSettings
from hftlab.flow.breaker_states import BreakerChange, BreakerState, BreakerStatistics
from hftlab.flow.lanes import LANES, SHEDDABLE
from hftlab.flow.overload import OverloadBreaker
from hftlab.flow.overload_settings import OverloadChange, OverloadSettings, OverloadState, OverloadStatistics
from hftlab.flow.shed_rules import ShedChange, ShedRule
from hftlab.flow.shedding import RuleStatistics, Shedder, ShedStatistics
from hftlab.flow.sizing import AdaptiveSize, SizeBounds, SizeStatistics
from hftlab.flow.throttle import Throttle, ThrottleStatistics
from hftlab.flow.token_bucket import TokenBucket
from hftlab.flow.watermarks import Water, WaterLevel, Watermarks, WaterStatistics

__all__ = [
    "Watermarks", "WaterLevel", "Water", "WaterStatistics",
    "AdaptiveSize", "SizeBounds", "SizeStatistics",
    "Shedder", "ShedRule", "ShedChange", "ShedStatistics", "RuleStatistics",
    "OverloadBreaker", "OverloadSettings", "OverloadState", "OverloadChange", "OverloadStatistics",
    "CircuitBreaker", "BreakerSettings", "BreakerState", "BreakerChange", "BreakerStatistics",
    "Throttle", "ThrottleStatistics", "TokenBucket",
    "LANES", "SHEDDABLE",
]  # fmt: skip
