#!lua flags=no-writes
-- Mode Redis: one of an agent's hashes of records, where it is another than the caller has.
-- KEYS  state, about, hash
-- ARGV  1 run  2 the field of its revision  3 the revision that the caller has  4 whether `about` is wanted (1 or 0)
-- Answers {'read', time (microseconds), revision, hash, about} or {'same', time} or {'closed'}
if redis.call('HGET', KEYS[1], 'run') ~= ARGV[1] then return {'closed'} end
local time = redis.call('TIME')
local now = time[1] .. string.format('%06.0f', tonumber(time[2]))
local revision = redis.call('HGET', KEYS[2], ARGV[2]) or ''
if revision == ARGV[3] and revision ~= '' then return {'same', now} end
-- A hash that is not there is an empty table to Lua, and an empty list to the caller.
return {'read', now, revision, redis.call('HGETALL', KEYS[3]), ARGV[4] == '1' and redis.call('HGETALL', KEYS[2]) or {}}
