#!lua flags=no-writes
-- Mode Redis: how old the first turn of each log is.
-- KEYS  state, logs..
-- ARGV  1 run
-- Answers {'read', age (ms, -1: none)..} or {'closed'}
if redis.call('HGET', KEYS[1], 'run') ~= ARGV[1] then return {'closed'} end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local answer = {'read'}
for i = 2, #KEYS do
  local first = redis.call('XRANGE', KEYS[i], '-', '+', 'COUNT', 1)[1]
  answer[i] = first and math.max(0, now - tonumber(first[2][4])) or -1
end
return answer
