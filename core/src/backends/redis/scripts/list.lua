-- KEYS: the name in front of all records. ARGV: kind, its listing field, the value of the group, how many at most (0: only the epoch is wanted), how many bytes at most.
-- {1, epoch, kind, record, record ...}; {6, 0}: more bytes
local function ask(...)
  local said = redis.pcall(...)
  if type(said) == 'table' and said.err then error(said, 0) end
  return said
end
local kind, listing, value, gone = ARGV[1], ARGV[2], ARGV[3], {}
local group = KEYS[1] .. kind .. '.' .. listing .. ':' .. value
local function look()
  local epoch = ask('GET', KEYS[1] .. kind .. '.epoch:' .. value) or '0'
  if not string.find(epoch, '^%d+$') then error('epoch') end
  local answer, room, most = {1, tonumber(epoch), kind}, tonumber(ARGV[5]), tonumber(ARGV[4])
  if most == 0 then return answer end
  for _, id in ipairs(ask('ZRANGE', group, 0, -1)) do
    local record = ask('HGETALL', KEYS[1] .. kind .. ':' .. id)
    local here = #record > 0
    for i = 1, #record, 2 do
      room = room - #record[i] - #record[i + 1]
      if record[i] == listing and record[i + 1] ~= value then here = false end -- what is somebody else's is not shown to this one
    end
    if room < 0 then return {6, 0} end
    if not here then
      gone[#gone + 1] = id
    elseif #answer < most + 3 then
      answer[#answer + 1] = record
    end
  end
  return answer
end
local fine, answer = pcall(look)
-- A replica may refuse: another time, then.
for _, id in ipairs(gone) do redis.pcall('ZREM', group, id) end
if fine or type(answer) == 'table' then return answer end
return redis.error_reply('CFDAMAGED')
