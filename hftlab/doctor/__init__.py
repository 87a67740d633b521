"""What this machine's clock, stamps, memory and server are good for, and why.

``examining`` runs everything and is what users call; ``report`` holds what it finds. What is looked at, a module each:
``clocks`` (this machine's counter, and what its kernel says of UTC), ``time_servers`` (what NTP servers say, where
some are named), ``stamping`` (stamps of arrivals, cores), ``capacity`` (memory, disk), ``server`` (Redis or Valkey),
``installation`` (packages, compiled kernels). ``fitness`` says which rules of the regulators that comes to.

Measuring and judging are apart: the functions that judge are pure, and take what was measured.
"""

from hftlab.doctor.examining import examine
from hftlab.doctor.report import Answer, Check, Fitness, Report, Verdict

__all__ = ["Answer", "Check", "Fitness", "Report", "Verdict", "examine"]
