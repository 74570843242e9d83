package envoy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"syscall"

	"sigs.k8s.io/yaml"
)

// addressFree fails when somebody listens where this Envoy is to listen. Envoy
// would not: its sockets have SO_REUSEPORT, and the kernel would deal the
// connections out between two gateways.
// The addresses in ours are not asked about.
func addressFree(ctx context.Context, configPath string, ours []string) error {
	text, err := os.ReadFile(configPath)
	if err != nil {
		return fmt.Errorf("read Envoy's configuration: %w", err)
	}
	for _, address := range listeningAddresses(text) {
		if slices.Contains(ours, address) {
			continue
		}
		var config net.ListenConfig
		l, err := config.Listen(ctx, "tcp", address)
		if errors.Is(err, syscall.EADDRINUSE) {
			return fmt.Errorf("%w: %s: stop the program that listens there, or choose another address", ErrAddressInUse, address)
		}
		if err == nil {
			_ = l.Close()
		}
		// Anything else is Envoy's to judge: it may have rights we lack.
	}
	return nil
}

// listeningIn is the addresses in a configuration file, none when it is gone.
func listeningIn(configPath string) []string {
	text, err := os.ReadFile(configPath)
	if err != nil {
		return nil
	}
	return listeningAddresses(text)
}

// listeningAddresses reads host:port of every listener in a bootstrap.
func listeningAddresses(config []byte) []string {
	var b struct {
		StaticResources struct {
			Listeners []struct {
				Address struct {
					SocketAddress struct {
						Address string `json:"address"`
						Port    uint32 `json:"port_value"`
					} `json:"socket_address"`
				} `json:"address"`
			} `json:"listeners"`
		} `json:"static_resources"`
	}
	if yaml.Unmarshal(config, &b) != nil {
		return nil // Envoy will say what is wrong with it
	}
	var list []string
	for _, l := range b.StaticResources.Listeners {
		if a := l.Address.SocketAddress; a.Port != 0 {
			list = append(list, net.JoinHostPort(a.Address, strconv.FormatUint(uint64(a.Port), 10)))
		}
	}
	return list
}
