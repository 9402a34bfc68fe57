package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// The states of a node, which are what is wanted of it, and its health, which is how it fares.
const (
	Joining         = "joining"
	Active          = "active"
	Draining        = "draining"
	Decommissioning = "decommissioning"
	Decommissioned  = "decommissioned"

	Healthy   = "healthy"
	Suspect   = "suspect"
	Unhealthy = "unhealthy"
	Dead      = "dead"
)

// Node is a node as the answering one sees it.
type Node struct {
	ID            uint64    `json:"id"`
	Name          string    `json:"name,omitempty"`
	REST          string    `json:"rest"` // host:port, as all three addresses
	Peers         string    `json:"peers"`
	Gossip        string    `json:"gossip,omitempty"`
	Zone          string    `json:"zone,omitempty"`
	Roles         []string  `json:"roles"` // services that it hosts; none: all
	Version       string    `json:"version,omitempty"`
	Features      uint32    `json:"features"`
	Self          bool      `json:"self"`
	State         string    `json:"state"`
	StateSince    time.Time `json:"state_since,omitzero"`
	StateReason   string    `json:"state_reason,omitempty"`
	Health        string    `json:"health"`
	HealthSince   time.Time `json:"health_since,omitzero"`
	Reason        string    `json:"reason,omitempty"` // why it is not healthy
	Healthy       bool      `json:"healthy"`
	RTTMS         float64   `json:"rtt_ms"`
	ClockOffsetMS float64   `json:"clock_offset_ms"` // its clock minus the answering node's
	Replicas      int       `json:"replicas"`
	Leaders       int       `json:"leaders"`
	StartedAt     time.Time `json:"started_at,omitzero"`
	Boot          uint64    `json:"boot"` // how often it has been started
}

// ClusterInfo is the cluster as a whole.
type ClusterInfo struct {
	ID               string   `json:"id"`
	Features         uint32   `json:"features"` // feature level in force
	Replicas         int      `json:"replicas"` // copies of each shard, as far as there are nodes
	DownAfterSeconds int64    `json:"down_after_seconds"`
	Version          uint64   `json:"version"`
	Blocked          []string `json:"blocked"` // what ought to be done and cannot be
}

// Reach is one direction between two nodes.
type Reach struct {
	From          uint64    `json:"from"`
	To            uint64    `json:"to"`
	Reached       bool      `json:"reached"`
	RTTMS         float64   `json:"rtt_ms"`
	ClockOffsetMS float64   `json:"clock_offset_ms"`
	Since         time.Time `json:"since,omitzero"`
}

// Overview is the cluster, its nodes, and who reaches whom.
type Overview struct {
	Cluster      ClusterInfo `json:"cluster"`
	Nodes        []Node      `json:"nodes"`
	Reachability []Reach     `json:"reachability"`
}

// Shard is a shard that the answering node knows of.
type Shard struct {
	ID        string    `json:"id"`
	Leader    uint64    `json:"leader"`    // 0 when there is none
	Preferred uint64    `json:"preferred"` // node that should lead, 0: any
	State     string    `json:"state"`     // ok, under_replicated, moving or unavailable
	Term      uint64    `json:"term"`
	Applied   uint64    `json:"applied"`
	Commit    uint64    `json:"commit"`
	Replicas  []Replica `json:"replicas"`
	Move      *Move     `json:"move,omitempty"`
}

// Replica is one copy of a shard as its leader sees it.
type Replica struct {
	ID    uint64 `json:"id"`
	Node  uint64 `json:"node"`
	Match uint64 `json:"match"`
	State string `json:"state"`
}

// Move is a replica on its way.
type Move struct {
	From        uint64    `json:"from"` // node; 0 when a replica is added
	To          uint64    `json:"to"`
	Reason      string    `json:"reason"`
	Doing       string    `json:"doing"`
	Share       float64   `json:"share"`        // of the way that is done, 0 to 1
	LeftSeconds float64   `json:"left_seconds"` // an estimate, 0 when there is none
	StartedAt   time.Time `json:"started_at,omitzero"`
}

// Shards lists shards, and how many each service has.
type Shards struct {
	Shards []Shard        `json:"shards"`
	Counts map[string]int `json:"counts"`
}

// JoinNode is a node that wants to be admitted.
type JoinNode struct {
	Cluster  string   `json:"cluster,omitempty"` // that it expects; any unless stated
	Name     string   `json:"name,omitempty"`
	HTTP     string   `json:"http"` // host:port at which others reach it, as all three addresses
	Peers    string   `json:"peers"`
	Gossip   string   `json:"gossip,omitempty"`
	Zone     string   `json:"zone,omitempty"`
	Roles    []string `json:"roles,omitempty"`
	Version  string   `json:"version,omitempty"`
	Format   uint32   `json:"format"`
	Features uint32   `json:"features"`
	Process  string   `json:"process"` // a number drawn by the process, in digits: a repeated request of it gets the same answer
	Replaces uint64   `json:"replaces,omitempty"`
	Clock    int64    `json:"clock"` // its clock, ns since 1970
}

// JoinedNode is a node that has been admitted. View is for the node alone: it has the cluster's secret.
type JoinedNode struct {
	Node    uint64 `json:"node"`
	Cluster string `json:"cluster"`
	View    []byte `json:"view"`
	PSP     string `json:"psp"`
}

// Recovery is what an unsafe recovery of a shard would do, or has done.
type Recovery struct {
	Shard     string   `json:"shard"`
	Node      uint64   `json:"node"` // has the survivor that goes on alone
	Term      uint64   `json:"term"` // of its last entry, as Index
	Index     uint64   `json:"index"`
	Survivors []uint64 `json:"survivors"`
	Missing   []uint64 `json:"missing"`
	Confirm   string   `json:"confirm,omitempty"` // what has to be sent to do it
	Warning   string   `json:"warning,omitempty"`
	Done      bool     `json:"done"`
}

// ClusterEvent is an entry of the cluster's journal.
type ClusterEvent struct {
	Seq    uint64    `json:"seq"`
	At     time.Time `json:"at"`
	Type   string    `json:"type"`
	Node   uint64    `json:"node,omitempty"`
	Shard  string    `json:"shard,omitempty"`
	Detail string    `json:"detail"`
}

// Record is a DNS SRV record.
type Record struct {
	Name string `json:"name"`
	Type int    `json:"type"`
	TTL  int    `json:"TTL"`  // seconds
	Data string `json:"data"` // priority, weight, port and host
}

// Records answers which nodes offer a service.
type Records struct {
	Status   int `json:"Status"` // 0, or 3 when there is no such service
	Question []struct {
		Name string `json:"name"`
		Type int    `json:"type"`
	} `json:"Question"`
	Answer []Record `json:"Answer,omitempty"`
}

const nodesPath = "/v1/nodes"

func nodePath(id uint64) string { return nodesPath + "/" + strconv.FormatUint(id, 10) }

// Overview describes the cluster as the answering node sees it.
func (c *Client) Overview(ctx context.Context) (*Overview, error) {
	return get[Overview](ctx, c, nodesPath)
}

// Nodes lists the nodes as the answering one sees them.
func (c *Client) Nodes(ctx context.Context) ([]Node, error) {
	v, err := c.Overview(ctx)
	if err != nil {
		return nil, err
	}
	return v.Nodes, nil
}

// Node reads one node.
func (c *Client) Node(ctx context.Context, id uint64) (*Node, error) {
	return get[Node](ctx, c, nodePath(id))
}

// changeNode brings a node to a state. The same state again changes nothing, so that it may be repeated at will.
func (c *Client) changeNode(ctx context.Context, id uint64, verb, reason string, dryRun bool) (*Node, error) {
	body := struct {
		Reason string `json:"reason,omitempty"`
		DryRun bool   `json:"dry_run,omitempty"`
	}{reason, dryRun}
	return send[Node](ctx, c, http.MethodPost, nodePath(id)+"/"+verb, "", body)
}

// Drain takes the leaderships from a node and gives it no new replicas, so that it can be stopped.
func (c *Client) Drain(ctx context.Context, id uint64, reason string) (*Node, error) {
	return c.changeNode(ctx, id, "drain", reason, false)
}

// Decommission moves everything away from a node, for good. With dryRun it only says whether that can be done.
func (c *Client) Decommission(ctx context.Context, id uint64, reason string, dryRun bool) (*Node, error) {
	return c.changeNode(ctx, id, "decommission", reason, dryRun)
}

// Activate uses a node again that was drained, or is being decommissioned.
func (c *Client) Activate(ctx context.Context, id uint64, reason string) (*Node, error) {
	return c.changeNode(ctx, id, "activate", reason, false)
}

// Forget says that a node is lost for good: its replicas are rebuilt elsewhere, and it is never heard again.
func (c *Client) Forget(ctx context.Context, id uint64, reason string) (*Node, error) {
	return c.changeNode(ctx, id, "forget", reason, false)
}

// CreateJoinToken makes a token that lets nodes join. The one before is worth nothing from then on.
func (c *Client) CreateJoinToken(ctx context.Context) (string, error) {
	t, err := send[struct {
		Token string `json:"token"`
	}](ctx, c, http.MethodPost, "/v1/join-tokens", "", nil)
	if err != nil {
		return "", err
	}
	return t.Token, nil
}

// Join asks the cluster to admit a node.
func (c *Client) Join(ctx context.Context, token string, n *JoinNode) (*JoinedNode, error) {
	q := &request{method: http.MethodPost, path: nodesPath, header: http.Header{"Authorization": {"Bearer " + token}}}
	a, _, err := exchange[JoinedNode](ctx, c, q, n)
	return a, err
}

// Shards lists the shards that the answering node knows of.
func (c *Client) Shards(ctx context.Context) (*Shards, error) {
	return get[Shards](ctx, c, "/v1/shards")
}

// shardPath is the path of a shard by its name, service/index.
func shardPath(name string) string {
	service, index, _ := strings.Cut(name, "/")
	return "/v1/shards/" + segment(service) + "/" + segment(index)
}

// MoveReplica moves a shard's replica between nodes: it begins, and Shards shows how far it is.
func (c *Client) MoveReplica(ctx context.Context, shard string, from, to uint64) error {
	body := struct {
		From uint64 `json:"from"`
		To   uint64 `json:"to"`
	}{from, to}
	_, err := send[struct{}](ctx, c, http.MethodPost, shardPath(shard)+"/move", "", body)
	return err
}

// RecoverShard says what an unsafe recovery of a shard that has lost its majority would do. With what that answer wants to be
// confirmed it does so, and what only the lost replicas had is gone.
func (c *Client) RecoverShard(ctx context.Context, shard, confirm string) (*Recovery, error) {
	body := struct {
		Confirm string `json:"confirm,omitempty"`
	}{confirm}
	return send[Recovery](ctx, c, http.MethodPost, shardPath(shard)+"/recover", "", body)
}

// SetDownAfter sets how long a node has to be dead before its replicas are rebuilt, in whole seconds; 0 for the default.
func (c *Client) SetDownAfter(ctx context.Context, d time.Duration) error {
	body := struct {
		Seconds int64 `json:"seconds"`
	}{int64(d / time.Second)}
	_, err := send[struct{}](ctx, c, http.MethodPut, "/v1/settings/down-after", "", body)
	return err
}

// ClusterEvents reads the cluster's journal after a sequence number, at most 1,000 entries at once.
func (c *Client) ClusterEvents(ctx context.Context, after uint64, limit int) ([]ClusterEvent, error) {
	page, err := get[struct {
		Events []ClusterEvent `json:"events"`
	}](ctx, c, "/v1/cluster/events?"+url.Values{"after": {strconv.FormatUint(after, 10)}, "limit": {strconv.Itoa(limit)}}.Encode())
	if err != nil {
		return nil, err
	}
	return page.Events, nil
}

// Records finds the nodes that offer a service ("order"), as DNS SRV records.
func (c *Client) Records(ctx context.Context, role string) (*Records, error) {
	return get[Records](ctx, c, "/v1/srv?"+url.Values{"role": {role}}.Encode())
}
