{{/* CEL: whether who asks is of this kind. Takes (dict "who" … "root" $). */}}
{{- define "bulkhead.fence.who" -}}
{{- $user := "request.userInfo.username" -}}
{{- if eq .who "operator" -}}
variables.operator
{{- else if eq .who "certManager" -}}
{{ $user }} == {{ printf "system:serviceaccount:%s:%s" .root.Values.certManager.namespace .root.Values.certManager.serviceAccount | quote }}
{{- else if eq .who "breakGlass" -}}
variables.breakGlass
{{- else if eq .who "nodes" -}}
"system:nodes" in variables.groups
{{- else if eq .who "scheduler" -}}
{{ $user }} in ["system:kube-scheduler", "system:serviceaccount:kube-system:kube-scheduler"]
{{- else if eq .who "apiServer" -}}
{{ $user }} == "system:apiserver"
{{- else if eq .who "rbac" -}}
true
{{- else -}}
{{ $user }} == {{ printf "system:serviceaccount:kube-system:%s" .who | quote }}
{{- end }}
{{- end }}

{{/* CEL: one row of fences/writers.yaml. Takes (dict "row" … "root" $). */}}
{{- define "bulkhead.fence.row" -}}
{{- $row := .row -}}
{{- $terms := list -}}
{{- if ne (first $row.resources) "*" -}}
{{- $terms = append $terms (printf "variables.resource in %s" (toJson $row.resources)) -}}
{{- end -}}
{{- with $row.in -}}
{{- $terms = append $terms (printf "variables.part in %s" (toJson .)) -}}
{{- end -}}
{{- $terms = append $terms (printf "request.operation in %s" (toJson $row.operations)) -}}
{{- $who := list -}}
{{- range $row.by -}}
{{- $who = append $who (include "bulkhead.fence.who" (dict "who" . "root" $.root)) -}}
{{- end -}}
{{- $terms = append $terms (printf "(%s)" (join " || " $who)) -}}
{{- with $row.when -}}
{{- $terms = append $terms (printf "(%s)" .) -}}
{{- end -}}
({{ join " && " $terms }})
{{- end }}

{{/* CEL: one of values' `fences.exceptions`. */}}
{{- define "bulkhead.fence.exception" -}}
(variables.resource in {{ toJson .resources }} && (request.userInfo.username in {{ toJson (.users | default list) }}{{ range .groups }} || {{ . | quote }} in variables.groups{{ end }}))
{{- end }}

{{/* What every fence's variables begin with: who asks, and whether that is the operator or an emergency. */}}
{{- define "bulkhead.fence.variables" -}}
- name: subresource
  expression: 'has(request.subResource) ? request.subResource : ""'
- name: groups
  expression: 'has(request.userInfo.groups) ? request.userInfo.groups : []'
- name: operator
  expression: request.userInfo.username == {{ printf "system:serviceaccount:%s:bulkhead-operator" .Release.Namespace | quote }}
- name: breakGlass
  expression: {{ with .Values.fences.breakGlassGroup }}'{{ printf "%q in variables.groups" . }}'{{ else }}"false"{{ end }}
{{- end }}

{{/* Metadata of a fence and of its binding. Takes (dict "name" … "root" $). Kept on uninstall as the tenants are. */}}
{{- define "bulkhead.fence.metadata" -}}
metadata:
  name: {{ .name }}
  labels:
    {{- include "bulkhead.labels" .root | nindent 4 }}
  {{- if .root.Values.crds.keep }}
  annotations:
    helm.sh/resource-policy: keep
  {{- end }}
{{- end }}

{{/* The binding of a fence, for the whole cluster: what it is about is the fence's own to say. Takes (dict "name" … "root" $), and "actions" where they differ. */}}
{{- define "bulkhead.fence.binding" -}}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
{{ include "bulkhead.fence.metadata" . }}
spec:
  policyName: {{ .name }}
  validationActions: {{ .actions | default (list "Deny" "Audit") | toJson }}
{{- end }}

{{/* What is in a tenant's namespaces. */}}
{{- define "bulkhead.fence.tenantNamespaces" -}}
namespaceSelector:
  matchExpressions:
  - {key: bulkhead.dev/tenant, operator: Exists}
{{- end }}

{{/* CEL: whether a name is one of the Secrets that cert-manager fills for Bulkhead, or keeps a next key in. */}}
{{- define "bulkhead.fence.reserved" -}}
matches("^.*-(tls|ca)(-[a-z0-9]{5})?$")
{{- end }}

{{/* CEL: whether an image is one of this repository, by any tag or digest: those of an upgrade are different ones for a
while. Takes (dict "repository" …). */}}
{{- define "bulkhead.fence.image" -}}
matches({{ printf "^%s(:[A-Za-z0-9_.-]+)?(@sha256:[0-9a-f]{64})?$" (regexQuoteMeta .repository) | quote }})
{{- end }}

{{/* CEL: whether a Secret that a pod names is none of Bulkhead's, or the pod's own account's; only a server has the second. Takes the expression of the name. */}}
{{- define "bulkhead.fence.ownSecret" -}}
(!{{ . }}.{{ include "bulkhead.fence.reserved" . }} || {{ . }} == variables.account + "-tls" || (variables.servers && {{ . }} == variables.account + ".handles-tls"))
{{- end }}
