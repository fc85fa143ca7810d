#!lua flags=no-writes
-- What the journal holds past an entry, so that a read costs what is new since the last one.
-- KEYS  state, journal
-- ARGV  1 run  2 first id wanted  3 count
-- Answers {'read', opening, first id of the stream ('' empty), entries} or {'closed'}
local mark = redis.call('HMGET', KEYS[1], 'run', 'opening')
if mark[1] ~= ARGV[1] then return {'closed'} end
local first = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)[1]
return {'read', mark[2], first and first[1] or '', redis.call('XRANGE', KEYS[2], ARGV[2], '+', 'COUNT', ARGV[3])}
