"""The engines that ours runs beside, each in a process (and, where it must, an environment) of its own.

A module here lists one peer's contenders and imports nothing of hftlab: it may run where hftlab is not installed.
"""
