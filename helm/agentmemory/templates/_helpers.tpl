{{- define "am.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "am.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "am.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "am.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- /* labels, those of the chart last: (dict "root" $ "component" ... "more" {...}), of which more may be left out */ -}}
{{- define "am.labels" -}}
{{- $own := dict
  "app.kubernetes.io/name" (include "am.name" .root)
  "app.kubernetes.io/instance" .root.Release.Name
  "app.kubernetes.io/component" .component
  "app.kubernetes.io/version" .root.Chart.AppVersion
  "app.kubernetes.io/part-of" "agentmemory"
  "app.kubernetes.io/managed-by" .root.Release.Service
  "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version) }}
{{- toYaml (merge $own (.more | default dict) .root.Values.commonLabels) }}
{{- end -}}

{{- /* metadata of an object: (dict "root" $ "name" ... "component" ... "labels" {...} "annotations" {...}) */ -}}
{{- define "am.metadata" -}}
name: {{ .name }}
labels:
  {{- include "am.labels" (dict "root" .root "component" .component "more" .labels) | nindent 2 }}
{{- with merge (dict) (.annotations | default dict) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "am.selector" -}}
app.kubernetes.io/name: {{ include "am.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "am.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ default .root.Chart.AppVersion .image.tag }}
{{- end -}}
{{- end -}}

{{- define "am.container-security" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "am.environment" -}}
- {name: AGENTMEMORY_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
- {name: AGENTMEMORY_POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
- {name: AGENTMEMORY_SIDECAR_IMAGE, value: {{ include "am.image" (dict "root" . "image" .Values.sidecarImage) | quote }}}
- {name: AGENTMEMORY_IMAGE_PULL_POLICY, value: {{ .Values.sidecarImage.pullPolicy }}}
- {name: AGENTMEMORY_WATCH_NAMESPACES, value: {{ join "," .Values.watchNamespaces | quote }}}
- {name: AGENTMEMORY_OPS_PORT, value: "8080"}
- {name: AGENTMEMORY_LOG_FORMAT, value: {{ .Values.logFormat }}}
- {name: AGENTMEMORY_LOG_LEVEL, value: {{ .Values.logLevel }}}
{{- end -}}

{{- define "am.placement" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{- /* The operator is not to be injected, whatever its namespace asks for. */ -}}
{{- define "am.pod-metadata" -}}
labels:
  {{- $more := merge (dict "agentmemory.io/inject" "false") .values.podLabels }}
  {{- include "am.labels" (dict "root" .root "component" .component "more" $more) | nindent 2 }}
{{- with merge (dict) .values.podAnnotations .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* One replica a node where that can be, or what the values say; whose pods are counted may be left out there. */ -}}
{{- define "am.spread" -}}
{{- $pods := dict "matchLabels" (include "am.selector" . | fromYaml) }}
{{- $nodes := dict "maxSkew" 1 "topologyKey" "kubernetes.io/hostname" "whenUnsatisfiable" "ScheduleAnyway" }}
topologySpreadConstraints:
  {{- range default (list $nodes) .values.topologySpreadConstraints }}
  -
    {{- toYaml (hasKey . "labelSelector" | ternary . (set (deepCopy .) "labelSelector" $pods)) | nindent 4 }}
  {{- end }}
{{- end -}}

{{- /* an object that grants rules: once for the cluster, or in each watched namespace */ -}}
{{- define "am.grant" -}}
{{- $root := .root }}
{{- $name := printf "%s-%s" (include "am.fullname" $root) .component }}
{{- $component := .component }}
{{- $rules := .rules }}
{{- if $root.Values.watchNamespaces }}
{{- range $root.Values.watchNamespaces }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  {{- include "am.metadata" (dict "root" $root "name" $name "component" $component) | nindent 2 }}
  namespace: {{ . }}
rules:
{{ $rules }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  {{- include "am.metadata" (dict "root" $root "name" $name "component" $component) | nindent 2 }}
  namespace: {{ . }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: {{ $name }}}
subjects: [{kind: ServiceAccount, name: {{ $name }}, namespace: {{ $root.Release.Namespace }}}]
{{- end }}
{{- else }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  {{- include "am.metadata" (dict "root" $root "name" $name "component" $component) | nindent 2 }}
rules:
{{ $rules }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  {{- include "am.metadata" (dict "root" $root "name" $name "component" $component) | nindent 2 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {{ $name }}}
subjects: [{kind: ServiceAccount, name: {{ $name }}, namespace: {{ $root.Release.Namespace }}}]
{{- end }}
{{- end -}}

{{- /* The Secret with the self-managed authority: the operator derives its name from that of the certificate. */ -}}
{{- define "am.authority" -}}
{{ trimSuffix "-tls" .Values.injector.certificates.secretName }}-ca
{{- end -}}

{{- /* What the schema of the values cannot say, or not so that one understands it. */ -}}
{{- define "am.check" -}}
{{- $certificates := .Values.injector.certificates }}
{{- if and (eq $certificates.mode "cert-manager") (not $certificates.issuerRef.name) }}
{{- fail "injector.certificates.mode is cert-manager, which needs injector.certificates.issuerRef.name: the name of an issuer" }}
{{- end }}
{{- if and (eq $certificates.mode "provided") (not $certificates.caBundle) }}
{{- fail "injector.certificates.mode is provided, which needs injector.certificates.caBundle: the authority that signed the certificate, in PEM, base64" }}
{{- end }}
{{- if and (ne $certificates.mode "provided") $certificates.caBundle }}
{{- fail (printf "injector.certificates.caBundle is given, but with mode %s the chart does not set it; take it out, or set injector.certificates.mode=provided" $certificates.mode) }}
{{- end }}
{{- if eq (int .Values.injector.port) 8080 }}
{{- fail "injector.port is 8080, where the pod answers probes and metrics; give another one" }}
{{- end }}
{{- end -}}
