#!lua flags=no-writes
-- Mode Redis: what there is to say of a shard.
-- KEYS  state, agents, letters
-- Answers {run, opening, sequence, searchable ('' as far as the sequence), waiting, unembeddable, dead letters}
local state = redis.call('HMGET', KEYS[1], 'run', 'opening', 'sequence', 'searchable', 'waiting', 'unembeddable')
local searchable = ''
if #redis.call('ZRANGEBYSCORE', KEYS[2], '+inf', '+inf', 'LIMIT', 0, 1) == 1 then searchable = state[4] or '0-0' end
return {state[1] or '', state[2] or '', state[3] or '0', searchable, state[5] or '0', state[6] or '0',
  redis.call('HLEN', KEYS[3])}
