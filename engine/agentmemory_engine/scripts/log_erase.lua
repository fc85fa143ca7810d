#!lua flags=allow-oom
-- Mode Redis: erase an agent. A versioned tombstone takes the document's place, and the log holds this entry alone;
-- idempotency keys stay, or a retry from before would begin a new life.
-- KEYS  state, log, agents, document, window, idempotency key, about, vectors, unembeddable, records, letters
-- ARGV  1 run  2 agent  3 key digest (hex)  4 fingerprint (hex)  5 idempotency window (ms)  6 lease of the tombstone (ms)
-- Answers {'accepted'|'repeated', entry, counts} or {'closed'} | {'reused'}; counts are those of documents, messages,
-- events, vectors, sessions, facts and dead letters, with commas
local mark = redis.call('HMGET', KEYS[1], 'run', 'opening')
if mark[1] ~= ARGV[1] then return {'closed'} end

local known = redis.call('GET', KEYS[6])
if known then
  local fingerprint, entry, counts = string.match(known, '^(%S+) (%S+) (%S*)$')
  if fingerprint ~= ARGV[4] then return {'reused'} end
  return {'repeated', entry, counts}
end

local events, start = 0, '-'
while start do
  local page = redis.call('XRANGE', KEYS[2], start, '+', 'COUNT', 100)
  for _, entry in ipairs(page) do events = events + #cjson.decode(entry[2][12]) end
  start = #page == 100 and '(' .. page[100][1]
end
local sessions, facts, declared = 0, 0, {}
for _, field in ipairs(redis.call('HKEYS', KEYS[10])) do
  if string.sub(field, 1, 2) == 'f:' then
    facts = facts + 1
  else
    sessions = sessions + 1
    declared[field] = true
  end
end
for _, field in ipairs(redis.call('HKEYS', KEYS[7])) do
  if string.sub(field, 1, 2) == 's:' and not declared[field] then sessions = sessions + 1 end
end
local letters, mine = 0, ARGV[2] .. ' '
for _, field in ipairs(redis.call('HKEYS', KEYS[11])) do
  if string.sub(field, 1, #mine) == mine then letters = letters + redis.call('HDEL', KEYS[11], field) end
end
local head = redis.pcall('GETRANGE', KEYS[4], 0, 127)
local kind = type(head) == 'string' and string.match(head, '^%S+ (%a) ')
local counts = table.concat({kind == 'w' and 1 or 0, redis.call('LLEN', KEYS[5]), events, redis.call('HLEN', KEYS[8]),
  sessions, facts, letters}, ',')

local about = redis.call('HMGET', KEYS[7], 'events', 'embedded')
redis.call('HINCRBY', KEYS[1], 'waiting', tonumber(about[2] or 0) - tonumber(about[1] or 0))
redis.call('HINCRBY', KEYS[1], 'unembeddable', -redis.call('HLEN', KEYS[9]))
redis.call('DEL', KEYS[5], KEYS[7], KEYS[8], KEYS[9], KEYS[10])
redis.call('XTRIM', KEYS[2], 'MAXLEN', 0)
local time = redis.call('TIME')
local accepted = string.format('%.0f', tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000))
local place = mark[2] .. string.format('-%.0f', redis.call('HINCRBY', KEYS[1], 'sequence', 1))
local entry = redis.call('XADD', KEYS[2], place,
  'a', ARGV[2], 't', accepted, 'k', ARGV[3], 'f', ARGV[4], 's', '', 'e', '[]', 'd', 'e')
redis.call('SET', KEYS[4], table.concat({entry, 'x', ARGV[3], ARGV[4], '0'}, ' ') .. '\n', 'PX', ARGV[6])
redis.call('HSET', KEYS[7], 'document', 'x', 'life', entry)
redis.call('ZADD', KEYS[3], 0, ARGV[2])
redis.call('SET', KEYS[6], ARGV[4] .. ' ' .. entry .. ' ' .. counts, 'PX', ARGV[5])
return {'accepted', entry, counts}
