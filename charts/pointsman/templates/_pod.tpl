{{/* What the containers of proxies and directors have in common. */}}

{{/* Secrets are files, so that a new one needs no new pod, and nothing is seen in the pod's description. */}}
{{- define "pointsman.secretVolumes" -}}
- name: auth
  secret:
    secretName: {{ include "pointsman.authSecret" . }}
    defaultMode: 0440
{{- range $name, $secret := include "pointsman.otherSecrets" . | fromJson }}
- name: {{ $name }}
  secret:
    secretName: {{ $secret }}
    defaultMode: 0440
{{- end }}
- name: run
  emptyDir:
    medium: Memory
    sizeLimit: 1Mi
{{- end -}}

{{- define "pointsman.otherSecrets" -}}
{{- $secrets := dict -}}
{{- with .Values.users.existingSecret }}{{ $_ := set $secrets "users" . }}{{ end -}}
{{- with .Values.tls.existingSecret }}{{ $_ := set $secrets "tls" . }}{{ end -}}
{{- with .Values.backendTls.existingSecret }}{{ $_ := set $secrets "backend-tls" . }}{{ end -}}
{{- with .Values.admin.existingSecret }}{{ $_ := set $secrets "admin" . }}{{ end -}}
{{- toJson $secrets -}}
{{- end -}}

{{/* Whole directories, never a subPath: only those follow when Kubernetes swaps their content. */}}
{{- define "pointsman.mounts" -}}
- name: config
  mountPath: /etc/pointsman/config
  readOnly: true
- name: auth
  mountPath: /etc/pointsman/auth
  readOnly: true
{{- range $name, $secret := include "pointsman.otherSecrets" . | fromJson }}
- name: {{ $name }}
  mountPath: /etc/pointsman/{{ $name }}
  readOnly: true
{{- end }}
- name: run
  mountPath: /run/pointsman
{{- end -}}

{{- define "pointsman.probes" -}}
{{- $probes := .Values.probes -}}
startupProbe:
  httpGet:
    path: /startupz
    port: admin
  periodSeconds: 2
  timeoutSeconds: {{ $probes.timeoutSeconds }}
  failureThreshold: {{ $probes.startupFailureThreshold }}
livenessProbe:
  httpGet:
    path: /livez
    port: admin
  periodSeconds: {{ $probes.periodSeconds }}
  timeoutSeconds: {{ $probes.timeoutSeconds }}
  failureThreshold: {{ $probes.livenessFailureThreshold }}
readinessProbe:
  httpGet:
    path: /readyz
    port: admin
  periodSeconds: {{ $probes.periodSeconds }}
  timeoutSeconds: {{ $probes.timeoutSeconds }}
  failureThreshold: {{ $probes.readinessFailureThreshold }}
{{- end -}}

{{- define "pointsman.lifecycle" -}}
preStop:
  exec:
    command: [pointsman, drain, --local, --endpoint, "unix:/run/pointsman/admin.sock"]
{{- end -}}

{{- define "pointsman.podCommon" -}}
{{- $values := .Values -}}
serviceAccountName: {{ include "pointsman.serviceAccountName" . }}
automountServiceAccountToken: {{ eq (include "pointsman.backend" .) "kubernetes" }}
# The names of other Services would come in as POINTSMAN_... variables.
enableServiceLinks: false
terminationGracePeriodSeconds: {{ include "pointsman.gracePeriod" . }}
{{- with $values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $values.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with $values.schedulerName }}
schedulerName: {{ . }}
{{- end }}
{{- with $values.hostAliases }}
hostAliases:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
