#!lua flags=allow-oom
-- Last step of an opening: the shard takes turns again.
-- KEYS  state
-- ARGV  1 run  2 opening
-- Answers 1, or 0 when another opening has begun
local token = redis.call('HMGET', KEYS[1], 'token_run', 'token_opening')
if token[1] ~= ARGV[1] or token[2] ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], 'run', ARGV[1], 'opening', ARGV[2])
redis.call('HDEL', KEYS[1], 'token_run', 'token_opening', 'head', 'head_epoch', 'attempts')
return 1
