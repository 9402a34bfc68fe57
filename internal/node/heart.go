package node

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"hanse/internal/cluster"
	"hanse/internal/cluster/health"
	"hanse/internal/transport"
)

// heart sends heartbeats to all peers, answers theirs, and tells the detector. What it finds out is read by the router (who is not to
// be chosen), the steward (who should not lead, whom to replace) and status pages. Its methods may be used concurrently.
type heart struct {
	cfg     health.Config
	self    uint64
	network transport.Transport
	log     *slog.Logger
	now     func() time.Time     // the node's clock, as others see it
	stalled func() time.Duration // how long the current write has been away
	version func() uint64        // of this node's view of the cluster
	saw     func(version uint64) // takes those of others

	stopping atomic.Bool // this node is about to stop
	nextID   atomic.Uint64
	mu       sync.Mutex
	detect   *health.Detector
	pending  map[uint64]beat      // by ID
	heard    map[uint64]time.Time // when a node's last heartbeat or answer came
	replied  map[uint64]bool      // who has ever answered
	peers    []uint64
	changed  []func([]health.Change)

	seen atomic.Pointer[vitals]
}

type beat struct {
	peer uint64
	sent time.Time
}

// vitals is what the heart knows, as of its last beat; it is replaced, never changed.
type vitals struct {
	health  map[uint64]cluster.Observed
	row     []health.Link
	links   map[uint64]health.Link // of row, by node
	matrix  map[uint64][]health.Link
	leaving map[uint64]bool // who is about to stop
	offset  time.Duration   // of this node's clock
	compare bool            // offset is known
}

func newHeart(self uint64, network transport.Transport, now func() time.Time, log *slog.Logger) *heart {
	h := &heart{
		cfg: health.DefaultConfig(), self: self, network: network, now: now, log: log,
		stalled: func() time.Duration { return 0 }, version: func() uint64 { return 0 }, saw: func(uint64) {},
		pending: make(map[uint64]beat), heard: make(map[uint64]time.Time), replied: make(map[uint64]bool),
	}
	h.detect = health.New(h.cfg, self, now().UnixNano())
	h.nextID.Store(rand.Uint64() >> 16)
	h.seen.Store(&vitals{})
	return h
}

func (h *heart) setPeers(peers []uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.peers = peers
	h.detect.SetPeers(peers, h.now().UnixNano())
}

// judgeInterval is how often the detector judges. It has to be called well within health.Config.Pause, for it takes a gap for a
// standstill of this process.
const judgeInterval = 50 * time.Millisecond

// run beats until ctx ends.
func (h *heart) run(ctx context.Context) error {
	t := time.NewTicker(judgeInterval)
	defer t.Stop()
	var sent time.Time
	for {
		due := time.Since(sent) >= h.cfg.Interval-judgeInterval/2
		if due {
			sent = time.Now()
		}
		h.beat(due)
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}

// beat counts what was not answered in time, asks all again when that is due, and judges.
func (h *heart) beat(due bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.now().UnixNano()
	for id, b := range h.pending {
		if time.Since(b.sent) >= h.cfg.Interval {
			h.detect.Missed(b.peer, "no answer to heartbeats", now)
			delete(h.pending, id)
		}
	}
	for _, p := range h.peers {
		if !due {
			break
		}
		id := h.nextID.Add(1)
		body := encodeBeat(h.now().UnixNano(), h.version(), h.stopping.Load())
		if h.network.Send(transport.NodeID(p), transport.Call, transport.Message{Kind: transport.KindHeartbeat, ID: id, Body: body}) {
			h.pending[id] = beat{p, time.Now()}
		} else {
			h.detect.Missed(p, "no connection", now)
		}
	}
	h.detect.Self(h.stalled(), now)
	h.judge(now)
}

func (h *heart) judge(now int64) {
	changes := h.detect.Tick(now)
	v := &vitals{
		health: h.detect.Observed(), row: h.detect.Row(), matrix: h.detect.Matrix(), links: make(map[uint64]health.Link), leaving: h.seen.Load().leaving,
	}
	for _, l := range v.row {
		v.links[l.To] = l
	}
	v.offset, v.compare = h.detect.Offset()
	h.seen.Store(v)
	for _, c := range changes {
		log := h.log.With("peer", c.Node, "health", c.To.String(), "was", c.From.String())
		if c.To > cluster.Suspect {
			log.Warn("node is not well", "reason", c.Reason)
		} else {
			log.Info("health changed", "reason", c.Reason)
		}
	}
	if len(changes) > 0 {
		for _, fn := range h.changed {
			fn(changes)
		}
	}
}

// stop tells the others that this node is about to stop, so that they choose another while there is one.
func (h *heart) stop() {
	h.stopping.Store(true)
	h.beat(true)
}

// noteLeaving notes what a node says of its own near future. It is called with mu held.
func (h *heart) noteLeaving(node uint64, leaving bool) {
	v := *h.seen.Load()
	if v.leaving[node] == leaving {
		return
	}
	v.leaving = maps.Clone(v.leaving)
	if v.leaving == nil {
		v.leaving = make(map[uint64]bool)
	}
	v.leaving[node] = leaving
	h.seen.Store(&v)
}

// receive answers a heartbeat, or takes an answer.
func (h *heart) receive(from transport.NodeID, m *transport.Message) {
	switch m.Kind {
	case transport.KindHeartbeat:
		received := h.now().UnixNano()
		sent, version, leaving, err := decodeBeat(m.Body)
		if err != nil {
			return
		}
		h.saw(version)
		h.mu.Lock()
		h.heard[uint64(from)] = time.Now()
		h.noteLeaving(uint64(from), leaving)
		h.mu.Unlock()
		a := answeredBeat{
			sent: sent, received: received, stalled: h.stalled(), version: h.version(), row: h.seen.Load().row, answered: h.now().UnixNano(),
		}
		h.network.Send(from, transport.Call, transport.Message{Kind: transport.KindHeartbeatAnswer, ID: m.ID, Body: a.encode()})
	case transport.KindHeartbeatAnswer:
		received := h.now().UnixNano()
		a, err := decodeAnsweredBeat(m.Body)
		if err != nil {
			return
		}
		h.saw(a.version)
		h.mu.Lock()
		defer h.mu.Unlock()
		h.heard[uint64(from)] = time.Now()
		b, ok := h.pending[m.ID]
		if !ok || b.peer != uint64(from) {
			return // too late: it has counted as missed
		}
		delete(h.pending, m.ID)
		h.replied[b.peer] = true
		h.detect.Answered(b.peer, health.Heartbeat{
			Sent: a.sent, PeerReceived: a.received, PeerSent: a.answered, Received: received, Stalled: a.stalled, Row: a.row,
		})
	}
}

// offset is how far this node's clock is from the median of the cluster's.
func (h *heart) offset() (offset time.Duration, known bool) {
	v := h.seen.Load()
	return v.offset, v.compare
}

// answered counts who of some nodes has answered since this node's start.
func (h *heart) answered(nodes []uint64) (count int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, n := range nodes {
		if h.replied[n] {
			count++
		}
	}
	return count
}

// silent is how long nothing has been heard of a node.
func (h *heart) silent(n transport.NodeID) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return time.Since(h.heard[uint64(n)])
}

// reached says whether heartbeats to a node come back.
func (h *heart) reached(n transport.NodeID) bool {
	l, known := h.seen.Load().links[uint64(n)]
	return !known || l.Reached
}

// doubtful says whether something is wrong with a node, a single missing heartbeat perhaps.
func (h *heart) doubtful(n transport.NodeID) bool {
	return h.seen.Load().health[uint64(n)].Health > cluster.Healthy
}

// well says whether a node may be chosen for work.
func (h *heart) well(n transport.NodeID) bool {
	v := h.seen.Load()
	return v.health[uint64(n)].Health < cluster.Unhealthy && !v.leaving[uint64(n)]
}

// A heartbeat: version | sent 8 | version of the view 8 | flags 1. Times are ns since 1970. The first programs sent no flags.
const beatVersion = 1

// flagLeaving says that the node is about to stop.
const flagLeaving = 1

func encodeBeat(sent int64, version uint64, leaving bool) []byte {
	b := append(make([]byte, 0, 18), beatVersion)
	b = binary.LittleEndian.AppendUint64(b, uint64(sent))
	b = binary.LittleEndian.AppendUint64(b, version)
	if leaving {
		return append(b, flagLeaving)
	}
	return append(b, 0)
}

func decodeBeat(b []byte) (sent int64, version uint64, leaving bool, err error) {
	if len(b) < 17 || b[0] != beatVersion { // a later version may add to it
		return 0, 0, false, errors.New("malformed heartbeat")
	}
	return int64(binary.LittleEndian.Uint64(b[1:])), binary.LittleEndian.Uint64(b[9:]), len(b) > 17 && b[17]&flagLeaving != 0, nil
}

// answeredBeat is the answer: version | sent 8 | received 8 | answered 8 | stalled ms 4 | version of the view 8 | number of links 2,
// and of each: to 8 | reached 1 | round trip in us 4 | offset 8 | since 8.
type answeredBeat struct {
	sent, received, answered int64
	stalled                  time.Duration
	version                  uint64
	row                      []health.Link
}

const (
	answerBytes = 39
	linkBytes   = 29
	maxLinks    = 1000
)

func (a *answeredBeat) encode() []byte {
	row := a.row[:min(len(a.row), maxLinks)]
	b := append(make([]byte, 0, answerBytes+len(row)*linkBytes), beatVersion)
	for _, t := range []int64{a.sent, a.received, a.answered} {
		b = binary.LittleEndian.AppendUint64(b, uint64(t))
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(min(a.stalled.Milliseconds(), math.MaxUint32)))
	b = binary.LittleEndian.AppendUint64(b, a.version)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(row)))
	for _, l := range row {
		b = binary.LittleEndian.AppendUint64(b, l.To)
		reached := byte(0)
		if l.Reached {
			reached = 1
		}
		b = append(b, reached)
		b = binary.LittleEndian.AppendUint32(b, uint32(min(l.RTT.Microseconds(), math.MaxUint32)))
		b = binary.LittleEndian.AppendUint64(b, uint64(l.Offset))
		b = binary.LittleEndian.AppendUint64(b, uint64(l.Since))
	}
	return b
}

func decodeAnsweredBeat(b []byte) (answeredBeat, error) {
	if len(b) < answerBytes || b[0] != beatVersion {
		return answeredBeat{}, errors.New("malformed answer to a heartbeat")
	}
	u64 := func(at int) uint64 { return binary.LittleEndian.Uint64(b[at:]) }
	a := answeredBeat{
		sent: int64(u64(1)), received: int64(u64(9)), answered: int64(u64(17)),
		stalled: time.Duration(binary.LittleEndian.Uint32(b[25:])) * time.Millisecond, version: u64(29),
	}
	n := int(binary.LittleEndian.Uint16(b[37:]))
	b = b[answerBytes:]
	if n > maxLinks || len(b) < n*linkBytes {
		return answeredBeat{}, fmt.Errorf("malformed answer to a heartbeat: %d links in %d bytes", n, len(b))
	}
	for ; n > 0; n, b = n-1, b[linkBytes:] {
		if b[8] > 1 {
			return answeredBeat{}, errors.New("malformed link in the answer to a heartbeat")
		}
		a.row = append(a.row, health.Link{
			To: binary.LittleEndian.Uint64(b), Reached: b[8] == 1, RTT: time.Duration(binary.LittleEndian.Uint32(b[9:])) * time.Microsecond,
			Offset: time.Duration(binary.LittleEndian.Uint64(b[13:])), Since: int64(binary.LittleEndian.Uint64(b[21:])),
		})
	}
	return a, nil
}
