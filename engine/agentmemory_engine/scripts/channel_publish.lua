#!lua
-- One message into a channel, and what the channel keeps no longer out of it.
-- KEYS  state, channels, stream, channel's state, idempotency key
-- ARGV  1 run  2 channel  3 fingerprint (hex)  4 idempotency window (ms)  5 from  6 type  7 metadata  8 payload
--       9 messages kept at most  10 for how long (ms)  11 bytes of them at most
-- Answers {'published'|'repeated', entry, a channel whose time is over or ''} or {'closed'} | {'reused'}
local mark = redis.call('HMGET', KEYS[1], 'run', 'opening', 'channels_forgotten')
if mark[1] ~= ARGV[1] then return {'closed'} end

local known = redis.call('GET', KEYS[5])
if known then
  local fingerprint, entry = string.match(known, '^(%S+) (%S+)$')
  if fingerprint ~= ARGV[3] then return {'reused'} end
  return {'repeated', entry, ''}
end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local before = redis.call('HMGET', KEYS[4], 'opening', 'number', 'bytes')
local opening, number = tonumber(mark[2]), tonumber(before[2] or mark[3] or 0) + 1
if before[1] then
  opening = math.max(opening, tonumber(before[1]))
else
  redis.call('HSET', KEYS[4], 'created_opening', opening, 'created_number', number)
end
-- The opening grows whenever Redis may have lost something, the number with every message: no clock, no reuse.
local entry = redis.call('XADD', KEYS[3], string.format('%.0f-%.0f', opening, number),
  'f', ARGV[5], 't', string.format('%.0f', now), 'y', ARGV[6], 'm', ARGV[7], 'p', ARGV[8])

local size = #ARGV[7] + #ARGV[8]
local count = redis.call('XLEN', KEYS[3])
-- A stream that expired took its bytes along.
local bytes = count == 1 and size or tonumber(before[3] or 0) + size
-- Mostly nothing is to go: the oldest alone is looked at first, as its payload comes along.
local start, past, examined, width = '-', nil, 0, 1
while start do
  local page = redis.call('XRANGE', KEYS[3], start, '+', 'COUNT', width)
  start = #page == width and examined < 1000 and '(' .. page[width][1]
  examined, width = examined + width, 16
  for _, old in ipairs(page) do
    local fields = old[2]
    if count <= tonumber(ARGV[9]) and bytes <= tonumber(ARGV[11]) and tonumber(fields[4]) >= now - tonumber(ARGV[10])
    then
      start = nil
      break
    end
    count = count - 1
    bytes = bytes - #fields[8] - #fields[10]
    past = old[1]
  end
end
if past then
  local o, n = string.match(past, '^(%d+)-(%d+)$')
  redis.call('XTRIM', KEYS[3], 'MINID', o .. string.format('-%.0f', tonumber(n) + 1))
end
redis.call('HSET', KEYS[4], 'opening', opening, 'number', number, 'bytes', bytes)
redis.call('PEXPIRE', KEYS[3], ARGV[10])
redis.call('ZADD', KEYS[2], now + tonumber(ARGV[10]), ARGV[2])
redis.call('SET', KEYS[5], ARGV[3] .. ' ' .. entry, 'PX', ARGV[4])
return {'published', entry, redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, 1)[1] or ''}
