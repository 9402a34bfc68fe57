package transporttest

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"hanse/internal/transport"
)

// Node is a started transport under test.
type Node interface {
	transport.Transport
	Peers() []transport.Peer
	Connected(to transport.NodeID) bool
}

// Options say how to start a node.
type Options struct {
	ID transport.NodeID
	// Address is where the node listens; Start fails the test when it is taken.
	Address string
	// QueueBytes bounds the queues of all classes; zero means the default.
	QueueBytes int
	// Cluster is the cluster's name; empty means the same for all.
	Cluster string
	Handler transport.Handler
}

// Lab starts the transports of a test. They need to talk only among themselves. Everything must end with the test.
type Lab interface {
	// Start starts a node; stop ends it as a crash does, and returns when its handler is not called any more.
	Start(t *testing.T, o Options) (n Node, stop func())
	// Clusters says whether the transport knows clusters, and refuses nodes of another.
	Clusters() bool
	// Settle lets everything happen that happens by itself: connections, deliveries, and whatever
	// else half a minute brings.
	Settle()
}

// Run runs the suite. newLab is called inside the bubble of each test.
func Run(t *testing.T, newLab func(t *testing.T) Lab) {
	tests := []struct {
		name string
		test func(t *testing.T, lab Lab)
	}{
		{"delivers every kind of message", testDelivery},
		{"keeps the order of each class", testOrder},
		{"keeps the order of each of many senders", testConcurrentSenders},
		{"refuses unknown peers", testUnknownPeer},
		{"refuses what may not travel", testInvalid},
		{"bounds bodies", testBodyLimit},
		{"bounds queues in bytes", testBoundedQueue},
		{"follows a peer that moves", testMove},
		{"forgets a peer that is removed", testRemove},
		{"connects again after a crash", testRestart},
		{"does not talk to the wrong node", testWrongNode},
		{"does not talk to another cluster", testWrongCluster},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { test.test(t, newLab(t)) })
		})
	}
}

// inbox is a handler that keeps what arrives.
type inbox struct {
	mu       sync.Mutex
	messages map[string][]transport.Message // by "from/class"
	frames   int
}

func (b *inbox) handle(from transport.NodeID, class transport.Class, messages []transport.Message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.messages == nil {
		b.messages = map[string][]transport.Message{}
	}
	key := fmt.Sprintf("%d/%v", from, class)
	b.messages[key] = append(b.messages[key], messages...)
	b.frames++
}

// take returns the messages that came from a node in a class, and forgets them.
func (b *inbox) take(from transport.NodeID, class transport.Class) []transport.Message {
	b.mu.Lock()
	defer b.mu.Unlock()
	key := fmt.Sprintf("%d/%v", from, class)
	defer delete(b.messages, key)
	return b.messages[key]
}

// bodies returns the bodies of take as strings.
func (b *inbox) bodies(from transport.NodeID, class transport.Class) []string {
	var bodies []string
	for _, m := range b.take(from, class) {
		bodies = append(bodies, string(m.Body))
	}
	return bodies
}

func (b *inbox) empty() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.messages) == 0
}

func request(body string) transport.Message {
	return transport.Message{Kind: transport.KindRequest, ID: 1, Body: []byte(body)}
}

// pair starts nodes 1 and 2 that know one another.
func pair(t *testing.T, lab Lab) (one, two Node, boxes [2]*inbox, stopTwo func()) {
	boxes = [2]*inbox{{}, {}}
	one, _ = lab.Start(t, Options{ID: 1, Address: "one", Handler: boxes[0].handle})
	two, stopTwo = lab.Start(t, Options{ID: 2, Address: "two", Handler: boxes[1].handle})
	table := map[transport.NodeID]string{1: "one", 2: "two"}
	one.SetPeers(table)
	two.SetPeers(table)
	return one, two, boxes, stopTwo
}

func mustSend(t *testing.T, n Node, to transport.NodeID, class transport.Class, m transport.Message) {
	t.Helper()
	if !n.Send(to, class, m) {
		t.Fatalf("Send(%d, %v) = false, want true", to, class)
	}
}

func testDelivery(t *testing.T, lab Lab) {
	one, two, boxes, _ := pair(t, lab)
	sent := []transport.Message{
		{Kind: transport.KindRequest, ID: 77, Body: []byte("question")},
		{Kind: transport.KindResponse, ID: 77},
		{Kind: transport.KindHeartbeat, ID: 78, Body: []byte("well?")},
		{Kind: transport.KindHeartbeatAnswer, ID: 78, Body: []byte("well")},
		{Kind: transport.KindSnapshot, Group: 5, FromReplica: 1, ToReplica: 2, ID: 3, Body: bytes.Repeat([]byte{7}, 300<<10)},
		{Kind: transport.KindRaft, Group: 0x20001, FromReplica: 4, ToReplica: 5, Raft: &raftpb.Message{
			Type: raftpb.MsgApp.Enum(), From: new(uint64(4)), To: new(uint64(5)), Term: new(uint64(9)), LogTerm: new(uint64(8)),
			Index: new(uint64(1000)), Commit: new(uint64(998)), Reject: new(false), RejectHint: new(uint64(0)), Vote: new(uint64(0)),
			Entries: []*raftpb.Entry{{Type: raftpb.EntryNormal.Enum(), Term: new(uint64(9)), Index: new(uint64(1001)), Data: []byte("commands")}},
		}},
	}
	for class := range transport.Classes {
		for _, m := range sent {
			mustSend(t, one, 2, class, m)
		}
	}
	mustSend(t, two, 1, transport.Call, request("other way"))
	lab.Settle()
	for class := range transport.Classes {
		got := boxes[1].take(1, class)
		if len(got) != len(sent) {
			t.Fatalf("class %v: %d messages arrived, want %d", class, len(got), len(sent))
		}
		for i, want := range sent {
			g := got[i]
			if g.Kind != want.Kind || g.Group != want.Group || g.FromReplica != want.FromReplica || g.ToReplica != want.ToReplica ||
				g.ID != want.ID || !bytes.Equal(g.Body, want.Body) || (g.Raft == nil) != (want.Raft == nil) {
				t.Errorf("class %v: message %d arrived with other fields", class, i)
			}
			if want.Raft != nil && !proto.Equal(g.Raft, want.Raft) {
				t.Errorf("class %v: raft message\n got %v\nwant %v", class, g.Raft, want.Raft)
			}
		}
	}
	if got := boxes[0].bodies(2, transport.Call); !slices.Equal(got, []string{"other way"}) {
		t.Errorf("node 1 got %q, want the message of node 2", got)
	}
	if !boxes[0].empty() || !boxes[1].empty() {
		t.Error("something arrived that was not sent")
	}
	p := one.Peers()
	if len(p) != 1 || p[0].ID != 2 || !p[0].Connected || p[0].Err != "" || p[0].Queued != 0 || p[0].Dropped != 0 || p[0].SentBytes < 3*300<<10 {
		t.Errorf("Peers() = %+v, want node 2 connected, nothing queued or dropped, and 900 KiB or more sent", p)
	}
}

func testOrder(t *testing.T, lab Lab) {
	one, _, boxes, _ := pair(t, lab)
	const count = 5000
	for i := range count {
		for class := range transport.Classes {
			mustSend(t, one, 2, class, request(fmt.Sprint(i)))
		}
	}
	lab.Settle()
	for class := range transport.Classes {
		got := boxes[1].bodies(1, class)
		if len(got) != count {
			t.Fatalf("class %v: %d messages arrived, want %d", class, len(got), count)
		}
		for i, body := range got {
			if body != fmt.Sprint(i) {
				t.Fatalf("class %v: message %d is %s", class, i, body)
			}
		}
	}
	if boxes[1].frames > count {
		t.Errorf("%d messages came in %d frames, want a few large ones", 3*count, boxes[1].frames)
	}
}

func testConcurrentSenders(t *testing.T, lab Lab) {
	one, _, boxes, _ := pair(t, lab)
	const senders, count = 8, 500
	var wg sync.WaitGroup
	for s := range senders {
		wg.Go(func() {
			for i := range count {
				if !one.Send(2, transport.Raft, request(fmt.Sprintf("%d/%03d", s, i))) {
					t.Errorf("Send of sender %d refused", s)
				}
			}
		})
	}
	wg.Wait()
	lab.Settle()
	got := boxes[1].bodies(1, transport.Raft)
	// Sorting by sender alone must give the messages in order of both.
	slices.SortStableFunc(got, func(a, b string) int { return strings.Compare(a[:1], b[:1]) })
	if len(got) != senders*count || !slices.IsSorted(got) {
		t.Errorf("%d messages arrived, want %d, in the order of each sender", len(got), senders*count)
	}
}

func testUnknownPeer(t *testing.T, lab Lab) {
	box := &inbox{}
	one, _ := lab.Start(t, Options{ID: 1, Address: "one", Handler: box.handle})
	if one.Send(2, transport.Raft, request("a")) {
		t.Error("Send before SetPeers = true, want false")
	}
	one.SetPeers(map[transport.NodeID]string{1: "one", 2: "two"})
	if one.Send(3, transport.Raft, request("a")) {
		t.Error("Send to a node that is not in the table = true, want false")
	}
	if one.Send(1, transport.Raft, request("a")) {
		t.Error("Send to itself = true, want false")
	}
	if one.Send(2, transport.Classes, request("a")) {
		t.Error("Send in an unknown class = true, want false")
	}
	if p := one.Peers(); len(p) != 1 || p[0].ID != 2 || p[0].Connected || p[0].Err == "" {
		t.Errorf("Peers() = %+v, want node 2, not connected, with a reason", p)
	}
	for id := transport.NodeID(1); id <= 3; id++ {
		if one.Connected(id) {
			t.Errorf("Connected(%d) = true: itself, nobody, or not in the table", id)
		}
	}
}

func testInvalid(t *testing.T, lab Lab) {
	one, _, boxes, _ := pair(t, lab)
	if one.Send(2, transport.Raft, transport.Message{}) {
		t.Error("Send of an empty message = true, want false")
	}
	if one.Send(2, transport.Raft, transport.Message{Kind: transport.KindRaft, Group: 1, FromReplica: 1, ToReplica: 2, Raft: &raftpb.Message{
		Type: raftpb.MsgHeartbeatResp.Enum(), From: new(uint64(1)), To: new(uint64(2)), Context: []byte("7 bytes"),
	}}) {
		t.Error("Send of a heartbeat response that makes Raft panic = true, want false")
	}
	mustSend(t, one, 2, transport.Raft, request("good"))
	lab.Settle()
	if got := boxes[1].bodies(1, transport.Raft); !slices.Equal(got, []string{"good"}) {
		t.Errorf("%q arrived, want the good message alone", got)
	}
	if p := one.Peers(); p[0].Dropped != 2 {
		t.Errorf("Dropped = %d, want 2", p[0].Dropped)
	}
}

func testBodyLimit(t *testing.T, lab Lab) {
	one, _, boxes, _ := pair(t, lab)
	largest := make([]byte, transport.MaxBodyBytes)
	largest[0], largest[len(largest)-1] = 1, 2
	if one.Send(2, transport.Bulk, transport.Message{Kind: transport.KindSnapshot, Body: make([]byte, transport.MaxBodyBytes+1)}) {
		t.Error("Send of a body above the limit = true, want false")
	}
	mustSend(t, one, 2, transport.Bulk, transport.Message{Kind: transport.KindSnapshot, Body: largest})
	mustSend(t, one, 2, transport.Bulk, request("behind it"))
	lab.Settle()
	got := boxes[1].take(1, transport.Bulk)
	if len(got) != 2 || !bytes.Equal(got[0].Body, largest) || string(got[1].Body) != "behind it" {
		t.Errorf("%d messages arrived, want the largest body and the one behind it", len(got))
	}
	if p := one.Peers(); p[0].Dropped != 1 {
		t.Errorf("Dropped = %d, want 1", p[0].Dropped)
	}
}

func testBoundedQueue(t *testing.T, lab Lab) {
	const limit = 1 << 20
	one, _ := lab.Start(t, Options{ID: 1, Address: "one", QueueBytes: limit, Handler: new(inbox).handle})
	one.SetPeers(map[transport.NodeID]string{2: "nobody is here"})
	body := strings.Repeat("x", 10<<10)
	accepted := 0
	for one.Send(2, transport.Call, request(body)) {
		if accepted++; accepted > limit/len(body) {
			t.Fatalf("%d bytes accepted, want at most %d", accepted*len(body), limit)
		}
	}
	if accepted < limit/len(body)*9/10 {
		t.Errorf("%d messages of 10 KiB accepted, want nearly %d", accepted, limit/len(body))
	}
	p := one.Peers()[0]
	if p.Queued > limit || p.Queued < limit*9/10 || p.Dropped != 1 {
		t.Errorf("Queued = %d, Dropped = %d, want nearly %d and 1", p.Queued, p.Dropped, limit)
	}
	if !one.Send(2, transport.Raft, request("a")) {
		t.Error("a full queue of one class refuses another")
	}
	one.SetPeers(nil)
	one.SetPeers(map[transport.NodeID]string{2: "nobody is here"})
	if p := one.Peers()[0]; p.Queued != 0 {
		t.Errorf("Queued = %d after the peer was removed, want 0", p.Queued)
	}
}

func testMove(t *testing.T, lab Lab) {
	one, _, boxes, stop := pair(t, lab)
	mustSend(t, one, 2, transport.Call, request("at the old address"))
	lab.Settle()
	stop()
	moved := &inbox{}
	lab.Start(t, Options{ID: 2, Address: "elsewhere", Handler: moved.handle})
	one.SetPeers(map[transport.NodeID]string{2: "elsewhere"})
	mustSend(t, one, 2, transport.Call, request("at the new address"))
	lab.Settle()
	if got := boxes[1].bodies(1, transport.Call); !slices.Equal(got, []string{"at the old address"}) {
		t.Errorf("the old address got %q", got)
	}
	if got := moved.bodies(1, transport.Call); !slices.Equal(got, []string{"at the new address"}) {
		t.Errorf("the new address got %q", got)
	}
}

func testRemove(t *testing.T, lab Lab) {
	one, _, boxes, _ := pair(t, lab)
	mustSend(t, one, 2, transport.Call, request("before"))
	lab.Settle()
	one.SetPeers(nil)
	if one.Send(2, transport.Call, request("after")) {
		t.Error("Send to a removed peer = true, want false")
	}
	lab.Settle()
	if got := boxes[1].bodies(1, transport.Call); !slices.Equal(got, []string{"before"}) {
		t.Errorf("%q arrived, want what was sent before the peer was removed", got)
	}
	if p := one.Peers(); len(p) != 0 {
		t.Errorf("Peers() = %+v, want none", p)
	}
}

func testRestart(t *testing.T, lab Lab) {
	one, _, _, stop := pair(t, lab)
	lab.Settle()
	stop()
	one.Send(2, transport.Raft, request("lost or not"))
	lab.Settle()
	if p := one.Peers()[0]; p.Connected || p.Err == "" || one.Connected(2) {
		t.Errorf("Peers()[0] = %+v while node 2 is down, want not connected and a reason", p)
	}
	again := &inbox{}
	lab.Start(t, Options{ID: 2, Address: "two", Handler: again.handle})
	lab.Settle()
	mustSend(t, one, 2, transport.Raft, request("back"))
	lab.Settle()
	if got := again.bodies(1, transport.Raft); len(got) == 0 || got[len(got)-1] != "back" {
		t.Errorf("after the restart %q arrived, want the last to be what was sent last", got)
	}
	if p := one.Peers()[0]; !p.Connected || p.Err != "" || !one.Connected(2) {
		t.Errorf("Peers()[0] = %+v after the restart, want connected", p)
	}
}

func testWrongNode(t *testing.T, lab Lab) {
	box := &inbox{}
	one, _ := lab.Start(t, Options{ID: 1, Address: "one", Handler: new(inbox).handle})
	lab.Start(t, Options{ID: 3, Address: "three", Handler: box.handle})
	one.SetPeers(map[transport.NodeID]string{2: "three"})
	one.Send(2, transport.Raft, request("for node 2"))
	lab.Settle()
	if !box.empty() {
		t.Error("node 3 got a message for node 2")
	}
	if p := one.Peers()[0]; p.Connected || p.Err == "" || one.Connected(2) {
		t.Errorf("Peers()[0] = %+v, want not connected and a reason", p)
	}
}

func testWrongCluster(t *testing.T, lab Lab) {
	if !lab.Clusters() {
		t.Skip("this transport has one cluster")
	}
	box := &inbox{}
	one, _ := lab.Start(t, Options{ID: 1, Address: "one", Cluster: "luebeck", Handler: new(inbox).handle})
	lab.Start(t, Options{ID: 2, Address: "two", Cluster: "hamburg", Handler: box.handle})
	one.SetPeers(map[transport.NodeID]string{2: "two"})
	one.Send(2, transport.Raft, request("stray"))
	lab.Settle()
	if !box.empty() {
		t.Error("a message crossed from one cluster to another")
	}
	p := one.Peers()[0]
	if p.Connected || !strings.Contains(p.Err, "luebeck") || !strings.Contains(p.Err, "hamburg") {
		t.Errorf("Peers()[0] = %+v, want not connected and a reason that names both clusters", p)
	}
}
