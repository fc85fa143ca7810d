#!lua flags=no-writes
-- A page of the agents that have working memory in this shard, for an opening under way.
-- KEYS  state, leases
-- ARGV  1 run  2 opening  3 first rank  4 last rank
-- Answers {'read', agent..} or {'superseded'}
local token = redis.call('HMGET', KEYS[1], 'token_run', 'token_opening')
if token[1] ~= ARGV[1] or token[2] ~= ARGV[2] then return {'superseded'} end
local answer = redis.call('ZRANGE', KEYS[2], ARGV[3], ARGV[4])
table.insert(answer, 1, 'read')
return answer
