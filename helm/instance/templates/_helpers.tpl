{{/* Labels that never change for a release: selectors are immutable. */}}
{{- define "instance.selector" -}}
app.kubernetes.io/name: {{ .Release.Name }}
berth.dev/instance: {{ index .Values.labels "berth.dev/instance" | quote }}
{{- end }}

{{- define "instance.labels" -}}
app.kubernetes.io/name: {{ .Release.Name }}
{{ toYaml .Values.labels }}
{{- end }}

{{- define "instance.pod" -}}
metadata:
  labels:
    {{- include "instance.labels" . | nindent 4 }}
  annotations:
    berth.dev/entitlement: {{ .Values.entitlement.content | sha256sum | trunc 16 | quote }}
    {{- with .Values.secret.fingerprint }}
    berth.dev/secret: {{ . | quote }}
    {{- end }}
spec:
  serviceAccountName: {{ .Values.serviceAccountName }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ .Values.workload.terminationGracePeriodSeconds }}
  securityContext:
    runAsNonRoot: true
    runAsUser: {{ int64 .Values.user }}
    runAsGroup: {{ int64 .Values.user }}
    fsGroup: {{ int64 .Values.user }}
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile:
      type: RuntimeDefault
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "instance.selector" . | nindent 10 }}
  containers:
    - name: app
      image: {{ .Values.image | quote }}
      imagePullPolicy: IfNotPresent
      ports:
        - name: http
          containerPort: {{ .Values.port }}
          protocol: TCP
      {{- if or .Values.environment .Values.secret.keys }}
      env:
        {{- range $name, $value := .Values.environment }}
        - name: {{ $name }}
          value: {{ $value | quote }}
        {{- end }}
        {{- range .Values.secret.keys }}
        - name: {{ . }}
          valueFrom:
            secretKeyRef:
              name: {{ $.Values.secret.name }}
              key: {{ . }}
        {{- end }}
      {{- end }}
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities:
          drop: [ALL]
      {{- with .Values.probe }}
      # once a second, so that a fast start is seen fast
      startupProbe:
        httpGet: {path: {{ .path | quote }}, port: http}
        periodSeconds: 1
        timeoutSeconds: {{ .timeout }}
        failureThreshold: {{ .startup }}
      readinessProbe:
        httpGet: {path: {{ .path | quote }}, port: http}
        periodSeconds: {{ .period }}
        timeoutSeconds: {{ .timeout }}
        failureThreshold: {{ .failureThreshold }}
      # a restart is the stronger remedy: it waits twice as long as readiness
      livenessProbe:
        httpGet: {path: {{ .path | quote }}, port: http}
        periodSeconds: {{ .period }}
        timeoutSeconds: {{ .timeout }}
        failureThreshold: {{ mul 2 .failureThreshold }}
      {{- end }}
      volumeMounts:
        - name: tmp
          mountPath: /tmp
        - name: entitlement
          mountPath: {{ dir .Values.entitlement.path }}
          readOnly: true
        {{- if .Values.persistence.enabled }}
        - name: data
          mountPath: {{ .Values.persistence.path }}
        {{- end }}
  volumes:
    - name: tmp
      emptyDir:
        sizeLimit: {{ .Values.tmpSize }}
    - name: entitlement
      configMap:
        name: {{ .Release.Name }}-entitlement
        items:
          - key: entitlements.json
            path: {{ base .Values.entitlement.path }}
    {{- if .Values.persistence.enabled }}
    - name: data
      persistentVolumeClaim:
        claimName: {{ .Release.Name }}-data
    {{- end }}
{{- end }}
