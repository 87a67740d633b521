"""What memory is left, and how short of it the machine is.

pressure    read_pressure: the limit that binds (cgroup v2, v1, the machine) and the stalls (PSI), as one figure
"""

from hftlab.memory.pressure import MemoryPressure, read_pressure

__all__ = ["MemoryPressure", "read_pressure"]
