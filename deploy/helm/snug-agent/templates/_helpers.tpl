{{- define "snug.labels" -}}
app.kubernetes.io/name: snug-agent
{{- end }}

{{- define "snug.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- /* The name in the certificate of the agents. */ -}}
{{- define "snug.serverName" -}}
snug-agent.{{ .Release.Namespace }}.svc
{{- end }}

{{- /* Where the runtime has its bundles. */ -}}
{{- define "snug.bundles" -}}
{{- if eq .Values.runtime "cri-o" -}}
/run/containers/storage/overlay-containers
{{- else if eq .Values.runtime "k3s" -}}
/run/k3s/containerd/io.containerd.runtime.v2.task
{{- else -}}
/run/containerd/io.containerd.runtime.v2.task
{{- end }}
{{- end }}
