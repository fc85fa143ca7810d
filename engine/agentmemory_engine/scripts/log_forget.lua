#!lua flags=allow-oom
-- Mode Redis: what is left of an agent of whom nothing is kept any more.
-- KEYS  state, agents, log, about, vectors, unembeddable, then what must not be there: records, document, window
-- ARGV  1 run  2 agent  3 how long the entry of an erasure stays (ms)
-- Answers 1, or 0 where something of it is kept
if redis.call('HGET', KEYS[1], 'run') ~= ARGV[1] then return 0 end
for i = 7, 9 do
  if redis.call('EXISTS', KEYS[i]) == 1 then return 0 end
end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local entries = redis.call('XRANGE', KEYS[3], '-', '+', 'COUNT', 2)
if #entries > 1 then return 0 end
if entries[1] and (entries[1][2][14] ~= 'e' or tonumber(entries[1][2][4]) > now - tonumber(ARGV[3])) then return 0 end
for _, field in ipairs(redis.call('HKEYS', KEYS[4])) do
  if string.sub(field, 1, 2) == 's:' then return 0 end
end
local about = redis.call('HMGET', KEYS[4], 'events', 'embedded')
redis.call('HINCRBY', KEYS[1], 'waiting', tonumber(about[2] or 0) - tonumber(about[1] or 0))
redis.call('HINCRBY', KEYS[1], 'unembeddable', -redis.call('HLEN', KEYS[6]))
redis.call('DEL', KEYS[3], KEYS[4], KEYS[5], KEYS[6])
redis.call('ZREM', KEYS[2], ARGV[2])
return 1
