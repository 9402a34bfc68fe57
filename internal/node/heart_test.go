package node

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hanse/internal/transport"
)

// beats brings the messages of one node's heart to another's, in their order, as a stream does.
type beats struct {
	transport.Transport
	from  transport.NodeID
	to    atomic.Pointer[heart]
	queue chan transport.Message
}

func newBeats(t *testing.T, from transport.NodeID) *beats {
	b := &beats{from: from, queue: make(chan transport.Message, 100)}
	go func() {
		for {
			select {
			case <-t.Context().Done():
				return
			case m := <-b.queue:
				b.to.Load().receive(from, &m)
			}
		}
	}()
	return b
}

func (b *beats) Send(_ transport.NodeID, _ transport.Class, m transport.Message) bool {
	b.queue <- m
	return true
}

// A node that is about to stop says so, and is not chosen while another is; when it is back it is.
func TestHeart_tells_that_its_node_is_about_to_stop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := slog.New(slog.DiscardHandler)
		toA, toB := newBeats(t, 2), newBeats(t, 1)
		a, b := newHeart(1, toB, time.Now, log), newHeart(2, toA, time.Now, log)
		toA.to.Store(a)
		toB.to.Store(b)
		a.setPeers([]uint64{2})
		b.setPeers([]uint64{1})
		ctx, end := context.WithCancel(t.Context())
		go func() { _ = a.run(ctx) }() // they end with the context, and have no errors
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
		end()
		synctest.Wait()
		again := newHeart(1, toB, time.Now, log)
		again.setPeers([]uint64{2})
		toA.to.Store(again)
		go func() { _ = again.run(t.Context()) }()
		time.Sleep(time.Second)
		if !b.well(1) {
			t.Error("not chosen after it is back")
		}
	})
}
