{{- define "llm-gateway.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 52 | trimSuffix "-" }}
{{- end }}

{{- define "llm-gateway.fullname" -}}
{{- $name := include "llm-gateway.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "llm-gateway.selector" -}}
app.kubernetes.io/name: {{ include "llm-gateway.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "llm-gateway.labels" -}}
{{ include "llm-gateway.selector" . }}
app.kubernetes.io/component: gateway
app.kubernetes.io/part-of: llm-gateway
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "llm-gateway.metadata" -}}
name: {{ include "llm-gateway.fullname" . }}
namespace: {{ .Release.Namespace }}
labels:
  {{- include "llm-gateway.labels" . | nindent 2 }}
{{- end }}

{{- define "llm-gateway.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "llm-gateway.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- required "serviceAccount.name: name the account that exists, or set serviceAccount.create: true" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* An image, pinned: digest, else tag, else the chart's appVersion. */}}
{{- define "llm-gateway.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ default .version .image.tag }}
{{- end -}}
{{- end }}

{{/* Whether several gateways can keep the books: "true", or nothing. */}}
{{- define "llm-gateway.sharedBooks" -}}
{{- if .Values.secrets.databaseURL.name }}true{{ end }}
{{- end }}

{{- define "llm-gateway.redis" -}}
{{- if or .Values.secrets.redisURL.name (dig "redis" "host" "" .Values.settings) }}true{{ end }}
{{- end }}

{{/* How many gateways there can be at the same time. */}}
{{- define "llm-gateway.most" -}}
{{- if .Values.autoscaling.enabled }}{{ .Values.autoscaling.maxReplicas }}{{ else }}{{ .Values.replicas }}{{ end }}
{{- end }}

{{- define "llm-gateway.kind" -}}
{{- if .Values.persistence.enabled }}StatefulSet{{ else }}Deployment{{ end }}
{{- end }}
