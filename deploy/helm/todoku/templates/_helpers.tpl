{{- define "todoku.name" -}}
{{- printf "%s-%s" .release .service | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "todoku.selector" -}}
app.kubernetes.io/name: todoku
app.kubernetes.io/instance: {{ .release }}
app.kubernetes.io/component: {{ .service }}
{{- end -}}

{{- define "todoku.labels" -}}
{{ include "todoku.selector" (dict "release" .root.Release.Name "service" .service) }}
app.kubernetes.io/part-of: todoku
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{- define "todoku.scheme" -}}
{{- if not (or .Values.behindProxy .Values.tls.existingSecret) -}}
{{- fail "behindProxy is false: services that clients reach directly need a certificate, tls.existingSecret" -}}
{{- end -}}
{{- ternary "https" "http" (ne .Values.tls.existingSecret "") -}}
{{- end -}}

{{/* What all containers share that serve HTTP: variables, and the certificate. */}}
{{- define "todoku.tlsVariables" -}}
{{- if .Values.tls.existingSecret -}}
- name: TODOKU_TLS_CERT
  value: /run/secrets/tls/tls.crt
- name: TODOKU_TLS_KEY
  value: /run/secrets/tls/tls.key
{{- end -}}
{{- end -}}

{{- define "todoku.tlsMount" -}}
{{- if .Values.tls.existingSecret -}}
- {name: tls, mountPath: /run/secrets/tls, readOnly: true}
{{- end -}}
{{- end -}}

{{- define "todoku.tlsVolume" -}}
{{- with .Values.tls.existingSecret -}}
- name: tls
  secret:
    secretName: {{ . }}
{{- end -}}
{{- end -}}

{{- define "todoku.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The container of a service, or of its migration: dict "root" "service" "command". */}}
{{- define "todoku.container" -}}
{{- $values := .root.Values -}}
{{- $service := index $values.services .service -}}
name: {{ .service }}
image: {{ include "todoku.image" .root | quote }}
imagePullPolicy: {{ $values.image.pullPolicy }}
args: {{ toJson .args }}
env:
  - name: TODOKU_DATA_DIR
    value: /data/todoku # A folder of its own: Kubernetes makes /data writable by everybody.
  - name: TODOKU_{{ .service | upper }}_PORT
    value: {{ $service.port | quote }}
  {{- if $values.nats.existingSecret.name }}
  - name: TODOKU_NATS_URL_FILE
    value: /run/secrets/todoku/nats
  {{- else }}
  - name: TODOKU_NATS_URL
    value: {{ $values.nats.url | quote }}
  {{- end }}
  {{- if $values.nats.seeds.existingSecret }}
  - name: TODOKU_NATS_SEED_FILE
    value: /run/secrets/todoku/nats.nk
  - name: TODOKU_NATS_API_PREFIX
    value: {{ $values.nats.apiPrefix | quote }}
  {{- end }}
  {{- if $values.nats.ca.existingSecret }}
  - name: TODOKU_NATS_CA_FILE
    value: /run/secrets/todoku/nats-ca.pem
  {{- end }}
  - name: TODOKU_AUTH
    value: required
  {{- if and (eq .service "orders") $values.auth.bootstrapKey.existingSecret }}
  - name: TODOKU_BOOTSTRAP_KEY_FILE
    value: /run/secrets/todoku/bootstrap-key
  {{- end }}
  - name: TODOKU_STREAM_REPLICAS
    value: {{ $values.nats.streamReplicas | quote }}
  - name: TODOKU_PARTITIONS
    value: {{ $values.partitions | quote }}
  - name: TODOKU_BEHIND_PROXY
    value: {{ $values.behindProxy | quote }}
  - name: TODOKU_DRAIN_SECONDS
    value: {{ $values.drainSeconds | quote }}
  - name: TODOKU_SHUTDOWN_GRACE_SECONDS
    value: {{ $values.shutdownGraceSeconds | quote }}
  - name: TODOKU_{{ .service | upper }}_DATABASE_URL_FILE
    value: /run/secrets/todoku/database
  {{- with include "todoku.tlsVariables" .root }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- range $name, $value := merge (deepCopy $service.settings) $values.settings }}
  - name: {{ $name }}
    value: {{ $value | quote }}
  {{- end }}
resources: {{ toJson $values.resources }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: ["ALL"]
volumeMounts:
  - name: secrets
    mountPath: /run/secrets/todoku
    readOnly: true
  - name: data
    mountPath: /data
  {{- with include "todoku.tlsMount" .root }}
  {{- . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* What all pods share. */}}
{{- define "todoku.commonPod" -}}
automountServiceAccountToken: false
enableServiceLinks: false # Their variables begin with TODOKU_, too.
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile:
    type: RuntimeDefault
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{ toJson . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{ toJson . }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{ toJson . }}
{{- end }}
{{- with .Values.affinity }}
affinity: {{ toJson . }}
{{- end }}
{{- end -}}

{{/* What the pods of a service and of its migration share: dict "root" "service". */}}
{{- define "todoku.pod" -}}
{{- $values := .root.Values -}}
{{- $service := index $values.services .service -}}
{{ include "todoku.commonPod" .root }}
volumes:
  - name: data
    emptyDir:
      medium: Memory
      sizeLimit: 16Mi
  {{- with include "todoku.tlsVolume" .root }}
  {{- . | nindent 2 }}
  {{- end }}
  - name: secrets
    projected:
      sources:
        - secret:
            name: {{ $service.database.existingSecret }}
            items:
              - key: {{ $service.database.key }}
                path: database
        {{- if and (eq .service "orders") $values.auth.bootstrapKey.existingSecret }}
        - secret:
            name: {{ $values.auth.bootstrapKey.existingSecret }}
            items:
              - key: {{ $values.auth.bootstrapKey.key }}
                path: bootstrap-key
        {{- end }}
        {{- if $values.nats.existingSecret.name }}
        - secret:
            name: {{ $values.nats.existingSecret.name }}
            items:
              - key: {{ $values.nats.existingSecret.key }}
                path: nats
        {{- end }}
        {{- with $values.nats.seeds.existingSecret }}
        - secret:
            name: {{ . }}
            items:
              - key: {{ $.service }}.nk
                path: nats.nk
        {{- end }}
        {{- with $values.nats.ca.existingSecret }}
        - secret:
            name: {{ . }}
            items:
              - key: {{ $values.nats.ca.key }}
                path: nats-ca.pem
        {{- end }}
{{- end -}}
