#!lua flags=no-writes
-- Messages of a channel past an entry, and whether that entry can still be gone on from.
-- KEYS  state, stream, channel's state
-- ARGV  1 run  2 after: '-' the first kept, '$' now, or an entry  3 how many at most
--       4 bytes of messages after which no more are taken
-- Answers {'read', entry to go on from, last entry ('' where there is no channel), how many may have been missed,
--          entries} or {'closed'} | {'lost'}
local mark = redis.call('HMGET', KEYS[1], 'run', 'opening', 'channels_forgotten')
if mark[1] ~= ARGV[1] then return {'closed'} end
local about = redis.call('HMGET', KEYS[3], 'opening', 'number', 'created_opening', 'created_number')
local after, missed = ARGV[2], 0
local o, n = string.match(after, '^(%d+)-(%d+)$')
o, n = tonumber(o), tonumber(n)

if not about[1] then
  if o and after ~= '0-0' then
    -- In one opening Redis loses nothing, so that a channel that is not there any more has been forgotten.
    local forgotten = tonumber(mark[3] or 0)
    if o ~= tonumber(mark[2]) or n > forgotten then return {'lost'} end
    missed = forgotten - n
  end
  return {'read', '0-0', '', missed, {}}
end

local last = about[1] .. '-' .. about[2]
if after == '$' then return {'read', last, last, 0, {}} end
local first = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)[1]
local first_o, first_n = string.match(first and first[1] or '', '^(%d+)-(%d+)$')
first_o, first_n = tonumber(first_o), tonumber(first_n) or tonumber(about[2]) + 1
local start = '-'
if after == '0-0' then
  missed = first_n - tonumber(about[4])
elseif o then
  start = '(' .. after
  local last_o, last_n = tonumber(about[1]), tonumber(about[2])
  if o > last_o or (o == last_o and n > last_n) or o < tonumber(about[3]) then return {'lost'} end
  if after ~= last then
    if first_o and (o > first_o or (o == first_o and n >= first_n)) then
      -- All that was published since the first entry is kept: what is not there was lost.
      if #redis.call('XRANGE', KEYS[2], after, after) == 0 then return {'lost'} end
    elseif n >= first_n then
      return {'lost'}
    else
      missed = first_n - n - 1
    end
  end
end

local entries, bytes, limit = {}, 0, tonumber(ARGV[3])
while start and #entries < limit and bytes < tonumber(ARGV[4]) do
  local page = redis.call('XRANGE', KEYS[2], start, '+', 'COUNT', 16)
  for _, entry in ipairs(page) do
    if #entries == limit or bytes >= tonumber(ARGV[4]) then break end
    entries[#entries + 1] = entry
    bytes = bytes + #entry[2][8] + #entry[2][10]
  end
  start = #page == 16 and '(' .. page[16][1]
end
local position = after
if #entries > 0 then
  position = entries[#entries][1]
elseif limit > 0 and (missed > 0 or not o) then
  position = last
end
return {'read', position, last, missed, entries}
