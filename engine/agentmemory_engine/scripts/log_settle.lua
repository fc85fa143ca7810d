#!lua flags=allow-oom
-- Mode Redis: all that an agent had when it was looked at has its vector, or gets none.
-- KEYS  state, about, agents, claims
-- ARGV  1 run  2 agent  3 the entry of its last erasure ('' none),  4 how many events and facts it ever had, and  5 the
--       opening, then: a later one may have lost vectors  6 model
-- Answers 1, or 0 where there is more by now
local mark = redis.call('HMGET', KEYS[1], 'run', 'opening', 'sequence', 'model')
if mark[1] ~= ARGV[1] then return 0 end
redis.call('HDEL', KEYS[4], ARGV[2])
if mark[2] ~= ARGV[5] or mark[4] ~= ARGV[6] then return 0 end
local about = redis.call('HMGET', KEYS[2], 'life', 'events', 'embedded')
if (about[1] or '') ~= ARGV[3] then return 0 end
local done = tonumber(ARGV[4]) - tonumber(about[3] or 0)
if done > 0 then
  redis.call('HSET', KEYS[2], 'embedded', ARGV[4])
  redis.call('HINCRBY', KEYS[1], 'waiting', -done)
end
if (about[2] or '0') ~= ARGV[4] then return 0 end
redis.call('ZADD', KEYS[3], 'XX', redis.call('TIME')[1], ARGV[2])
if #redis.call('ZRANGEBYSCORE', KEYS[3], '+inf', '+inf', 'LIMIT', 0, 1) == 0 then
  redis.call('HSET', KEYS[1], 'searchable', mark[2] .. '-' .. (mark[3] or '0'))
end
return 1
