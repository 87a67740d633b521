"""The Lua scripts of retention; see ``scripts`` for the rules that all keep, and where ``TRIM`` departs from them."""

from __future__ import annotations

import enum

from hftlab.streams.scripts import Script


class Trimmed(enum.IntEnum):
    """The first number in the reply of ``TRIM``."""

    DONE = 1
    UNREAD = 0
    """A group has not handled all of it; nothing was removed."""
    GONE = -1
    """The session does not exist (any more)."""
    CHANGED = -2
    """The session was trimmed, or its groups changed, since the caller looked; nothing was removed."""


WEIGH = Script(
    """
-- KEYS stream; ARGV start stop count. Ids and bytes of up to so many entries, as APPEND counts them. Reads only.
local found = {}
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[2], 'COUNT', ARGV[3])) do
  local size = 0
  local first = entry[2][3] == 'appended' and #entry[2] > 4 and 5 or 3
  for index = first, #entry[2] do size = size + #entry[2][index] end
  found[#found + 1] = entry[1]
  found[#found + 1] = size
end
return found
""",
    writes=False,
)

TRIM = Script("""
-- KEYS meta groups market order fill signal, then a hash for each group
-- ARGV cut from force bytes entries, the first id that stays for each of the four streams, then the groups' names
-- A group has not handled what lies at or after its position, and what it holds of what lies before that.
local meta, groups = KEYS[1], KEYS[2]
local held = redis.call('HMGET', meta, 'events', 'trimmed', 'stored_bytes', 'entries')
if not held[1] then return {-1} end
local cut, from = tonumber(ARGV[1]), tonumber(ARGV[2])
local trimmed = tonumber(held[2] or '0')
if (trimmed ~= from and trimmed ~= cut) or cut > tonumber(held[1]) then return {-2} end
if redis.call('SCARD', groups) ~= #ARGV - 9 then return {-2} end
for index = 10, #ARGV do
  if redis.call('SISMEMBER', groups, ARGV[index]) == 0 then return {-2} end
end
local reply, unread = {1}, false
for index = 7, #KEYS do
  local position = redis.call('HMGET', KEYS[index], 'log', 'held')
  local count = math.max(0, cut - math.max(tonumber(position[1] or '0') or 0, from))
  for number in string.gmatch(position[2] or '', '%d+') do
    if tonumber(number) < cut and tonumber(number) >= from then count = count + 1 end
  end
  unread = unread or count > 0
  reply[#reply + 1] = count
end
if unread and ARGV[3] ~= '1' then reply[1] = 0 return reply end
-- Where the reply to the first call was lost, it is done.
if trimmed == cut then return reply end
for index = 3, 6 do redis.call('XTRIM', KEYS[index], 'MINID', ARGV[index + 3]) end
redis.call('HSET', meta, 'trimmed', ARGV[1], 'stored_bytes',
  string.format('%.0f', math.max(0, tonumber(held[3]) - tonumber(ARGV[4]))),
  'entries', string.format('%.0f', math.max(0, tonumber(held[4]) - tonumber(ARGV[5]))))
return reply
""")
"""Trims all streams of a session at one log sequence. Safe to repeat.

Its first write is one that a server whose memory is full does not refuse: that is when it is needed.
"""
