package health

import (
	"time"

	"hanse/internal/cluster"
)

// Config of a detector.
type Config struct {
	// Interval is the time between heartbeats to a peer, and the time after which one counts as missed. Default 200 ms.
	Interval time.Duration
	// Misses in a row make a node unhealthy, the first of them suspect. Default 3.
	Misses int
	// Well is how many answers in a row make it healthy again; it doubles with each relapse within a minute, up to MaxWell, so that
	// a node that comes and goes stays out. Defaults 3 and 48.
	Well, MaxWell int
	// DeadAfter is how long a node has to be silent to be dead. Default 5 s.
	DeadAfter time.Duration
	// SlowDisk is how long a write may be away before the node counts as unhealthy. Default 300 ms.
	SlowDisk time.Duration
	// SlowFactor: a node whose round trips take more than so many times the median of all peers', for SlowFor, is unhealthy.
	// Defaults 4 and 5 s, above a floor of 20 ms.
	SlowFactor float64
	SlowFor    time.Duration
	SlowFloor  time.Duration
	// WarnOffset, YieldOffset and StopOffset are offsets of a clock from the median of its peers' at which it is reported, gives up
	// its leaderships (unhealthy), and stops. Defaults 50, 200, 500 ms.
	WarnOffset, YieldOffset, StopOffset time.Duration
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{
		Interval: 200 * time.Millisecond, Misses: 3, Well: 3, MaxWell: 48, DeadAfter: 5 * time.Second,
		SlowDisk: 300 * time.Millisecond, SlowFactor: 4, SlowFor: 5 * time.Second, SlowFloor: 20 * time.Millisecond,
		WarnOffset: 50 * time.Millisecond, YieldOffset: 200 * time.Millisecond, StopOffset: 500 * time.Millisecond,
	}
}

// Heartbeat is an answered heartbeat: the four times of NTP, in ns; Sent and Received by this node's clock, PeerReceived and
// PeerSent by the peer's.
type Heartbeat struct {
	Sent, PeerReceived, PeerSent, Received int64
	// Stalled is how long the peer's current write has been away.
	Stalled time.Duration
	// Row is whom the peer reaches.
	Row []Link
}

// Link is one direction between two nodes.
type Link struct {
	To uint64
	// Reached says that heartbeats come back.
	Reached bool
	RTT     time.Duration
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

// Detector watches the peers of one node. It has one caller at a time.
type Detector struct{}

// New returns a detector of node self that has seen nothing. Now is in ns since 1970.
func New(cfg Config, self uint64, now int64) *Detector { panic("health: being written") }

// SetPeers says whom to watch; a new one begins as healthy, seen now.
func (d *Detector) SetPeers(nodes []uint64, now int64) { panic("health: being written") }

// Answered takes a heartbeat's answer; now is Received.
func (d *Detector) Answered(peer uint64, h Heartbeat) { panic("health: being written") }

// Missed says that a heartbeat was not answered within Interval, or could not be sent.
func (d *Detector) Missed(peer uint64, reason string, now int64) { panic("health: being written") }

// Self tells about this node: how long its current write has been away.
func (d *Detector) Self(stalled time.Duration, now int64) { panic("health: being written") }

// Tick judges, and returns what changed since the last one, by node.
func (d *Detector) Tick(now int64) []Change { panic("health: being written") }

// Observed returns the judgement of every node, self included: from this node's own heartbeats and the rows of the others. A node that
// this one does not reach but a majority of the healthy others does is suspect, and the reason names who does not reach it.
func (d *Detector) Observed() map[uint64]cluster.Observed { panic("health: being written") }

// Row is this node's own row of the matrix, by node; it goes into its answers to heartbeats.
func (d *Detector) Row() []Link { panic("health: being written") }

// Matrix returns all rows known, by node; each was heard within the last DeadAfter.
func (d *Detector) Matrix() map[uint64][]Link { panic("health: being written") }

// Offset is this node's clock minus the median of its own and its healthy peers' clocks; known is false with fewer than one answer.
func (d *Detector) Offset() (offset time.Duration, known bool) { panic("health: being written") }
