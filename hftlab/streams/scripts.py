"""The Lua scripts that run inside the server, each one atomic: it happens as a whole or not at all.

Lua's numbers are doubles: milliseconds, log sequences and byte counts fit them exactly, nanoseconds don't. Those come
as 19 digits with leading zeros, which compare as text. Every script reads (and so checks the types of) all that it
will write before its first write, and its first write is a command that the server refuses when its memory is full:
after that, nothing can fail.
"""

from __future__ import annotations

import enum
import hashlib


class Script:
    """A script's text and the digest that EVALSHA knows it by; whether it writes."""

    __slots__ = ("sha", "text", "writes")

    def __init__(self, text: str, *, writes: bool = True) -> None:
        self.text = text
        self.writes = writes
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


class Status(enum.IntEnum):
    """The first number in the reply of ``APPEND`` and ``SYNCHRONISE``."""

    APPLIED = 1
    DUPLICATE = 2
    GONE = 3
    """The session does not exist (any more)."""
    FENCED = 4
    """Another writer took over under the same name."""
    CONFLICT = 5
    """The writer's key was used for other content."""
    GAP = 6
    """Rows before these are missing."""
    OVERLAP = 7
    """Some of these rows are there: the writer must cut anew."""
    FULL = 8
    """No log sequences are left."""
    SEALED = 9
    """The session has a successor."""
    FORGOTTEN = 10
    """The session knows nothing of this named writer: it was flushed and made again, or lost the claim in a crash."""


_PROLOGUE = """
local function whole(number) return string.format('%.0f', number) end
local function recall(writers, writer)
  local record = redis.call('HGET', writers, writer)
  if not record then return nil end
  local token, digest, rows, start, first, last, entries, bytes =
    string.match(record, '^(%S+) (%S+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+)$')
  return {token = token, digest = digest, rows = tonumber(rows), start = tonumber(start), first = tonumber(first),
    last = tonumber(last), entries = tonumber(entries), bytes = tonumber(bytes)}
end
local function reply(status, known)
  if not known then return {status, 0, 0, 0, 0, 0, 0} end
  return {status, known.rows, known.start, known.first, known.last, known.entries, known.bytes}
end
local function remember(writers, writer, known)
  redis.call('HSET', writers, writer, table.concat({known.token, known.digest, whole(known.rows), whole(known.start),
    whole(known.first), whole(known.last), whole(known.entries), whole(known.bytes)}, ' '))
end
"""

SYNCHRONISE = Script(
    _PROLOGUE
    + """
-- KEYS meta writers; ARGV writer mode token digest
--   read:  what is known of a writer that is known by its content; writes nothing
--   take:  become this named writer, whoever had the name before
--   renew: the same writer on a new connection, which fences its own calls that are still under way on the old one
local meta, writers = KEYS[1], KEYS[2]
local writer, mode, token, digest = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
if redis.call('EXISTS', meta) == 0 then return reply(3) end
local known = recall(writers, writer)
if mode == 'read' then
  if known and known.digest ~= digest then return reply(5, known) end
  return reply(1, known)
end
if mode == 'renew' then
  local mine = string.match(token, '^[^.]+')
  if not known then return reply(10) end
  if string.match(known.token, '^[^.]+') ~= mine then return reply(4, known) end
end
known = known or {digest = digest, rows = 0, start = 0, first = 0, last = 0, entries = 0, bytes = 0}
known.token = token
remember(writers, writer, known)
return reply(1, known)
"""
)
"""Learns what the server knows of a writer, and makes it the one that may write. Safe to repeat."""


APPEND = Script(
    _PROLOGUE
    + """
-- KEYS meta symbols writers market order fill signal
-- ARGV writer token digest start from count arrival_ms earliest_ms earliest_ns latest_ns symbols parts,
--      then the symbols, then for each part: stream rows offset strings, and so many strings (fields and values)
local meta, symbols, writers = KEYS[1], KEYS[2], KEYS[3]
local held = redis.call('HMGET', meta, 'events', 'last_ms', 'earliest_ns', 'latest_ns', 'backward_ms', 'stored_bytes',
  'entries', 'market', 'order', 'fill', 'signal', 'successor')
if not held[1] then return reply(3) end
local writer, token, digest = ARGV[1], ARGV[2], ARGV[3]
local start, from, count = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local known = recall(writers, writer)
if known then
  if known.token ~= token then return reply(4, known) end
  if known.digest ~= digest then return reply(5, known) end
elseif token ~= '-' then
  return reply(10)
else
  known = {token = token, digest = digest, rows = 0, start = 0, first = 0, last = 0, entries = 0, bytes = 0}
end
if from + count <= known.rows then return reply(2, known) end
if held[12] then return reply(9, known) end
if from > known.rows then return reply(6, known) end
if from < known.rows then return reply(7, known) end

local base = tonumber(held[1])
if base + count > 1099511562240 then return reply(8, known) end
local arrival, earliest_ms = tonumber(ARGV[7]), tonumber(ARGV[8])
local named, parts = tonumber(ARGV[11]), tonumber(ARGV[12])
-- In slices: unpack takes no more than some 8,000 values.
for low = 13, 12 + named, 1000 do redis.call('SADD', symbols, unpack(ARGV, low, math.min(low + 999, 12 + named))) end

local told = redis.call('TIME')
local appended = told[1] .. string.format('%06d', tonumber(told[2]))
local size, counts = 0, {0, 0, 0, 0}
local function store(ms)
  local done, at = {}, 13 + named
  size, counts = 0, {0, 0, 0, 0}
  for part = 1, parts do
    local which, rows, strings = tonumber(ARGV[at]), tonumber(ARGV[at + 1]), tonumber(ARGV[at + 3])
    local log = whole(base + tonumber(ARGV[at + 2]))
    local id = whole(ms) .. '-' .. log
    local added = redis.pcall('XADD', KEYS[3 + which], id, 'log_sequence', log, 'appended', appended,
      unpack(ARGV, at + 4, at + 3 + strings))
    if type(added) == 'table' and added.err then
      for _, one in ipairs(done) do redis.call('XDEL', one[1], one[2]) end
      return added.err
    end
    done[#done + 1] = {KEYS[3 + which], id}
    counts[which] = counts[which] + rows
    for index = at + 4, at + 3 + strings do size = size + #ARGV[index] end
    at = at + 4 + strings
  end
end

local ms = math.max(tonumber(held[2]), arrival)
local failed = store(ms)
if failed and string.find(failed, 'equal or smaller', 1, true) then
  -- Somebody else's entry stands above ours: go on above it.
  for index = 4, 7 do
    local info = redis.pcall('XINFO', 'STREAM', KEYS[index])
    for place = 1, #info - 1 do
      if info[place] == 'last-generated-id' then
        ms = math.max(ms, tonumber(string.match(info[place + 1], '^%d+')) + 1)
      end
    end
  end
  if ms < 9007199254740992 then failed = store(ms) end
end
if failed then return redis.error_reply(failed) end

local function extreme(old, new, later)
  if not old or old == '' or base == 0 then return new end
  if later == (new > old) then return new end
  return old
end
redis.call('HSET', meta, 'events', whole(base + count), 'last_ms', whole(ms),
  'earliest_ns', extreme(held[3], ARGV[9], false), 'latest_ns', extreme(held[4], ARGV[10], true),
  'backward_ms', whole(math.max(tonumber(held[5]), ms - earliest_ms)),
  'stored_bytes', whole(tonumber(held[6]) + size), 'entries', whole(tonumber(held[7]) + parts),
  'market', whole(tonumber(held[8]) + counts[1]), 'order', whole(tonumber(held[9]) + counts[2]),
  'fill', whole(tonumber(held[10]) + counts[3]), 'signal', whole(tonumber(held[11]) + counts[4]))
if from == start then
  known.start, known.first, known.entries, known.bytes = start, base, 0, 0
end
known.rows, known.last = from + count, base + count - 1
known.entries, known.bytes = known.entries + parts, known.bytes + size
remember(writers, writer, known)
return reply(1, known)
"""
)
"""Appends one chunk: all of it, once, or not at all.

A writer's record is ``token digest rows start first last entries bytes``: how many rows it has written in all; and of
the batch that it is writing, the row at which that starts, the log sequences of its first and last row, its entries
and their bytes. A chunk says which rows it holds (``from``, ``count``): those the record has are a duplicate and
answered with the record; a chunk that starts later is refused (something before it was lost).
"""


CREATE = Script("""
-- KEYS sessions meta; ARGV name number created_ns. Returns the number of that name (0: that number
-- is taken), and 1 if it was made now.
local taken = redis.call('HGET', KEYS[1], ARGV[1])
if taken then return {tonumber(taken), 0} end
if redis.call('EXISTS', KEYS[2]) == 1 then return {0, 0} end
redis.call('HSET', KEYS[2], 'name', ARGV[1], 'number', ARGV[2], 'created_ns', ARGV[3], 'events', '0', 'last_ms', '0',
  'earliest_ns', '', 'latest_ns', '', 'backward_ms', '0', 'stored_bytes', '0', 'entries', '0',
  'market', '0', 'order', '0', 'fill', '0', 'signal', '0')
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return {tonumber(ARGV[2]), 1}
""")

RENAME = Script("""
-- KEYS sessions meta; ARGV old new number. Returns 1: done (also when it had been done), 0: no such session, -1: taken.
local held, taken = redis.call('HGET', KEYS[1], ARGV[1]), redis.call('HGET', KEYS[1], ARGV[2])
if taken then return (taken == ARGV[3] and (ARGV[1] == ARGV[2] or not held)) and 1 or -1 end
if held ~= ARGV[3] then return 0 end
redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('HSET', KEYS[2], 'name', ARGV[2])
return 1
""")

DELETE = Script("""
-- KEYS sessions groups meta symbols writers market order fill signal; ARGV name number, and what the keys of its groups
-- begin with. Returns how many keys went.
if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then redis.call('HDEL', KEYS[1], ARGV[1]) end
for _, group in ipairs(redis.call('SMEMBERS', KEYS[2])) do
  redis.call('UNLINK', ARGV[3] .. group, ARGV[3] .. group .. ':letters')
end
return redis.call('UNLINK', unpack(KEYS, 2))
""")

LOCATE = Script(
    """
-- KEYS streams; ARGV log sequence. For each stream, the id of its last entry that begins at or before that log
-- sequence ('-' where none does, or where somebody else's entry is in the way). Ids rise with the log sequence, which
-- is their second half, but their milliseconds are unknown: a bisection over these. Reads only.
local wanted, found = tonumber(ARGV[1]), {}
local function split(id) local ms, log = string.match(id, '^(%d+)-(%d+)$') return tonumber(ms), tonumber(log) end
local function whole(number) return string.format('%.0f', number) end
for index, key in ipairs(KEYS) do
  found[index] = '-'
  local first = redis.call('XRANGE', key, '-', '+', 'COUNT', 1)
  if #first == 1 then
    local low, log = split(first[1][1])
    if log <= wanted then
      local high = split(redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)[1][1])
      while low < high do
        local middle = math.floor((low + high + 1) / 2)
        local entry = redis.call('XRANGE', key, whole(middle) .. '-0', '+', 'COUNT', 1)[1]
        local ms, begins = split(entry[1])
        if begins <= wanted then low = ms else high = middle - 1 end
      end
      local entry = redis.call('XREVRANGE', key, whole(low) .. '-' .. ARGV[1], '-', 'COUNT', 1)[1]
      local _, begins = split(entry[1])
      if entry[2][1] == 'log_sequence' and tonumber(entry[2][2]) == begins then found[index] = entry[1] end
    end
  end
end
return found
""",
    writes=False,
)
