package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"hanse/internal/freeport"
)

// resend is how long a lost segment takes to come again: TCP's smallest retransmission timeout on Linux.
const resend = 200 * time.Millisecond

// proxyNetwork is loopback with proxies in between. It carries TCP alone, and does to its streams what a network does to packets as seen
// through TCP: what is cut off or lost does not vanish, it comes when the way is free again. Gossip, which is UDP, goes past it.
//
// Nodes tell one another at which address each is reached, so a node has one for all others, and the proxy finds out who calls: it looks
// for the process that has the other end of the connection.
type proxyNetwork struct {
	doors   map[door]string // where hosts serve
	proxies map[way]net.Listener
	wg      sync.WaitGroup
	closed  chan struct{}
	// owner tells the hosts of processes, by pid. It is set before the first node is started.
	owner func() map[int]host

	mu      sync.Mutex
	links   map[link]trouble
	changed chan struct{} // closed and replaced when links change
	conns   map[net.Conn]struct{}
}

type door struct {
	host    host
	service service
}

type way struct {
	from host
	to   door
}

// newProxyNetwork listens for every way that there is among so many nodes.
func newProxyNetwork(nodes int) (*proxyNetwork, error) {
	p := &proxyNetwork{
		doors: make(map[door]string), proxies: make(map[way]net.Listener), closed: make(chan struct{}),
		changed: make(chan struct{}), conns: make(map[net.Conn]struct{}),
	}
	doors := []door{{providerHost, providerDoor}}
	for n := 1; n <= nodes; n++ {
		doors = append(doors, door{host(n), restDoor}, door{host(n), peerDoor}, door{host(n), gossipDoor})
	}
	first, err := freeport.Blocks(nodes)
	if err != nil {
		return nil, err
	}
	for i, d := range doors {
		port := first + i/(freeport.Size-1)*freeport.Size + i%(freeport.Size-1) // the last of each block is held
		p.doors[d] = fmt.Sprintf("127.0.0.1:%d", port)
	}
	callers := func(d door) []host {
		switch d.service {
		case peerDoor:
			return []host{anyNode}
		case gossipDoor:
			return nil
		}
		return hosts(nodes)
	}
	for _, d := range doors {
		for _, from := range callers(d) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return nil, errors.Join(fmt.Errorf("listen for a proxy: %w", err), p.close())
			}
			w := way{from, d}
			p.proxies[w] = l
			p.wg.Go(func() { p.accept(l, w) })
		}
	}
	return p, nil
}

func (p *proxyNetwork) listen(h host, s service) string { return p.doors[door{h, s}] }

func (p *proxyNetwork) reach(from, to host, s service) string {
	if l := p.proxies[way{from, door{to, s}}]; l != nil {
		return l.Addr().String()
	}
	return p.listen(to, s)
}

func (p *proxyNetwork) prefix(host) []string { return nil }

func (p *proxyNetwork) shape(_ context.Context, links map[link]trouble) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.links = links
	close(p.changed)
	p.changed = make(chan struct{})
	return nil
}

func (p *proxyNetwork) close() error {
	close(p.closed)
	for _, l := range p.proxies {
		l.Close()
	}
	p.mu.Lock()
	for c := range p.conns {
		c.Close()
	}
	p.mu.Unlock()
	p.wg.Wait()
	return nil
}

// gate waits for as long as a link does not let anything through.
func (p *proxyNetwork) gate(l link) bool {
	for {
		p.mu.Lock()
		t, changed := p.links[l], p.changed
		p.mu.Unlock()
		if !t.Cut {
			late := t.Delay
			for t.Loss > 0 && rand.Float64() < t.Loss {
				late += resend
			}
			if late == 0 {
				return true
			}
			select {
			case <-time.After(late):
				return true
			case <-p.closed:
				return false
			}
		}
		select {
		case <-changed:
		case <-p.closed:
			return false
		}
	}
}

func (p *proxyNetwork) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.closed:
		c.Close()
		return false
	default:
	}
	p.conns[c] = struct{}{}
	return true
}

func (p *proxyNetwork) drop(c net.Conn) {
	p.mu.Lock()
	delete(p.conns, c)
	p.mu.Unlock()
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0) // the other side shall see a reset, as from a dead process; an error means that it is closed
	}
	c.Close()
}

func (p *proxyNetwork) accept(l net.Listener, w way) {
	for {
		c, err := l.Accept()
		if err != nil {
			return // closed: an accept of a proxy that cannot go on fails the run by its silence
		}
		if p.keep(c) {
			p.wg.Go(func() { p.connect(c, w) })
		}
	}
}

// connect carries one connection: there, and back.
func (p *proxyNetwork) connect(c net.Conn, w way) {
	defer p.drop(c)
	if w.from == anyNode {
		err := errors.New("not looked for yet")
		for range callerLooks {
			if w.from, err = p.caller(c); err == nil {
				break
			}
		}
		if err != nil {
			return // it has ended meanwhile: nobody would hear the answer
		}
	}
	there, back := link{w.from, w.to.host}, link{w.to.host, w.from}
	if !p.gate(there) || !p.gate(back) { // as a handshake that gets no answer
		return
	}
	target, err := net.DialTimeout("tcp", p.doors[w.to], 5*time.Second)
	if err != nil || !p.keep(target) {
		return
	}
	defer p.drop(target)
	done := make(chan struct{}, 2)
	carry := func(l link, from, to net.Conn) {
		defer func() { done <- struct{}{} }()
		buffer := make([]byte, 64<<10)
		for {
			n, err := from.Read(buffer)
			if n > 0 && (!p.gate(l) || write(to, buffer[:n]) != nil) {
				return
			}
			if err != nil {
				if errors.Is(err, io.EOF) && p.gate(l) { // the word that one side is done travels too
					if t, ok := to.(*net.TCPConn); ok {
						_ = t.CloseWrite()
					}
				}
				return
			}
		}
	}
	p.wg.Go(func() { carry(there, c, target) })
	p.wg.Go(func() { carry(back, target, c) })
	<-done
	// The other direction ends soon after, or when the run does; a process that died takes both with it.
	select {
	case <-done:
	case <-time.After(10 * time.Second):
	case <-p.closed:
	}
}

// callerLooks is how often a caller is looked for. The kernel's table is read in pieces, and a socket may slip between two of them while
// others come and go.
const callerLooks = 20

// caller finds the host whose process has the other end of a connection.
func (p *proxyNetwork) caller(c net.Conn) (host, error) {
	inode, err := socketInode(c.RemoteAddr().(*net.TCPAddr), c.LocalAddr().(*net.TCPAddr))
	if err != nil {
		return anyNode, err
	}
	for pid, h := range p.owner() {
		files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		if err != nil {
			return anyNode, err
		}
		for _, file := range files {
			if target, err := os.Readlink(file); err == nil && target == "socket:["+inode+"]" { // another may have been closed meanwhile
				return h, nil
			}
		}
	}
	return anyNode, fmt.Errorf("nobody has the socket of %v", c.RemoteAddr())
}

// socketInode finds the socket between two IPv4 addresses, its own first, in the kernel's table. Its own alone does not tell it from those that had the port
// before, and are still waited for.
func socketInode(own, other *net.TCPAddr) (string, error) {
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return "", fmt.Errorf("read the kernel's sockets: %w", err)
	}
	address := func(a *net.TCPAddr) string {
		ip := a.IP.To4()
		return fmt.Sprintf("%02X%02X%02X%02X:%04X", ip[3], ip[2], ip[1], ip[0], a.Port)
	}
	from, to := address(own), address(other)
	for line := range strings.Lines(string(table)) {
		// sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode
		if f := strings.Fields(line); len(f) > 9 && f[1] == from && f[2] == to {
			return f[9], nil
		}
	}
	return "", fmt.Errorf("the kernel has no socket from %v to %v", own, other)
}

func write(c net.Conn, b []byte) error {
	_, err := c.Write(b)
	return err
}
