#!lua flags=allow-oom
-- After a commit: start the leases of what is snapshotted, and only then trim what is durable.
-- KEYS  state, journal, leases, then document and window of each agent
-- ARGV  1 run  2 opening  3 durable entry  4 the id after it  then agent, snapshotted version ('' none), lease (ms) of each
-- Answers the number of trimmed entries, or -1 under another opening
local mark = redis.call('HMGET', KEYS[1], 'run', 'opening', 'trimmed')
if mark[1] ~= ARGV[1] or mark[2] ~= ARGV[2] then return -1 end

local function past(a, b)
  local ao, as = string.match(a, '^(%d+)-(%d+)')
  local bo, bs = string.match(b, '^(%d+)-(%d+)')
  ao, as, bo, bs = tonumber(ao), tonumber(as), tonumber(bo), tonumber(bs)
  return ao > bo or (ao == bo and as > bs)
end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
for i = 0, (#KEYS - 3) / 2 - 1 do
  local document, window = KEYS[4 + i * 2], KEYS[5 + i * 2]
  local agent, snapshotted, lease = ARGV[5 + i * 3], ARGV[6 + i * 3], ARGV[7 + i * 3]
  local head = redis.pcall('GETRANGE', document, 0, 63)
  -- What is no string is not ours.
  local version = type(head) == 'string' and string.match(head, '^(%S+) ') or ''
  local newest = redis.call('LINDEX', window, -1)
  local clean = version == snapshotted
  if clean and newest and past(newest, ARGV[3]) then clean = false end
  if clean then
    redis.call('PEXPIRE', document, lease)
    redis.call('PEXPIRE', window, lease)
    redis.call('ZADD', KEYS[3], now + tonumber(lease), agent)
  end
end
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', '(' .. now)

local trimmed = redis.call('XTRIM', KEYS[2], 'MINID', ARGV[4])
if not mark[3] or past(ARGV[3], mark[3]) then redis.call('HSET', KEYS[1], 'trimmed', ARGV[3]) end
redis.call('HDEL', KEYS[1], 'head', 'head_epoch', 'attempts')
return trimmed
