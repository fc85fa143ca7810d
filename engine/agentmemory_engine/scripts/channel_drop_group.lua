#!lua flags=allow-oom
-- End a group, with what it has not acknowledged.
-- KEYS  stream, channel's state
-- ARGV  1 group
-- Answers 1, or 0 where there is none
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('XGROUP', 'DESTROY', KEYS[1], ARGV[1]) end
return redis.call('HDEL', KEYS[2], 'group:' .. ARGV[1])
