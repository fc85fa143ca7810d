#!lua
-- Mode Redis: keep vectors of an agent's events and facts, or why there are none, unless it was erased meanwhile.
-- KEYS  state, about, vectors, unembeddable, claims
-- ARGV  1 run  2 agent  3 the entry of its last erasure ('' none) when the texts were read  4 instance
--       5 the claim goes on for (ms)  6 model  7 'vectors' or 'reasons'  8.. id and vectors, or reason, in pairs
-- Answers 1, or 0 where the shard is closed, or the agent or the model another one
local mark = redis.call('HMGET', KEYS[1], 'run', 'model')
if mark[1] ~= ARGV[1] or mark[2] ~= ARGV[6] then return 0 end
if (redis.call('HGET', KEYS[2], 'life') or '') ~= ARGV[3] then return 0 end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
redis.call('HSET', KEYS[5], ARGV[2], string.format('%.0f ', now + tonumber(ARGV[5])) .. ARGV[4])
local given_up = 0
for i = 8, #ARGV, 2 do
  if ARGV[7] == 'vectors' then
    redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 1])
    given_up = given_up - redis.call('HDEL', KEYS[4], ARGV[i])
  else
    given_up = given_up + redis.call('HSET', KEYS[4], ARGV[i], ARGV[i + 1])
  end
end
redis.call('HINCRBY', KEYS[1], 'unembeddable', given_up)
return 1
