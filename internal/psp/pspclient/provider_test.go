package pspclient

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"testing"

	"hanse/api/paymentpb"
	"hanse/internal/freeport"
	"hanse/internal/payment"
	"hanse/internal/psp"
)

// run starts a provider on addr and returns where it listens and how to stop it.
func run(t testing.TB, cfg psp.Config, addr string) (listening string, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	s, err := psp.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, l) }()
	return l.Addr().String(), func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run = %v", err)
		}
		if err := s.Close(); err != nil {
			t.Errorf("Close = %v", err)
		}
	}
}

// The real client and the real provider, over TCP.
func TestAgainstTheSimulatedProvider(t *testing.T) {
	cfg := psp.DefaultConfig()
	cfg.Dir = t.TempDir()
	port, err := freeport.Block() // that nobody takes while the provider is down
	if err != nil {
		t.Fatal(err)
	}
	addr, stop := run(t, cfg, fmt.Sprintf("127.0.0.1:%d", port))
	c := HTTP("http://"+addr, patience)
	defer c.(*client).http.CloseIdleConnections()

	calls := someCalls(3)
	calls[1].Method = psp.MethodDeclined
	calls[2].Method = psp.MethodTimeout
	first := c.Do(t.Context(), calls)
	for i, want := range []paymentpb.ProviderStatus{paymentpb.ProviderStatus_PROVIDER_SUCCEEDED, declined, unknown} {
		if first[i].Status != want {
			t.Fatalf("call %d = %v, want %s", i, first[i], want)
		}
	}

	// A payment finds out by its key what became of a call.
	question := calls[2].CloneVT()
	question.Query = true
	if a := c.Do(t.Context(), []*paymentpb.ProviderCall{question})[0]; a.Status != paymentpb.ProviderStatus_PROVIDER_SUCCEEDED || a.Amount != 3 {
		t.Errorf("asked for a call that was carried out: %v, want success of 3", a)
	}
	question.Key = payment.Key("pay_9", payment.AuthorizeOp)
	if a := c.Do(t.Context(), []*paymentpb.ProviderCall{question})[0]; a.Status != paymentpb.ProviderStatus_PROVIDER_NOT_FOUND {
		t.Errorf("asked for a key that was never used: %v, want not found", a)
	}
	// Our own mistake, another amount under the same key, must not look like a decline: money has moved.
	mistake := calls[0].CloneVT()
	mistake.Amount++
	if a := c.Do(t.Context(), []*paymentpb.ProviderCall{mistake})[0]; a.Status != unknown || a.Code != "key_reused" {
		t.Errorf("another amount under a used key: %v, want unknown", a)
	}

	stop()
	if a := c.Do(t.Context(), calls[:1])[0]; a.Status != notSent && a.Status != unknown {
		t.Errorf("while the provider is down: %v, want not sent, or unknown by a connection of before", a)
	}
	_, stop = run(t, cfg, addr)
	defer stop()
	if a := c.Do(t.Context(), calls[:1])[0]; !a.EqualVT(first[0]) {
		t.Errorf("after the restart: %v, want the answer of before, %v", a, first[0])
	}
}

// The client, TCP and the provider with a synced ledger, together, 32 calls in a request as a node sends them.
func BenchmarkOverTCP(b *testing.B) {
	cfg := psp.DefaultConfig()
	cfg.Dir = b.TempDir()
	addr, stop := run(b, cfg, "127.0.0.1:0")
	defer stop()
	c := HTTP("http://"+addr, patience)
	defer c.(*client).http.CloseIdleConnections()
	var n atomic.Int64
	b.ReportAllocs()
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		for more := true; more; {
			var calls []*paymentpb.ProviderCall
			for len(calls) < 32 && more {
				if more = pb.Next(); more {
					id := fmt.Sprintf("pay_%026d", n.Add(1))
					calls = append(calls, &paymentpb.ProviderCall{
						PaymentId: id, OrderId: "ord_1", Kind: paymentpb.OpKind_AUTHORIZE, Amount: 100, Currency: "EUR", Key: id + ".auth",
					})
				}
			}
			for _, a := range c.Do(b.Context(), calls) {
				if a.Status != paymentpb.ProviderStatus_PROVIDER_SUCCEEDED {
					b.Errorf("answered %v", a)
					return
				}
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "operations/s")
}
