{{/* What a Secret may hold, and the variable that names the file of it. */}}
{{- define "llm-gateway.secretVariables" -}}
upstreamKey: LLM_API_KEY
databaseURL: DATABASE_URL
redisURL: REDIS_URL
redisPassword: REDIS_PASSWORD
pepper: LLMGW_KEY_PEPPER
adminToken: LLMGW_ADMIN__TOKEN
allowedKeys: ALLOWED_API_KEYS
{{- end }}

{{/* Where each of them would stand in settings, which it may not. */}}
{{- define "llm-gateway.secretSettings" -}}
upstream.api_key: upstreamKey
database.url: databaseURL
redis.url: redisURL
redis.password: redisPassword
auth.pepper: pepper
admin.token: adminToken
auth.allowed_keys: allowedKeys
{{- end }}

{{/* Settings that follow from other values of the chart. */}}
{{- define "llm-gateway.ownSettings" -}}
listen: service.port
data: persistence
envoy.path: envoy.image
envoy.drain: drainSeconds
metrics.listen: metrics.enabled
ratelimit.replicas: replicas
{{- end }}

{{/* Settings that a running gateway or Envoy does not take up. */}}
{{- define "llm-gateway.restartSettings" -}}
- upstream.url
- upstream.timeout
- upstream.ca_file
- limits.window
- request.max_bytes
- database.lease
- settle.max_wait
- reserve.max_wait
- redis.host
- redis.port
- redis.db
- redis.username
- redis.tls
- redis.ca_file
- redis.prefix
- ratelimit.on_error
- cors.origins
- cors.credentials
- cors.max_age
- admin.listen
{{- end }}

{{/* Whether a path is set: {settings, path} gives "true", or nothing. */}}
{{- define "llm-gateway.isSet" -}}
{{- $words := splitList "." .path }}
{{- $value := get .settings (first $words) }}
{{- if eq (len $words) 1 }}
{{- if $value }}true{{ end }}
{{- else if kindIs "map" $value }}
{{- if get $value (last $words) }}true{{ end }}
{{- end }}
{{- end }}

{{/* Changes when something that needs a start of the pods does. */}}
{{- define "llm-gateway.restartDigest" -}}
{{- $found := dict }}
{{- range $path := include "llm-gateway.restartSettings" . | fromYamlArray }}
{{- $words := splitList "." $path }}
{{- $section := get $.Values.settings (first $words) }}
{{- if kindIs "map" $section }}
{{- if hasKey $section (last $words) }}
{{- $_ := set $found $path (get $section (last $words)) }}
{{- end }}
{{- end }}
{{- end }}
{{- $found | toJson | sha256sum | trunc 16 }}
{{- end }}

{{/* The port of the model server, "" for the demo model. */}}
{{- define "llm-gateway.upstreamPort" -}}
{{- $url := dig "upstream" "url" "" .Values.settings | lower }}
{{- if $url }}
{{- $host := regexReplaceAll "^[a-z]+://" $url "" | splitList "/" | first }}
{{- $port := regexFind ":[0-9]+$" $host | trimPrefix ":" }}
{{- default (ternary "443" "80" (hasPrefix "https://" $url)) $port }}
{{- end }}
{{- end }}
