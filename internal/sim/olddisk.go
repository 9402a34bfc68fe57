package sim

import (
	"hanse/api/metapb"
	"hanse/internal/store/memstore"
	"hanse/internal/transport"
)

// Old copies of disks. A node counts its starts on its disk (boot numbers), and its peers know of the newest start they have
// heard of: a later process that comes with a number that is not greater runs on an old copy. It has forgotten votes and
// acknowledgements, so nobody listens to it; told so it stops, and is replaced like a node whose disk was lost. See docs/simulator.md for
// what boot numbers cannot tell.

// start is one start of a node as its peers know it.
type start struct{ boot, life uint64 }

// oldCopy is a disk as it was some time ago.
type oldCopy struct {
	disk *memstore.Disk
	boot uint64
}

const (
	// copyAge bounds the age of a copy when it is put back.
	copyAge = 20 * second
	// refusalTakes is, at most, how long a node that is not heard takes to learn why.
	refusalTakes = 2 * second
)

// copyDisk takes a copy of a node's disk, to be put back later.
func (w *World) copyDisk() {
	n := w.anyNode()
	if int(n.id) == w.plan.LeaveOut {
		return
	}
	c := oldCopy{n.disk.Copy(), n.boot}
	w.tell("the disk of node %d is copied at boot %d", n.id, n.boot)
	w.after(w.faults.between(second, copyAge), nil, "put back", func() { w.putBack(n, c) })
}

// putBack has a node come back with an old copy of its disk. One whose peers have heard of no start since the copy was made is
// started once more instead: that is the case in which a boot number says nothing.
func (w *World) putBack(n *node, c oldCopy) {
	if w.calm || w.repairing() || !w.room() || n.life == 0 {
		return
	}
	if w.net.known[n.id].boot <= c.boot {
		n.crash("power lost")
		w.after(w.faults.between(2*second, copyAge), nil, "put back", func() { w.putBack(n, c) })
		return
	}
	n.crash("an old copy of its disk is put back")
	n.disk, n.boot, n.stale = c.disk, c.boot, !w.mutant.or().hearOldBoots
	w.hit(probeOldDisk)
}

// learn takes what the plan says of starts.
func (n *network) learn(nodes []*metapb.Node) {
	for _, m := range nodes {
		if k := &n.known[m.Id]; m.Boot > k.boot {
			*k = start{m.Boot, m.Process}
		}
	}
}

// refuses reports whether peers do not listen to a process: a start that is known already was another one.
func (n *network) refuses(id transport.NodeID, s start) bool {
	known := n.known[id]
	return s.life > known.life && s.boot <= known.boot && !n.w.mutant.or().hearOldBoots
}

// refused has a node that nobody listens to stop, and be replaced.
func (n *node) refused(why string) {
	if n.stale && n.life != 0 {
		n.crash(why)
		n.w.replace(n)
	}
}
