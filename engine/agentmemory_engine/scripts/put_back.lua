#!lua flags=allow-oom
-- During an opening: put one snapshot back in the place of an older document, or of none, with a lease.
-- KEYS  state, leases, document
-- ARGV  1 run  2 opening  3 now (ms)  4 agent  5 snapshot as stored in Redis  6 its lease (ms)
-- Answers 1, or 0 when another opening has begun
local token = redis.call('HMGET', KEYS[1], 'token_run', 'token_opening')
if token[1] ~= ARGV[1] or token[2] ~= ARGV[2] then return 0 end
redis.call('SET', KEYS[3], ARGV[5], 'PX', ARGV[6])
redis.call('ZADD', KEYS[2], tonumber(ARGV[3]) + tonumber(ARGV[6]), ARGV[4])
return 1
