#!lua
-- Mode Redis: change records of an agent, unless somebody has since they were read.
-- KEYS  state, about, hash, agents, vectors, unembeddable
-- ARGV  1 run  2 agent  3 the field of the revision  4 the revision that was read  5 how many wait for a vector by it
--       6 how many fields go  7 how many vectors go, then these fields and ids, then fields and values in pairs
-- Answers {'changed', revision} or {'closed'} | {'moved'}
local mark = redis.call('HMGET', KEYS[1], 'run', 'opening')
if mark[1] ~= ARGV[1] then return {'closed'} end
if (redis.call('HGET', KEYS[2], ARGV[3]) or '') ~= ARGV[4] then return {'moved'} end
-- Never one that was there before, whatever is erased in between.
local revision = mark[2] .. string.format('-%.0f', redis.call('HINCRBY', KEYS[1], 'sequence', 1))
redis.call('HSET', KEYS[2], ARGV[3], revision)
local fields = 7 + tonumber(ARGV[6])
local vectors = fields + tonumber(ARGV[7])
for i = 8, fields do redis.call('HDEL', KEYS[3], ARGV[i]) end
for i = fields + 1, vectors do
  redis.call('HDEL', KEYS[5], ARGV[i])
  if redis.call('HDEL', KEYS[6], ARGV[i]) == 1 then redis.call('HINCRBY', KEYS[1], 'unembeddable', -1) end
end
for i = vectors + 1, #ARGV, 2 do redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 1]) end
if ARGV[5] ~= '0' then
  redis.call('HINCRBY', KEYS[2], 'events', ARGV[5])
  redis.call('HINCRBY', KEYS[1], 'waiting', ARGV[5])
  redis.call('ZADD', KEYS[4], '+inf', ARGV[2])
else
  redis.call('ZADD', KEYS[4], 'NX', 0, ARGV[2])
end
return {'changed', revision}
