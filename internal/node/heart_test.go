package node

import (
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"hanse/internal/transport"
)

// beats brings the messages of one node's heart to another's.
type beats struct {
	transport.Transport
	from transport.NodeID
	to   *heart
}

func (b *beats) Send(_ transport.NodeID, _ transport.Class, m transport.Message) bool {
	go b.to.receive(b.from, &m)
	return true
}

// A node that is about to stop says so, and is not chosen while another is; when it is back it is.
func TestHeart_tells_that_its_node_is_about_to_stop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := slog.New(slog.DiscardHandler)
		a, b := newHeart(1, nil, time.Now, log), newHeart(2, nil, time.Now, log)
		a.network, b.network = &beats{from: 1, to: b}, &beats{from: 2, to: a}
		a.setPeers([]uint64{2})
		b.setPeers([]uint64{1})
		go func() { _ = a.run(t.Context()) }() // they end with the test, and have no errors
		go func() { _ = b.run(t.Context()) }()
		time.Sleep(5 * time.Second)
		if !b.well(1) || !a.well(2) {
			t.Fatal("not well at first")
		}
		a.stop()
		synctest.Wait()
		if b.well(1) || !b.reached(1) {
			t.Error("chosen although it is about to stop, or taken for dead")
		}
		time.Sleep(time.Second)
		if b.well(1) {
			t.Error("forgotten by the next look at all nodes")
		}
		again := newHeart(1, &beats{from: 1, to: b}, time.Now, log)
		again.setPeers([]uint64{2})
		b.network = &beats{from: 2, to: again}
		a.network = nobody{}
		go func() { _ = again.run(t.Context()) }()
		time.Sleep(time.Second)
		if b.well(1) {
			return
		}
		t.Error("not chosen after it is back")
	})
}
