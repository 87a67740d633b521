"""The Lua script that commits: position, users' effects, dead letters and acknowledgements in one step, once.

Redis has no rollback, so whatever could fail is found out before the first write. Types and numbers in place are looked
at; what the commit's own effects will have changed by then is followed in ``known`` (what is certain to be) and
``draft`` (one transaction's, thrown away where that is refused). Where a later value can't be known exactly, the
transaction is refused rather than risked. The first write is one that a server without memory refuses; after it, Redis
refuses nothing more within a script. What fails all the same (an ACL that forbids a command) is told as refused.
"""

from __future__ import annotations

from hftlab.streams.group_scripts import PROLOGUE
from hftlab.streams.scripts import Script

_LOOKING = """
local known, draft = {}, {}
local function look(key)
  local one = draft[key]
  if one then return one end
  local base = known[key]
  if base then
    one = {kind = base.kind, fresh = base.fresh, touched = base.touched, sketch = base.sketch, values = {}, base = base}
  else
    one = {kind = redis.call('TYPE', key).ok, values = {}}
  end
  draft[key] = one
  return one
end
local function accept()
  for key, one in pairs(draft) do
    local base = one.base
    if base and not one.replaced then
      -- Into what is known, not the other way round: thousands of transactions may follow on one hash.
      for field, value in pairs(one.values) do base.values[field] = value end
      base.kind, base.fresh, base.touched, base.sketch = one.kind, one.fresh, one.touched, one.sketch
    else
      one.base = nil
      known[key] = one
    end
  end
  draft = {}
end
-- What a string (field '') or a hash's field will hold: text, false for nothing, true for what can't be known, {number}
-- for what INCRBYFLOAT makes of it in this commit.
local function value_of(key, one, field)
  local value = one.values[field]
  if value == nil and one.base and not one.replaced then value = one.base.values[field] end
  if value ~= nil then return value end
  if one.fresh then return false end
  if field ~= '' then return redis.call('HGET', key, string.sub(field, 2)) end
  if redis.call('STRLEN', key) > 400 then return true end
  return redis.call('GET', key)
end
local function integer(text)
  if type(text) ~= 'string' or #text > 20 then return nil end
  if text == '0' or string.match(text, '^%-?[1-9]%d*$') then return tonumber(text) end
end
local function decimal(text)
  if type(text) ~= 'string' or #text > 400 then return nil end
  local digits = string.gsub(text, '[eE][+-]?%d+$', '')
  if not string.match(digits, '^[+-]?%d+%.?%d*$') and not string.match(digits, '^[+-]?%.%d+$') then return nil end
  local number = tonumber(text)
  if number and number > -1.7e308 and number < 1.7e308 then return number end
end
local function count_on(key, one, field, step)
  local value = value_of(key, one, field)
  local number = value == false and 0 or integer(value)
  if not number then
    return type(value) == 'table' and 'holds what INCRBYFLOAT made of it in the same commit' or 'holds no integer'
  end
  if math.abs(number + step) > 9.2e18 then return 'would overflow' end
  one.values[field] = whole(number + step)
  one.touched, one.sketch = true, false
end
local function add_on(key, one, field, step)
  local value = value_of(key, one, field)
  local number = value == false and 0 or type(value) == 'table' and value[1] or decimal(value)
  if not number then return 'holds no finite number' end
  if math.abs(number + step) > 1.7e308 then return 'would overflow' end
  one.values[field] = {number + step}
  one.touched, one.sketch = true, false
end
"""

_CHECKS = """
local kinds = {INCRBY = 'string', DECRBY = 'string', INCRBYFLOAT = 'string', APPEND = 'string', SETBIT = 'string',
  PFADD = 'string', HSET = 'hash', HINCRBY = 'hash', HINCRBYFLOAT = 'hash', HDEL = 'hash', SADD = 'set', SREM = 'set',
  ZADD = 'zset', ZINCRBY = 'zset', RPUSH = 'list', LPUSH = 'list', XADD = 'stream'}
local function effect_refused(command, key, low, high)
  local one = look(key)
  if command == 'SET' or command == 'DEL' then
    one.kind, one.fresh, one.replaced, one.sketch = command == 'SET' and 'string' or 'none', true, true, false
    one.values, one.touched = {[''] = command == 'SET' and ARGV[low] or nil}, command == 'SET'
    return nil
  end
  local kind = kinds[command]
  if one.kind ~= 'none' and one.kind ~= kind then return 'holds a ' .. one.kind .. ', and this needs a ' .. kind end
  if command == 'SREM' or (command == 'HDEL' and one.kind == 'none') then return nil end
  local why
  if command == 'INCRBY' then why = count_on(key, one, '', tonumber(ARGV[low]))
  elseif command == 'DECRBY' then why = count_on(key, one, '', -tonumber(ARGV[low]))
  elseif command == 'INCRBYFLOAT' then why = add_on(key, one, '', tonumber(ARGV[low]))
  elseif command == 'HINCRBY' then why = count_on(key, one, 'f' .. ARGV[low], tonumber(ARGV[low + 1]))
  elseif command == 'HINCRBYFLOAT' then why = add_on(key, one, 'f' .. ARGV[low], tonumber(ARGV[low + 1]))
  elseif command == 'HSET' then
    for at = low, high, 2 do one.values['f' .. ARGV[at]] = ARGV[at + 1] end
  elseif command == 'HDEL' then
    for at = low, high do one.values['f' .. ARGV[at]] = false end
  elseif command == 'APPEND' or command == 'SETBIT' then
    if one.kind == 'string' and not one.fresh and redis.call('STRLEN', key) > 268435456 then
      why = 'holds more than 256 MB'
    end
    one.values[''], one.touched, one.sketch = true, true, false
  elseif command == 'PFADD' then
    if one.kind == 'string' and not one.sketch then
      local counted = not one.touched and redis.pcall('PFCOUNT', key)
      if type(counted) ~= 'number' then why = 'holds no HyperLogLog' end
    end
    one.values[''], one.touched, one.sketch = true, true, true
  elseif command == 'XADD' and one.kind == 'stream' and not one.touched and not one.fresh then
    local info = redis.call('XINFO', 'STREAM', key)
    for place = 1, #info - 1, 2 do
      if info[place] == 'last-generated-id' and tonumber(string.match(info[place + 1], '^%d+')) > 9e18 then
        why = 'has no ids left'
      end
    end
  end
  one.kind = kind
  return why
end
"""

COMMIT = Script(
    PROLOGUE
    + """
-- KEYS meta hash letters market order fill signal, then users' keys
-- ARGV group token serial lease_ms log held state
--   (how many fields, and each one: name text), for each stream (how many ids, the ids),
--   (how many settled letters, their ids), (how many letters, and each one: how many strings, the strings),
--   (how many transactions, and each one: index, how many effects, each: command, which key, how many strings, strings)
-- Returns status and what the commit did as JSON: [acknowledged, [index, why], …].
local meta, hash, letters = KEYS[1], KEYS[2], KEYS[3]
local group, token, serial = ARGV[1], ARGV[2], ARGV[3]
local no = refusal(meta, hash, token)
if no then return no end
local held = redis.call('HMGET', hash, 'serial', 'result')
if held[1] == serial then return {6, held[2]} end
if tonumber(held[1]) + 1 ~= tonumber(serial) then return {7, held[1]} end
local cursor = 8
local function take()
  cursor = cursor + 1
  return ARGV[cursor - 1]
end
local function skip()
  local count = tonumber(take())
  local low = cursor
  cursor = cursor + count
  return low, cursor - 1
end
"""
    + _LOOKING
    + _CHECKS
    + """
local now = now_ms()
local fields = {'serial', serial, 'log', ARGV[5], 'held', ARGV[6], 'state', ARGV[7], 'saved_ms', whole(now), 'until_ms',
  whole(now + tonumber(ARGV[4]))}
for _ = 1, tonumber(take()) do
  fields[#fields + 1] = take()
  fields[#fields + 1] = take()
end
local acks = {}
for index = 4, 7 do
  local low, high = skip()
  if high >= low then acks[index] = {low, high} end
end
local settled_low, settled_high = skip()
local kept = {}
for index = 1, tonumber(take()) do
  local low, high = skip()
  kept[index] = {low, high}
end
local function must(key, kind)
  local found = redis.call('TYPE', key).ok
  if found ~= 'none' and found ~= kind then error(key .. ' holds a ' .. found .. ', and this needs a ' .. kind) end
end
for index in pairs(acks) do must(KEYS[index], 'stream') end
must(letters, 'stream')
if #kept > 0 and redis.call('EXISTS', letters) == 1 then
  local last = redis.call('XREVRANGE', letters, '+', '-', 'COUNT', 1)
  if #last > 0 and tonumber(string.match(last[1][1], '^%d+')) >= tonumber(serial) then
    error(letters .. ' holds an entry that no commit has put there')
  end
end

local accepted, refused = {}, {}
local function refuse(index, command, key, why)
  refused[#refused + 1] = '[' .. index .. ',' .. cjson.encode(command .. ' ' .. key .. ': ' .. why) .. ']'
end
for _ = 1, tonumber(take()) do
  local index, count, why = take(), tonumber(take()), nil
  local effects = {}
  for _ = 1, count do
    local command, key = take(), KEYS[7 + tonumber(take())]
    local low, high = skip()
    effects[#effects + 1] = {command, key, low, high, index}
    if not why then
      why = effect_refused(command, key, low, high)
      if why then refuse(index, command, key, why) end
    end
  end
  if why then draft = {} else
    accept()
    for _, effect in ipairs(effects) do accepted[#accepted + 1] = effect end
  end
end

-- From here on, nothing fails but this first one: it is refused where memory is full, and then nothing was written.
redis.call('HSET', hash, unpack(fields))
for _, effect in ipairs(accepted) do
  local done = redis.pcall(effect[1], effect[2], unpack(ARGV, effect[3], effect[4]))
  if type(done) == 'table' and done.err then refuse(effect[5], effect[1], effect[2], done.err) end
end
for index, span in ipairs(kept) do
  redis.call('XADD', letters, serial .. '-' .. index, unpack(ARGV, span[1], span[2]))
end
-- In slices: unpack takes no more than some 8,000 values.
for low = settled_low, settled_high, 1000 do
  redis.call('XDEL', letters, unpack(ARGV, low, math.min(low + 999, settled_high)))
end
local acknowledged = 0
for index, span in pairs(acks) do
  for low = span[1], span[2], 1000 do
    acknowledged = acknowledged
      + redis.call('XACK', KEYS[index], group, unpack(ARGV, low, math.min(low + 999, span[2])))
  end
end
table.insert(refused, 1, whole(acknowledged))
local result = '[' .. table.concat(refused, ',') .. ']'
redis.call('HSET', hash, 'result', result)
return {1, result}
"""
)
