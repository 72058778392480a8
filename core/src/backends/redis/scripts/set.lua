-- KEYS: the key [, the receipt]. ARGV: condition (absent, equal or none), value, ttl in ms (0: none), keep (1: that of a value that is there
-- counts, not ttl), expected [, fingerprint, life of the receipt in ms]. 1: stored, 0: the condition does not hold.
if KEYS[2] then
  local kept = redis.call('GET', KEYS[2])
  if kept then
    if kept ~= ARGV[6] then return redis.error_reply('CFRECEIPT') end
    return 1
  end
end
if ARGV[1] == 'absent' then
  if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
elseif ARGV[1] == 'equal' then
  local there = redis.pcall('GET', KEYS[1])
  if type(there) == 'table' then return there end
  if there ~= ARGV[5] then return 0 end
end
local ttl = ARGV[3]
if ARGV[4] == '1' then
  local left = redis.call('PTTL', KEYS[1])
  if left == -1 then ttl = '0' elseif left >= 0 then ttl = math.max(left, 1) end
end
if ttl == '0' then
  redis.call('SET', KEYS[1], ARGV[2])
else
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ttl)
end
if KEYS[2] then redis.call('SET', KEYS[2], ARGV[6], 'PX', ARGV[7]) end
return 1
