"""The Lua scripts of consumer groups: who has a group, what it is given, where it stands. See ``commit_script``, too.

A group is a hash beside the groups of the same name on the streams that it reads:

==============  ====================================================================================================
field           holds
==============  ====================================================================================================
``types``       the topic words of what it reads, sorted, with spaces between
``token``       of the member that may read and commit; empty: nobody has the group
``holder``      that member, as JSON: its name, and its process's mark (see ``liveness``)
``epoch``       how many owners the group had
``since_ms``    when that one became it; ``until_ms``: until when it keeps the group without a word. Server's time
``log``         every row below that log sequence is handled, but for those in ``held``, with spaces between
``entry:…``     by topic word, the last entry that was touched, ``<id>/<rows of it that are handled>``
``serial``      of the last commit; ``result``: what that did, as JSON; ``saved_ms``: when
``state``       what the processor keeps there
==============  ====================================================================================================

Every script that a member calls checks its token first: who was taken over from can do nothing any more, whenever its
calls arrive. Milliseconds and log sequences fit Lua's doubles exactly.
"""

from __future__ import annotations

import enum

from hftlab.streams.scripts import Script


class GroupStatus(enum.IntEnum):
    """The first number in the reply of the groups' scripts."""

    DONE = 1
    NO_SESSION = 2
    NO_GROUP = 3
    TAKEN = 4
    """Another member has the group."""
    OTHER_TYPES = 5
    """The group exists, and reads other types."""
    REPEATED = 6
    """That commit was done before."""
    OUT_OF_TURN = 7
    """A commit before that one is missing, or later ones were done."""
    FOREIGN = 8
    """A stream has a group of that name that is not hftlab's."""
    HALF = 9
    """The group exists, and has lost its place in one of the streams."""


PROLOGUE = """
local function whole(number) return string.format('%.0f', number) end
local function now_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end
local function refusal(meta, hash, token)
  if redis.call('EXISTS', meta) == 0 then return {2, ''} end
  local held = redis.call('HMGET', hash, 'token', 'holder')
  if not held[1] then return {3, ''} end
  if held[1] ~= token then return {4, held[2] or ''} end
end
local function last_delivered(stream, group)
  local groups = redis.pcall('XINFO', 'GROUPS', stream)
  for _, info in ipairs(groups) do
    local name, last
    for place = 1, #info - 1, 2 do
      if info[place] == 'name' then name = info[place + 1] end
      if info[place] == 'last-delivered-id' then last = info[place + 1] end
    end
    if name == group then return last end
  end
end
"""

MEMBER = Script(
    PROLOGUE
    + """
-- KEYS meta groups hash streams…; ARGV group types log mode forced ids… (one for each stream)
--   log: 'start', 'now' or a number; mode: 'make', 'mend' or 'move'; forced: the token of a holder known to be dead
-- Makes the group, moves it, or gives it back its place in the streams that have lost it (XGROUP DESTROY by hand):
-- where it stands is in the hash, and whoever has it begins anew from there. Returns status, holder, token, types,
-- whether it was made now.
local meta, hash = KEYS[1], KEYS[3]
local group, types, log, mode, forced = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local session = redis.call('HMGET', meta, 'events', 'trimmed')
if not session[1] then return {2, '', '', '', 0} end
local held = redis.call('HMGET', hash, 'types', 'token', 'until_ms', 'holder', 'serial', 'epoch')
if held[1] and held[1] ~= types then return {5, '', '', held[1], 0} end
if held[1] and mode ~= 'move' then
  for index = 4, #KEYS do
    if not last_delivered(KEYS[index], group) then
      if mode == 'make' then return {9, '', '', types, 0} end
      redis.call('XGROUP', 'CREATE', KEYS[index], group, ARGV[2 + index], 'MKSTREAM')
      redis.call('HSET', hash, 'token', '', 'until_ms', '0')
    end
  end
  return {1, '', '', types, 0}
end
local now = now_ms()
if held[1] and held[2] ~= '' and held[2] ~= forced and tonumber(held[3]) > now then
  return {4, held[4], held[2], types, 0}
end
if not held[1] then
  for index = 4, #KEYS do if last_delivered(KEYS[index], group) then return {8, KEYS[index], '', types, 0} end end
end
for index = 4, #KEYS do
  local id = ARGV[2 + index]
  if log == 'now' then id = '$' elseif log == 'start' then id = '0' end
  if redis.call('EXISTS', KEYS[index]) == 1 then redis.call('XGROUP', 'DESTROY', KEYS[index], group) end
  redis.call('XGROUP', 'CREATE', KEYS[index], group, id, 'MKSTREAM')
end
if log == 'now' then log = session[1] elseif log == 'start' then log = session[2] or '0' end
redis.call('HSET', hash, 'types', types, 'token', '', 'holder', '', 'epoch', held[6] or '0', 'since_ms', '0',
  'until_ms', '0', 'log', log, 'held', '', 'serial', held[5] or '0', 'result', '', 'saved_ms', whole(now), 'state', '')
redis.call('HDEL', hash, 'entry:market', 'entry:order', 'entry:fill', 'entry:signal')
redis.call('SADD', KEYS[2], group)
return {1, '', '', types, held[1] and 0 or 1}
"""
)

ACQUIRE = Script(
    PROLOGUE
    + """
-- KEYS meta hash streams…; ARGV group token holder lease_ms forced
-- A token is '<member>.<count>': one's own lease is taken anew, and calls with the token before are refused then.
-- Returns status, holder, token, epoch, since_ms, until_ms of who has it now; then the hash, and for each stream the
-- id of the last entry that was delivered.
local meta, hash, group, token = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
if redis.call('EXISTS', meta) == 0 then return {2} end
local held = redis.call('HMGET', hash, 'token', 'until_ms', 'holder', 'epoch', 'since_ms')
if not held[1] then return {3} end
local now = now_ms()
local function member(one) return string.match(one, '^[^.]*') end
if held[1] ~= '' and member(held[1]) ~= member(token) and held[1] ~= ARGV[5] and tonumber(held[2]) > now then
  return {4, held[3], held[1], held[4], held[5], held[2]}
end
local delivered = {}
for index = 3, #KEYS do
  local last = last_delivered(KEYS[index], group)
  if not last then return {3} end
  delivered[#delivered + 1] = last
end
local epoch, since = tonumber(held[4]), held[5]
if held[1] ~= token then epoch, since = epoch + 1, whole(now) end
redis.call('HSET', hash, 'token', token, 'holder', ARGV[3], 'epoch', whole(epoch), 'since_ms', since,
  'until_ms', whole(now + tonumber(ARGV[4])))
return {1, ARGV[3], token, whole(epoch), since, whole(now + tonumber(ARGV[4])), redis.call('HGETALL', hash), delivered}
"""
)
"""Becomes the active member, if the group is free, its lease has run out, or its holder is known to be dead."""

CLAIM = Script(
    PROLOGUE
    + """
-- KEYS meta hash stream; ARGV group token consumer cursor count. Makes what is pending ours, a slice at a time.
-- Returns status, the next cursor ('0-0': all is done, and the consumers that have nothing any more are removed).
local no = refusal(KEYS[1], KEYS[2], ARGV[2])
if no then return no end
local stream, group, consumer = KEYS[3], ARGV[1], ARGV[3]
local claimed = redis.pcall('XAUTOCLAIM', stream, group, consumer, 0, ARGV[4], 'COUNT', ARGV[5], 'JUSTID')
if claimed.err then return {3, claimed.err} end
if claimed[1] == '0-0' then
  for _, info in ipairs(redis.call('XINFO', 'CONSUMERS', stream, group)) do
    local name, pending
    for place = 1, #info - 1, 2 do
      if info[place] == 'name' then name = info[place + 1] end
      if info[place] == 'pending' then pending = info[place + 1] end
    end
    if name ~= consumer and pending == 0 then redis.call('XGROUP', 'DELCONSUMER', stream, group, name) end
  end
end
return {1, claimed[1]}
"""
)

READ = Script(
    PROLOGUE
    + """
-- KEYS meta hash stream; ARGV group token consumer after count
-- after: the id of the last entry that the member received. Where the server has delivered others since (what an owner
-- before left, a reply that was lost, a call that arrived late), those come first, out of what is pending.
-- Returns status, events, successor, whether these were pending, the last id that was delivered, entries, and the log
-- sequence before which retention took what there was.
local no = refusal(KEYS[1], KEYS[2], ARGV[2])
if no then return no end
local session = redis.call('HMGET', KEYS[1], 'events', 'successor', 'trimmed')
local trimmed = session[3] or '0'
local stream, group, consumer, after, count = KEYS[3], ARGV[1], ARGV[3], ARGV[4], ARGV[5]
local delivered = last_delivered(stream, group)
if not delivered then return {3, ''} end
local function read(from)
  local found = redis.call('XREADGROUP', 'GROUP', group, consumer, 'COUNT', count, 'STREAMS', stream, from)
  return found and found[1] and found[1][2] or {}
end
if delivered ~= after then
  local pending = read(after)
  if #pending > 0 then return {1, session[1], session[2] or '', 1, delivered, pending, trimmed} end
end
local entries = read('>')
if #entries > 0 then delivered = entries[#entries][1] end
return {1, session[1], session[2] or '', 0, delivered, entries, trimmed}
"""
)

RENEW = Script(
    PROLOGUE
    + """
-- KEYS meta hash; ARGV token lease_ms
local no = refusal(KEYS[1], KEYS[2], ARGV[1])
if no then return no end
redis.call('HSET', KEYS[2], 'until_ms', whole(now_ms() + tonumber(ARGV[2])))
return {1, ''}
"""
)

RELEASE = Script("""
-- KEYS hash; ARGV token. Without its token, the member's own late calls are refused as well.
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'token', '', 'until_ms', '0')
return 1
""")

DESTROY = Script("""
-- KEYS groups hash letters streams…; ARGV group. Returns whether there was one.
for index = 4, #KEYS do
  if redis.call('EXISTS', KEYS[index]) == 1 then redis.call('XGROUP', 'DESTROY', KEYS[index], ARGV[1]) end
end
redis.call('UNLINK', KEYS[2], KEYS[3])
return redis.call('SREM', KEYS[1], ARGV[1])
""")

SEAL = Script("""
-- KEYS meta; ARGV successor. Returns the successor that the session has now; empty where there is no session.
if redis.call('EXISTS', KEYS[1]) == 0 then return '' end
redis.call('HSETNX', KEYS[1], 'successor', ARGV[1])
return redis.call('HGET', KEYS[1], 'successor')
""")
