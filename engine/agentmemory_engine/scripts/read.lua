#!lua flags=allow-oom
-- The first entries of the stream, for the owner, under one opening. Counts how often owners began at this entry and
-- did not come past it: an owner counts once, so that only crashes and lost leases count.
-- KEYS  state, journal
-- ARGV  1 run  2 opening  3 how many at most  4 bytes of events after which no more are taken  5 epoch
-- Answers {'read', attempts, more (1 or 0), entries} or {'closed'}
local mark = redis.call('HMGET', KEYS[1], 'run', 'opening', 'head', 'head_epoch', 'attempts')
if mark[1] ~= ARGV[1] or mark[2] ~= ARGV[2] then return {'closed'} end

local entries, bytes, start, more = {}, 0, '-', 0
while #entries < tonumber(ARGV[3]) and bytes < tonumber(ARGV[4]) do
  local page = redis.call('XRANGE', KEYS[2], start, '+', 'COUNT', 16)
  for _, entry in ipairs(page) do
    if #entries == tonumber(ARGV[3]) or bytes >= tonumber(ARGV[4]) then break end
    entries[#entries + 1] = entry
    bytes = bytes + #entry[2][12]
  end
  if #page < 16 then break end
  start = '(' .. page[16][1]
end
if #entries > 0 and #redis.call('XRANGE', KEYS[2], '(' .. entries[#entries][1], '+', 'COUNT', 1) > 0 then more = 1 end

local head = entries[1] and entries[1][1] or ''
local attempts = tonumber(mark[5] or '0')
if mark[3] ~= head then
  attempts = 0
elseif mark[4] ~= ARGV[5] then
  attempts = attempts + 1
end
redis.call('HSET', KEYS[1], 'head', head, 'head_epoch', ARGV[5], 'attempts', attempts)
return {'read', attempts, more, entries}
