#!lua flags=allow-oom
-- The first entries of the stream, for the owner, under one opening. Counts how often owners began at this entry and
-- did not come past it: an owner counts once, so that only crashes and lost leases count.
-- KEYS  state, journal
-- ARGV  1 run  2 opening  3 count  4 epoch
-- Answers {'read', attempts, entries} or {'closed'}
local mark = redis.call('HMGET', KEYS[1], 'run', 'opening', 'head', 'head_epoch', 'attempts')
if mark[1] ~= ARGV[1] or mark[2] ~= ARGV[2] then return {'closed'} end
local entries = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', ARGV[3])
local head = entries[1] and entries[1][1] or ''
local attempts = tonumber(mark[5] or '0')
if mark[3] ~= head then
  attempts = 0
elseif mark[4] ~= ARGV[4] then
  attempts = attempts + 1
end
redis.call('HSET', KEYS[1], 'head', head, 'head_epoch', ARGV[4], 'attempts', attempts)
return {'read', attempts, entries}
