#!lua flags=allow-oom
-- Messages for one consumer of a group: first what others took and did not acknowledge in time, then new ones.
-- KEYS  state, channels, stream, channel's state
-- ARGV  1 run  2 channel  3 group  4 consumer
--       5 where a new group begins: '' it has to be there, '-' the first kept, '$' now, or an entry
--       6 how many at most  7 bytes of messages after which no more are taken  8 idle time before redelivery (ms)
--       9 for how long messages are kept (ms)  10 groups at most  11 consumers at most
--       12 idle time after which a consumer that holds nothing is forgotten (ms)
-- Answers {'taken', last entry, how many the group may have missed, entries, deliveries of each}
--         or {'closed'} | {'absent'} | {'full', 'groups' | 'consumers'}
local mark = redis.call('HMGET', KEYS[1], 'run', 'opening', 'channels_forgotten')
if mark[1] ~= ARGV[1] then return {'closed'} end
local group, consumer, field = ARGV[3], ARGV[4], 'group:' .. ARGV[3]
local about = redis.call('HMGET', KEYS[4], 'opening', 'number', 'created_opening', 'created_number', field)
local first = redis.call('XRANGE', KEYS[3], '-', '+', 'COUNT', 1)[1]
first = first and first[1]
local function before(entry)
  local o, n = string.match(entry, '^(%d+)-(%d+)$')
  return o .. string.format('-%.0f', tonumber(n) - 1)
end
local function number_of(entry) return tonumber(string.match(entry, '-(%d+)$')) end

local seen = about[5]
if not seen then
  if ARGV[5] == '' then return {'absent'} end
  if redis.call('HLEN', KEYS[4]) >= 5 + tonumber(ARGV[10]) then return {'full', 'groups'} end
  if not about[1] then
    local number = tonumber(mark[3] or 0)
    about = {mark[2], string.format('%.0f', number), mark[2], string.format('%.0f', number + 1)}
    redis.call('HSET', KEYS[4], 'opening', about[1], 'number', about[2], 'bytes', 0,
      'created_opening', about[3], 'created_number', about[4])
    local time = redis.call('TIME')
    redis.call('ZADD', KEYS[2], tonumber(time[1]) * 1000 + tonumber(ARGV[9]), ARGV[2])
  end
  if ARGV[5] == '0-0' then
    seen = before(about[3] .. '-' .. about[4])
  elseif ARGV[5] == '-' and first then
    seen = before(first)
  elseif ARGV[5] == '-' or ARGV[5] == '$' then
    seen = about[1] .. '-' .. about[2]
  else
    seen = ARGV[5]
  end
  redis.call('HSET', KEYS[4], field, seen)
end
local last = about[1] .. '-' .. about[2]

local made = redis.pcall('XGROUP', 'CREATECONSUMER', KEYS[3], group, consumer)
if type(made) == 'table' then
  -- The stream expired, and the group with it; it goes on from where it was.
  redis.call('XGROUP', 'CREATE', KEYS[3], group, seen, 'MKSTREAM')
  if not first then redis.call('PEXPIRE', KEYS[3], ARGV[9]) end
  made = redis.call('XGROUP', 'CREATECONSUMER', KEYS[3], group, consumer)
end
if made == 1 then
  local consumers = redis.call('XINFO', 'CONSUMERS', KEYS[3], group)
  local left = #consumers
  for _, other in ipairs(consumers) do
    -- name, pending, idle: who holds nothing loses nothing, and is made again when it asks again.
    if other[2] ~= consumer and other[4] == 0 and other[6] > tonumber(ARGV[12]) then
      redis.call('XGROUP', 'DELCONSUMER', KEYS[3], group, other[2])
      left = left - 1
    end
  end
  if left > tonumber(ARGV[11]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[3], group, consumer)
    return {'full', 'consumers'}
  end
end

local entries, deliveries, bytes, missed = {}, {}, 0, 0
local limit, room = tonumber(ARGV[6]), tonumber(ARGV[7])
local function add(entry, times)
  entries[#entries + 1] = entry
  deliveries[#deliveries + 1] = times
  bytes = bytes + #entry[2][8] + #entry[2][10]
end
local cursor, rounds = '0-0', 0
repeat
  local claimed = redis.call('XAUTOCLAIM', KEYS[3], group, consumer, ARGV[8], cursor,
    'COUNT', math.min(8, limit - #entries))
  for _, entry in ipairs(claimed[2]) do
    add(entry, redis.call('XPENDING', KEYS[3], group, entry[1], entry[1], 1)[1][4])
  end
  missed = missed + #claimed[3]
  cursor, rounds = claimed[1], rounds + 1
until cursor == '0-0' or #entries >= limit or bytes >= room or rounds >= 16

local known = seen
if first and number_of(first) > number_of(seen) + 1 then
  missed = missed + number_of(first) - number_of(seen) - 1
end
while #entries < limit and bytes < room do
  local new = redis.call('XREADGROUP', 'GROUP', group, consumer, 'COUNT', math.min(8, limit - #entries),
    'STREAMS', KEYS[3], '>')
  if not new or #new == 0 then break end
  for _, entry in ipairs(new[1][2]) do
    add(entry, 1)
    seen = entry[1]
  end
end
if seen ~= known then redis.call('HSET', KEYS[4], field, seen) end
return {'taken', last, missed, entries, deliveries}
