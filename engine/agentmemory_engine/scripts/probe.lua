#!lua flags=no-writes
-- What an owner, or whoever asks for the lag, has to know of a shard; its cost does not depend on what is pending.
-- KEYS  state, journal
-- Answers {run, opening, trimmed, pending, age of the first pending entry (ms, by the clock here)}, '' for what is not there
local state = redis.call('HMGET', KEYS[1], 'run', 'opening', 'trimmed')
local first = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)[1]
local age = 0
if first then
  local time = redis.call('TIME')
  age = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000) - tonumber(first[2][4])
end
return {state[1] or '', state[2] or '', state[3] or '', redis.call('XLEN', KEYS[2]), age}
