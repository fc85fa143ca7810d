#!lua
-- An erasure: a turn that leaves a versioned tombstone in the document's place and drops the recent window at once.
-- Idempotency keys stay, or a retry from before would begin a new life.
-- KEYS  state, journal, leases, document, window, idempotency key
-- ARGV  1 run  2 agent  3 key digest (hex)  4 fingerprint (hex)  5 idempotency window (ms)
-- Answers {'accepted'|'repeated', entry, version} or {'closed'} | {'reused'}
local mark = redis.call('HMGET', KEYS[1], 'run', 'opening')
if mark[1] ~= ARGV[1] then return {'closed'} end

local known = redis.call('GET', KEYS[6])
if known then
  local fingerprint, entry, version = string.match(known, '^(%S+) (%S+) (%S*)$')
  if fingerprint ~= ARGV[4] then return {'reused'} end
  return {'repeated', entry, version}
end

local head = redis.pcall('GETRANGE', KEYS[4], 0, 127)
local kind = type(head) == 'string' and string.match(head, '^%S+ (%a) ')
local dropped = (kind == 'w' and '1 ' or '0 ') .. redis.call('LLEN', KEYS[5])
local time = redis.call('TIME')
local accepted = string.format('%.0f', tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000))
local entry = redis.call('XADD', KEYS[2], mark[2] .. '-*',
  'a', ARGV[2], 't', accepted, 'k', ARGV[3], 'f', ARGV[4], 's', '', 'e', '[]', 'd', 'e', 'c', dropped)
redis.call('SET', KEYS[4], table.concat({entry, 'x', ARGV[3], ARGV[4], '0'}, ' ') .. '\n')
redis.call('DEL', KEYS[5])
redis.call('ZADD', KEYS[3], '+inf', ARGV[2])
redis.call('SET', KEYS[6], ARGV[4] .. ' ' .. entry .. ' ' .. entry, 'PX', ARGV[5])
return {'accepted', entry, entry}
