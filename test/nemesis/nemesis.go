package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"hanse/internal/dev"
)

// injection is a fault as it happened.
type injection struct {
	fault
	// Began and Ended are when it was done and undone, Whole is when all nodes were ready again; all since the beginning of the run.
	Began, Ended, Whole time.Duration
	Err                 error
}

// nemesis carries a plan out.
type nemesis struct {
	cfg     clusterConfig
	cluster *cluster
	shaper  *shaper
	disk    *smallDisk // nil without one
	now     func() time.Duration
	report  func(format string, args ...any)

	mu         sync.Mutex
	injections []*injection
}

const (
	// A node has so long to be ready after its fault has ended: it starts, catches up, and hears of a leader of each shard.
	wholeTime = 60 * time.Second
)

// run injects the faults of a plan in their order until ctx ends. A fault waits until the nodes that it spares are ready, and those that were
// not planned to overlap until the one before is over; what is late then makes all that follow late.
func (n *nemesis) run(ctx context.Context, plan []fault) {
	var wg sync.WaitGroup
	defer wg.Wait()
	type active struct {
		f    *fault
		over chan struct{}
	}
	var running []active
	late := time.Duration(0)
	for i := range plan {
		f := &plan[i]
		select {
		case <-ctx.Done():
			return
		case <-time.After(f.At + late - n.now()):
		}
		var together uint
		for _, a := range running {
			if a.f.end() > f.At {
				together |= a.f.hurt()
				continue
			}
			select {
			case <-a.over:
			case <-ctx.Done():
				return
			}
		}
		if f.hurt() != 0 && !f.all() {
			n.waitReady(ctx, f.hurt()|together)
		}
		if ctx.Err() != nil {
			return
		}
		late = max(late, n.now()-f.At)
		over := make(chan struct{})
		running = append(slices.DeleteFunc(running, func(a active) bool { return isClosed(a.over) }), active{f, over})
		wg.Go(func() { defer close(over); n.inject(ctx, f) })
	}
	wg.Wait()
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// inject does one fault, for its time, and undoes it even when ctx ends meanwhile.
func (n *nemesis) inject(ctx context.Context, f *fault) {
	in := &injection{fault: *f, Began: n.now(), Ended: -1, Whole: -1}
	n.mu.Lock()
	n.injections = append(n.injections, in)
	n.mu.Unlock()
	n.report("%v", f)
	undo, err := n.do(context.WithoutCancel(ctx), f)
	if err == nil {
		select {
		case <-ctx.Done():
		case <-time.After(f.For):
		}
	}
	if undo != nil {
		err = errors.Join(err, undo())
	}
	n.mu.Lock()
	in.Ended, in.Err = n.now(), err
	n.mu.Unlock()
	if n.waitReady(ctx, 0) {
		n.mu.Lock()
		in.Whole = n.now()
		n.mu.Unlock()
	}
}

// waitReady waits until all nodes but some are ready, and reports whether they are.
func (n *nemesis) waitReady(ctx context.Context, but uint) bool {
	ctx, cancel := context.WithTimeout(ctx, wholeTime)
	defer cancel()
	for node := 1; node <= n.cfg.Nodes; node++ {
		if but&(1<<node) != 0 {
			continue
		}
		if err := dev.WaitReady(ctx, n.url(node)+"/readyz"); err != nil {
			return false
		}
	}
	return true
}

func (n *nemesis) url(node int) string {
	return "http://" + n.cluster.network.reach(clientsHost, host(node), restDoor)
}

// do begins a fault and returns what ends it.
func (n *nemesis) do(ctx context.Context, f *fault) (undo func() error, err error) {
	switch f.Kind {
	case killNode, killAll:
		return n.down(ctx, f.Nodes, syscall.SIGKILL)
	case restartNode, restartAll:
		return n.down(ctx, f.Nodes, syscall.SIGTERM)
	case pauseNode:
		p := n.cluster.nodes[f.Nodes[0]-1]
		p.signal(syscall.SIGSTOP)
		return func() error { p.signal(syscall.SIGCONT); return nil }, nil
	case provider:
		p := n.cluster.provider
		return p.release, p.hold(ctx, syscall.SIGKILL)
	case wrongClock:
		file := n.cfg.clockFile(f.Nodes[0])
		return func() error { return writeClock(file, rightClock) }, writeClock(file, f.Clock)
	case syncError, syncStall, syncLie:
		p := n.cluster.nodes[f.Nodes[0]-1]
		pid := p.pid()
		if pid == 0 {
			return nil, nil // it is down already, and has no syncs that could fail
		}
		t := &tracer{spawner: p.spawner, log: n.cfg.Dir + "/strace.log"}
		return func() error {
			if f.Kind == syncLie { // while it still believes what it was told
				return errors.Join(p.hold(ctx, syscall.SIGKILL), t.detach(pid), p.release())
			}
			return t.detach(pid)
		}, t.attach(pid, inject(f))
	case fullDisk:
		return n.disk.free, n.disk.fill()
	}
	return func() error { return n.shaper.remove(ctx, f) }, n.shaper.add(ctx, f)
}

// writeClock replaces the file in one step: a node may read it at any moment.
func writeClock(file, text string) error {
	if err := os.WriteFile(file+".new", []byte(text), 0o644); err != nil {
		return fmt.Errorf("write a clock: %w", err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		return fmt.Errorf("write a clock: %w", err)
	}
	return nil
}

// down ends nodes with a signal, and starts them when it is undone.
func (n *nemesis) down(ctx context.Context, nodes []int, sig syscall.Signal) (undo func() error, err error) {
	return func() error { return n.cluster.each(nodes, (*process).release) },
		n.cluster.each(nodes, func(p *process) error {
			if sig == syscall.SIGTERM {
				p.signal(syscall.SIGCONT)
			}
			return p.hold(ctx, sig)
		})
}

// excused reports whether a process may have ended by itself at a time: a node has to when its disk fails or its
// clock is far off. It may find out only somewhat later, so the excuse lasts until all was well again.
func excused(injections []*injection, node string, at time.Duration) bool {
	for _, in := range injections {
		switch in.Kind {
		case syncError, syncStall, fullDisk, wrongClock:
			whole := in.Whole
			if whole < 0 {
				whole = 1 << 62
			}
			if host(in.Nodes[0]).String() == node && at >= in.Began && at <= whole+time.Second {
				return true
			}
		}
	}
	return false
}
