{{- define "nodewatch.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{- define "nodewatch.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "nodewatch.labels" -}}
{{ include "nodewatch.selector" . }}
app.kubernetes.io/part-of: nodewatch
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "nodewatch.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (ternary (include "nodewatch.fullname" .) "default" .Values.serviceAccount.create) -}}
{{- end }}

{{- define "nodewatch.priorityClass" -}}
{{- .Values.priorityClass.name | default (ternary (include "nodewatch.fullname" .) "" .Values.priorityClass.create) -}}
{{- end }}

{{- define "nodewatch.image" -}}
{{- with .Values.image.digest -}}
{{ $.Values.image.repository }}@{{ . }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{- /* Something if metrics have TLS or ask for credentials. */ -}}
{{- define "nodewatch.web" -}}
{{- if or .Values.metrics.tls.enabled .Values.metrics.auth.users .Values.metrics.auth.tokenSecret -}}
yes
{{- end -}}
{{- end }}

{{- /* Where the kubelet asks: without a host at the pod's address, which is the node's. */ -}}
{{- define "nodewatch.probe" -}}
{{- $root := index . 0 -}}
{{- if not $root.Values.metrics.exposed -}}
host: 127.0.0.1
{{ end -}}
path: {{ index . 1 }}
port: {{ int $root.Values.metrics.port }}
{{- if $root.Values.metrics.tls.enabled }}
scheme: HTTPS
{{- end }}
{{- end }}

{{- /* TOML of the settings: numbers in values are floating-point numbers, the agent's are whole. */ -}}
{{- define "nodewatch.toml" -}}
{{- range $key, $value := .Values.config }}
{{- if not (kindIs "map" $value) }}
{{ $key }} = {{ include "nodewatch.tomlValue" $value }}
{{- end }}
{{- end }}
{{- range $key, $value := .Values.config }}
{{- if kindIs "map" $value }}

[{{ $key }}]
{{- range $inner, $value := $value }}
{{ $inner }} = {{ include "nodewatch.tomlValue" $value }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "nodewatch.tomlValue" -}}
{{- if kindIs "float64" . -}}
{{ int64 . }}
{{- else -}}
{{ toJson . }}
{{- end -}}
{{- end }}
