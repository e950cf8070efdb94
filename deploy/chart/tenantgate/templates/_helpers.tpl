{{- define "tenantgate.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "tenantgate.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- $name := include "tenantgate.name" . }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "tenantgate.selectorLabels" -}}
app.kubernetes.io/name: {{ include "tenantgate.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "tenantgate.labels" -}}
{{ include "tenantgate.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "tenantgate.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "tenantgate.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "tenantgate.image" -}}
{{- $registry := default .Values.image.registry .Values.global.imageRegistry }}
{{- $name := printf "%s/%s" $registry .Values.image.repository }}
{{- if .Values.image.digest }}
{{- printf "%s@%s" $name .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" $name (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{- define "tenantgate.configMapName" -}}
{{- default (include "tenantgate.fullname" .) .Values.existingConfigMap }}
{{- end }}

{{/* One listener: its address alone, or with the certificate that is mounted for it. */}}
{{- define "tenantgate.listener" -}}
{{- $tls := .listener.tls | default dict }}
{{- if $tls.secretName -}}
address: 0.0.0.0:{{ .listener.port }}
tls:
  cert_file: /etc/tenantgate-tls/{{ .name }}/tls.crt
  key_file: /etc/tenantgate-tls/{{ .name }}/tls.key
  {{- if $tls.clientCertificates }}
  client_ca_file: /etc/tenantgate-tls/{{ .name }}/ca.crt
  {{- end }}
{{- end }}
{{- end }}

{{/* The `listen` section. */}}
{{- define "tenantgate.listen" -}}
{{- $listen := dict }}
{{- if eq .Values.shape "sidecar" }}
{{- $_ := set $listen "check" "unix:/run/tenantgate/check.sock" }}
{{- if .Values.listen.token.enabled }}
{{- $_ := set $listen "token" (printf "127.0.0.1:%v" .Values.listen.token.port) }}
{{- end }}
{{- if .Values.listen.management.enabled }}
{{- $_ := set $listen "management" (printf "127.0.0.1:%v" .Values.listen.management.port) }}
{{- end }}
{{- else }}
{{- range $name := list "check" "token" "management" }}
{{- $listener := index $.Values.listen $name }}
{{- if or (eq $name "check") $listener.enabled }}
{{- $tls := include "tenantgate.listener" (dict "name" $name "listener" $listener) }}
{{- if $tls }}
{{- $_ := set $listen $name (fromYaml $tls) }}
{{- else }}
{{- $_ := set $listen $name (printf "0.0.0.0:%v" $listener.port) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- $_ := set $listen "admin" (printf "0.0.0.0:%v" .Values.listen.admin.port) }}
{{- toYaml $listen }}
{{- end }}

{{/* tenantgate.yaml. `urlKey` is the file of the database's URL. */}}
{{- define "tenantgate.config" -}}
{{- $config := deepCopy .Values.config }}
{{- $_ := set $config "listen" (fromYaml (include "tenantgate.listen" .)) }}
{{- if .Values.state.postgres.enabled }}
{{- $state := dict "postgres" (dict "url_file" "/etc/tenantgate/secrets/state-url") }}
{{- $_ := set $state "snapshot_file" "/var/lib/tenantgate/state.snapshot" }}
{{- if .Values.state.keySecret }}
{{- $_ := set $state "key_file" "/etc/tenantgate/secrets/state.key" }}
{{- end }}
{{- $_ := set $config "state" $state }}
{{- end }}
{{- if and .Values.listen.management.enabled .Values.listen.management.tokenSecret }}
{{- $_ := set $config "management" (dict "token_file" "/etc/tenantgate/secrets/management-token") }}
{{- end }}
{{- toYaml $config }}
{{- end }}

{{/* The one projected volume of the config and what it names, so that an update of it is seen as a whole. */}}
{{- define "tenantgate.configVolume" -}}
name: config
projected:
  defaultMode: 0400
  sources:
    - configMap:
        name: {{ .configMap }}
    {{- with .root.Values.secrets.clients }}
    - secret:
        name: {{ . }}
        items:
          - { key: clients.yaml, path: clients.yaml }
    {{- end }}
    {{- with .root.Values.secrets.tenantDigest }}
    - secret:
        name: {{ . }}
        items:
          - { key: tenant-digest.key, path: secrets/tenant-digest.key }
    {{- end }}
    {{- with .root.Values.secrets.lookupClient }}
    - secret:
        name: {{ . }}
        items:
          - { key: lookup-client, path: secrets/lookup-client }
    {{- end }}
    {{- with .root.Values.state.keySecret }}
    - secret:
        name: {{ . }}
        items:
          - { key: state.key, path: secrets/state.key }
    {{- end }}
    {{- if .root.Values.state.postgres.enabled }}
    - secret:
        name: {{ required "state.postgres.urlSecret: name the Secret that holds the database's URL" .urlSecret }}
        items:
          - { key: state-url, path: secrets/state-url }
    {{- end }}
    {{- if .root.Values.listen.management.enabled }}
    {{- with .root.Values.listen.management.tokenSecret }}
    - secret:
        name: {{ . }}
        items:
          - { key: management-token, path: secrets/management-token }
    {{- end }}
    {{- end }}
{{- end }}

{{- define "tenantgate.signingKeysVolume" -}}
{{- with .Values.secrets.signingKeys }}
# A volume of its own: the names of the key files are not known here.
- name: signing-keys
  secret:
    secretName: {{ . }}
    defaultMode: 0400
{{- end }}
{{- end }}

{{- define "tenantgate.stateVolume" -}}
{{- if .Values.state.postgres.enabled }}
# The local copy of the state: a container that restarts while the database is away goes on with it.
- name: state
  emptyDir: { sizeLimit: {{ .Values.state.snapshotSizeLimit }} }
{{- end }}
{{- end }}

{{/* The container, in both shapes. */}}
{{- define "tenantgate.container" -}}
name: tenantgate
image: {{ include "tenantgate.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- if eq .Values.shape "sidecar" }}
restartPolicy: Always
{{- end }}
args:
  - serve
  - --config
  - /etc/tenantgate/tenantgate.yaml
  {{- range .Values.extraArgs }}
  - {{ . | quote }}
  {{- end }}
{{- with .Values.extraEnv }}
env:
  {{- toYaml . | nindent 2 }}
{{- end }}
ports:
  {{- if eq .Values.shape "deployment" }}
  - { name: check, containerPort: {{ .Values.listen.check.port }} }
  {{- if .Values.listen.token.enabled }}
  - { name: token, containerPort: {{ .Values.listen.token.port }} }
  {{- end }}
  {{- if .Values.listen.management.enabled }}
  - { name: management, containerPort: {{ .Values.listen.management.port }} }
  {{- end }}
  {{- end }}
  - { name: admin, containerPort: {{ .Values.listen.admin.port }} }
# /livez: a process that is up but not ready yet must not be restarted.
startupProbe:
  httpGet: { path: /livez, port: admin }
  {{- toYaml .Values.startupProbe | nindent 2 }}
livenessProbe:
  httpGet: { path: /livez, port: admin }
  {{- toYaml .Values.livenessProbe | nindent 2 }}
readinessProbe:
  httpGet: { path: /readyz, port: admin }
  {{- toYaml .Values.readinessProbe | nindent 2 }}
resources:
  {{- toYaml .Values.resources | nindent 2 }}
securityContext:
  {{- toYaml .Values.securityContext | nindent 2 }}
# Whole volumes, no subPath: a subPath mount never sees an update of its Secret.
volumeMounts:
  - { name: config, mountPath: /etc/tenantgate, readOnly: true }
  {{- if .Values.secrets.signingKeys }}
  - { name: signing-keys, mountPath: /etc/tenantgate-keys, readOnly: true }
  {{- end }}
  {{- if .Values.state.postgres.enabled }}
  - { name: state, mountPath: /var/lib/tenantgate }
  {{- end }}
  {{- if eq .Values.shape "sidecar" }}
  - { name: check-socket, mountPath: /run/tenantgate }
  {{- else }}
  {{- range $name := list "check" "token" "management" }}
  {{- if (index $.Values.listen $name).tls.secretName }}
  - { name: {{ $name }}-tls, mountPath: /etc/tenantgate-tls/{{ $name }}, readOnly: true }
  {{- end }}
  {{- end }}
  {{- end }}
  {{- with .Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
