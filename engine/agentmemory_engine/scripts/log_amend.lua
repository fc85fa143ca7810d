#!lua
-- Mode Redis: change records of an agent, unless somebody has since they were read.
-- KEYS  state, about, records, agents, vectors, unembeddable
-- ARGV  1 run  2 agent  3 the revision that was read  4 how many wait for a vector by it  5 how many records go
--       6 how many vectors go, then these fields and ids, then fields and records in pairs
-- Answers {'changed', revision} or {'closed'} | {'moved'}
local mark = redis.call('HMGET', KEYS[1], 'run', 'opening')
if mark[1] ~= ARGV[1] then return {'closed'} end
if (redis.call('HGET', KEYS[2], 'records') or '') ~= ARGV[3] then return {'moved'} end
-- Never one that was there before, whatever is erased in between.
local revision = mark[2] .. string.format('-%.0f', redis.call('HINCRBY', KEYS[1], 'sequence', 1))
redis.call('HSET', KEYS[2], 'records', revision)
local records = 6 + tonumber(ARGV[5])
local vectors = records + tonumber(ARGV[6])
for i = 7, records do redis.call('HDEL', KEYS[3], ARGV[i]) end
for i = records + 1, vectors do
  redis.call('HDEL', KEYS[5], ARGV[i])
  if redis.call('HDEL', KEYS[6], ARGV[i]) == 1 then redis.call('HINCRBY', KEYS[1], 'unembeddable', -1) end
end
for i = vectors + 1, #ARGV, 2 do redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 1]) end
if ARGV[4] ~= '0' then
  redis.call('HINCRBY', KEYS[2], 'events', ARGV[4])
  redis.call('HINCRBY', KEYS[1], 'waiting', ARGV[4])
  redis.call('ZADD', KEYS[4], '+inf', ARGV[2])
else
  redis.call('ZADD', KEYS[4], 'NX', 0, ARGV[2])
end
return {'changed', revision}
