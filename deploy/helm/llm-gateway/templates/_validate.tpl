{{/* What the schema cannot tell: values that contradict each other. */}}
{{- define "llm-gateway.validate" -}}
{{- range $path, $secret := include "llm-gateway.secretSettings" . | fromYaml }}
{{- if include "llm-gateway.isSet" (dict "settings" $.Values.settings "path" $path) }}
{{- fail (printf "settings.%s is a secret: put it into a Secret and name that in secrets.%s" $path $secret) }}
{{- end }}
{{- end }}
{{- range $path, $value := include "llm-gateway.ownSettings" . | fromYaml }}
{{- if include "llm-gateway.isSet" (dict "settings" $.Values.settings "path" $path) }}
{{- fail (printf "settings.%s follows from the chart's %s: set that instead" $path $value) }}
{{- end }}
{{- end }}
{{- range $env := .Values.gateway.extraEnv }}
{{- range $secret, $variable := include "llm-gateway.secretVariables" $ | fromYaml }}
{{- if has $env.name (list $variable (printf "%s_FILE" $variable)) }}
{{- fail (printf "gateway.extraEnv: %s is a secret: put it into a Secret and name that in secrets.%s" $env.name $secret) }}
{{- end }}
{{- end }}
{{- end }}
{{- if or .Values.autoscaling.enabled (gt (int .Values.replicas) 1) }}
{{- if not (include "llm-gateway.sharedBooks" .) }}
{{- fail "several gateways need books that they share: an SQLite file has one. Put a PostgreSQL URL into a Secret and name that in secrets.databaseURL, or set replicas: 1 and autoscaling.enabled: false" }}
{{- end }}
{{- if not (include "llm-gateway.redis" .) }}
{{- fail "several gateways need a Redis for their rate limits, or each key could send as many times more: put its URL into a Secret and name that in secrets.redisURL, or set settings.redis.host" }}
{{- end }}
{{- end }}
{{- if and .Values.secrets.redisURL.name (dig "redis" "host" "" .Values.settings) }}
{{- fail "secrets.redisURL and settings.redis.host are both set: keep one of them" }}
{{- end }}
{{- if and (not .Values.persistence.enabled) (not (include "llm-gateway.sharedBooks" .)) }}
{{- fail "without persistence the books would be lost with the pod: set persistence.enabled: true, or put a PostgreSQL URL into a Secret and name that in secrets.databaseURL" }}
{{- end }}
{{- if and .Values.autoscaling.enabled (gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) }}
{{- fail "autoscaling.minReplicas is above autoscaling.maxReplicas" }}
{{- end }}
{{- if and (not .Values.metrics.enabled) (or .Values.autoscaling.enabled .Values.metrics.serviceMonitor.enabled) }}
{{- fail "autoscaling and metrics.serviceMonitor read metrics: set metrics.enabled: true" }}
{{- end }}
{{- end }}
