package envoy

import (
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	celv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/filters/cel/v3"
	streamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	"google.golang.org/protobuf/types/known/structpb"
)

// accessLog is one JSON line on stderr for each model request, written after
// the sidecar's last word, so the charge is in it. Paths go without their
// query, which may hold what is nobody's business.
func accessLog(o Options) *accesslogv3.AccessLog {
	path := "%PATH(NQ)%"
	if o.rewritesPath() {
		path = "%FILTER_STATE(" + clientPathKey + ":PLAIN)%"
	}
	fields := map[string]string{
		"time":           "%START_TIME%",
		"request_id":     "%REQ(X-REQUEST-ID)%",
		"method":         "%REQ(:METHOD)%",
		"path":           path,
		"status":         "%RESPONSE_CODE%",
		"flags":          "%RESPONSE_FLAGS%",
		"details":        "%RESPONSE_CODE_DETAILS%",
		"duration_ms":    "%DURATION%",
		"bytes_received": "%BYTES_RECEIVED%",
		"bytes_sent":     "%BYTES_SENT%",
	}
	for _, name := range []string{"key_id", "model", "prompt_tokens", "completion_tokens", "total_tokens", "provenance", "upstream"} {
		fields[name] = "%DYNAMIC_METADATA(" + metadataNamespace + ":" + name + ")%"
	}
	return &accesslogv3.AccessLog{
		Name:   "envoy.access_loggers.stderr",
		Filter: when("xds.route_name == '" + upstreamRoute + "'"),
		ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: anyOf(&streamv3.StderrAccessLog{
			AccessLogFormat: &streamv3.StderrAccessLog_LogFormat{LogFormat: &corev3.SubstitutionFormatString{
				Format: &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: texts(fields)},
			}},
		})},
	}
}

// applicationLog makes Envoy's own messages JSON lines like everybody else's.
// %j is the message escaped for JSON. Times are local to the process:
// [Supervise] runs it in UTC.
func applicationLog() *bootstrapv3.Bootstrap_ApplicationLogConfig {
	return &bootstrapv3.Bootstrap_ApplicationLogConfig{LogFormat: &bootstrapv3.Bootstrap_ApplicationLogConfig_LogFormat{
		LogFormat: &bootstrapv3.Bootstrap_ApplicationLogConfig_LogFormat_JsonFormat{JsonFormat: texts(map[string]string{
			"ts":     "%Y-%m-%dT%T.%eZ",
			"level":  "%l",
			"logger": "envoy.%n",
			"msg":    "%j",
		})},
	}}
}

// when is a condition in CEL over Envoy's attributes of a finished request.
func when(expression string) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_ExtensionFilter{
		ExtensionFilter: &accesslogv3.ExtensionFilter{
			Name:       "envoy.access_loggers.extension_filters.cel",
			ConfigType: &accesslogv3.ExtensionFilter_TypedConfig{TypedConfig: anyOf(&celv3.ExpressionFilter{Expression: expression})},
		},
	}}
}

func texts(fields map[string]string) *structpb.Struct {
	s := &structpb.Struct{Fields: make(map[string]*structpb.Value, len(fields))}
	for name, text := range fields {
		s.Fields[name] = structpb.NewStringValue(text)
	}
	return s
}
