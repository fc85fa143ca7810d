#!lua flags=allow-oom
-- Mode Redis: turns that are too old go, with their vectors; or vectors alone, of what is gone.
-- KEYS  state, log, vectors, unembeddable
-- ARGV  1 run  2 the first entry that stays ('' all stay)  3.. ids whose vectors go
-- Answers 1, or 0 where the shard is closed
if redis.call('HGET', KEYS[1], 'run') ~= ARGV[1] then return 0 end
if ARGV[2] ~= '' then redis.call('XTRIM', KEYS[2], 'MINID', ARGV[2]) end
local given_up = 0
for i = 3, #ARGV do
  redis.call('HDEL', KEYS[3], ARGV[i])
  given_up = given_up + redis.call('HDEL', KEYS[4], ARGV[i])
end
redis.call('HINCRBY', KEYS[1], 'unembeddable', -given_up)
return 1
