package memtransport

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"

	"hanse/internal/transport"
)

// record is a handler that notes what arrives, as "from/class:body".
func record(into *[]string) transport.Handler {
	return func(from transport.NodeID, class transport.Class, messages []transport.Message) {
		for _, m := range messages {
			*into = append(*into, fmt.Sprintf("%d/%v:%s", from, class, m.Body))
		}
	}
}

func request(body string) transport.Message {
	return transport.Message{Kind: transport.KindRequest, Body: []byte(body)}
}

func pair(cfg Config) (n *Network, one, two *Transport, got *[]string) {
	n, got = NewNetwork(cfg), new([]string)
	one, two = n.Attach(1, "a", record(got)), n.Attach(2, "b", record(got))
	table := map[transport.NodeID]string{1: "a", 2: "b"}
	one.SetPeers(table)
	two.SetPeers(table)
	return n, one, two, got
}

func expect(t *testing.T, got *[]string, want ...string) {
	t.Helper()
	if !slices.Equal(*got, want) {
		t.Errorf("delivered %q, want %q", *got, want)
	}
	*got = nil
}

func TestPumpDeliversLinkByLink(t *testing.T) {
	n, one, two, got := pair(Config{})
	two.Send(1, transport.Call, request("x"))
	one.Send(2, transport.Bulk, request("c"))
	one.Send(2, transport.Call, request("a"))
	one.Send(2, transport.Call, request("b"))
	if delivered := n.Pump(); delivered != 4 {
		t.Errorf("Pump() = %d, want 4", delivered)
	}
	expect(t, got, "1/call:a", "1/call:b", "1/bulk:c", "2/call:x")
	if n.Pump() != 0 || len(n.Links()) != 0 {
		t.Errorf("after Pump, %v wait", n.Links())
	}
}

func TestPumpLeavesAnswersForTheNextRound(t *testing.T) {
	n := NewNetwork(Config{})
	var one, two *Transport
	answers := 0
	one = n.Attach(1, "a", func(transport.NodeID, transport.Class, []transport.Message) { answers++ })
	two = n.Attach(2, "b", func(_ transport.NodeID, _ transport.Class, messages []transport.Message) {
		two.Send(1, transport.Call, messages[0])
	})
	one.SetPeers(map[transport.NodeID]string{2: "b"})
	two.SetPeers(map[transport.NodeID]string{1: "a"})
	one.Send(2, transport.Call, request("ping"))
	if n.Pump(); answers != 0 {
		t.Errorf("%d answers in the first round, want 0", answers)
	}
	if n.Pump(); answers != 1 {
		t.Errorf("%d answers after the second round, want 1", answers)
	}
}

func TestTakeReordersDropsAndDuplicates(t *testing.T) {
	n, one, _, got := pair(Config{})
	l := Link{From: 1, To: 2, Class: transport.Call}
	for _, body := range []string{"a", "b", "c"} {
		one.Send(2, transport.Call, request(body))
	}
	last, _ := n.Take(l, 2)
	if _, ok := n.Take(l, 2); ok || n.Waiting(l) != 2 {
		t.Errorf("Take beyond the end succeeded, or %d wait, want 2", n.Waiting(l))
	}
	n.Take(l, 0) // lost
	if p := one.Peers()[0]; p.Queued != 64+1 {
		t.Errorf("Queued = %d with one message of 1 byte left, want 65", p.Queued)
	}
	n.Deliver(last)
	n.Deliver(last)
	n.Pump()
	expect(t, got, "1/call:c", "1/call:c", "1/call:b")
}

func TestCutLosesOneDirection(t *testing.T) {
	n, one, two, got := pair(Config{})
	one.Send(2, transport.Call, request("on its way"))
	n.Cut(1, 2)
	if !one.Send(2, transport.Call, request("into the cut")) {
		t.Error("Send into a cut = false, want true: the sender cannot know")
	}
	if n.Deliver(Envelope{Link: Link{From: 1, To: 2}, Address: "b"}) {
		t.Error("Deliver crossed the cut")
	}
	two.Send(1, transport.Call, request("back"))
	n.Pump()
	expect(t, got, "2/call:back")
	n.Heal(1, 2)
	one.Send(2, transport.Call, request("healed"))
	n.Pump()
	expect(t, got, "1/call:healed")
}

func TestCrash(t *testing.T) {
	n, one, two, got := pair(Config{})
	one.Send(2, transport.Call, request("last words"))
	one.Detach()
	if one.Send(2, transport.Call, request("from the grave")) {
		t.Error("a detached node sends")
	}
	n.Pump()
	expect(t, got, "1/call:last words")

	two.Send(1, transport.Call, request("to nobody"))
	n.Pump()
	expect(t, got)
	two.Send(1, transport.Call, request("to the next life"))
	n.Attach(1, "a", record(got))
	n.Pump()
	expect(t, got, "2/call:to the next life")
}

func TestAddressOfAnotherNode(t *testing.T) {
	n, one, _, got := pair(Config{})
	n.Attach(3, "b", record(got))
	one.Send(2, transport.Call, request("for 2"))
	n.Pump()
	expect(t, got)
	if p := one.Peers()[0]; p.Connected || p.Err != "another node at b" {
		t.Errorf("Peers()[0] = %+v, want another node at b", p)
	}
}

func TestInterceptOwnsTheMessage(t *testing.T) {
	var held []Envelope
	n, one, _, got := pair(Config{Intercept: func(e Envelope) bool {
		held = append(held, e)
		return len(held) < 3
	}})
	for i, want := range []bool{true, true, false} {
		if accepted := one.Send(2, transport.Call, request(fmt.Sprint(i))); accepted != want {
			t.Errorf("Send %d = %v, want %v", i, accepted, want)
		}
	}
	if n.Pump() != 0 {
		t.Error("Pump delivered what was intercepted")
	}
	n.Deliver(held[1])
	n.Deliver(held[0])
	expect(t, got, "1/call:1", "1/call:0")
	if p := one.Peers()[0]; p.Dropped != 1 || !p.Connected {
		t.Errorf("Peers()[0] = %+v, want connected with 1 dropped", p)
	}
}

func TestRunPumpsUntilItsContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, one, _, got := pair(Config{})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- n.Run(ctx) }()
		one.Send(2, transport.Call, request("a"))
		one.Send(2, transport.Call, request("b"))
		synctest.Wait()
		expect(t, got, "1/call:a", "1/call:b")
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Run = %v, want %v", err, context.Canceled)
		}
		one.Send(2, transport.Call, request("late"))
		synctest.Wait()
		expect(t, got)
	})
}
