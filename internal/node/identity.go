package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"hanse/internal/replica"
	"hanse/internal/shard"
	"hanse/internal/store"
	"hanse/internal/transport"
)

// formatVersion is the version of everything below the store. A newer directory is refused.
const formatVersion = 1

// identityKey lies outside the replicas' keys.
var identityKey = []byte("n/ident")

// identity says whose data directory this is.
type identity struct {
	Format  int            `json:"format"`
	Cluster string         `json:"cluster"`
	Node    uint64         `json:"node"`
	Layout  map[string]int `json:"layout"`
	// Nodes are the founders, which decide where the shards' replicas are at first.
	Nodes    []uint64 `json:"nodes,omitempty"`
	Replicas int      `json:"replicas"`
	// Joined says that the node has joined a cluster that was there. PSP is then the payment provider of the node that admitted it.
	Joined bool   `json:"joined,omitempty"`
	PSP    string `json:"psp,omitempty"`
}

// layout returns the layout that the identity names.
func (id identity) layout() shard.Layout {
	l := make(shard.Layout)
	for _, s := range shard.Services() {
		if n := id.Layout[s.String()]; n > 0 {
			l[s] = n
		}
	}
	return l
}

func (c Config) identity() identity {
	id := identity{Format: formatVersion, Cluster: c.ClusterID, Node: c.ID, Layout: make(map[string]int), Replicas: c.Replicas}
	for s, n := range c.Layout {
		id.Layout[s.String()] = n
	}
	for _, p := range c.Peers {
		id.Nodes = append(id.Nodes, p.ID)
	}
	if len(id.Nodes) == 0 {
		id.Nodes = []uint64{c.ID}
	}
	slices.Sort(id.Nodes)
	return id
}

// storeDir is the part of a data directory that holds the store.
const storeDir = "store"

// checkDir refuses a directory before anything is written to it: one that is nobody's yet needs to be founded or joined with, and
// one that holds something else is no node's.
func (c Config) checkDir() error {
	entries, err := os.ReadDir(c.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("data directory: %w", err)
	}
	var names []string
	for _, e := range entries {
		switch e.Name() {
		case storeDir:
			return nil // its identity tells more
		case "lost+found": // of a file system of its own
		default:
			names = append(names, e.Name())
		}
	}
	if len(names) > 0 {
		const shown = 3
		if more := len(names) - shown; more > 0 {
			names = append(names[:shown], fmt.Sprintf("%d more", more))
		}
		return fmt.Errorf("data directory %s is no node's, and not empty (%s): point --data to the node's directory, or to an empty one", c.Dir, strings.Join(names, ", "))
	}
	if !c.Bootstrap && len(c.Join) == 0 {
		return c.errNoData()
	}
	return nil
}

// errNoData says what can be done with a directory that has no node's data, or is not there.
func (c Config) errNoData() error {
	found := "a cluster"
	if c.ClusterID != "" {
		found = fmt.Sprintf("cluster %q", c.ClusterID)
	}
	return fmt.Errorf("data directory %s is empty: start with --bootstrap to found %s there, with --join to become a node of one, "+
		"or point --data to the node's directory", c.Dir, found)
}

// identify checks that the directory belongs to this node, and makes an empty one its own: with bootstrap that of a founder,
// with join that of a node that the cluster admits. Who a node is stands in its directory; settings that are stated have to agree with it.
func identify(e store.Engine, c Config, join func() (identity, error)) (identity, error) {
	data, err := e.Get(identityKey)
	if errors.Is(err, store.ErrNotFound) {
		switch {
		case c.Bootstrap:
			want := c.identity()
			return want, bootstrap(e, c, want)
		case len(c.Join) > 0:
			return join()
		}
		return identity{}, c.errNoData()
	}
	if err != nil {
		return identity{}, fmt.Errorf("read identity: %w", err)
	}
	var have identity
	if err := json.Unmarshal(data, &have); err != nil {
		return identity{}, fmt.Errorf("data directory %s has an unreadable identity: %w", c.Dir, err)
	}
	return have, c.agrees(have)
}

// agrees reports what is stated about the node and is not so.
func (c Config) agrees(have identity) error {
	want := c.identity()
	switch {
	case have.Format > formatVersion:
		return fmt.Errorf("data directory %s has format %d, this program reads up to %d: use a newer hanse", c.Dir, have.Format, formatVersion)
	case c.ClusterID != "" && have.Cluster != want.Cluster:
		return fmt.Errorf("data directory %s belongs to cluster %q, not %q", c.Dir, have.Cluster, want.Cluster)
	case c.ID != 0 && have.Node != want.Node:
		return fmt.Errorf("data directory %s belongs to node %d, not %d: two nodes with one directory would break the cluster's promises", c.Dir, have.Node, want.Node)
	case have.Joined || !c.Bootstrap: // what else is stated is about founding a cluster
		return nil
	case !maps.Equal(have.Layout, want.Layout):
		return fmt.Errorf("data directory %s was bootstrapped with the shards %s, configured are %s: the layout never changes", c.Dir, have.shards(), want.shards())
	case !slices.Equal(have.Nodes, want.Nodes) || have.Replicas != want.Replicas:
		return fmt.Errorf("data directory %s was bootstrapped for nodes %v with %d replicas, configured are %v with %d", c.Dir, have.Nodes, have.Replicas, want.Nodes, want.Replicas)
	}
	return nil
}

// shards writes the layout as --shards has it.
func (id identity) shards() string {
	var parts []string
	for _, s := range shard.Services() {
		if n := id.Layout[s.String()]; n > 0 {
			parts = append(parts, fmt.Sprintf("%s=%d", s, n))
		}
	}
	return strings.Join(parts, ",")
}

// unheeded lists what is stated about the cluster, and is not so since it was founded. Without --bootstrap that is no mistake to stop for: a unit file
// may have it from another node.
func (c Config) unheeded(have identity) (settings []string) {
	if want := c.identity(); c.LayoutStated && !maps.Equal(have.Layout, want.Layout) {
		settings = append(settings, fmt.Sprintf("--shards: the cluster has %s", have.shards()))
	}
	if c.ReplicasStated && have.Replicas != c.Replicas {
		settings = append(settings, fmt.Sprintf("--replicas %d: the cluster has %d", c.Replicas, have.Replicas))
	}
	return settings
}

// bootstrap writes the first state of every replica that this node hosts. Each node does so for itself
// and all write the same, so no node has to be first.
func bootstrap(e store.Engine, c Config, id identity) error {
	groups := make(map[shard.ID][]replica.Replica)
	for _, s := range c.Layout.All() {
		groups[s] = placement(s, id)
	}
	if err := replica.Bootstrap(e, groups, transport.NodeID(c.ID)); err != nil {
		return fmt.Errorf("bootstrap: %w", err)
	}
	if err := saveView(e, c.firstView(id), false); err != nil { // where the others are need not be said again
		return err
	}
	// The identity is written last, and synced with what came before: a directory without one is bootstrapped again from the start.
	return saveIdentity(e, id)
}

func saveIdentity(e store.Engine, id identity) error {
	data, err := json.Marshal(id)
	if err != nil {
		return fmt.Errorf("encode identity: %w", err)
	}
	b := e.NewBatch()
	defer b.Close()
	b.Set(identityKey, data)
	if err := e.Apply(b, true); err != nil {
		return fmt.Errorf("write identity: %w", err)
	}
	return nil
}

// placement puts a shard's replicas on consecutive nodes, one node further on for each shard.
func placement(s shard.ID, id identity) []replica.Replica {
	n := min(id.Replicas, len(id.Nodes))
	first := 0
	if n < len(id.Nodes) { // with a replica on every node, package replica's choice of leaders spreads the load
		first = s.Index()
	}
	replicas := make([]replica.Replica, n)
	for i := range replicas {
		replicas[i] = replica.Replica{ID: uint64(i + 1), Node: transport.NodeID(id.Nodes[(first+i)%len(id.Nodes)])}
	}
	return replicas
}
