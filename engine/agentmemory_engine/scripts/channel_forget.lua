#!lua flags=allow-oom
-- Forget a channel whose last message is older than messages are kept.
-- KEYS  state, channels, stream, channel's state
-- ARGV  1 run  2 channel
-- Answers 1, or 0 where its time is not over
if redis.call('HGET', KEYS[1], 'run') ~= ARGV[1] then return 0 end
local time = redis.call('TIME')
local over = redis.call('ZSCORE', KEYS[2], ARGV[2])
if not over or tonumber(over) > tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000) then return 0 end
-- A new channel of any name on this shard begins past this, so that no position is given twice.
local number = tonumber(redis.call('HGET', KEYS[4], 'number') or 0)
local highest = tonumber(redis.call('HGET', KEYS[1], 'channels_forgotten') or 0)
redis.call('HSET', KEYS[1], 'channels_forgotten', math.max(number, highest))
redis.call('DEL', KEYS[3], KEYS[4])
redis.call('ZREM', KEYS[2], ARGV[2])
return 1
