{{- define "librechat-tailer.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "librechat-tailer.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "librechat-tailer.selectorLabels" -}}
app.kubernetes.io/name: {{ include "librechat-tailer.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "librechat-tailer.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "librechat-tailer.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: tailer
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "librechat-tailer.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "librechat-tailer.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "librechat-tailer.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{- define "librechat-tailer.port" -}}
{{- int (default 9464 .Values.settings.TAILER_HTTP_PORT) }}
{{- end }}

{{/* Above what the tailer takes at most: TAILER_SHUTDOWN_SECONDS, its last write, the closing of connections. */}}
{{- define "librechat-tailer.gracePeriod" -}}
{{- if kindIs "invalid" .Values.terminationGracePeriodSeconds }}
{{- $shutdown := 25 }}
{{- if hasKey .Values.settings "TAILER_SHUTDOWN_SECONDS" }}
{{- $shutdown = ceil (float64 .Values.settings.TAILER_SHUTDOWN_SECONDS) }}
{{- end }}
{{- add (int64 $shutdown) 35 }}
{{- else }}
{{- int64 .Values.terminationGracePeriodSeconds }}
{{- end }}
{{- end }}

{{/* A setting as the text of a variable; large numbers come as floats and must not become 1.5e+06. */}}
{{- define "librechat-tailer.settingText" -}}
{{- if kindIs "float64" . }}
{{- if eq (floor .) . }}{{ int64 . }}{{ else }}{{ . }}{{ end }}
{{- else }}
{{- . }}
{{- end }}
{{- end }}

{{/* The one place that MONGO_URI comes from, as the rest of a variable. */}}
{{- define "librechat-tailer.mongoUri" -}}
{{- $mongodb := .Values.mongodb }}
{{- $given := compact (list $mongodb.uri $mongodb.existingSecret.name $mongodb.existingConfigMap.name) }}
{{- if gt (len $given) 1 }}
{{- fail (printf "mongodb: uri, existingSecret.name and existingConfigMap.name exclude each other; given are %s" (join " and " $given)) }}
{{- end }}
{{- if $mongodb.uri -}}
value: {{ $mongodb.uri | quote }}
{{- else if $mongodb.existingSecret.name -}}
valueFrom:
  secretKeyRef:
    name: {{ $mongodb.existingSecret.name }}
    key: {{ $mongodb.existingSecret.key }}
{{- else if $mongodb.existingConfigMap.name -}}
valueFrom:
  configMapKeyRef:
    name: {{ $mongodb.existingConfigMap.name }}
    key: {{ $mongodb.existingConfigMap.key }}
{{- else if $mongodb.librechatRelease -}}
valueFrom:
  configMapKeyRef:
    name: {{ printf "%s-librechat" $mongodb.librechatRelease | trunc 63 | trimSuffix "-" }}-configenv
    key: {{ $mongodb.existingConfigMap.key }}
{{- else }}
{{- fail "mongodb: give librechatRelease, existingConfigMap.name, existingSecret.name or uri" }}
{{- end }}
{{- end }}

{{- /* The volume of the file of destinations, empty without one. */}}
{{- define "librechat-tailer.destinations" -}}
{{- $given := .Values.destinations }}
{{- $places := compact (list $given.config $given.existingConfigMap.name $given.existingSecret.name) }}
{{- if gt (len $places) 1 }}
{{- fail "destinations: config, existingConfigMap.name and existingSecret.name exclude each other" }}
{{- end }}
{{- if regexMatch "(?m)(^|[{,.])[ \\t\"']*(secret_key|user_id_secret)[ \\t\"']*=" $given.config }}
{{- fail "destinations.config goes into a ConfigMap: name a secret by secret_key_env or secret_key_file, or give the whole file in destinations.existingSecret" }}
{{- end }}
{{- if regexMatch "(?m)(^|[{,.])[ \\t\"']*headers[ \\t\"']*[=.]|^[ \\t]*\\[.*\\.[ \\t\"']*headers[ \\t\"']*\\]" $given.config }}
{{- fail "destinations.config goes into a ConfigMap, and headers carry keys: name them by headers_env or headers_file, or give the whole file in destinations.existingSecret" }}
{{- end }}
{{- if $given.config -}}
configMap:
  name: {{ include "librechat-tailer.fullname" . }}-destinations
{{- else if $given.existingConfigMap.name -}}
configMap:
  name: {{ $given.existingConfigMap.name }}
  items:
    - key: {{ $given.existingConfigMap.key }}
      path: destinations.toml
{{- else if $given.existingSecret.name -}}
secret:
  secretName: {{ $given.existingSecret.name }}
  items:
    - key: {{ $given.existingSecret.key }}
      path: destinations.toml
{{- end }}
{{- end }}

{{- define "librechat-tailer.env" -}}
{{- $settings := .Values.settings }}
{{- /* Probes and Prometheus come from outside the pod; `::` is every address, of IPv4 and of IPv6. */}}
{{- $given := merge (dict) $settings (dict "TAILER_HTTP_HOST" "::") }}
{{- $secret := .Values.langfuse.existingSecret }}
{{- $destinations := include "librechat-tailer.destinations" . }}
- name: TAILER_MONGO_URI
  {{- include "librechat-tailer.mongoUri" . | nindent 2 }}
{{- if and .Values.state.uri .Values.state.existingSecret.name }}
{{- fail "state: uri and existingSecret.name exclude each other" }}
{{- end }}
{{- if .Values.state.uri }}
- name: TAILER_STATE_URI
  value: {{ .Values.state.uri | quote }}
{{- else if .Values.state.existingSecret.name }}
- name: TAILER_STATE_URI
  valueFrom:
    secretKeyRef:
      name: {{ .Values.state.existingSecret.name }}
      key: {{ .Values.state.existingSecret.key }}
{{- end }}
{{- if $secret.name }}
- name: LANGFUSE_PUBLIC_KEY
  valueFrom:
    secretKeyRef:
      name: {{ $secret.name }}
      key: {{ $secret.publicKeyKey }}
- name: LANGFUSE_SECRET_KEY
  valueFrom:
    secretKeyRef:
      name: {{ $secret.name }}
      key: {{ $secret.secretKeyKey }}
{{- else if eq (toString $settings.TAILER_SINK) "file" }}
{{- if not $settings.TAILER_FILE_PATH }}
{{- fail "settings.TAILER_SINK is file: give settings.TAILER_FILE_PATH too, in a volume (extraVolumes), because the root file system is read-only" }}
{{- end }}
{{- else if not (or (eq (toString $settings.LANGFUSE_ENABLED) "false") $destinations .Values.extraEnv .Values.extraEnvFrom) }}
{{- fail "langfuse.existingSecret.name is empty: give the Secret with the keys of the Langfuse project, or settings.TAILER_SINK=file" }}
{{- end }}
{{- with .Values.langfuse.headers.existingSecret }}
{{- if .name }}
- name: TAILER_LANGFUSE_HEADERS
  valueFrom:
    secretKeyRef:
      name: {{ .name }}
      key: {{ .key }}
{{- end }}
{{- end }}
{{- if $destinations }}
{{- if $settings.TAILER_DESTINATIONS }}
{{- fail "settings.TAILER_DESTINATIONS and destinations exclude each other: the chart mounts the file and names it" }}
{{- end }}
{{- if $settings.TAILER_SINK }}
{{- fail "settings.TAILER_SINK and destinations exclude each other: the file says where traces go" }}
{{- end }}
- name: TAILER_DESTINATIONS
  value: /etc/librechat-tailer/destinations/destinations.toml
{{- end }}
{{- if .Values.userIdHash.existingSecret.name }}
- name: TAILER_USER_ID_SECRET
  valueFrom:
    secretKeyRef:
      name: {{ .Values.userIdHash.existingSecret.name }}
      key: {{ .Values.userIdHash.existingSecret.key }}
{{- else if and (eq (toString $settings.TAILER_USER_ID) "hash") (not .Values.extraEnv) (not .Values.extraEnvFrom) }}
{{- fail "settings.TAILER_USER_ID is hash: give userIdHash.existingSecret.name, the Secret with the key of the hash" }}
{{- end }}
{{- if gt (int .Values.shards) 1 }}
{{- range tuple "TAILER_SHARD" "TAILER_TOTAL_SHARDS" }}
{{- if hasKey $settings . }}
{{- fail (printf "settings.%s and shards exclude each other: the chart gives every pod its number" .) }}
{{- end }}
{{- end }}
- name: TAILER_TOTAL_SHARDS
  value: {{ int .Values.shards | quote }}
- name: TAILER_SHARD
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
{{- end }}
{{- range $name, $value := $given }}
{{- if not (kindIs "invalid" $value) }}
- name: {{ $name }}
  value: {{ include "librechat-tailer.settingText" $value | quote }}
{{- end }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}
