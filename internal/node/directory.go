package node

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"hanse/api/metapb"
	"hanse/internal/cluster/gossip"
	"hanse/internal/invariant"
	"hanse/internal/shard"
	"hanse/internal/store"
	"hanse/internal/transport"
)

// viewKey has the newest view of the cluster that this node has seen. It lies outside the replicas' keys.
var viewKey = []byte("n/view")

// lookInterval is how often the meta shard is asked whether anything is new, when no heartbeat has told so before.
const lookInterval = time.Second

// farewell is how long a decommissioned node is still answered, so that it learns of it and stops.
const farewell = 10 * time.Second

// directory is the node's copy of what the meta shard holds: who is where. It is kept on the disk, so that a node that starts finds
// the others, and what gossip says of addresses is added to it. All methods may be used concurrently.
type directory struct {
	self   uint64
	engine store.Engine
	log    *slog.Logger
	// look reads the meta shard: an empty view when nothing is newer than a version.
	look func(ctx context.Context, newerThan uint64) (*metapb.View, error)
	wall func() time.Time
	// lives returns the process of a node that is there for certain, 0 for none.
	lives func(node transport.NodeID) (process uint64)

	current atomic.Pointer[known]
	stale   chan struct{} // has a token when something newer is known to exist
	changed []func(*known)

	mu     sync.Mutex // serialises changes
	gossip map[uint64]gossip.Member
}

// known is one state of a directory; it is replaced, never changed.
type known struct {
	view *metapb.View
	// confirmed says that the view was read from the meta shard since this node's start. What is not might be of a time before
	// the node was replaced, or a shard went on without it.
	confirmed bool
	nodes     map[uint64]*metapb.Node
	shards    map[shard.ID]*metapb.Shard
	hosts     map[shard.ID][]transport.NodeID
	addresses map[transport.NodeID]string
	leaving   bool // addresses has nodes that were decommissioned a moment ago
	// founding tells the cluster from others of its name, empty before it is founded.
	founding string
}

// founding is made of the secret that was drawn when the cluster was founded, which it does not tell.
func founding(c *metapb.Cluster) string {
	sum, err := hkdf.Key(sha256.New, c.Secret, []byte(c.Id), "hanse founding 1", 16)
	invariant.Check(err == nil, "derive the founding of cluster %s: %v", c.Id, err)
	return hex.EncodeToString(sum)
}

// openDirectory starts from the view on the disk, or from the first one: that of the bootstrap.
func openDirectory(self uint64, e store.Engine, first *metapb.View, wall func() time.Time, log *slog.Logger) (*directory, error) {
	d := &directory{
		self: self, engine: e, wall: wall, log: log, stale: make(chan struct{}, 1), gossip: make(map[uint64]gossip.Member),
		lives: func(transport.NodeID) uint64 { return 0 },
	}
	data, err := e.Get(viewKey)
	switch {
	case errors.Is(err, store.ErrNotFound):
		d.current.Store(d.know(first, false))
		return d, nil
	case err != nil:
		return nil, fmt.Errorf("read the view of the cluster: %w", err)
	}
	v := new(metapb.View)
	if err := v.UnmarshalVT(data); err != nil {
		return nil, fmt.Errorf("read the view of the cluster: %w", err)
	}
	// Where the operator says that the founders are wins over where they were, until the cluster says otherwise.
	for _, n := range v.Nodes {
		for _, f := range first.GetNodes() {
			if f.Id == n.Id && f.Peers != "" {
				n.Http, n.Peers = f.Http, f.Peers
			}
		}
	}
	d.current.Store(d.know(v, false))
	return d, nil
}

// saveView writes a view to the disk. It need not be synced: an older one leads to the same cluster.
func saveView(e store.Engine, v *metapb.View, sync bool) error {
	b := e.NewBatch()
	defer b.Close()
	b.Set(viewKey, encode(v))
	if err := e.Apply(b, sync); err != nil {
		return fmt.Errorf("write the view of the cluster: %w", err)
	}
	return nil
}

func (d *directory) know(v *metapb.View, confirmed bool) *known {
	k := &known{
		view: v, confirmed: confirmed, nodes: make(map[uint64]*metapb.Node), shards: make(map[shard.ID]*metapb.Shard),
		hosts: make(map[shard.ID][]transport.NodeID), addresses: make(map[transport.NodeID]string),
	}
	if c := v.GetCluster(); len(c.GetSecret()) > 0 {
		k.founding = founding(c)
	}
	for _, n := range v.Nodes {
		k.nodes[n.Id] = n
		if n.Id == d.self {
			continue
		}
		if n.State == metapb.NodeState_NODE_DECOMMISSIONED {
			if d.wall().Sub(time.UnixMilli(n.StateSince)) >= farewell {
				continue
			}
			k.leaving = true // it is answered until it has heard that it is to go
		}
		address := n.Peers
		if g, ok := d.gossip[n.Id]; ok && g.Boot >= n.Boot && g.Peers != "" {
			address = g.Peers
		}
		if address != "" {
			k.addresses[transport.NodeID(n.Id)] = address
		}
	}
	for _, s := range v.Shards {
		id := shard.ID(s.Id)
		k.shards[id] = s
		for _, r := range s.Replicas {
			k.hosts[id] = append(k.hosts[id], transport.NodeID(r.Node))
		}
	}
	return k
}

func (d *directory) now() *known { return d.current.Load() }

// features returns the feature level in force, as far as this node knows: it may be higher.
func (d *directory) features() uint32 { return d.now().view.GetCluster().GetFeatures() }

// serves says whether this node's replica of a shard may serve. The meta shard may, for it is what is asked; any other only when the plan, read
// since the start, has it here: a shard that went on without this node may have a leader among those that were left behind.
func (d *directory) serves(id shard.ID) bool {
	k := d.now()
	return id.Service() == shard.Meta || k.confirmed && k.plans(id, d.self)
}

// plans says whether a node has a replica of a shard, or is to have one.
func (k *known) plans(id shard.ID, node uint64) bool {
	s := k.shards[id]
	return s.GetMove().GetTo().GetNode() == node && node != 0 || slices.Contains(k.hosts[id], transport.NodeID(node))
}

// onChange has fn called with the present state and each new one, one at a time.
func (d *directory) onChange(fn func(*known)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.changed = append(d.changed, fn)
	fn(d.now())
}

func (d *directory) replace(k *known) {
	d.current.Store(k)
	for _, fn := range d.changed {
		fn(k)
	}
}

// poke says that something newer is known to exist.
func (d *directory) poke() {
	select {
	case d.stale <- struct{}{}:
	default:
	}
}

// saw takes the version of another node's view.
func (d *directory) saw(version uint64) {
	if version > d.now().version() {
		d.poke()
	}
}

func (k *known) version() uint64 { return k.view.GetCluster().GetVersion() }

// heard takes what gossip says of who is there.
func (d *directory) heard(members []gossip.Member) {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.gossip)
	for _, m := range members {
		d.gossip[m.Node] = m
	}
	k := d.now()
	d.replace(d.know(k.view, k.confirmed))
}

// run keeps the copy new until ctx ends.
func (d *directory) run(ctx context.Context) error {
	pause := time.Duration(0)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.stale:
		case <-time.After(pause):
		}
		pause = lookInterval/2 + rand.N(lookInterval)
		d.dismiss()
		if err := d.refresh(ctx); err != nil {
			if !d.now().confirmed {
				pause = 50 * time.Millisecond // nothing is served before
			}
			d.log.Debug("meta shard not read", "err", err)
		}
	}
}

// dismiss forgets the addresses of nodes that have had time to go.
func (d *directory) dismiss() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if k := d.now(); k.leaving {
		if next := d.know(k.view, k.confirmed); len(next.addresses) != len(k.addresses) {
			d.replace(next)
		}
	}
}

// refresh reads what is new.
func (d *directory) refresh(ctx context.Context) error {
	k := d.now()
	version := k.version()
	if !k.confirmed {
		version = 0
	}
	v, err := d.look(ctx, version)
	if err != nil {
		return err
	}
	switch {
	case v.Cluster == nil && version == 0:
		return errNotFounded
	case v.Cluster == nil:
		return nil
	}
	d.take(v)
	return nil
}

// errNotFounded says that the meta shard has no cluster yet.
var errNotFounded = errors.New("the cluster has not been founded yet")

// take replaces the view by a newer one that comes from the meta shard.
func (d *directory) take(v *metapb.View) {
	d.mu.Lock()
	defer d.mu.Unlock()
	k := d.now()
	if k.confirmed && v.GetCluster().GetVersion() <= k.version() {
		return
	}
	if err := saveView(d.engine, v, false); err != nil {
		d.log.Error("view not saved", "err", err) // the store has failed, and the node with it
	}
	d.replace(d.know(v, true))
}

// admit says why a node may not talk to this one.
func (d *directory) admit(node transport.NodeID, boot, process uint64) error {
	k := d.now()
	n := k.nodes[uint64(node)]
	switch {
	case n == nil: // it has joined a moment ago, or is a founder that has not registered
		d.poke()
		return nil
	case n.State == metapb.NodeState_NODE_DECOMMISSIONED:
		return fmt.Errorf("node %d has been removed from the cluster (%s): its directory is of no use any more; join as a new node", node, removalReason(n))
	case boot == 0: // a caller of an older version does not tell
		return nil
	case boot < n.Boot:
		return fmt.Errorf("node %d says that it has been started %d times, but the cluster has seen %d: its directory is an old copy, or was emptied; "+
			"start it with the latest one, or replace the node", node, boot, n.Boot)
	case boot == n.Boot && process != n.Process:
		return fmt.Errorf("start %d of node %d was that of another process: its directory is a copy, or used twice, or was emptied; "+
			"start it with the latest one, or replace the node", boot, node)
	}
	if other := d.lives(node); other != 0 && other != process {
		return fmt.Errorf("node %d is running at %s: two with its directory, or with a copy of it, would break the cluster's promises", node, k.addresses[node])
	}
	return nil
}

func removalReason(n *metapb.Node) string {
	if n.StateReason == "" {
		return "decommissioned"
	}
	return n.StateReason
}

// gossipAddresses lists where the nodes that ought to be there can be reached.
func (d *directory) gossipAddresses() []string {
	var all []string
	for _, n := range d.now().view.Nodes {
		if n.Id != d.self && n.Gossip != "" && n.State != metapb.NodeState_NODE_DECOMMISSIONED {
			all = append(all, n.Gossip)
		}
	}
	return all
}

// at returns another member that has an address of a node that wants to join, nil when there is none. The one that it replaces does not
// count, and its own earlier application has its name.
func (k *known) at(n *metapb.Node) *metapb.Node {
	for _, o := range k.view.Nodes {
		if o.State != metapb.NodeState_NODE_DECOMMISSIONED && o.Id != n.Replaces && o.Name != n.Name && (o.Http == n.Http || o.Peers == n.Peers) {
			return o
		}
	}
	return nil
}

// peers lists the nodes to watch.
func (k *known) peers(self uint64) []uint64 {
	var all []uint64
	for _, n := range k.view.Nodes {
		if n.Id != self && n.State != metapb.NodeState_NODE_DECOMMISSIONED && k.addresses[transport.NodeID(n.Id)] != "" {
			all = append(all, n.Id)
		}
	}
	return all
}

// roles are the names of a node's services, none for all.
func roles(n *metapb.Node) []string {
	var names []string
	for _, r := range n.Roles {
		names = append(names, shard.Service(r).String())
	}
	return names
}

// firstView is what a founder knows before there is anything to ask.
func (c Config) firstView(id identity) *metapb.View {
	v := new(metapb.View)
	if id.Joined {
		return v // it was given one when it joined
	}
	for _, n := range id.Nodes {
		node := &metapb.Node{Id: n}
		for _, p := range c.Peers {
			if p.ID == n {
				node.Http, node.Peers = p.HTTP, p.Peer
			}
		}
		if n == c.ID && node.Http == "" {
			node.Http, node.Peers = c.HTTPAddr, c.PeerAddr
		}
		v.Nodes = append(v.Nodes, node)
	}
	for _, s := range id.layout().All() {
		m := &metapb.Shard{Id: uint32(s)}
		for _, r := range placement(s, id) {
			m.Replicas = append(m.Replicas, &metapb.Replica{Id: r.ID, Node: uint64(r.Node)})
		}
		v.Shards = append(v.Shards, m)
	}
	return v
}
