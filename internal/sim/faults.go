package sim

import (
	"errors"

	"hanse/internal/store"
	"hanse/internal/transport"
)

// startFaults has the periodic faults of the plan begin.
func (w *World) startFaults() {
	for _, k := range []struct {
		fault Fault
		do    func()
	}{
		{Partition, w.partition}, {OneWay, w.oneWay}, {Bridge, w.bridge},
		{Crash, func() { w.anyNode().crash("power lost") }},
		{DiskError, func() { w.anyNode().failing = true }},
		{StalledDisk, w.stall}, {Pause, w.pause}, {Jump, w.jump}, {Transfer, w.transfer},
		{Moves, w.moveAny}, {LostDisk, w.loseDisk}, {OldDisk, w.copyDisk}, {Operator, w.operatorActs}, {ProviderOutage, w.outage},
	} {
		if w.plan.On[k.fault] && (k.fault != LostDisk && k.fault != OldDisk || w.plan.Nodes >= 3) {
			w.every(k.fault, k.do)
		}
	}
}

// every lets a fault strike at random times with the mean of its rate, until the liveness phase.
func (w *World) every(f Fault, do func()) {
	w.after(w.faults.exponential(int64(w.plan.Rate[f]*float64(second))), nil, "fault", func() {
		if w.calm {
			return
		}
		do()
		w.every(f, do)
	})
}

func (w *World) anyNode() *node { return w.nodes[w.faults.below(len(w.nodes))] }

// cut cuts directions for a while.
func (w *World) cut(links [][2]transport.NodeID) {
	for _, l := range links {
		w.net.cut[l[0]][l[1]] = true
	}
	w.after(w.faults.between(100, 6000)*millisecond, nil, "heal", func() {
		for _, l := range links {
			w.net.cut[l[0]][l[1]] = false
		}
		w.tell("network healed")
	})
}

func (w *World) partition() {
	side := make([]bool, len(w.nodes))
	var left []transport.NodeID
	for i := range side {
		if side[i] = w.faults.chance(0.5); side[i] {
			left = append(left, w.nodes[i].id)
		}
	}
	var links [][2]transport.NodeID
	for i, a := range w.nodes {
		for j, b := range w.nodes {
			if side[i] != side[j] {
				links = append(links, [2]transport.NodeID{a.id, b.id})
			}
		}
	}
	if len(links) > 0 {
		w.tell("partition: nodes %v and the others", left)
		w.cut(links)
	}
}

func (w *World) oneWay() {
	a, b := w.anyNode(), w.anyNode()
	if a != b {
		w.tell("one way: node %d does not reach node %d", a.id, b.id)
		w.cut([][2]transport.NodeID{{a.id, b.id}})
	}
}

func (w *World) bridge() {
	if len(w.nodes) < 3 {
		return
	}
	middle := w.faults.below(len(w.nodes))
	var links [][2]transport.NodeID
	for i, a := range w.nodes {
		for j, b := range w.nodes {
			if i != middle && j != middle && i%2 != j%2 {
				links = append(links, [2]transport.NodeID{a.id, b.id})
			}
		}
	}
	w.tell("bridge: node %d alone sees both sides", middle+1)
	w.cut(links)
}

func (w *World) stall() {
	n := w.anyNode()
	took := w.faults.between(500, 15000) * millisecond
	n.stalledUntil = w.now + took
	w.tell("disk of node %d stalls for %.1f s", n.id, float64(took)/float64(second))
}

func (w *World) pause() {
	n := w.anyNode()
	took := w.faults.between(100, 5000) * millisecond
	n.pausedUntil = w.now + took
	w.tell("node %d pauses for %.1f s", n.id, float64(took)/float64(second))
}

func (w *World) jump() {
	n := w.anyNode()
	by := w.faults.between(-2000, 5000)
	if w.faults.chance(0.2) { // as if set by hand: far enough that orders expire
		by = w.faults.between(-600_000, 1_200_000)
	}
	n.offset += by
	w.tell("clock of node %d jumps by %d ms", n.id, by)
}

func (w *World) transfer() {
	n := w.anyNode()
	if n.life == 0 || n.pausedUntil > w.now {
		return
	}
	for _, id := range w.groups {
		if n.host.Leads(id) && w.faults.chance(0.5) {
			_ = n.host.TransferLeader(id, w.anyNode().id) // it may be refused
		}
	}
	n.wake()
}

func (w *World) outage() {
	w.provider.outUntil = w.now + w.faults.between(500, 10000)*millisecond
	w.tell("the provider is out for %.1f s", float64(w.provider.outUntil-w.now)/float64(second))
}

// clockBound is how far a clock is off, in ms, when all is well.
const clockBound = 6000

// heal ends all faults. A node that the plan leaves out stays dead.
func (w *World) heal() {
	w.calm = true
	w.tell("all faults end")
	w.net.heal()
	for _, n := range w.nodes {
		n.pausedUntil, n.stalledUntil, n.failing = 0, 0, false
		out := int(n.id) == w.plan.LeaveOut
		n.disk.FailNextRead(nil)
		n.disk.FailNextWrite(nil)
		n.disk.FailNextSync(nil)
		if n.life != 0 {
			if _, err := n.engine.Get([]byte("any")); !errors.Is(err, store.ErrNotFound) {
				n.crash("its disk had failed")
			}
		}
		if w := n.writing; w != nil {
			n.w.after(millisecond, n, "written", func() { n.written(w) })
		}
		n.offset = max(-clockBound, min(n.offset, clockBound))
		switch {
		case out && n.life != 0:
			n.crash("left out for good")
		case !out && n.life == 0 && !n.gone:
			n.start()
		}
	}
	w.operate()
}
