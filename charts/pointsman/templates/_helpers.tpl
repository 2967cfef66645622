{{/* Names of objects: at most 63 characters with the longest suffix that is added. */}}
{{- define "pointsman.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "pointsman.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "pointsman.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "pointsman.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* Selectors never change, and always say which component is meant: (list $ "proxy"). */}}
{{- define "pointsman.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "pointsman.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "pointsman.labels" -}}
{{- $root := index . 0 -}}
{{ include "pointsman.selector" . }}
app.kubernetes.io/version: {{ default $root.Chart.AppVersion $root.Values.image.tag | quote }}
app.kubernetes.io/part-of: pointsman
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "pointsman.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (default .Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{/* Whole seconds of a duration as "1m30s". */}}
{{- define "pointsman.seconds" -}}
{{- $total := 0.0 -}}
{{- $scales := dict "us" 0.000001 "µs" 0.000001 "ms" 0.001 "s" 1.0 "min" 60.0 "m" 60.0 "h" 3600.0 "d" 86400.0 -}}
{{- range regexFindAll "[0-9.]+\\s*(us|µs|ms|min|s|m|h|d)" . -1 -}}
{{- $number := regexFind "[0-9.]+" . | float64 -}}
{{- $total = addf $total (mulf $number (get $scales (regexFind "[a-zµ]+" .))) -}}
{{- end -}}
{{- ceil $total | int64 -}}
{{- end -}}

{{/* How long a pod may take to end: everything that a drain waits for, and a little for the rest. */}}
{{- define "pointsman.gracePeriod" -}}
{{- if not (kindIs "invalid" .Values.terminationGracePeriodSeconds) -}}
{{- .Values.terminationGracePeriodSeconds | int64 -}}
{{- else -}}
{{- $drain := default dict .Values.config.drain -}}
{{- $delay := include "pointsman.seconds" (default "5s" $drain.delay) | int64 -}}
{{- $timeout := include "pointsman.seconds" (default "1m" $drain.timeout) | int64 -}}
{{- add $delay $timeout 5 -}}
{{- end -}}
{{- end -}}

{{- define "pointsman.backend" -}}
{{- dig "coordination" "backend" "local" .Values.config -}}
{{- end -}}

{{/* The name of the record of the cluster: its own for each release, so that two releases never share one. */}}
{{- define "pointsman.recordName" -}}
{{- dig "coordination" "name" "" .Values.config | default (include "pointsman.fullname" .) -}}
{{- end -}}

{{- define "pointsman.recordNamespace" -}}
{{- dig "coordination" "namespace" "" .Values.config | default .Release.Namespace -}}
{{- end -}}

{{- define "pointsman.authSecret" -}}
{{- default (printf "%s-auth" (include "pointsman.fullname" .)) .Values.auth.existingSecret -}}
{{- end -}}

{{/* What the chart adds to both configurations: the files of mounted Secrets, and the record. */}}
{{- define "pointsman.commonConfig" -}}
{{- $values := .Values -}}
{{- $admin := dict "socket" "/run/pointsman/admin.sock" -}}
{{- with $values.admin.existingSecret -}}
{{- $_ := set $admin "token_file" (printf "/etc/pointsman/admin/%s" $values.admin.tokenKey) -}}
{{- end -}}
{{- $config := dict "password_file" (printf "/etc/pointsman/auth/%s" $values.auth.passwordKey) "admin" $admin -}}
{{- with $values.auth.replicationPasswordKey -}}
{{- $_ := set $config "replication" (dict "password_file" (printf "/etc/pointsman/auth/%s" .)) -}}
{{- end -}}
{{- if $values.tls.existingSecret -}}
{{- $tls := dict "cert_file" "/etc/pointsman/tls/tls.crt" "key_file" "/etc/pointsman/tls/tls.key" -}}
{{- if $values.tls.clientCa -}}
{{- $_ := set $tls "client_ca_file" "/etc/pointsman/tls/ca.crt" -}}
{{- end -}}
{{- $_ := set $config "tls" $tls -}}
{{- end -}}
{{- if $values.backendTls.existingSecret -}}
{{- $tls := dict "ca_file" "/etc/pointsman/backend-tls/ca.crt" -}}
{{- $_ := set $tls "mode" (dig "backend_tls" "mode" "verify-ca" $values.config) -}}
{{- if $values.backendTls.clientCertificate -}}
{{- $_ := set $tls "cert_file" "/etc/pointsman/backend-tls/tls.crt" -}}
{{- $_ := set $tls "key_file" "/etc/pointsman/backend-tls/tls.key" -}}
{{- end -}}
{{- $_ := set $config "backend_tls" $tls -}}
{{- end -}}
{{- if eq (include "pointsman.backend" .) "kubernetes" -}}
{{- $record := dict "name" (include "pointsman.recordName" .) "namespace" (include "pointsman.recordNamespace" .) -}}
{{- $_ := set $config "coordination" $record -}}
{{- end -}}
{{- toJson $config -}}
{{- end -}}

{{/* pointsman.json of the proxies. JSON, because Helm writes whole numbers as floats into TOML. */}}
{{- define "pointsman.proxyConfig" -}}
{{- $values := .Values -}}
{{- $host := $values.listenHost -}}
{{- $listen := dict "rw" (dict "address" (printf "%s:%v" $host $values.ports.mysql)) -}}
{{- if $values.readOnlyService.enabled -}}
{{- $_ := set $listen "ro" (dict "address" (printf "%s:%v" $host $values.ports.mysqlReadOnly)) -}}
{{- end -}}
{{- $own := dict "listen" $listen "admin" (dict "address" (printf "%s:%v" $host $values.ports.admin)) -}}
{{- $config := omit (deepCopy $values.config) "vip" -}}
{{- mustMergeOverwrite $config (include "pointsman.commonConfig" . | fromJson) $own | toPrettyJson -}}
{{- end -}}

{{/* pointsman.json of the directors: they hold the virtual address and serve no clients of their own. */}}
{{- define "pointsman.directorConfig" -}}
{{- $listen := dict "rw" (dict "address" "" "socket" "/run/pointsman/mysql.sock") -}}
{{- $config := omit (deepCopy .Values.config) "listen" -}}
{{- mustMergeOverwrite $config (include "pointsman.commonConfig" . | fromJson) (dict "listen" $listen) | toPrettyJson -}}
{{- end -}}

{{- define "pointsman.configVolume" -}}
{{- $root := index . 0 -}}
{{- $name := index . 1 -}}
- name: config
{{- if $root.Values.configAsSecret }}
  secret:
    secretName: {{ $name }}
    defaultMode: 0440
{{- else }}
  configMap:
    name: {{ $name }}
{{- end }}
{{- end -}}
