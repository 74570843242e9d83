package envoy

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	headersv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// Where patches find what Envoy Gateway has made.
const (
	xdsListener = "type.googleapis.com/envoy.config.listener.v3.Listener"
	xdsRoutes   = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"

	everyRouter  = "..http_filters[?(@.name=='envoy.filters.http.router')]"
	everyManager = "..filters[?(@.name=='envoy.filters.network.http_connection_manager')]"
)

// patches are what Envoy Gateway's own kinds cannot say. They are applied one by
// one; the lock is the first, and nothing after it depends on another.
func (g GatewayAdditions) patches() ([]xdsChange, error) {
	xds := strings.Join([]string{g.GatewayNamespace, g.Gateway, g.Section}, "/")
	cluster := "httproute/" + g.Namespace + "/" + gatewayModels + "/rule/0"
	w := &patchWriter{name: xds}

	w.add(xdsListener, everyRouter, "", filter(addedLock, lockBefore(cluster)))
	w.correctGate(g)
	strip := filter(addedStrip, &headersv3.HeaderMutation{})
	strip.Disabled = true
	w.add(xdsListener, g.gateFilter(), "", strip) // before the gate
	w.addFields(xdsListener, everyManager, "/typed_config", requestIDs())
	w.addFields(xdsListener, everyManager, "/typed_config", &hcmv3.HttpConnectionManager{
		LocalReplyConfig: addedReplies(cluster, "httproute/"+g.Namespace+"/llmgw-"),
	})

	// The same route as an Envoy without Envoy Gateway gets, as far as its own
	// kinds have no words for it.
	route := Additions{Options: g.Options, Cluster: cluster}.modelRoute()
	at := "..routes[?(@.name=~'^httproute/" + g.Namespace + "/" + gatewayModels + "/')]"
	w.add(xdsRoutes, at, "/typed_per_filter_config/"+addedStrip, route.GetTypedPerFilterConfig()[addedStrip])
	w.addRouteField(at, "", route, "request_body_buffer_limit")
	w.addRouteField(at, "/route", route.GetRoute(), "upgrade_configs")
	w.addRouteField(at, "/route", route.GetRoute(), "host_rewrite_literal")
	w.addRouteField(at, "/route", route.GetRoute(), "retry_policy")
	return w.list, w.err
}

// gateFilter finds the filter that Envoy Gateway makes of the gate's policy.
func (g GatewayAdditions) gateFilter() string {
	return "..http_filters[?(@.name=~'/" + g.Namespace + "/" + gatewayGate + "/extproc/0$')]"
}

// correctGate makes the filter ours in everything but the cluster, which is made
// of the policy. It is off but on the routes that the policy names, so the
// filter's own mode can be the full one.
func (w *patchWriter) correctGate(g GatewayAdditions) {
	gate := extProc(g.Options)
	gate.ProcessingMode = fullMode()
	again := gate.GetGrpcService().GetRetryPolicy()
	gate.GrpcService = nil
	w.addFields(xdsListener, g.gateFilter(), "/typed_config", gate)
	w.addJSON(xdsListener, g.gateFilter(), "/typed_config/failure_mode_allow", json.RawMessage("false"))
	w.add(xdsListener, g.gateFilter(), "/typed_config/grpc_service/retry_policy", again)
}

// bootstrapPatch sets the runtime's flags, which no xDS can.
func bootstrapPatch() envoyProxySpec {
	w := &patchWriter{}
	for _, layer := range addedRuntime().GetLayers() {
		w.add("", "", "/layered_runtime/layers/0", layer)
	}
	var list []patchOperation
	for _, change := range w.list {
		list = append(list, change.Operation)
	}
	return envoyProxySpec{proxyBootstrap{Type: "JSONPatch", JSONPatches: list}}
}

// patchWriter collects changes of the resources that one listener consists of.
type patchWriter struct {
	name string // of the listener and of its routes
	list []xdsChange
	err  error // the first
}

func (w *patchWriter) add(kind, at, path string, m proto.Message) {
	value, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil && w.err == nil {
		w.err = fmt.Errorf("render Envoy configuration: %w", err)
	}
	w.addJSON(kind, at, path, value)
}

func (w *patchWriter) addJSON(kind, at, path string, value json.RawMessage) {
	w.list = append(w.list, xdsChange{Type: kind, Name: w.name, Operation: patchOperation{
		Op: "add", JSONPath: at, Path: path, Value: value,
	}})
}

// addFields sets each field that the message has, and leaves the others.
func (w *patchWriter) addFields(kind, at, path string, m proto.Message) {
	fields := w.fields(m)
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		w.addJSON(kind, at, path+"/"+name, fields[name])
	}
}

// addRouteField sets one field of a route, if the message has it.
func (w *patchWriter) addRouteField(at, path string, m proto.Message, name string) {
	if value, ok := w.fields(m)[name]; ok {
		w.addJSON(xdsRoutes, at, path+"/"+name, value)
	}
}

func (w *patchWriter) fields(m proto.Message) map[string]json.RawMessage {
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	var fields map[string]json.RawMessage
	if err == nil {
		err = json.Unmarshal(text, &fields)
	}
	if err != nil && w.err == nil {
		w.err = fmt.Errorf("render Envoy configuration: %w", err)
	}
	return fields
}
