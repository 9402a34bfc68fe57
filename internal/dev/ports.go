package dev

import (
	"errors"
	"fmt"
	"net"
	"strconv"
)

// DefaultPort is the first port of a cluster that is not told otherwise.
const DefaultPort = 7400

// PortStep is the distance between the first ports of two nodes, and ProviderOffset that of the
// payment provider's from the first node's.
const (
	PortStep       = 10
	ProviderOffset = 90
)

// MaxNodes is how many nodes fit below the provider's port.
const MaxNodes = ProviderOffset / PortStep

// Ports of one node, from its base: REST and console, Redis protocol, peers, gossip, and the profiles of a development node.
type Ports struct{ HTTP, Redis, Peer, Gossip, Debug int }

// NodePorts returns the ports of node n (from 1) of a cluster whose first port is base.
func NodePorts(base, n int) Ports {
	p := base + PortStep*(n-1)
	return Ports{HTTP: p, Redis: p + 1, Peer: p + 2, Gossip: p + 3, Debug: p + 4}
}

// Loopback returns the address of a port on this machine alone.
func Loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// CheckPorts reports every address that something else listens on.
func CheckPorts(addrs ...string) error {
	var errs []error
	for _, addr := range addrs {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s is in use", addr))
			continue
		}
		l.Close()
	}
	return errors.Join(errs...)
}
