#!lua
-- One atomic turn. Redis refuses the whole script when it is out of memory, so nothing is ever half applied.
-- KEYS  state, journal, leases, document, window, idempotency key
-- ARGV  1 run  2 agent  3 key digest (hex)  4 fingerprint (hex)  5 expected version: '' any, 'absent', or a version
--       6 change: '' none, 'w' write, 'x' delete  7 body  8 session  9 events (JSON array)
--       10 idempotency window (ms)  11 length of the recent window  12 how many events
--       13.. window entries (index, rest) in pairs
-- Answers {'accepted'|'repeated', entry, version} or {'closed'} | {'reused'} | {'stale', version} | {'unreadable'}: what
-- stands in the document's place is not ours, and is not written over
local mark = redis.call('HMGET', KEYS[1], 'run', 'opening')
if mark[1] ~= ARGV[1] then return {'closed'} end

local known = redis.call('GET', KEYS[6])
if known then
  local fingerprint, entry, version = string.match(known, '^(%S+) (%S+) (%S*)$')
  if fingerprint ~= ARGV[4] then return {'reused'} end
  return {'repeated', entry, version}
end

local change = ARGV[6]
local head = redis.pcall('GETRANGE', KEYS[4], 0, 127)
local foreign, version, kind, writer, writer_fingerprint = type(head) == 'table'
if not foreign then
  version, kind, writer, writer_fingerprint = string.match(head, '^(%d+%-%d+) (%a) (%S+) (%S+) %d+\n')
  foreign = head ~= '' and not version
end
if foreign and change ~= '' then return {'unreadable'} end
version = version or ''
if change ~= '' and writer == ARGV[3] then
  -- Redis lost the key but kept the document: this turn has written it already.
  if writer_fingerprint ~= ARGV[4] then return {'reused'} end
  change = ''
elseif change ~= '' and ARGV[5] ~= '' then
  local current = version
  if ARGV[5] == 'absent' then
    if version ~= '' and kind == 'w' then return {'stale', version} end
  elseif ARGV[5] ~= current then
    return {'stale', current}
  end
end

-- One clock for all sidecars: an entry from a clock ahead would hide how long others wait behind it.
local time = redis.call('TIME')
local accepted = string.format('%.0f', tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000))
local entry = redis.call('XADD', KEYS[2], mark[2] .. '-*',
  'a', ARGV[2], 't', accepted, 'k', ARGV[3], 'f', ARGV[4], 's', ARGV[8], 'e', ARGV[9], 'd', ARGV[6])
if change ~= '' then
  version = entry
  redis.call('SET', KEYS[4], table.concat({entry, change, ARGV[3], ARGV[4], ARGV[12]}, ' ') .. '\n' .. ARGV[7])
elseif version ~= '' then
  redis.call('PERSIST', KEYS[4])
end
if #ARGV > 12 then
  local length
  for i = 13, #ARGV, 2 do
    length = redis.call('RPUSH', KEYS[5], entry .. ':' .. ARGV[i] .. ' ' .. accepted .. ' ' .. ARGV[i + 1])
  end
  -- Not at every turn: a trim costs as much as the rest of the window's part.
  if length >= tonumber(ARGV[11]) + 8 then redis.call('LTRIM', KEYS[5], -tonumber(ARGV[11]), -1) end
end
redis.call('PERSIST', KEYS[5])
redis.call('ZADD', KEYS[3], '+inf', ARGV[2])
redis.call('SET', KEYS[6], ARGV[4] .. ' ' .. entry .. ' ' .. version, 'PX', ARGV[10])
return {'accepted', entry, version}
