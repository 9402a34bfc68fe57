package rest

import (
	"encoding/base64"
	"fmt"
	"math"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"hanse/internal/reject"
	"hanse/internal/shard"
)

// What a node can be, for the filters of a list.
var (
	nodeStates  = []string{"joining", "active", "draining", "decommissioning", "decommissioned"}
	nodeHealths = []string{"healthy", "suspect", "unhealthy", "dead"}
)

const healthy = "healthy"

// hosts reports whether the node hosts a service.
func (n *NodeInfo) hosts(service string) bool {
	return len(n.Roles) == 0 || slices.Contains(n.Roles, service)
}

func appendNode(e *encoder, n *NodeInfo) {
	e.open('{')
	e.int("id", int64(n.ID))
	e.opt("name", n.Name)
	e.str("rest", n.REST)
	e.str("peers", n.Peers)
	e.opt("gossip", n.Gossip)
	e.opt("zone", n.Zone)
	e.strs("roles", n.Roles)
	e.opt("version", n.Version)
	e.int("features", int64(n.Features))
	e.bool("self", n.Self)
	e.str("state", n.State)
	e.time("state_since", n.StateSince)
	e.opt("state_reason", n.StateReason)
	e.str("health", n.Health)
	e.time("health_since", n.HealthSince)
	e.opt("reason", n.Reason)
	e.bool("healthy", n.Health == healthy)
	e.millis("rtt_ms", n.RTT)
	e.millis("clock_offset_ms", n.Offset)
	e.int("replicas", int64(n.Replicas))
	e.int("leaders", int64(n.Leaders))
	e.time("started_at", n.StartedAt)
	e.int("boot", int64(n.Boot))
	e.close('}')
}

// choice reads a query parameter that is one of a few words, empty unless stated.
func (c *call) choice(name string, words []string) (string, error) {
	v := c.query(name)
	if v != "" && !slices.Contains(words, v) {
		return "", refuse(reject.InvalidRequest, name, "want one of "+strings.Join(words, ", "))
	}
	return v, nil
}

// services lists the names of all services.
func services() (names []string) {
	for _, s := range shard.Services() {
		names = append(names, s.String())
	}
	return names
}

func (s *server) listNodes(c *call) error {
	role, err := c.choice("role", services())
	if err != nil {
		return err
	}
	state, err := c.choice("state", nodeStates)
	if err != nil {
		return err
	}
	health, err := c.choice("health", nodeHealths)
	if err != nil {
		return err
	}
	cluster := s.backend.Cluster()
	return c.json(http.StatusOK, func(e *encoder) {
		e.open('{')
		e.key("cluster")
		e.open('{')
		e.str("id", cluster.ID)
		e.int("features", int64(cluster.Features))
		e.int("replicas", int64(cluster.Replicas))
		e.int("down_after_seconds", int64(cluster.DownAfter/time.Second))
		e.int("version", int64(cluster.Version))
		e.strs("blocked", cluster.Blocked)
		e.close('}')
		e.key("nodes")
		e.open('[')
		for i := range cluster.Nodes {
			n := &cluster.Nodes[i]
			if (role == "" || n.hosts(role)) && (state == "" || n.State == state) && (health == "" || n.Health == health) {
				appendNode(e, n)
			}
		}
		e.close(']')
		e.key("reachability")
		e.open('[')
		for _, l := range cluster.Links {
			e.open('{')
			e.int("from", int64(l.From))
			e.int("to", int64(l.To))
			e.bool("reached", l.Reached)
			e.millis("rtt_ms", l.RTT)
			e.millis("clock_offset_ms", l.Offset)
			e.time("since", l.Since)
			e.close('}')
		}
		e.close(']')
		e.close('}')
	})
}

// nodeID reads the number of a node in the path.
func (c *call) nodeID() (uint64, error) {
	return number("id", c.r.PathValue("id"), 0, 1, math.MaxInt64)
}

func (s *server) getNode(c *call) error {
	id, err := c.nodeID()
	if err != nil {
		return err
	}
	nodes := s.backend.Cluster().Nodes
	i := slices.IndexFunc(nodes, func(n NodeInfo) bool { return n.ID == id })
	if i < 0 {
		return refuse(reject.NodeNotFound, "", fmt.Sprintf("there is no node %d", id))
	}
	return c.json(http.StatusOK, func(e *encoder) { appendNode(e, &nodes[i]) })
}

// joinNode admits a node. The token comes in a header, which nothing logs, and not in the body, which a proxy might.
func (s *server) joinNode(c *call) error {
	auth, err := c.header("Authorization")
	if err != nil {
		return err
	}
	scheme, token, _ := strings.Cut(auth, " ")
	if token = strings.TrimSpace(token); !strings.EqualFold(scheme, "Bearer") || token == "" {
		c.w.Header().Set("WWW-Authenticate", "Bearer")
		return refuse(reject.JoinTokenWrong, "Authorization", "want Bearer and the join token")
	}
	data, err := c.read()
	if err != nil {
		return err
	}
	r, err := decodeJoin(data)
	if err != nil {
		return err
	}
	r.Token = token
	a, err := s.backend.Join(c.ctx, r)
	if err != nil {
		return err
	}
	c.w.Header()["Cache-Control"] = noStoreOnly // the view has the cluster's secret, the provider's URL may have one
	return c.json(http.StatusCreated, func(e *encoder) {
		e.open('{')
		e.int("node", int64(a.Node))
		e.str("cluster", a.Cluster)
		e.str("view", base64.StdEncoding.EncodeToString(a.View))
		e.str("psp", a.PSP)
		e.close('}')
	})
}

var (
	joinFields = []string{
		"cluster", "name", "http", "peers", "gossip", "zone", "roles", "version", "format", "features", "process", "replaces", "clock",
	}
	label   = regexp.MustCompile(`^[A-Za-z0-9._-]{1,63}$`)
	decimal = regexp.MustCompile(`^[0-9]{1,20}$`)
)

func decodeJoin(data []byte) (JoinRequest, error) {
	b, r := newBody(data), JoinRequest{}
	b.object(joinFields, func(i int) {
		switch i {
		case 0:
			r.Cluster = b.text(maxName)
		case 1:
			r.Name = b.label()
		case 2:
			r.HTTP = b.address()
		case 3:
			r.Peers = b.address()
		case 4:
			r.Gossip = b.address()
		case 5:
			r.Zone = b.label()
		case 6:
			r.Roles = b.roles()
		case 7:
			r.Version = b.text(maxName)
		case 8:
			r.Format = uint32(b.between(0, math.MaxUint32))
		case 9:
			r.Features = uint32(b.between(0, math.MaxUint32))
		case 10:
			text := b.text(maxName)
			var err error
			if r.Process, err = strconv.ParseUint(text, 10, 64); b.err == nil && (err != nil || !decimal.MatchString(text)) {
				b.wrong(reject.InvalidRequest, "want the digits of a number below 2^64, as a string")
			}
		case 11:
			r.Replaces = uint64(b.between(0, math.MaxInt64))
		case 12:
			r.Clock = b.int()
		}
	})
	b.missing(r.HTTP != "", reject.InvalidRequest, "http")
	b.missing(r.Peers != "", reject.InvalidRequest, "peers")
	b.missing(r.Process != 0, reject.InvalidRequest, "process")
	b.missing(r.Clock != 0, reject.InvalidRequest, "clock")
	return r, b.done()
}

// label reads the name of a node or zone; empty for none.
func (b *body) label() string {
	s := b.text(maxName)
	if b.err == nil && s != "" && !label.MatchString(s) {
		b.wrong(reject.InvalidRequest, "want up to 63 letters, digits, '-', '_' and '.'")
	}
	return s
}

// address reads host:port; empty for none.
func (b *body) address() string {
	s := b.text(maxName)
	if host, port, err := net.SplitHostPort(s); b.err == nil && s != "" && (err != nil || host == "" || port == "") {
		b.wrong(reject.InvalidRequest, "want host:port")
	}
	return s
}

func (b *body) roles() (roles []string) {
	known := services()
	b.array(func(int) {
		role := b.text(maxName)
		switch {
		case b.err != nil:
		case !slices.Contains(known, role):
			b.wrong(reject.InvalidRequest, fmt.Sprintf("%.60q is no service; want %s", role, strings.Join(known, ", ")))
		case slices.Contains(roles, role):
			b.wrong(reject.InvalidRequest, "occurs twice")
		}
		if roles = append(roles, role); len(roles) > 16 {
			b.fail("has more than 16 roles")
		}
	})
	return roles
}

// between reads a whole number within bounds.
func (b *body) between(lo, hi int64) int64 {
	n := b.int()
	if b.err == nil && (n < lo || n > hi) {
		b.wrong(reject.InvalidRequest, fmt.Sprintf("want a whole number from %d to %d", lo, hi))
		return lo
	}
	return n
}

// changeNode returns the handler that brings a node to a state.
func (s *server) changeNode(state string) func(*call) error {
	return func(c *call) error {
		id, err := c.nodeID()
		if err != nil {
			return err
		}
		data, err := c.read()
		if err != nil {
			return err
		}
		change, err := decodeNodeChange(data)
		if err != nil {
			return err
		}
		n, err := s.backend.SetNodeState(c.ctx, id, state, change.Reason, change.DryRun)
		if err != nil {
			return err
		}
		return c.json(http.StatusOK, func(e *encoder) { appendNode(e, &n) })
	}
}

var nodeChangeFields = []string{"reason", "dry_run"}

func decodeNodeChange(data []byte) (NodeChange, error) {
	b, r := newBody(data), NodeChange{}
	if len(data) == 0 {
		return r, nil
	}
	b.object(nodeChangeFields, func(i int) {
		if i == 0 {
			r.Reason = b.text(maxName)
		} else {
			r.DryRun = b.bool()
		}
	})
	return r, b.done()
}

func (s *server) createJoinToken(c *call) error {
	token, err := s.backend.CreateJoinToken(c.ctx)
	if err != nil {
		return err
	}
	c.w.Header()["Cache-Control"] = noStoreOnly
	return c.json(http.StatusCreated, func(e *encoder) {
		e.open('{')
		e.str("token", token)
		e.close('}')
	})
}

func (s *server) setDownAfter(c *call) error {
	data, err := c.read()
	if err != nil {
		return err
	}
	d, err := decodeDownAfter(data)
	if err != nil {
		return err
	}
	if err := s.backend.SetDownAfter(c.ctx, time.Duration(d.Seconds)*time.Second); err != nil {
		return err
	}
	return c.json(http.StatusOK, func(e *encoder) {
		e.open('{')
		e.int("seconds", d.Seconds)
		e.close('}')
	})
}

// maxDownAfter is 30 days: who waits longer has lost the node.
const maxDownAfter = 30 * 24 * 3600

func decodeDownAfter(data []byte) (DownAfter, error) {
	b, r, present := newBody(data), DownAfter{}, false
	b.object([]string{"seconds"}, func(int) { r.Seconds, present = b.between(0, maxDownAfter), true })
	b.missing(present, reject.InvalidRequest, "seconds")
	return r, b.done()
}

func (s *server) clusterEvents(c *call) error {
	after, err := number("after", c.query("after"), 0, 0, math.MaxInt64)
	if err != nil {
		return err
	}
	limit, err := c.limit()
	if err != nil {
		return err
	}
	events, err := s.backend.ClusterEvents(c.ctx, after, limit)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, func(e *encoder) {
		e.open('{')
		e.key("events")
		e.open('[')
		for _, ev := range events {
			e.open('{')
			e.int("seq", int64(ev.Seq))
			e.time("at", ev.At)
			e.str("type", ev.Type)
			if ev.Node != 0 {
				e.int("node", int64(ev.Node))
			}
			e.opt("shard", ev.Shard)
			e.str("detail", ev.Detail)
			e.close('}')
		}
		e.close(']')
		e.close('}')
	})
}
