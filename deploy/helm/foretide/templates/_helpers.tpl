{{/* What every container that only talks may do: nothing. */}}
{{- define "foretide.confined" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  runAsNonRoot: true
  runAsUser: 65532
  capabilities: { drop: [ALL] }
  seccompProfile: { type: RuntimeDefault }
resources:
  requests: { cpu: 10m, memory: 32Mi }
  limits: { memory: 512Mi }
{{- end }}

{{/* Whom to talk to, and with which token. */}}
{{- define "foretide.caller" -}}
env:
  - { name: FORETIDE_CONTROL, value: {{ .Values.control.address | quote }} }
  - { name: FORETIDE_TOKEN_FILE, value: /etc/foretide/token }
volumeMounts:
  - { name: token, mountPath: /etc/foretide, readOnly: true }
{{- end }}

{{- define "foretide.token" -}}
- name: token
  secret: { secretName: {{ .Values.secret }}, defaultMode: 0444 }
{{- end }}
