-- For gRPC calls: writes the version that the queue has chosen into the message. TorchServe's own default
-- would answer the call of a client that has been given another version.

local SERVICE = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/"

local function big_endian(value)
  return string.char(math.floor(value / 16777216) % 256, math.floor(value / 65536) % 256,
    math.floor(value / 256) % 256, value % 256)
end

function envoy_on_request(handle)
  local version = handle:headers():get("x-gateway-version")
  if version == nil or handle:headers():get(":path"):sub(1, #SERVICE) ~= SERVICE then return end
  local body = handle:body(true)
  local headers = handle:headers() -- body() waits, which invalidates earlier objects
  -- model_version, field 2; the last value of a field counts.
  local added = "\18" .. string.char(#version) .. version
  local size = body:length() - 5
  body:setBytes("\0" .. big_endian(size + #added) .. body:getBytes(5, size) .. added)
  headers:replace("content-length", tostring(body:length()))
end
