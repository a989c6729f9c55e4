-- Wireshark dissector for the chat protocol: header, decryption, messages, which answer belongs to which question.
--
-- One file, no other Lua library. Runs where the Lua of Wireshark is 5.2 (4.0, 4.2) and where it is 5.4 (from 4.4 on). Installing it and what to do with
-- it: docs/wireshark.md. The protocol: PROTOCOL.md. The sections below, in order: fields, messages, bits, AES, protobuf, tree, answers, TCP, preferences.

local chat = Proto("chatserver", "Chat Protocol")

local HEADER_BYTES = 8
local MIN_PACKET_BYTES = 24
-- A server may allow more than its default of 65,536; what is longer than this is no length.
local MAX_PACKET_BYTES = 16 * 1024 * 1024
local PUBLISHED_KEY = "12345abcdef67890"

---------------------------------------------------------------------------------------------------------------------- fields

local STATUS = { [1] = "STORED", [2] = "DELIVERED", [3] = "REFUSED" }
local REASON = {
  [1] = "BAD_NAME", [2] = "TOO_LONG", [3] = "BACKLOG_FULL", [4] = "ID_USED", [5] = "ID_TOO_OLD", [6] = "RATE", [7] = "NO_SPACE",
}
local CODE = {
  [1] = "REPLACED", [2] = "LOGIN_TIMEOUT", [3] = "IDLE", [4] = "BAD_PACKET", [5] = "FORGED_SENDER", [6] = "RATE", [7] = "STOPPING",
  [8] = "TOO_SLOW", [9] = "OVERLOADED", [10] = "KICKED", [11] = "ACK_TOO_HIGH",
}
local WIRE_TYPE = { [0] = "varint", [1] = "8 bytes", [2] = "length, then so many bytes", [3] = "group begins", [4] = "group ends", [5] = "4 bytes" }

-- The messages: `short` is the word in field names, `text` what the info column says. Of a field: its protobuf type, its name in chat.proto, its name
-- in filters, whether it must be there.
local MESSAGES = {
  [1] = { name = "PK_ClientLogin", message = "PbClientLogin", short = "login", fields = {
    [1] = { "string", "uuid", "name", true }, [2] = { "float", "version", "version", true }, [3] = { "time", "timestamp", "time", true },
    [4] = { "uint", "level", "level" }, [6] = { "uint", "last_seq", "last_seq" },
  } },
  [2] = { name = "PK_ServerAcceptLogin", message = "PbServerAcceptLogin", short = "answer", fields = {
    [1] = { "bool", "login", "login", true }, [2] = { "string", "tips_msg", "text", true }, [3] = { "time", "timestamp", "time", true },
    [4] = { "uint", "level", "level" }, [5] = { "uint", "read_timeout_secs", "read_timeout_secs" },
    [6] = { "uint", "max_packet_bytes", "max_packet_bytes" }, [7] = { "uint", "last_msg_id", "last_msg_id" },
  } },
  [3] = { name = "PK_ClientLogout", message = "PbClientLogout", short = "logout", fields = {
    [1] = { "bool", "logout", "logout", true }, [2] = { "time", "timestamp", "time", true },
  } },
  [4] = { name = "PK_ClientPing", message = "PbClientPing", short = "ping", fields = {
    [1] = { "bool", "ping", "ping", true }, [2] = { "time", "timestamp", "time", true },
  } },
  [5] = { name = "PK_C2CTextChat", message = "PbC2CTextChat", short = "chat", fields = {
    [1] = { "string", "from_uuid", "from", true }, [2] = { "string", "to_uuid", "to", true }, [3] = { "string", "text_msg", "text", true },
    [4] = { "time", "timestamp", "time", true }, [5] = { "uint", "msg_id", "msg_id" }, [6] = { "uint", "seq", "seq" },
  } },
  [101] = { name = "PK_ServerReceipt", message = "PbServerReceipt", short = "receipt", fields = {
    [1] = { "numbers", "msg_id", "msg_id" }, [2] = { "enum", "status", "status", true, STATUS },
    [3] = { "enum", "reason", "reason", false, REASON }, [4] = { "string", "text", "text" },
  } },
  [102] = { name = "PK_ClientAck", message = "PbClientAck", short = "ack", fields = { [1] = { "uint", "seq", "seq", true } } },
  [103] = { name = "PK_ServerNotice", message = "PbServerNotice", short = "notice", fields = {
    [1] = { "enum", "code", "code", true, CODE }, [2] = { "string", "text", "text", true },
  } },
  [104] = { name = "PK_ServerPong", message = "PbServerPong", short = "pong", fields = { [1] = { "time", "timestamp", "time", true } } },
}

local TYPE_NAMES = {}
for number, message in pairs(MESSAGES) do TYPE_NAMES[number] = message.name end

local f = {
  length = ProtoField.uint32("chatserver.length", "Length", base.DEC, nil, nil, "Bytes of the whole packet, header included"),
  type = ProtoField.uint32("chatserver.type", "Type", base.DEC, TYPE_NAMES),
  body = ProtoField.bytes("chatserver.body", "Encrypted body"),
  plaintext = ProtoField.bytes("chatserver.plaintext", "Decrypted body"),
  padding = ProtoField.bytes("chatserver.padding", "Padding"),
  tag = ProtoField.uint32("chatserver.tag", "Tag", base.HEX, nil, nil, "Field number × 8 + wire type"),
  number = ProtoField.uint32("chatserver.tag.number", "Field number"),
  wire = ProtoField.uint32("chatserver.tag.wire_type", "Wire type", base.DEC, WIRE_TYPE),
  bytes = ProtoField.uint32("chatserver.tag.length", "Length of the value"),
  unknown = ProtoField.bytes("chatserver.unknown", "Unknown field"),
  unknown_number = ProtoField.uint64("chatserver.unknown.value", "Value"),
  response_in = ProtoField.framenum("chatserver.response_in", "Response in", base.NONE, frametype.RESPONSE),
  response_to = ProtoField.framenum("chatserver.response_to", "Response to", base.NONE, frametype.REQUEST),
  response_time = ProtoField.relative_time("chatserver.response_time", "Time since the request"),
}
local NEW_FIELD = {
  string = function(name, label) return ProtoField.string(name, label, base.UNICODE) end,
  float = function(name, label) return ProtoField.float(name, label) end,
  time = function(name, label) return ProtoField.int64(name, label, base.DEC, nil, nil, "Unix seconds of the sender's clock") end,
  uint = function(name, label) return ProtoField.uint64(name, label) end,
  numbers = function(name, label) return ProtoField.uint64(name, label) end,
  bool = function(name, label) return ProtoField.bool(name, label) end,
  enum = function(name, label, values) return ProtoField.uint32(name, label, base.DEC, values) end,
}

local all = {}
for _, field in pairs(f) do all[#all + 1] = field end
for _, message in pairs(MESSAGES) do
  message.node = ProtoField.none("chatserver." .. message.short, message.message)
  all[#all + 1] = message.node
  for _, field in pairs(message.fields) do
    field.node = NEW_FIELD[field[1]]("chatserver." .. message.short .. "." .. field[3], field[2], field[5])
    all[#all + 1] = field.node
  end
end
chat.fields = all

local e = {
  length = ProtoExpert.new("chatserver.bad_length", "Not the length of a packet", expert.group.MALFORMED, expert.severity.ERROR),
  kind = ProtoExpert.new("chatserver.unknown_type", "Unknown packet type", expert.group.UNDECODED, expert.severity.WARN),
  padding = ProtoExpert.new("chatserver.bad_padding", "The padding is not right: wrong key?", expert.group.DECRYPTION, expert.severity.ERROR),
  key = ProtoExpert.new("chatserver.no_key", "The key in the preferences is no key", expert.group.DECRYPTION, expert.severity.WARN),
  protobuf = ProtoExpert.new("chatserver.malformed", "Not a protobuf message", expert.group.MALFORMED, expert.severity.ERROR),
  missing = ProtoExpert.new("chatserver.missing_field", "A required field is missing", expert.group.MALFORMED, expert.severity.ERROR),
  unknown = ProtoExpert.new("chatserver.unknown_field", "Unknown field", expert.group.UNDECODED, expert.severity.NOTE),
  cut = ProtoExpert.new("chatserver.cut_off", "The capture does not have all bytes of the packet", expert.group.UNDECODED, expert.severity.NOTE),
  refused = ProtoExpert.new("chatserver.refused", "Refused", expert.group.RESPONSE_CODE, expert.severity.NOTE),
  notice = ProtoExpert.new("chatserver.told", "The server says why", expert.group.RESPONSE_CODE, expert.severity.NOTE),
}
chat.experts = (function() local list = {} for _, info in pairs(e) do list[#list + 1] = info end return list end)()

---------------------------------------------------------------------------------------------------------------------- bits
-- Lua 5.3 and later have operators for bits, which Lua 5.2 cannot even parse; it has a library, and Wireshark brings one of its own.

-- `split` gives the four bytes of a word, the highest first. Arithmetic is quicker there than two calls of a library for each.
local xor, xor5, split
do
  local native = (load or loadstring)([[
    return function(a, b) return a ~ b end,
      function(a, b, c, d, e) return a ~ b ~ c ~ d ~ e end,
      function(word) return word >> 24, word >> 16 & 255, word >> 8 & 255, word & 255 end
  ]])
  if native then
    xor, xor5, split = native()
  else
    xor = (bit32 or bit).bxor
    xor5 = xor
    split = function(word)
      local d = word % 256
      local rest = (word % 4294967296 - d) / 256
      local c = rest % 256
      rest = (rest - c) / 256
      local b = rest % 256
      return (rest - b) / 256, b, c, d
    end
  end
end

---------------------------------------------------------------------------------------------------------------------- AES
-- Decryption as in FIPS 197 §5.3.5: a round is four look-ups and four xors for each word of four bytes.

local inverse_sbox, sbox = {}, {}
local round_tables = { {}, {}, {}, {} }
do
  -- Multiplication by 2 in the field of AES, then by anything.
  local function double(a)
    a = a * 2
    return a < 256 and a or xor(a - 256, 0x1b)
  end
  local function times(a, b)
    local sum = 0
    while b > 0 do
      if b % 2 == 1 then sum = xor(sum, a) end
      a, b = double(a), (b - b % 2) / 2
    end
    return sum
  end
  local function rotate(a, by)
    local product = a * 2 ^ by
    return product % 256 + (product - product % 256) / 256
  end
  local power, inverse = 1, 1
  repeat
    power = xor(power, double(power))
    -- The other way round: divided by 3.
    inverse = xor(inverse, inverse * 2 % 256)
    inverse = xor(inverse, inverse * 4 % 256)
    inverse = xor(inverse, inverse * 16 % 256)
    if inverse >= 128 then inverse = xor(inverse, 9) end
    local value = inverse
    for by = 1, 4 do value = xor(value, math.floor(rotate(inverse, by))) end
    sbox[power] = xor(value, 0x63)
  until power == 1
  sbox[0] = 0x63
  for from = 0, 255 do inverse_sbox[sbox[from]] = from end
  for from = 0, 255 do
    local value = inverse_sbox[from]
    local a, b, c, d = times(value, 14), times(value, 9), times(value, 13), times(value, 11)
    round_tables[1][from] = a * 16777216 + b * 65536 + c * 256 + d
    round_tables[2][from] = d * 16777216 + a * 65536 + b * 256 + c
    round_tables[3][from] = c * 16777216 + d * 65536 + a * 256 + b
    round_tables[4][from] = b * 16777216 + c * 65536 + d * 256 + a
  end
end

local function word(a, b, c, d) return a * 16777216 + b * 65536 + c * 256 + d end

-- The round keys for decryption, and their number; `key` is a string of 16, 24 or 32 bytes.
local function schedule(key)
  local words, in_key = {}, #key / 4
  local rounds = math.floor(in_key + 6)
  in_key = math.floor(in_key)
  for i = 0, in_key - 1 do words[i] = word(key:byte(4 * i + 1, 4 * i + 4)) end
  local constant = 1
  for i = in_key, 4 * (rounds + 1) - 1 do
    local last = words[i - 1]
    local a, b, c, d = split(last)
    if i % in_key == 0 then
      last = word(xor(sbox[b], constant), sbox[c], sbox[d], sbox[a])
      constant = constant * 2 < 256 and constant * 2 or xor(constant * 2 - 256, 0x1b)
    elseif in_key > 6 and i % in_key == 4 then
      last = word(sbox[a], sbox[b], sbox[c], sbox[d])
    end
    words[i] = xor(words[i - in_key], last)
  end
  local T1, T2, T3, T4 = round_tables[1], round_tables[2], round_tables[3], round_tables[4]
  local keys = {}
  for i = 0, 4 * (rounds + 1) - 1 do
    -- Last round first.
    local w = words[4 * (rounds - (i - i % 4) / 4) + i % 4]
    if i >= 4 and i < 4 * rounds then
      local a, b, c, d = split(w)
      w = xor5(T1[sbox[a]], T2[sbox[b]], T3[sbox[c]], T4[sbox[d]], 0)
    end
    keys[i] = w
  end
  return keys, rounds
end

-- CBC: each block is decrypted and then xored with the encrypted one before it. Gives the plaintext with its padding.
local function decrypt(cipher, body)
  local T1, T2, T3, T4 = round_tables[1], round_tables[2], round_tables[3], round_tables[4]
  local keys, rounds, S = cipher.keys, cipher.rounds, inverse_sbox
  local p1, p2, p3, p4 = cipher.iv[1], cipher.iv[2], cipher.iv[3], cipher.iv[4]
  local out = {}
  for at = 1, #body - 15, 16 do
    local c1, c2, c3, c4 = word(body:byte(at, at + 3)), word(body:byte(at + 4, at + 7)), word(body:byte(at + 8, at + 11)), word(body:byte(at + 12, at + 15))
    local a, b, c, d = xor(c1, keys[0]), xor(c2, keys[1]), xor(c3, keys[2]), xor(c4, keys[3])
    local a1, a2, a3, a4, b1, b2, b3, b4
    local d1, d2, d3, d4, e1, e2, e3, e4
    local k = 4
    for round = 2, rounds + 1 do
      a1, a2, a3, a4 = split(a)
      b1, b2, b3, b4 = split(b)
      d1, d2, d3, d4 = split(c)
      e1, e2, e3, e4 = split(d)
      if round <= rounds then
        a = xor5(T1[a1], T2[e2], T3[d3], T4[b4], keys[k])
        b = xor5(T1[b1], T2[a2], T3[e3], T4[d4], keys[k + 1])
        c = xor5(T1[d1], T2[b2], T3[a3], T4[e4], keys[k + 2])
        d = xor5(T1[e1], T2[d2], T3[b3], T4[a4], keys[k + 3])
        k = k + 4
      end
    end
    -- The last round has no mixing of columns: the box alone.
    local w1, w2, w3, w4 = split(xor5(word(S[a1], S[e2], S[d3], S[b4]), keys[k], p1, 0, 0))
    local x1, x2, x3, x4 = split(xor5(word(S[b1], S[a2], S[e3], S[d4]), keys[k + 1], p2, 0, 0))
    local y1, y2, y3, y4 = split(xor5(word(S[d1], S[b2], S[a3], S[e4]), keys[k + 2], p3, 0, 0))
    local z1, z2, z3, z4 = split(xor5(word(S[e1], S[d2], S[b3], S[a4]), keys[k + 3], p4, 0, 0))
    out[#out + 1] = string.char(w1, w2, w3, w4, x1, x2, x3, x4, y1, y2, y3, y4, z1, z2, z3, z4)
    p1, p2, p3, p4 = c1, c2, c3, c4
  end
  return table.concat(out)
end

local function unhex(digits)
  if #digits % 2 == 1 or digits:find("[^0-9a-fA-F]") then return nil end
  return (digits:gsub("..", function(pair) return string.char(tonumber(pair, 16)) end))
end

local function unbase64(text)
  local alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
  local bytes, held, bits = {}, 0, 0
  for digit in text:gsub("=+$", ""):gmatch(".") do
    local value = alphabet:find(digit, 1, true)
    if not value then return nil end
    held, bits = held * 64 + value - 1, bits + 6
    if bits >= 8 then
      bits = bits - 8
      local rest = held % 2 ^ bits
      bytes[#bytes + 1] = string.char(math.floor((held - rest) / 2 ^ bits))
      held = rest
    end
  end
  return table.concat(bytes)
end

-- A key as the server's own configuration has it: text of 16, 24 or 32 bytes, or "hex:" and digits. Also "base64:".
local function parse_key(text)
  local digits, coded = text:match("^hex:(.*)$"), text:match("^base64:(.*)$")
  local key = digits and unhex(digits) or coded and unbase64(coded) or (not digits and not coded and text) or nil
  if key and (#key == 16 or #key == 24 or #key == 32) then return key end
  -- 24 or 32 bytes in hexadecimal digits are too long to be text.
  if #text == 48 or #text == 64 then return unhex(text) end
  return nil
end

-- With one key and one IV, equal bodies are equal plaintexts: what was decrypted is kept, by its ciphertext, up to 32 MiB.
local cipher, opened, opened_bytes
local function use_key(text)
  local key = parse_key(text)
  opened, opened_bytes, cipher = {}, 0, nil
  if key then
    local keys, rounds = schedule(key)
    local iv = { word(key:byte(1, 4)), word(key:byte(5, 8)), word(key:byte(9, 12)), word(key:byte(13, 16)) }
    cipher = { keys = keys, rounds = rounds, iv = iv }
  end
end

-- The plaintext with its padding, and how long the padding is; nil = it is not padded.
local function open(body)
  local plain = opened[body]
  if not plain then
    plain = decrypt(cipher, body)
    if opened_bytes > 16 * 1024 * 1024 then opened, opened_bytes = {}, 0 end
    opened[body], opened_bytes = plain, opened_bytes + #body
  end
  local padding = plain:byte(-1)
  if padding < 1 or padding > 16 then return plain, nil end
  return plain, plain:sub(-padding) == string.char(padding):rep(padding) and padding or nil
end

---------------------------------------------------------------------------------------------------------------------- protobuf

-- A varint of `plain` at `at`, as two halves of 32 bits, and where it ends; nil = there is none.
local function varint(plain, at, last)
  local low, high = 0, 0
  for i = 0, 9 do
    local byte = at + i <= last and plain:byte(at + i)
    if not byte then return nil end
    local bits = byte % 128
    if i < 4 then
      low = low + bits * 2 ^ (7 * i)
    elseif i == 4 then
      low = low + bits % 16 * 2 ^ 28
      high = (bits - bits % 16) / 16
    else
      high = high + bits * 2 ^ (7 * i - 32)
    end
    if byte < 128 then return math.floor(low), math.floor(high % 2 ^ 32), at + i + 1 end
  end
  return nil
end

-- The fields of a message: a list of { from, number, wire, value_at, ends, low, high }, positions from 1; and where and why it could not go on.
local function parse(plain, last)
  local fields, at, groups = {}, 1, 0
  while at <= last do
    local low, high, value_at = varint(plain, at, last)
    if not low or high > 0 or low < 8 then return fields, at, "no tag" end
    local field = { from = at, number = math.floor((low - low % 8) / 8), wire = low % 8, tag = low, tag_ends = value_at, value_at = value_at }
    if field.wire == 0 then
      field.low, field.high, field.ends = varint(plain, value_at, last)
    elseif field.wire == 1 then
      field.ends = value_at + 8
    elseif field.wire == 2 then
      local bytes, more, begins = varint(plain, value_at, last)
      if bytes and more == 0 then field.bytes, field.value_at, field.ends = bytes, begins, begins + bytes end
    elseif field.wire == 5 then
      field.ends = value_at + 4
    elseif field.wire == 3 or field.wire == 4 then
      groups = groups + (field.wire == 3 and 1 or -1)
      field.ends = value_at
    end
    if groups < 0 then return fields, at, "a group ends that never began" end
    if not field.ends then return fields, at, "a wire type that does not exist, or a number that does not end" end
    if field.ends > last + 1 then return fields, at, "a value that is longer than the message" end
    field.in_group = groups > 0 or field.wire == 4
    fields[#fields + 1] = field
    at = field.ends
  end
  if groups > 0 then return fields, at, "a group does not end" end
  return fields
end

local WIRE_OF = { string = 2, float = 5, time = 0, uint = 0, bool = 0, enum = 0 }

-- Whether a field is one of the message, and written as it must be.
local function known(message, field)
  local as = message and not field.in_group and message.fields[field.number]
  if not as then return nil end
  if as[1] == "numbers" then return (field.wire == 0 or field.wire == 2) and as or nil end
  return WIRE_OF[as[1]] == field.wire and as or nil
end

-- The numbers in a packed field: a list of { low, high, from, ends }; nil = they do not fit.
local function packed(plain, field)
  local numbers, at = {}, field.value_at
  if field.wire == 0 then return { { field.low, field.high, at, field.ends } } end
  while at < field.ends do
    local low, high, ends = varint(plain, at, field.ends - 1)
    if not low then return nil end
    numbers[#numbers + 1] = { low, high, at, ends }
    at = ends
  end
  return numbers
end

local function number_of(low, high) return high * 4294967296 + low end

---------------------------------------------------------------------------------------------------------------------- tree

-- Text for one line of the packet list: control characters and what is no UTF-8 become \xNN, and it ends after 200 bytes.
local function printable(text)
  local shown = #text > 200 and text:sub(1, 200) or text
  local out, at = {}, 1
  while at <= #shown do
    local byte = shown:byte(at)
    local bytes = byte < 0x80 and 1 or byte >= 0xc2 and byte < 0xe0 and 2 or byte >= 0xe0 and byte < 0xf0 and 3 or byte >= 0xf0 and byte < 0xf5 and 4 or 0
    local char = shown:sub(at, at + bytes - 1)
    if bytes == 0 or #char < bytes or char:find("^.[\128-\191]*[^\128-\191]", 1) and bytes > 1 then
      if #text > 200 and at > 196 then break end
      out[#out + 1], at = ("\\x%02x"):format(byte), at + 1
    elseif bytes == 1 and (byte < 0x20 or byte == 0x7f) or char:find("^\194[\128-\159]$") then
      out[#out + 1], at = char:gsub(".", function(c) return ("\\x%02x"):format(c:byte()) end), at + bytes
    else
      out[#out + 1], at = char, at + bytes
    end
  end
  return table.concat(out) .. (#text > 200 and "…" or "")
end

local function date(seconds)
  if seconds < 0 or seconds >= 253402300800 then return "" end
  return " (" .. os.date("!%Y-%m-%d %H:%M:%S", seconds) .. " UTC)"
end

-- One value into the tree and into `values`, by the name it has in filters.
local function add_value(tree, tvb, plain, field, as, values)
  local range = tvb(field.value_at - 1, field.ends - field.value_at)
  local kind, name, key, item = as[1], as[2], as[3], nil
  if kind == "string" then
    local text = plain:sub(field.value_at, field.ends - 1)
    item = #text > 0 and tree:add_packet_field(as.node, range, ENC_UTF_8) or tree:add(as.node, tvb(field.from - 1, field.value_at - field.from), "")
    values[key] = text
  elseif kind == "float" then
    item = tree:add_le(as.node, range)
    values[key] = range:le_float()
  elseif kind == "time" then
    item = tree:add(as.node, range, Int64.new(field.low, field.high))
    values[key] = number_of(field.low, field.high)
    item:append_text(date(values[key]))
  elseif kind == "uint" then
    item = tree:add(as.node, range, UInt64.new(field.low, field.high))
    values[key] = number_of(field.low, field.high)
  elseif kind == "bool" then
    values[key] = field.low ~= 0 or field.high ~= 0
    item = tree:add(as.node, range, values[key])
  elseif kind == "enum" then
    item = tree:add(as.node, range, field.low)
    values[key] = field.low
  end
  return item, name
end

local function add_tag(item, tvb, field)
  local tag = item:add(f.tag, tvb(field.from - 1, field.tag_ends - field.from), field.tag)
  local what = WIRE_TYPE[field.wire] or "no such wire type"
  tag:set_text(("Tag: 0x%02x = field %d, wire type %d (%s)"):format(field.tag, field.number, field.wire, what))
  tag:add(f.number, tvb(field.from - 1, field.tag_ends - field.from), field.number)
  tag:add(f.wire, tvb(field.from - 1, 1), field.wire)
  if field.bytes then item:add(f.bytes, tvb(field.tag_ends - 1, field.value_at - field.tag_ends), field.bytes) end
end

local function add_unknown(tree, tvb, field, as)
  local item = tree:add(f.unknown, tvb(field.from - 1, field.ends - field.from))
  item:prepend_text(("Field %d, "):format(field.number))
  add_tag(item, tvb, field)
  if field.low then item:add(f.unknown_number, tvb(field.value_at - 1, field.ends - field.value_at), UInt64.new(field.low, field.high)) end
  item:add_proto_expert_info(e.unknown, as and "Not the wire type of this field" or "Unknown field")
end

-- The message in `plain`, of which `last` bytes are not padding, as a tree. Gives its values; `values.ids` are the numbers of a receipt.
local function add_message(tree, tvb, plain, last, message)
  local values, seen, ids = {}, {}, {}
  local node = message and tree:add(message.node, tvb(0, last)) or tree:add(tvb(0, last), "Fields of an unknown message")
  local fields, wrong_at, why = parse(plain, last)
  for _, field in ipairs(fields) do
    local as = known(message, field)
    local numbers = as and as[1] == "numbers" and packed(plain, field)
    if numbers then
      seen[field.number] = true
      local item = node:add(tvb(field.from - 1, field.ends - field.from), ("%s: %d of them"):format(as[2], #numbers))
      add_tag(item, tvb, field)
      for _, n in ipairs(numbers) do
        local one = item:add(as.node, tvb(n[3] - 1, n[4] - n[3]), UInt64.new(n[1], n[2]))
        ids[#ids + 1] = { id = number_of(n[1], n[2]), item = one }
      end
    elseif as and as[1] ~= "numbers" then
      seen[field.number] = true
      add_tag(add_value(node, tvb, plain, field, as, values), tvb, field)
    else
      add_unknown(node, tvb, field, message and message.fields[field.number])
    end
  end
  if why then
    node:add(f.unknown, tvb(wrong_at - 1, last - wrong_at + 1)):set_text("Cannot be read as protobuf")
    node:add_proto_expert_info(e.protobuf, ("After %d bytes: %s"):format(wrong_at - 1, why))
  end
  for number, as in pairs(message and message.fields or {}) do
    if as[4] and not seen[number] then node:add_proto_expert_info(e.missing, "Required field missing: " .. as[2]) end
  end
  values.ids = ids
  return values, node, why
end

local function ids_text(ids)
  local shown = {}
  for i = 1, math.min(#ids, 8) do shown[i] = ("%.0f"):format(ids[i].id) end
  return table.concat(shown, ", ") .. (#ids > 8 and (", … (%d)"):format(#ids) or "")
end

-- What the info column says of a message.
local SAY = {
  login = function(v) return ("%s logs in%s"):format(printable(v.name or "?"), v.level and (", level %.0f"):format(v.level) or "") end,
  answer = function(v) return (v.login and "login accepted: " or "login refused: ") .. printable(v.text or "") end,
  logout = function() return "logs out" end,
  ping = function() return "ping" end,
  pong = function() return "pong" end,
  chat = function(v)
    local numbers = (v.msg_id and (" msg_id=%.0f"):format(v.msg_id) or "") .. (v.seq and (" seq=%.0f"):format(v.seq) or "")
    return ("%s → %s: %s%s"):format(printable(v.from or "?"), printable(v.to or "?"), printable(v.text or ""), numbers)
  end,
  receipt = function(v)
    return ("%s %s%s"):format(STATUS[v.status] or "receipt", ids_text(v.ids), v.reason and ": " .. (REASON[v.reason] or v.reason) or "")
  end,
  ack = function(v) return ("acknowledges up to %.0f"):format(v.seq or 0) end,
  notice = function(v) return ("notice %s: %s"):format(CODE[v.code] or "", printable(v.text or "")) end,
}

---------------------------------------------------------------------------------------------------------------------- answers
-- Which packet answers which, for each TCP connection: found when the frames are first seen in their order, looked up afterwards. A packet is known by
-- its frame and by its place there.

local tcp_stream = Field.new("tcp.stream")
local streams, requests_of, responses_of

local function forget()
  streams, requests_of, responses_of = {}, {}, {}
end

local function stream_of()
  local all_of_frame = { tcp_stream() }
  local number = #all_of_frame > 0 and all_of_frame[#all_of_frame].value or 0
  streams[number] = streams[number] or { pings = {}, sent = {}, received = {}, first_received = 1 }
  return streams[number]
end

local function link(request, response)
  requests_of[response.key] = requests_of[response.key] or {}
  responses_of[request.key] = responses_of[request.key] or {}
  table.insert(requests_of[response.key], request)
  table.insert(responses_of[request.key], response)
end

-- What a client keeps without an answer is bounded by the protocol (1,024 messages); a level-1 client's pings are never answered.
local MOST_PINGS = 1024

local LEARN = {
  login = function(stream, packet) stream.login = packet end,
  answer = function(stream, packet)
    if stream.login then link(stream.login, packet) end
    stream.login = nil
  end,
  ping = function(stream, packet)
    table.insert(stream.pings, packet)
    if #stream.pings > MOST_PINGS then table.remove(stream.pings, 1) end
  end,
  pong = function(stream, packet, values)
    for i, ping in ipairs(stream.pings) do
      if ping.time == values.time then
        link(ping, packet)
        for _ = 1, i do table.remove(stream.pings, 1) end
        return
      end
    end
  end,
  chat = function(stream, packet, values)
    packet.seq = values.seq
    if values.seq then
      table.insert(stream.received, packet)
    elseif values.msg_id then
      packet.msg_id = values.msg_id
      stream.sent[values.msg_id] = packet
    end
  end,
  receipt = function(stream, packet, values)
    for _, one in ipairs(values.ids) do
      local request = stream.sent[one.id]
      if request then link(request, { key = packet.key, frame = packet.frame, at = packet.at, what = STATUS[values.status] }) end
      -- After STORED comes DELIVERED; after these nothing does.
      if request and values.status ~= 1 then stream.sent[one.id] = nil end
    end
  end,
  ack = function(stream, packet, values)
    local received = stream.received
    while received[stream.first_received] and received[stream.first_received].seq <= (values.seq or 0) do
      link(received[stream.first_received], packet)
      received[stream.first_received] = nil
      stream.first_received = stream.first_received + 1
    end
    if stream.first_received > 1 and not received[stream.first_received] then stream.received, stream.first_received = {}, 1 end
  end,
}

local function add_time(tree, from, to)
  local seconds = math.max(0, to - from)
  local whole = math.floor(seconds)
  tree:add(f.response_time, NSTime.new(whole, math.floor((seconds - whole) * 1e9 + 0.5) % 1000000000)):set_generated()
end

-- At most so many lines for one packet: a receipt or an ack can answer a thousand.
local MOST_LINKS = 64

-- Of a receipt each number has the link to its message.
local function add_links(tree, key, at, ids)
  local items = {}
  for _, one in ipairs(ids) do items[one.id] = one.item end
  for i, request in ipairs(requests_of[key] or {}) do
    if i > MOST_LINKS then break end
    local item = items[request.msg_id] or tree
    item:add(f.response_to, request.frame):set_generated()
    if i == 1 then add_time(item, request.at, at) end
  end
  for _, response in ipairs(responses_of[key] or {}) do
    local item = tree:add(f.response_in, response.frame):set_generated()
    if response.what then item:append_text(" (" .. response.what .. ")") end
  end
end

---------------------------------------------------------------------------------------------------------------------- TCP

-- Whether these can be the first bytes of a packet; if not, why.
local function judge(length)
  if length < MIN_PACKET_BYTES then return "A packet has at least 24 bytes" end
  if length > MAX_PACKET_BYTES then return "Longer than any server takes" end
  if (length - HEADER_BYTES) % 16 ~= 0 then return "The body is not a multiple of 16 bytes" end
  return nil
end

-- One packet, of which all bytes are there. Gives what the info column says.
local function dissect_packet(tvb, pinfo, root, at)
  local length, kind = tvb(at, 4):uint(), tvb(at + 4, 4):uint()
  local message = MESSAGES[kind]
  local name = message and message.name or ("type %.0f"):format(kind)
  local tree = root:add(chat, tvb(at, length), ("Chat Protocol, %s, %.0f bytes"):format(name, length))
  tree:add(f.length, tvb(at, 4))
  local kind_item = tree:add(f.type, tvb(at + 4, 4))
  if not message then
    kind_item:add_proto_expert_info(e.kind, kind >= 1000 and "A type of the server's own" or "Unknown packet type")
  end
  local body_range = tvb(at + HEADER_BYTES, length - HEADER_BYTES)
  local body_item = tree:add(f.body, body_range)
  if not cipher then
    body_item:add_proto_expert_info(e.key, "The key in the preferences has not 16, 24 or 32 bytes")
    return name
  end
  local plain, padding = open(body_range:bytes():raw())
  local plain_tvb = ByteArray.new(plain, true):tvb("Decrypted body")
  local plain_item = tree:add(f.plaintext, plain_tvb(0, #plain))
  if not padding then
    plain_item:add_proto_expert_info(e.padding)
    return name .. ": wrong key?"
  end
  local last = #plain - padding
  local values, node, why = add_message(tree, plain_tvb, plain, last, message)
  tree:add(f.padding, plain_tvb(last, padding)):append_text((" (%d × 0x%02x)"):format(padding, padding))
  if not message or why then return why and name .. ": malformed" or name end
  if message.short == "answer" and values.login == false or message.short == "receipt" and values.status == 3 then
    node:add_proto_expert_info(e.refused, "Refused: " .. (values.text and printable(values.text) or REASON[values.reason] or ""))
  elseif message.short == "notice" then
    node:add_proto_expert_info(e.notice, ("%s: %s"):format(CODE[values.code] or "?", printable(values.text or "")))
  end
  local key = ("%d:%d:%d"):format(pinfo.number, tvb:offset() + at, tvb:len())
  local learn = LEARN[message.short]
  if learn and not pinfo.visited then
    learn(stream_of(), { key = key, frame = pinfo.number, at = pinfo.rel_ts, time = values.time }, values)
  end
  add_links(tree, key, pinfo.rel_ts, values.ids)
  local text = SAY[message.short](values)
  tree:append_text(", " .. text)
  return text
end

function chat.dissector(tvb, pinfo, root)
  local is_first = tostring(pinfo.cols.protocol) ~= "CHAT"
  pinfo.cols.protocol = "CHAT"
  local at, said, have = 0, {}, tvb:len()
  while at < have do
    local there = have - at
    if there < HEADER_BYTES then
      pinfo.desegment_offset, pinfo.desegment_len = at, DESEGMENT_ONE_MORE_SEGMENT
      break
    end
    local length = tvb(at, 4):uint()
    local wrong = judge(length)
    if wrong then
      local tree = root:add(chat, tvb(at), "Chat Protocol, not a packet")
      tree:add(f.length, tvb(at, 4)):add_proto_expert_info(e.length, wrong)
      said[#said + 1] = "not a packet"
      at = have
    elseif there >= length then
      said[#said + 1] = dissect_packet(tvb, pinfo, root, at)
      at = at + length
    elseif tvb:reported_length_remaining(at) > there or pinfo.can_desegment == 0 then
      local tree = root:add(chat, tvb(at), ("Chat Protocol, %.0f bytes, %d of them there"):format(length, there))
      tree:add(f.length, tvb(at, 4))
      tree:add(f.type, tvb(at + 4, 4))
      tree:add_proto_expert_info(e.cut)
      said[#said + 1] = "cut off"
      at = have
    else
      pinfo.desegment_offset, pinfo.desegment_len = at, length - there
      break
    end
  end
  if #said > 0 then
    pinfo.cols.info:set((is_first and "" or " ┊ ") .. table.concat(said, " ┊ "))
    pinfo.cols.info:fence()
  end
  return have
end

-- On other ports: a first packet that is there as a whole, has a known type, decrypts, and holds every field that it must is no accident.
local function guess(tvb, pinfo, root)
  if not cipher or tvb:len() < MIN_PACKET_BYTES then return false end
  local length, message = tvb(0, 4):uint(), MESSAGES[tvb(4, 4):uint()]
  if not message or judge(length) or length > tvb:len() then return false end
  local plain, padding = open(tvb(HEADER_BYTES, length - HEADER_BYTES):bytes():raw())
  if not padding then return false end
  local fields, _, why = parse(plain, #plain - padding)
  local seen = {}
  for _, field in ipairs(fields) do seen[field.number] = known(message, field) and true end
  for number, as in pairs(message.fields) do
    if as[4] and not seen[number] then return false end
  end
  if why then return false end
  pinfo.conversation = chat
  chat.dissector(tvb, pinfo, root)
  return true
end
chat:register_heuristic("tcp", guess)

---------------------------------------------------------------------------------------------------------------------- preferences

local tcp_port = DissectorTable.get("tcp.port")
local ports = "8989"

chat.prefs.ports = Pref.range("TCP ports", ports, "Ports of servers; others are found by what they say, or with Decode As", 65535)
chat.prefs.key = Pref.string("Key", PUBLISHED_KEY,
  "The pre-shared key, as in the server's configuration: text of 16, 24 or 32 bytes, or hex: and digits; also base64: and its letters")

function chat.prefs_changed()
  if ports ~= chat.prefs.ports then
    if ports ~= "" then tcp_port:remove(ports, chat) end
    ports = chat.prefs.ports
    if ports ~= "" then tcp_port:add(ports, chat) end
  end
  use_key(chat.prefs.key)
end

function chat.init() forget() end

forget()
use_key(PUBLISHED_KEY)
tcp_port:add(ports, chat)
