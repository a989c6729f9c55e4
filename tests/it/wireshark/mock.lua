-- The dissector without Wireshark: just enough of Wireshark's Lua for it to run in a bare interpreter, of a version that the installed Wireshark does not have.
-- Usage: lua mock.lua DISSECTOR KEY < PACKETS. Prints every field, one line each, and the info column.

local function object(methods) return setmetatable({}, { __index = methods }) end
local any = setmetatable({}, { __index = function(_, name) return name end })

-- What C checks: an integer is one, also when it is a float.
local function integer(value)
  assert(type(value) == "number" and value == math.floor(value), "not an integer: " .. tostring(value))
  return value
end

local Range, Tvb = {}, {}
function Range:uint()
  local value = 0
  for i = 1, #self.text do value = value * 256 + self.text:byte(i) end
  return value
end
function Range:bytes() return { raw = function() return self.text end } end
function Range:le_float() return "a float" end

local function new_tvb(text)
  return setmetatable({}, {
    __index = function(_, name) return Tvb[name] and function(_, ...) return Tvb[name](text, ...) end end,
    __call = function(_, from, bytes)
      from, bytes = integer(from), integer(bytes or #text - from)
      assert(from >= 0 and bytes >= 0 and from + bytes <= #text, "a range out of bounds")
      return setmetatable({ text = text:sub(from + 1, from + bytes) }, { __index = Range })
    end,
  })
end
function Tvb.len(text) return #text end
function Tvb.offset() return 0 end
function Tvb.reported_length_remaining(text, at) return #text - at end

local Item = {}
local function new_item() return object(Item) end
local function show(field, range, value)
  if type(field) == "table" and field.abbreviation then
    if type(range) ~= "table" then value = range end
    if value == nil then value = range.text:gsub(".", function(c) return ("%02x"):format(c:byte()) end) end
    if field.abbreviation == "chatserver.padding" or field.abbreviation == "chatserver.body" then return end
    print(("%s = %s"):format(field.abbreviation, tostring(value)))
  end
end
function Item:add(field, range, value) show(field, range, value) return new_item() end
function Item:add_le(field, range) show(field, range, range:le_float()) return new_item() end
function Item:add_packet_field(field, range) show(field, range, range.text) return new_item() end
function Item:add_proto_expert_info(info, text) print("expert " .. info.abbreviation .. ": " .. (text or info.text)) return self end
for _, name in ipairs { "append_text", "prepend_text", "set_text", "set_generated" } do
  Item[name] = function(self, text) assert(name == "set_generated" or type(text) == "string") return self end
end

local chat
function Proto() chat = { prefs = {}, register_heuristic = function() end } return chat end
ProtoField = setmetatable({}, { __index = function() return function(abbreviation) return { abbreviation = abbreviation } end end })
ProtoExpert = { new = function(abbreviation, text) return { abbreviation = abbreviation, text = text } end }
Pref = { range = function(_, default) return default end, string = function(_, default) return default end }
base, frametype, expert = any, any, { group = any, severity = any }
ENC_UTF_8, DESEGMENT_ONE_MORE_SEGMENT = 2, 268435455
Field = { new = function() return function() return { value = 0 } end end }
DissectorTable = { get = function() return { add = function() end, remove = function() end } end }
local function long(low, high) return ("%.0f"):format(integer(high) * 4294967296.0 + integer(low)) end
UInt64, Int64 = { new = long }, { new = long }
NSTime = { new = function(seconds, ns) return ("%d.%09d"):format(integer(seconds), integer(ns)) end }
ByteArray = { new = function(text) return { tvb = function() return new_tvb(text) end } end }

dofile(arg[1])
chat.prefs.key = arg[2]
chat.prefs_changed()
chat.init()
local info = { text = "" }
function info:set(text) self.text = text end
function info:fence() end
local pinfo = { number = 1, visited = false, rel_ts = 0.5, can_desegment = 2, cols = { protocol = "TCP", info = info } }
chat.dissector(new_tvb(io.read("*a")), pinfo, new_item())
print("info " .. info.text)
print("desegment " .. tostring(pinfo.desegment_offset) .. " " .. tostring(pinfo.desegment_len))
