-- For gRPC calls: finds the model in the message, checks the message, and turns errors into statuses.

local SERVICE = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/"
local MAX_ENTRIES = 100 -- of the map `input`, as in docs/contract.md
-- HTTP status -> gRPC status
local GRPC_STATUS = {
  [400] = 3, [401] = 16, [404] = 5, [406] = 3, [408] = 4, [413] = 8, [415] = 9, [422] = 9,
  [429] = 8, [500] = 13, [501] = 12, [503] = 14, [504] = 4, [507] = 8,
}

local function error_json(code, kind, message)
  return string.format('{"code": %d, "type": "%s", "message": "%s"}', code, kind, message)
end

local function refuse(handle, code, kind, message)
  handle:respond({
    [":status"] = "200", ["content-type"] = "application/grpc",
    ["grpc-status"] = tostring(GRPC_STATUS[code]), ["grpc-message"] = error_json(code, kind, message),
    ["x-error-type"] = kind,
  }, "")
end

-- The varint of `body` at `position`: its value and the position after it. Returns nil if it is cut
-- off or has more than 5 bytes; lengths here need fewer.
local function varint(body, position)
  local value, factor = 0, 1
  for i = position, math.min(position + 4, body:length() - 1) do
    local byte = body:getBytes(i, 1):byte()
    value = value + (byte % 128) * factor
    if byte < 128 then return value, i + 1 end
    factor = factor * 128
  end
  return nil
end

local function encode_varint(value)
  local bytes = {}
  while value >= 128 do
    bytes[#bytes + 1] = string.char(value % 128 + 128)
    value = math.floor(value / 128)
  end
  return table.concat(bytes) .. string.char(value)
end

local function field(tag, text)
  return string.char(tag) .. encode_varint(#text) .. text
end

local function big_endian(value)
  return string.char(math.floor(value / 16777216) % 256, math.floor(value / 65536) % 256,
    math.floor(value / 256) % 256, value % 256)
end

-- The model and the version that a PredictionsRequest names. Returns nil, code, type and message if it is
-- invalid.
local function model_of(body)
  if body:length() < 5 then return nil, 400, "BadRequest", "the call has no message" end
  local head = { body:getBytes(0, 5):byte(1, 5) }
  if head[1] ~= 0 then return nil, 501, "Unimplemented", "compressed messages are not supported" end
  local size = ((head[2] * 256 + head[3]) * 256 + head[4]) * 256 + head[5]
  if body:length() ~= size + 5 then return nil, 400, "BadRequest", "the call needs one message" end
  local model, version, entries, position = "", "", 0, 5
  while position < size + 5 do
    local tag, length
    tag, position = varint(body, position)
    if tag == nil or tag % 8 ~= 2 then return nil, 400, "BadRequest", "not a PredictionsRequest" end
    length, position = varint(body, position)
    if length == nil or position + length > size + 5 then
      return nil, 400, "BadRequest", "not a PredictionsRequest"
    end
    if tag == 10 then
      if length > 256 then return nil, 404, "ModelNotFound", "no model has so long a name" end
      model = body:getBytes(position, length)
    end
    if tag == 18 then
      if length > 32 then return nil, 404, "ModelNotFound", "no version has so long a name" end
      version = body:getBytes(position, length)
    end
    if tag == 26 then entries = entries + 1 end
    if entries > MAX_ENTRIES then
      return nil, 400, "BadRequest", "a request may have at most 100 fields"
    end
    position = position + length
  end
  return model, version
end

local function is_prediction(path)
  return path == SERVICE .. "Predictions" or path == SERVICE .. "StreamPredictions"
end

function envoy_on_request(handle)
  if not is_prediction(handle:headers():get(":path")) then return end
  local body = handle:body(true)
  local headers = handle:headers() -- body() waits, which invalidates earlier objects
  local model, version, kind, message = model_of(body)
  if model == nil then return refuse(handle, version, kind, message) end -- version is then the code
  if not model:match("^[%w._-]+$") then
    return refuse(handle, 404, "ModelNotFound", "GET /models lists the models")
  end
  if not version:match("^[%w.]*$") then
    return refuse(handle, 404, "ModelNotFound", "the model has no such version")
  end
  headers:replace("x-gateway-model", model)
  if version ~= "" then headers:replace("x-gateway-version", version) end
  -- TorchServe passes the entries of `input` to a handler, but no metadata.
  local added = ""
  for _, name in ipairs({ "x-request-id", "traceparent" }) do
    local value = headers:get(name)
    if value then added = added .. field(26, field(10, name) .. field(18, value)) end
  end
  local size = body:length() - 5
  body:setBytes("\0" .. big_endian(size + #added) .. body:getBytes(5, size) .. added)
  headers:replace("content-length", tostring(body:length()))
end

-- Percent-encode a grpc-message.
local function encode_message(text)
  return (text:gsub("[^\32-\36\38-\126]", function(char) return string.format("%%%02X", char:byte()) end))
end

local function decode_message(text)
  return (text:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

-- The contract's code, type and message for an error sentence of TorchServe.
local function from_torchserve(sentence)
  if sentence:find("no worker to serve", 1, true) then
    return 503, "Overloaded", "the queue is full: try again"
  end
  if sentence:find("does not exist for model", 1, true) then
    return 404, "ModelNotFound", "the model has no such version"
  end
  if sentence:find("died", 1, true) then
    return 507, "WorkerDied", "the worker ended while it had this request: try once more"
  end
  return 500, "InternalError", "see the server's log"
end

-- Write the error to `target`, which is the response's headers or trailers.
local function finish(target, code, kind, json)
  -- Over gRPC an unknown route is an unimplemented method.
  local status = kind == "NotFound" and 12 or GRPC_STATUS[code] or 13
  target:replace("grpc-status", tostring(status))
  target:replace("grpc-message", encode_message(json))
  target:replace("x-error-type", kind)
end

-- The code and type of an error in JSON; nil if `text` is not one.
local function parse_error(text)
  local code, kind = text:match('^{"code": ?(%d+), ?"type": ?"([%w]+)", ?"message": ?"')
  return tonumber(code), kind
end

-- The code, type and text of the error in the first bytes of a response; nil if they are not one. They
-- are the 5 bytes of the frame's header, the tag 0x0a, the length of `prediction`, and `prediction`.
local function error_in(chunk)
  if chunk:length() < 7 or chunk:getBytes(5, 1) ~= "\10" then return nil end
  local size, start = varint(chunk, 6)
  if size == nil or start + size > chunk:length() then return nil end -- errors are small
  local text = chunk:getBytes(start, size)
  local code, kind = parse_error(text)
  return code, kind, text
end

-- Give every error a gRPC status. TorchServe sends an error in a batch with other answers as a
-- prediction with the status OK.
function envoy_on_response(handle)
  local headers = handle:headers()
  if not (headers:get("content-type") or ""):find("^application/grpc") then return end
  local target = headers
  if headers:get("grpc-status") == nil then
    local code, kind, text
    local is_first = true
    for chunk in handle:bodyChunks() do
      if is_first then code, kind, text = error_in(chunk) end
      is_first = false
      if code then chunk:setBytes("") end
    end
    target = handle:trailers()
    if code and target then return finish(target, code, kind, text) end
  end
  local status = target and target:get("grpc-status")
  if status == nil or status == "0" then return end
  local text = decode_message(target:get("grpc-message") or "")
  local line = text:match("^[^\n]*")
  local code, kind = parse_error(line)
  if code == nil then
    code, kind, text = from_torchserve(text)
    line = error_json(code, kind, text)
  end
  finish(target, code, kind, line)
end
