"""
The Lua scripts of a ledger in Redis: each is one step that Redis runs alone.

How it works: ``KEYS[1]`` is the ledger itself, ``KEYS[2]`` the order of its entries, and each other key one entry. The
first argument comes back as the first value of the reply, so that a reply to another call is noticed. The second value
is a word of `_redis`; entries, or details of the word, follow. Numbers are written with all their digits.
"""

from __future__ import annotations

_COMMON = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function exact(number)
    return string.format('%.0f', number)
end

-- Whether Redis has removed an entry by itself: the order still has its key.
local function is_lost(name, key)
    return redis.call('EXISTS', name) == 0 and redis.call('ZSCORE', KEYS[2], key) ~= false
end

-- Whether it has lost the ledger itself, or the order.
local function is_gone(id)
    local found = redis.call('HMGET', KEYS[1], 'id', 'last')
    return found[1] ~= id or (found[2] ~= false and redis.call('EXISTS', KEYS[2]) == 0)
end

local function state_of(state, changed, longest)
    if state == 'claimed' and now - tonumber(changed) > tonumber(longest) then
        return 'unknown'
    end
    return state
end

local function entry_of(name, longest)
    local entry = redis.call('HMGET', name, 'digest', 'message_id', 'state', 'changed', 'token', 'result')
    if not entry[3] then
        return false
    end
    entry[3] = state_of(entry[3], entry[4], longest)
    return entry
end
"""

_PREPARE = """
local function prepare(name, key, digest, message_id)
    local found = redis.call('HMGET', name, 'state', 'digest')
    if not found[1] then
        redis.call('ZADD', KEYS[2], redis.call('HINCRBY', KEYS[1], 'last', 1), key)
    elseif found[2] ~= digest and (found[1] == 'not sent' or found[1] == 'refused') then
        redis.call('DEL', name)
    else
        return
    end
    redis.call('HSET', name, 'digest', digest, 'state', 'prepared', 'changed', exact(now))
    -- Whether there is one, then the Message-ID itself.
    if message_id ~= '' then
        redis.call('HSET', name, 'message_id', string.sub(message_id, 2))
    end
end
"""

# Arguments: nonce, a new identity.
OPEN = """
if redis.call('EXISTS', KEYS[1]) == 0 then
    if redis.call('EXISTS', KEYS[2]) == 1 then
        return {ARGV[1], 'gone'}
    end
    redis.call('HSET', KEYS[1], 'id', ARGV[2], 'version', '1')
end
local found = redis.call('HMGET', KEYS[1], 'id', 'version')
return {ARGV[1], 'ok', found[1], found[2]}
"""

# Arguments: nonce, identity, longest send, token (empty: prepare only), resend refused, resend unknown, how many ends;
# then for each end its key, state, result, and 1 if it is retryable; then for each item its key, digest and Message-ID.
ADVANCE = f"""
{_COMMON}
{_PREPARE}
local nonce, id, longest, token, resend_refused, resend_unknown, ends = unpack(ARGV, 1, 7)
if is_gone(id) then
    return {{nonce, 'gone'}}
end
-- The key that is before the first item, and the argument.
local last_end, last_argument = 2 + ends, 7 + 4 * ends
for number = 1, #KEYS - last_end do
    local key = ARGV[last_argument + 3 * number - 2]
    if is_lost(KEYS[last_end + number], key) then
        return {{nonce, 'lost', key}}
    end
end

local lost = nil
for number = 1, ends do
    local name, key, state, result, retryable = KEYS[2 + number], unpack(ARGV, 4 + 4 * number, 7 + 4 * number)
    local found = redis.call('HMGET', name, 'token', 'state')
    if found[1] == token and (found[2] == 'claimed' or found[2] == 'unknown') then
        redis.call('HSET', name, 'state', state, 'result', result, 'retryable', retryable, 'changed', exact(now))
    elseif is_lost(name, key) then
        lost = key
    end
end
if lost then
    -- The other ends are written all the same.
    return {{nonce, 'lost', lost}}
end

local function may_claim(state, entry)
    if state == 'claimed' then
        return entry[3] == token
    elseif state == 'refused' then
        return entry[4] == '1' or resend_refused == '1'
    elseif state == 'unknown' then
        return resend_unknown == '1'
    end
    return state == 'prepared' or state == 'not sent'
end

local reply = {{nonce, 'ok'}}
for number = 1, #KEYS - last_end do
    local name = KEYS[last_end + number]
    local key, digest, message_id = unpack(ARGV, last_argument + 3 * number - 2, last_argument + 3 * number)
    prepare(name, key, digest, message_id)
    local entry = redis.call('HMGET', name, 'state', 'changed', 'token', 'retryable', 'digest')
    if token ~= '' and entry[5] == digest and may_claim(state_of(entry[1], entry[2], longest), entry) then
        redis.call('HSET', name, 'state', 'claimed', 'token', token, 'changed', exact(now))
    end
    reply[#reply + 1] = entry_of(name, longest)
end
return reply
"""

# Arguments: nonce, identity (empty: not known yet), longest send; then the key of each entry.
READ = f"""
{_COMMON}
if ARGV[2] ~= '' and is_gone(ARGV[2]) then
    return {{ARGV[1], 'gone'}}
end
local reply = {{ARGV[1], 'ok'}}
for number = 3, #KEYS do
    if is_lost(KEYS[number], ARGV[number + 1]) then
        return {{ARGV[1], 'lost', ARGV[number + 1]}}
    end
    reply[#reply + 1] = entry_of(KEYS[number], ARGV[3])
end
return reply
"""

# Arguments: nonce, identity (as above), the number of the last entry, how many more.
LIST = f"""
{_COMMON}
if ARGV[2] ~= '' and is_gone(ARGV[2]) then
    return {{ARGV[1], 'gone'}}
end
local found = redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. ARGV[3], '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[4])
return {{ARGV[1], 'ok', found}}
"""

# Arguments: nonce, identity, longest send, key, the verdict, the name of this call; then the states that may get it.
RECONCILE = f"""
{_COMMON}
local name = KEYS[3]
if is_gone(ARGV[2]) then
    return {{ARGV[1], 'gone'}}
elseif is_lost(name, ARGV[4]) then
    return {{ARGV[1], 'lost', ARGV[4]}}
end
local found = redis.call('HMGET', name, 'state', 'changed', 'verdict')
-- The client repeats a call whose reply was lost: its own verdict is no contradiction.
if found[3] ~= ARGV[6] then
    local state, is_allowed = found[1] and state_of(found[1], found[2], ARGV[3]), false
    for number = 7, #ARGV do
        is_allowed = is_allowed or ARGV[number] == state
    end
    if not is_allowed then
        -- Without a state, if there is no entry: a list ends before its first nil.
        return {{ARGV[1], 'denied', state or nil}}
    end
    redis.call('HSET', name, 'state', ARGV[5], 'changed', exact(now), 'verdict', ARGV[6])
    redis.call('HDEL', name, 'token')
end
return {{ARGV[1], 'ok', entry_of(name, ARGV[3])}}
"""
