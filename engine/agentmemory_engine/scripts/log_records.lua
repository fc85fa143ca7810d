#!lua flags=no-writes
-- Mode Redis: an agent's records, where they are others than the caller has.
-- KEYS  state, about, records
-- ARGV  1 run  2 the revision that the caller has  3 whether `about` is wanted (1 or 0)
-- Answers {'read', time (microseconds), revision, records, about} or {'same', time, about} or {'closed'}
if redis.call('HGET', KEYS[1], 'run') ~= ARGV[1] then return {'closed'} end
local time = redis.call('TIME')
local now = time[1] .. string.format('%06.0f', tonumber(time[2]))
local about = ARGV[3] == '1' and redis.call('HGETALL', KEYS[2]) or {}
local revision = redis.call('HGET', KEYS[2], 'records') or ''
if revision == ARGV[2] and revision ~= '' then return {'same', now, about} end
return {'read', now, revision, redis.call('HGETALL', KEYS[3]), about}
