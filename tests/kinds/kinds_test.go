// Package kinds reads the files of deploy/ into the types that their projects publish: an unknown field or a value of
// the wrong type is refused by name. What only an API server checks (CEL rules) is not checked here.
package kinds

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	certmanager "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	gateway "github.com/envoyproxy/gateway/api/v1alpha1"
	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	meshconfig "istio.io/api/mesh/v1alpha1"
	networking "istio.io/api/networking/v1alpha3"
	security "istio.io/api/security/v1beta1"
	telemetry "istio.io/api/telemetry/v1alpha1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	gatewayapi "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"
)

// The resources whose Go types are plain structs.
var structs = map[string]func() any{
	"GatewayClass":                      func() any { return new(gatewayapi.GatewayClass) },
	"gateway.networking.k8s.io/Gateway": func() any { return new(gatewayapi.Gateway) },
	"HTTPRoute":                         func() any { return new(gatewayapi.HTTPRoute) },
	"BackendTLSPolicy":                  func() any { return new(gatewayapi.BackendTLSPolicy) },
	"SecurityPolicy":                    func() any { return new(gateway.SecurityPolicy) },
	"ClientTrafficPolicy":               func() any { return new(gateway.ClientTrafficPolicy) },
	"BackendTrafficPolicy":              func() any { return new(gateway.BackendTrafficPolicy) },
	"EnvoyProxy":                        func() any { return new(gateway.EnvoyProxy) },
	"EnvoyExtensionPolicy":              func() any { return new(gateway.EnvoyExtensionPolicy) },
	"ServiceMonitor":                    func() any { return new(monitoring.ServiceMonitor) },
	"PodMonitor":                        func() any { return new(monitoring.PodMonitor) },
	"PrometheusRule":                    func() any { return new(monitoring.PrometheusRule) },
	"Certificate":                       func() any { return new(certmanager.Certificate) },
}

// Istio's: the spec is a protobuf message, and their own decoder drops what it does not know.
var messages = map[string]func() proto.Message{
	"AuthorizationPolicy":         func() proto.Message { return new(security.AuthorizationPolicy) },
	"Telemetry":                   func() proto.Message { return new(telemetry.Telemetry) },
	"EnvoyFilter":                 func() proto.Message { return new(networking.EnvoyFilter) },
	"VirtualService":              func() proto.Message { return new(networking.VirtualService) },
	"DestinationRule":             func() proto.Message { return new(networking.DestinationRule) },
	"networking.istio.io/Gateway": func() proto.Message { return new(networking.Gateway) },
	"meshConfig":                  func() proto.Message { return new(meshconfig.MeshConfig) },
}

type resource struct {
	APIVersion string          `json:"apiVersion"`
	Kind       string          `json:"kind"`
	Spec       json.RawMessage `json:"spec"`
	MeshConfig json.RawMessage `json:"meshConfig"`
}

func lookup[T any](kinds map[string]T, apiVersion, kind string) (T, bool) {
	group, _, _ := strings.Cut(apiVersion, "/")
	if found, ok := kinds[group+"/"+kind]; ok {
		return found, true
	}
	found, ok := kinds[kind]
	return found, ok
}

func decode(document []byte) error {
	var head resource
	if err := yaml.Unmarshal(document, &head); err != nil {
		return err
	}
	if len(head.MeshConfig) > 0 {
		return protojson.Unmarshal(head.MeshConfig, messages["meshConfig"]())
	}
	if fresh, ok := lookup(messages, head.APIVersion, head.Kind); ok {
		return protojson.Unmarshal(head.Spec, fresh())
	}
	if fresh, ok := lookup(structs, head.APIVersion, head.Kind); ok {
		return yaml.UnmarshalStrict(document, fresh())
	}
	return fmt.Errorf("no type is known for %s of %s: add it here", head.Kind, head.APIVersion)
}

func documents(t *testing.T, file string) [][]byte {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	var all [][]byte
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(bytes.TrimSpace(document)) > 0 {
			all = append(all, document)
		}
	}
}

// KINDS_FILES names further files, such as a rendered chart's.
func files(t *testing.T) []string {
	var all []string
	for _, pattern := range append(
		[]string{"../../deploy/envoy-gateway/*.yaml", "../../deploy/istio/*.yaml", "../../deploy/in-process/*.yaml", "../../deploy/monitoring/rules.yaml"},
		filepath.SplitList(os.Getenv("KINDS_FILES"))...,
	) {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, found...)
	}
	return all
}

func TestEveryResourceFitsItsPublishedType(t *testing.T) {
	decoded := 0
	for _, file := range files(t) {
		if filepath.Base(file) == "kustomization.yaml" || filepath.Base(file) == "envoy.yaml" {
			continue
		}
		for index, document := range documents(t, file) {
			if err := decode(document); err != nil {
				t.Errorf("%s, document %d: %v", file, index+1, err)
			}
			decoded++
		}
	}
	if decoded < 12 {
		t.Errorf("only %d resources were found", decoded)
	}
}

// The test above must be able to fail.
func TestUnknownFieldsAreRefused(t *testing.T) {
	for _, text := range []string{
		"apiVersion: gateway.envoyproxy.io/v1alpha1\nkind: SecurityPolicy\nspec: {extAuth: {failOpened: true}}",
		"apiVersion: gateway.envoyproxy.io/v1alpha1\nkind: SecurityPolicy\nspec: {extAuth: {failOpen: maybe}}",
		"apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nspec: {providers: {name: a}}",
		"meshConfig: {extensionProviders: [{name: a, envoyExtAuthzGrpc: {statusOnErrors: '503'}}]}",
		"apiVersion: v1\nkind: Nothing",
	} {
		if decode([]byte(text)) == nil {
			t.Errorf("was taken: %s", text)
		}
	}
}
