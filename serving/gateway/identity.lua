-- Who asks for what: the request's id, the client that its key names, the model in its path.
-- filterContext().keys holds the names of clients by key; without it, no key is needed.

local function choose_request_id(headers)
  local chosen = headers:get("x-gateway-request-id")
  if chosen and #chosen <= 128 and chosen:match("^[%w._-]+$") and chosen ~= "-" then
    headers:replace("x-request-id", chosen)
  end
end

-- The name in the certificate that the client has shown, or nil. Envoy has verified it.
local function certificate_name(handle)
  local ssl = handle:connection():ssl()
  local subject = ssl and ssl:subjectPeerCertificate() or ""
  return subject:match("CN=([%w._-]+)")
end

-- The name of the client whose key the request has; nil and the reason if it has none. Any client
-- may ask if there are no keys: under the name in its certificate, else under its address.
local function client_of(handle)
  local headers = handle:headers()
  local keys = handle:filterContext():get("keys")
  if keys == nil then return certificate_name(handle) or headers:get("x-gateway-client") end
  local key = (headers:get("authorization") or ""):match("^[Bb]earer +(%S+)$")
  if key == nil then return nil, "send your key as `authorization: Bearer KEY`" end
  return keys[key], "the key is not valid"
end

function envoy_on_request(handle)
  local headers = handle:headers()
  choose_request_id(headers)
  local model = headers:get(":path"):match("^/predictions/([^/?]+)")
  if model then headers:replace("x-gateway-model", model) end
  -- Envoy lets a request pass whose script fails.
  local done, client, reason = pcall(client_of, handle)
  if done and client then return headers:replace("x-gateway-client", client) end
  local json = string.format('{"code": 401, "type": "Unauthorized", "message": "%s"}',
    done and reason or "the key could not be checked")
  handle:respond({ [":status"] = "401", ["content-type"] = "application/json",
    ["www-authenticate"] = "Bearer", ["x-error-type"] = "Unauthorized" }, json)
end
