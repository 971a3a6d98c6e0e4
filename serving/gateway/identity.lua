-- Sets the request's id, the name of its client and the model in its path as headers; corrects the content type.
-- filterContext().keys holds the names of clients by key; without it, no key is required.

-- Use the client's own id if it is valid; Envoy writes `-` for a missing one.
local function choose_request_id(headers)
  local chosen = headers:get("x-gateway-request-id")
  if chosen and #chosen <= 128 and chosen:match("^[%w._-]+$") and chosen ~= "-" then
    headers:replace("x-request-id", chosen)
  end
end

-- The common name in the client's certificate, or nil. Envoy has verified the certificate.
local function certificate_name(handle)
  local ssl = handle:streamInfo():downstreamSslConnection()
  local subject = ssl and ssl:subjectPeerCertificate() or ""
  return subject:match("CN=([%w._-]+)")
end

-- The name of the client; nil and the reason if a key is required and the request has no valid one.
-- Without keys, it is the common name in the client's certificate, else the client's address.
local function client_of(handle)
  local headers = handle:headers()
  local keys = handle:filterContext():get("keys")
  if keys == nil then return certificate_name(handle) or headers:get("x-gateway-client") end
  local key = (headers:get("authorization") or ""):match("^[Bb]earer +(%S+)$")
  if key == nil then return nil, "send your key as `authorization: Bearer KEY`" end
  return keys[key], "the key is not valid"
end

-- `curl --data-binary` announces a web form. TorchServe would parse the picture as one, fail and log it.
local function correct_content_type(headers)
  local kind = (headers:get("content-type") or ""):lower()
  if kind:find("application/x-www-form-urlencoded", 1, true) then
    headers:replace("content-type", "application/octet-stream")
  end
end

function envoy_on_request(handle)
  local headers = handle:headers()
  choose_request_id(headers)
  correct_content_type(headers)
  local model = headers:get(":path"):match("^/predictions/([^/?]+)")
  if model then headers:replace("x-gateway-model", model) end
  -- If a script fails, Envoy lets the request pass: catch the error here.
  local done, client, reason = pcall(client_of, handle)
  if done and client then return headers:replace("x-gateway-client", client) end
  local json = string.format('{"code": 401, "type": "Unauthorized", "message": "%s"}',
    done and reason or "the key could not be checked")
  handle:respond({ [":status"] = "401", ["content-type"] = "application/json",
    ["www-authenticate"] = "Bearer", ["x-error-type"] = "Unauthorized" }, json)
end
