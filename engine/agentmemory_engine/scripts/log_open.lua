#!lua flags=allow-oom
-- Mode Redis: open a shard for this run of Redis, which may have gone back in time; what is there is all there is.
-- KEYS  state, openings
-- ARGV  1 run
-- Answers 1, or 0 where it is open
local mark = redis.call('HMGET', KEYS[1], 'run', 'opening', 'sequence')
if mark[1] == ARGV[1] then return 0 end
local before = tonumber(mark[2] or 0)
-- By the clock, so that positions go on also when everything is gone: the opening is a second, and the sequence begins at
-- the microsecond in it, which no sequence that began before has come to.
local time = redis.call('TIME')
local opening = string.format('%.0f', math.max(before + 1, tonumber(time[1])))
local sequence = mark[3] or time[2]
redis.call('HSET', KEYS[2], opening, string.format('%.0f', before) .. '-' .. sequence)
redis.call('HSET', KEYS[1], 'run', ARGV[1], 'opening', opening, 'sequence', sequence)
return 1
