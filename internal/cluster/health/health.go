package health

import (
	"time"

	"hanse/internal/cluster"
)

// Config of a detector.
type Config struct {
	// Interval is the time between heartbeats to a peer, and the time after which one counts as missed. Default 200 ms.
	Interval time.Duration
	// Misses in a row, over at least Silence since the last answer, mean that a peer is not reached; the first makes it suspect.
	// Defaults 3 and 1.2 s, which takes five or six misses of the default interval. Where every fifth packet is lost, each way, a heartbeat
	// is missed with probability 0.36: of 3,000 in ten minutes 90 runs are of three or longer, 12 of five, 4 of six. Two watchers must
	// have one at the same time in a cluster of three. Simulated there: 5 wrong judgements in ten hours, by three misses alone 500.
	// Raft has elected other leaders by then, so nothing waits for it.
	Misses  int
	Silence time.Duration
	// Well is how many answers in a row make it healthy again; it doubles with each relapse within a minute, up to MaxWell, so that
	// a node that comes and goes stays out. Defaults 3 and 48.
	Well, MaxWell int
	// DeadAfter is how long a node has to be silent to be dead. Default 5 s.
	DeadAfter time.Duration
	// SlowDisk is how long a write may be away before the node counts as unhealthy, and DiskSticky how long it then stays so at least: a
	// disk that hung once is likely to hang again. Defaults 300 ms and 10 s.
	SlowDisk, DiskSticky time.Duration
	// SlowFactor: a node whose round trips take more than so many times the median of the other peers', for SlowFor, is unhealthy.
	// Defaults 4 and 5 s, above a floor of 20 ms. Nodes of one cluster are meant to be near one another; raise the floor where they are not.
	SlowFactor float64
	SlowFor    time.Duration
	SlowFloor  time.Duration
	// WarnOffset, YieldOffset and StopOffset are offsets of a clock from the median at which it is reported, gives up its leaderships
	// (unhealthy), and stops, which is up to who reads [Detector.Offset]. Defaults 50, 200, 500 ms.
	WarnOffset, YieldOffset, StopOffset time.Duration
	// Pause is the time without any call after which this process must have stood still, or its clock was set. Default 250 ms.
	Pause time.Duration
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{
		Interval: 200 * time.Millisecond, Misses: 3, Silence: 1200 * time.Millisecond, Well: 3, MaxWell: 48, DeadAfter: 5 * time.Second,
		SlowDisk: 300 * time.Millisecond, DiskSticky: 10 * time.Second, SlowFactor: 4, SlowFor: 5 * time.Second, SlowFloor: 20 * time.Millisecond,
		WarnOffset: 50 * time.Millisecond, YieldOffset: 200 * time.Millisecond, StopOffset: 500 * time.Millisecond,
		Pause: 250 * time.Millisecond,
	}
}

// Heartbeat is an answered heartbeat: the four times of NTP, in ns; Sent and Received by this node's clock, PeerReceived and
// PeerSent by the peer's.
type Heartbeat struct {
	Sent, PeerReceived, PeerSent, Received int64
	// Stalled is how long the peer's current write has been away.
	Stalled time.Duration
	// Row is whom the peer reaches. The detector keeps it.
	Row []Link
}

// Link is one direction between two nodes.
type Link struct {
	To uint64
	// Reached says that heartbeats come back.
	Reached bool
	// RTT is what nine of ten of the latest round trips stayed below; 0 when none is known.
	RTT time.Duration
	// Offset is the clock of To minus that of the one who measures.
	Offset time.Duration
	// Since is when Reached became what it is, ms since 1970.
	Since int64
}

// Change is a change of a node's health.
type Change struct {
	Node     uint64
	From, To cluster.Health
	Reason   string
}
