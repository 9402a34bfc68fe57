package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// service is a door of a host.
type service string

const (
	restDoor     service = "rest"
	peerDoor     service = "peer"
	gossipDoor   service = "gossip"
	providerDoor service = "provider"
)

// network connects nodes, provider and clients, and can be shaped.
type network interface {
	// listen returns the address at which a host serves.
	listen(h host, s service) string
	// reach returns the address at which one host finds a door of another.
	reach(from, to host, s service) string
	// prefix is put before a command so that it runs at a host.
	prefix(h host) []string
	// shape gives every link the trouble it has from now on, and those that are not named none.
	shape(ctx context.Context, links map[link]trouble) error
	close() error
}

// shaper adds up what the faults that last now do to the links.
type shaper struct {
	network network

	mu     sync.Mutex
	faults []*fault
}

func (s *shaper) add(ctx context.Context, f *fault) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, f)
	return s.network.shape(ctx, s.sum())
}

func (s *shaper) remove(ctx context.Context, f *fault) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = slices.DeleteFunc(s.faults, func(o *fault) bool { return o == f })
	return s.network.shape(ctx, s.sum())
}

func (s *shaper) sum() map[link]trouble {
	links := make(map[link]trouble)
	for _, f := range s.faults {
		for _, l := range f.Links {
			links[l] = links[l].worse(f.Trouble)
		}
	}
	return links
}

// sortedLinks returns the links in a fixed order.
func sortedLinks(links map[link]trouble) []link {
	return slices.SortedFunc(maps.Keys(links), func(a, b link) int { return int(a.From-b.From)*1000 + int(a.To-b.To) })
}

func hosts(nodes int) []host {
	all := []host{clientsHost, providerHost}
	for n := 1; n <= nodes; n++ {
		all = append(all, host(n))
	}
	return all
}

// peersFlag lists all nodes as others reach them; what a node finds there of itself is what it tells the others.
func peersFlag(n network, nodes int) string {
	var peers []string
	for i := 1; i <= nodes; i++ {
		to := host(i)
		peers = append(peers, fmt.Sprintf("%d=%s/%s", i, n.reach(clientsHost, to, restDoor), n.reach(anyNode, to, peerDoor)))
	}
	return strings.Join(peers, ",")
}
