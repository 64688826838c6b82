{{/* Labels of everything in the release. */}}
{{- define "bulkhead.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: bulkhead
{{ include "bulkhead.selector" . }}
{{- end }}

{{/* Labels that select the operator's pods. They never change: a Deployment's selector is immutable. */}}
{{- define "bulkhead.selector" -}}
app.kubernetes.io/name: bulkhead-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* An image, by digest when there is one. Takes (dict "image" … "root" $). */}}
{{- define "bulkhead.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ .image.tag | default .root.Chart.AppVersion }}
{{- end }}
{{- end }}
