{{/* What both containers may do. */}}
{{- define "llm-gateway.confined" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  runAsNonRoot: true
  capabilities:
    drop: [ALL]
  seccompProfile:
    type: RuntimeDefault
{{- end }}

{{/* What both are told: the settings, and how long a stop may take. */}}
{{- define "llm-gateway.environment" -}}
- name: LLMGW_CONFIG
  value: /etc/llm-gateway/config.yaml
- name: LLMGW_ENVOY__DRAIN
  value: {{ printf "%ds" (int .Values.drainSeconds) }}
{{- end }}

{{- define "llm-gateway.probe" -}}
exec:
  command: [/usr/local/bin/llm-gateway, healthcheck, --unix-socket, /run/llm-gateway/api.sock, --url, "http://localhost/healthz/{{ . }}"]
{{- end }}

{{/* The gateway: beside Envoy a sidecar, which starts before it and ends after it. */}}
{{- define "llm-gateway.gateway" -}}
name: gateway
image: {{ include "llm-gateway.image" (dict "image" .Values.image "version" .Chart.AppVersion) }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- if .Values.envoy.enabled }}
restartPolicy: Always
{{- end }}
args:
  - serve
  {{- if include "llm-gateway.sharedBooks" . }}
  - --replica
  {{- end }}
  {{- if .Values.envoy.enabled }}
  - --grpc=unix:///run/llm-gateway/extproc.sock
  - --http=unix:///run/llm-gateway/api.sock
  - --demo=unix:///run/llm-gateway/demo.sock
  {{- else }}
  - --grpc=0.0.0.0:12001
  - --http=0.0.0.0:12002
  {{- end }}
env:
  {{- include "llm-gateway.environment" . | nindent 2 }}
  # A folder of its own: what is at the top of a volume belongs to the volume.
  - name: LLMGW_DATA
    value: /data/llm-gateway
  {{- if .Values.metrics.enabled }}
  - name: LLMGW_METRICS__LISTEN
    value: 0.0.0.0:9464
  {{- end }}
  {{- if gt (int (include "llm-gateway.most" .)) 1 }}
  - name: LLMGW_RATELIMIT__REPLICAS
    value: {{ include "llm-gateway.most" . | quote }}
  {{- end }}
  {{- range $secret, $variable := include "llm-gateway.secretVariables" . | fromYaml }}
  {{- if (get $.Values.secrets $secret).name }}
  - name: {{ $variable }}_FILE
    value: /run/secrets/llm-gateway/{{ $secret }}
  {{- end }}
  {{- end }}
  - name: GOMEMLIMIT
    value: {{ .Values.gateway.goMemLimit }}
  {{- with .Values.gateway.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- if or .Values.metrics.enabled (not .Values.envoy.enabled) }}
ports:
  {{- if not .Values.envoy.enabled }}
  - name: grpc-extproc
    containerPort: 12001
  - name: http
    containerPort: 12002
  {{- end }}
  {{- if .Values.metrics.enabled }}
  - name: metrics
    containerPort: 9464
  {{- end }}
{{- end }}
{{- if .Values.envoy.enabled }}
# It listens on no port for requests: it is asked over its socket. Envoy starts when
# the start-up probe has succeeded, and its readiness is that of both.
startupProbe:
  {{- include "llm-gateway.probe" "ready" | nindent 2 }}
  periodSeconds: 2
  timeoutSeconds: 5
  failureThreshold: 60
livenessProbe:
  {{- include "llm-gateway.probe" "live" | nindent 2 }}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
{{- else }}
startupProbe:
  httpGet: {path: /healthz/live, port: http}
  periodSeconds: 2
  timeoutSeconds: 5
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /healthz/live, port: http}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
readinessProbe:
  httpGet: {path: /healthz/ready, port: http}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 2
{{- if gt (int .Values.preStopSeconds) 0 }}
lifecycle:
  preStop:
    sleep:
      seconds: {{ .Values.preStopSeconds }}
{{- end }}
{{- end }}
resources:
  {{- toYaml .Values.gateway.resources | nindent 2 }}
{{ include "llm-gateway.confined" . }}
volumeMounts:
  - name: config
    mountPath: /etc/llm-gateway
    readOnly: true
  - name: data
    mountPath: /data
  {{- if .Values.envoy.enabled }}
  - name: sockets
    mountPath: /run/llm-gateway
  {{- end }}
  - name: gateway-tmp
    mountPath: /tmp
  {{- if include "llm-gateway.secretSources" . }}
  - name: secrets
    mountPath: /run/secrets/llm-gateway
    readOnly: true
  {{- end }}
  {{- with .Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/* Envoy. It has no secrets. */}}
{{- define "llm-gateway.envoy" -}}
name: envoy
image: {{ include "llm-gateway.image" (dict "image" .Values.envoy.image "version" .Chart.AppVersion) }}
imagePullPolicy: {{ .Values.envoy.image.pullPolicy }}
args:
  - envoy
  - --grpc=unix:///run/llm-gateway/extproc.sock
  - --http=unix:///run/llm-gateway/api.sock
  - --demo=unix:///run/llm-gateway/demo.sock
env:
  {{- include "llm-gateway.environment" . | nindent 2 }}
  - name: LLMGW_DATA
    value: /tmp/llm-gateway
  - name: LLMGW_LISTEN
    value: 0.0.0.0:12000
ports:
  - name: http
    containerPort: 12000
# Without the gateway Envoy refuses, but it is not broken: only the port is asked.
startupProbe:
  tcpSocket: {port: http}
  periodSeconds: 1
  timeoutSeconds: 3
  failureThreshold: 60
livenessProbe:
  tcpSocket: {port: http}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
readinessProbe:
  httpGet: {path: /healthz/ready, port: http}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 2
{{- if gt (int .Values.preStopSeconds) 0 }}
lifecycle:
  preStop:
    sleep:
      seconds: {{ .Values.preStopSeconds }}
{{- end }}
resources:
  {{- toYaml .Values.envoy.resources | nindent 2 }}
{{ include "llm-gateway.confined" . }}
volumeMounts:
  - name: config
    mountPath: /etc/llm-gateway
    readOnly: true
  - name: sockets
    mountPath: /run/llm-gateway
  - name: envoy-tmp
    mountPath: /tmp
  {{- with .Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/* The files of secrets, "" without any. */}}
{{- define "llm-gateway.secretSources" -}}
{{- range $id, $secret := .Values.secrets }}
{{- if $secret.name }}
- secret:
    name: {{ $secret.name }}
    items:
      - key: {{ $secret.key }}
        path: {{ $id }}
{{- end }}
{{- end }}
{{- end }}
