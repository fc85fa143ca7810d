#!lua flags=allow-oom
-- Take away what stands in the place of a document and is none, when it is kept in Postgres.
-- KEYS  state, document
-- ARGV  1 run  2 SHA-1 (hex) of what was kept
-- Answers 1, 0 where something else stands there by now, or -1 where the shard is not open in this run
if redis.call('HGET', KEYS[1], 'run') ~= ARGV[1] then return -1 end
local value = redis.pcall('GET', KEYS[2])
if type(value) == 'table' then value = redis.call('DUMP', KEYS[2]) end
if not value or redis.sha1hex(value) ~= ARGV[2] then return 0 end
redis.call('DEL', KEYS[2])
return 1
