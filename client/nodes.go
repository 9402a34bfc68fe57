package client

import (
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"
)

const (
	// A node that did not answer is passed over, the longer the oftener it fails in a row: a machine that is gone costs one
	// request a dial every half minute.
	minDown = 500 * time.Millisecond
	maxDown = 30 * time.Second
	// learnEvery is the time between two looks at which nodes there are: they change by hand.
	learnEvery = time.Minute
)

// pool is the nodes a client knows.
type pool struct {
	mu    sync.Mutex
	nodes []*node
	next  int
	learn time.Time // when to look again
}

type node struct {
	base  string // scheme and authority, to put before a path
	given bool   // by the caller, who alone may take it away
	heard bool   // it has answered before

	failures  int
	downUntil time.Time
}

// newNode takes host:port, or a URL with http or https.
func newNode(addr string, given bool) (*node, error) {
	base := addr
	if !strings.Contains(addr, "://") {
		base = "http://" + addr
	}
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.User != nil || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("client: address %q: want host:port, or http://host:port", addr)
	}
	if _, _, err := net.SplitHostPort(u.Host); err != nil && base != addr {
		return nil, fmt.Errorf("client: address %q: want host:port", addr)
	}
	return &node{base: u.Scheme + "://" + u.Host, given: given}, nil
}

// pick returns the node for the next request, in turn. Those that are down are passed over; when one's time has come, one
// request tries it and the others still pass it over. While all are down it is the one whose time comes first.
func (p *pool) pick(now time.Time) *node {
	p.mu.Lock()
	defer p.mu.Unlock()
	var first *node
	for range p.nodes {
		n := p.nodes[p.next%len(p.nodes)]
		p.next++
		if n.failures == 0 {
			return n
		}
		if !n.downUntil.After(now) {
			n.downUntil = now.Add(n.down())
			return n
		}
		if first == nil || n.downUntil.Before(first.downUntil) {
			first = n
		}
	}
	return first
}

func (n *node) down() time.Duration { return min(minDown<<min(n.failures, 10), maxDown) }

// failed marks a node that did not answer, and reports whether another one may.
func (p *pool) failed(n *node, now time.Time) (other bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n.failures++
	n.downUntil = now.Add(n.down())
	for _, o := range p.nodes {
		if o != n && o.failures == 0 {
			return true
		}
	}
	return false
}

func (p *pool) answered(n *node) {
	p.mu.Lock()
	n.failures, n.heard = 0, true
	p.mu.Unlock()
}

// due reports whether to look for other nodes; to one caller, so that the others go on.
func (p *pool) due(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.Before(p.learn) {
		return false
	}
	p.learn = now.Add(learnEvery)
	return true
}

// learned takes the nodes that the cluster has now. One that is gone is forgotten unless the caller gave it; a given one that
// is no node and never answered comes last.
func (p *pool) learned(nodes []Node, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	listed := make(map[string]Node)
	for _, info := range nodes {
		listed[info.REST] = info
	}
	var kept []*node
	for _, n := range p.nodes {
		_, is := listed[n.addr()]
		if !is && !n.given {
			continue
		}
		if !is && !n.heard && n.failures == 0 {
			n.failures, n.downUntil = 1, now
		}
		kept = append(kept, n)
		delete(listed, n.addr())
	}
	for _, info := range nodes {
		if _, isNew := listed[info.REST]; !isNew {
			continue
		}
		n, err := newNode(info.REST, false)
		if err != nil {
			continue // of a later version, perhaps
		}
		if !info.Healthy {
			n.failures, n.downUntil = 1, now
		}
		kept = append(kept, n)
		delete(listed, info.REST)
	}
	p.nodes = kept
}

// addr is host:port, or the URL of one that does not speak plain HTTP.
func (n *node) addr() string { return strings.TrimPrefix(n.base, "http://") }

// addrs lists the nodes in use: those that are not down, or all while none is up.
func (p *pool) addrs() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var up, all []string
	for _, n := range p.nodes {
		all = append(all, n.addr())
		if n.failures == 0 {
			up = append(up, n.addr())
		}
	}
	if len(up) == 0 {
		return all
	}
	return up
}
