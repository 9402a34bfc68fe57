package client

import (
	"cmp"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// A node that did not answer is passed over, the longer the oftener it fails in a row: a machine that is gone costs one
	// request a dial every half minute.
	minDown = 500 * time.Millisecond
	maxDown = 30 * time.Second
	// learnEvery is the time between two looks at which nodes there are, and how they fare; after a node has not answered it is
	// learnSoon.
	learnEvery = 5 * time.Second
	learnSoon  = time.Second
)

// pool is the nodes a client knows.
type pool struct {
	mu    sync.Mutex
	nodes []*node
	next  int
	// looked is when it was last asked which nodes there are, learn when to do so again.
	looked, learn time.Time
}

type node struct {
	base  string // scheme and authority, to put before a path
	given bool   // by the caller, who alone may take it away
	heard bool   // it has answered before; one that was not given is not used until then
	aside bool   // the cluster would rather not have it chosen

	failures  int
	downUntil time.Time
}

// newcomer is a node that the client has been told of, and its number.
type newcomer struct {
	n  *node
	id uint64
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

// pick returns the node for the next request, in turn, and another than not if there is one. Those that are down are passed over;
// when one's time has come, one request tries it and the others still pass it over. Those that the cluster would rather not have
// chosen come next, and while all are down it is the one whose time comes first.
func (p *pool) pick(now time.Time, not *node) *node {
	p.mu.Lock()
	defer p.mu.Unlock()
	var aside, first *node
	for range p.nodes {
		n := p.nodes[p.next%len(p.nodes)]
		p.next++
		switch {
		case n == not || !n.given && !n.heard:
		case n.failures == 0 && !n.aside:
			return n
		case n.failures == 0:
			if aside == nil {
				aside = n
			}
		case !n.downUntil.After(now):
			n.downUntil = now.Add(n.down())
			return n
		case first == nil || n.downUntil.Before(first.downUntil):
			first = n
		}
	}
	p.next++ // the circle is closed: the next request begins with another one
	return cmp.Or(aside, first, not)
}

func (n *node) down() time.Duration { return min(minDown<<min(n.failures, 10), maxDown) }

// failed marks a node that did not answer, and reports whether another one may. It is a reason to look for others soon.
func (p *pool) failed(n *node, now time.Time) (other bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n.failures++
	n.downUntil = now.Add(n.down())
	if soon := p.looked.Add(learnSoon); (n.given || n.heard) && soon.Before(p.learn) {
		p.learn = soon
	}
	return p.others(n)
}

// other reports whether another node than n is up.
func (p *pool) other(n *node) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.others(n)
}

func (p *pool) others(n *node) bool {
	return slices.ContainsFunc(p.nodes, func(o *node) bool { return o != n && o.failures == 0 && (o.given || o.heard) })
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
	p.looked, p.learn = now, now.Add(learnEvery)
	return true
}

// learned takes the nodes that the cluster has now, and returns those that are to be tried before they are used:
// behind a NAT the addresses that nodes tell of one another lead nowhere, or to somebody else. A node that is
// gone is forgotten unless the caller gave it; a given one that is no node and never answered comes last.
func (p *pool) learned(nodes []Node, now time.Time) (unseen []newcomer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	listed := make(map[string]Node)
	for _, info := range nodes {
		if info.State != Joining && info.State != Decommissioned {
			listed[info.REST] = info
		}
	}
	var kept []*node
	for _, n := range p.nodes {
		info, is := listed[n.addr()]
		switch {
		case is:
			n.heed(info)
			if !n.given && !n.heard && !n.downUntil.After(now) {
				unseen = append(unseen, newcomer{n, info.ID})
			}
		case !n.given:
			continue
		case !n.heard && n.failures == 0:
			n.failures, n.downUntil = 1, now
		}
		kept = append(kept, n)
		delete(listed, n.addr())
	}
	for _, info := range nodes {
		if _, isNew := listed[info.REST]; !isNew {
			continue
		}
		delete(listed, info.REST)
		n, err := newNode(info.REST, false)
		if err != nil {
			continue // of a later version, perhaps
		}
		n.heed(info)
		kept = append(kept, n)
		unseen = append(unseen, newcomer{n, info.ID})
	}
	p.nodes = kept
	return unseen
}

// heed notes whether the cluster would rather not have a node chosen: it is to be stopped, or does not fare well.
func (n *node) heed(info Node) {
	n.aside = info.State != "" && info.State != Active || info.Health == Unhealthy || info.Health == Dead
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
		if n.failures == 0 && (n.given || n.heard) {
			up = append(up, n.addr())
		}
	}
	if len(up) == 0 {
		return all
	}
	return up
}
